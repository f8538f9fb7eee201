"""DEMO: simulated flow at 40 sensors, 28 days at 5 minutes; a small model that learns in minutes on two cores."""

from ealinformer.training import Experiment, Recipe, SeriesSpec

CONFIG = Experiment(
    series=SeriesSpec(
        name="DEMO",
        raw_file="DEMO.npz",
        graph_file="DEMO.csv",
        num_sensors=40,
        interval_minutes=5,
        start="2024-01-01",
        simulated=True,
    ),
    model_params={
        "input_hidden_size": 12,
        "tid_hidden_size": 12,
        "diw_hidden_size": 12,
        "adaptive_hidden_size": 28,
        "intermediate_size": 64,
        "num_layers": 2,
    },
    recipes={"demo": Recipe(loss="masked_mae", lr=2e-3, weight_decay=1e-4, milestones=(2,), num_epochs=3)},
)
