"""Config files: the published recipes, and one line for everything that can be wrong in one."""

import math
from datetime import datetime
from pathlib import Path

import pytest

from ealinformer.errors import InputError
from ealinformer.training import Experiment, Recipe, RunConfig, SeriesSpec, load_config
from ealinformer.training.resolve import resolve

CONFIGS = Path(__file__).parents[2] / "configs"
# Weight decay, milestones, patience, loss: Adam, rate 1e-3, decay 0.1, batch 16, at most 300 epochs for all.
AUTHORS = {
    "PEMS-BAY": (1e-4, (10, 30), 20, "masked_mae"),
    "PEMS03": (5e-4, (15, 30, 40), 20, "huber"),
    "PEMS04": (5e-4, (15, 30, 50), 20, "huber"),
    "PEMS07": (1e-3, (15, 35, 50), 20, "huber"),
    "PEMS08": (1.5e-3, (25, 45, 65), 30, "huber"),
}
SENSORS = {"PEMS-BAY": 325, "PEMS03": 358, "PEMS04": 307, "PEMS07": 883, "PEMS08": 170}
OWN = """from ealinformer.training import Experiment, Recipe, SeriesSpec

CONFIG = Experiment(
    series=SeriesSpec(
        name="TOWN",
        num_sensors=12,
        interval_minutes=15,
        start="2023-05-01",
        raw_file="town.csv",
    ),
    recipes={"short": Recipe(num_epochs=10)},
)
"""


@pytest.fixture
def write(tmp_path: Path):
    """Write a config file and give its path."""

    def write(text: str, name: str = "OWN.py") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def refused(path: Path) -> str:
    """The one line that is said of a config file, which names the file."""
    with pytest.raises(InputError) as caught:
        load_config(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message.replace(str(path), "FILE")


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.py")), ids=lambda path: path.stem)
def test_every_config_of_the_repository_resolves_with_every_recipe(path: Path) -> None:
    experiment = load_config(path)
    assert experiment.series.name == path.stem
    assert "basicts" in experiment.recipes
    for name, recipe in experiment.recipes.items():
        run = resolve(experiment, recipe=name)
        assert (run.recipe_name, run.recipe) == (name, recipe)
        assert (run.input_len, run.output_len) == (12, 12)


@pytest.mark.parametrize("name", AUTHORS)
def test_the_default_recipe_is_the_authors(name: str) -> None:
    weight_decay, milestones, patience, loss = AUTHORS[name]
    run = resolve(load_config(CONFIGS / f"{name}.py"))
    assert run.recipe_name == "authors"
    assert run.recipe == Recipe(
        loss=loss,
        lr=1e-3,
        weight_decay=weight_decay,
        milestones=milestones,
        gamma=0.1,
        batch_size=16,
        num_epochs=300,
        patience=patience,
        select_by="loss",
        clip_grad_norm=None,
    )
    assert run.series.num_sensors == SENSORS[name]
    assert (run.series.interval_minutes, run.series.null_value) == (5, 0)


@pytest.mark.parametrize("name", AUTHORS)
def test_the_recipe_basicts_is_that_of_0_5_8(name: str) -> None:
    run = resolve(load_config(CONFIGS / f"{name}.py"), recipe="basicts")
    assert run.recipe == Recipe(
        loss="masked_mae",
        lr=1e-3,
        weight_decay=3e-4,
        milestones=(20, 25),
        gamma=0.1,
        batch_size=8 if name == "PEMS07" else 16,
        num_epochs=100,
        patience=None,
        select_by="MAE",
        clip_grad_norm=None,
    )


def test_a_new_data_set_needs_fewer_than_20_lines(write) -> None:
    assert OWN.count("\n") < 20
    experiment = load_config(write(OWN))
    assert experiment.series.start == datetime(2023, 5, 1)
    assert list(experiment.recipes) == ["short", "basicts"]
    assert resolve(experiment).recipe.num_epochs == 10
    assert resolve(experiment).model == "ELinFormer"


def test_a_config_without_recipes_has_both_published_ones(write) -> None:
    experiment = load_config(write(OWN.replace('recipes={"short": Recipe(num_epochs=10)},', "")))
    assert list(experiment.recipes) == ["authors", "basicts"]


def test_a_config_can_have_its_own_basicts_recipe(write) -> None:
    text = OWN.replace('{"short": Recipe(num_epochs=10)}', '{"basicts": Recipe(lr=0.5)}')
    assert load_config(write(text)).recipes == {"basicts": Recipe(lr=0.5)}


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        # unknown keys
        ("recipes=", "recipe=", "unknown key 'recipe' of Experiment (did you mean 'recipes'?)"),
        ("num_epochs=", "num_epoch=", "unknown key 'num_epoch' of Recipe (did you mean 'num_epochs'?)"),
        ("num_sensors=", "num_sensor=", "unknown key 'num_sensor' of SeriesSpec (did you mean 'num_sensors'?)"),
        ("raw_file=", "zzzzzz=1, raw_file=", "unknown key 'zzzzzz' of SeriesSpec"),
        (
            "Recipe(num_epochs=10)",
            '{"weight_decy": 0.1}',
            "unknown key 'recipes.short.weight_decy' of Experiment (did you mean 'weight_decay'?)",
        ),
        (
            "raw_file=",
            'raw_source={"sha265": "0"}, raw_file=',
            "unknown key 'raw_source.sha265' of SeriesSpec (did you mean 'sha256'?)",
        ),
        # missing keys
        ("num_sensors=12,", "", "SeriesSpec needs the key 'num_sensors'"),
        (
            'SeriesSpec(\n        name="TOWN",',
            "dict(",
            "Experiment needs the key 'series.name'",
        ),
        # values that cannot be
        ("num_epochs=10", "num_epochs=0", "num_epochs of Recipe: input should be greater than 0, got 0"),
        ("num_epochs=10", "lr=-1", "lr of Recipe: input should be greater than 0, got -1"),
        ("num_epochs=10", 'lr=float("nan")', "lr of Recipe: input should be a finite number, got nan"),
        (
            "num_epochs=10",
            'loss="mae"',
            "loss of Recipe: input should be 'masked_mae', 'masked_huber', 'huber' or 'huber_2', got 'mae'",
        ),
        ("num_epochs=10", "milestones=(5, 0)", "milestones.1 of Recipe: input should be greater than 0, got 0"),
        ("interval_minutes=15", "interval_minutes=7", "interval_minutes of SeriesSpec: 7 does not divide a day"),
        (
            "raw_file=",
            "split=(0.7, 0.2, 0.2), raw_file=",
            "split of SeriesSpec: (0.7, 0.2, 0.2) are not three positive",
        ),
        ('name="TOWN"', 'name="../TOWN"', "name of SeriesSpec: string should match pattern"),
        ("CONFIG = Experiment(", "CONFIG = Experiment(seed=2**32,", "seed of Experiment: input should be less than"),
        # values of another type
        ("num_epochs=10", 'num_epochs="ten"', "num_epochs of Recipe: input should be a valid integer"),
        ("num_epochs=10", "milestones=10", "milestones of Recipe: input should be a valid tuple, got 10"),
        ("num_sensors=12", "num_sensors=12.5", "num_sensors of SeriesSpec: input should be a valid integer"),
        ('"2023-05-01"', '"1st of May"', "start of SeriesSpec: input should be a valid datetime"),
        ('{"short": Recipe(num_epochs=10)}', "[]", "recipes of Experiment: input should be a valid dictionary"),
        # not an Experiment
        ("CONFIG =", "CONFG =", "FILE has to set CONFIG to an Experiment, found nothing of that name"),
        ("CONFIG = Experiment(", "CONFIG = dict(", "FILE has to set CONFIG to an Experiment, found a dict"),
        # does not run
        ("CONFIG = Experiment(", "CONFIG = = Experiment(", "FILE, line 3: invalid syntax"),
        ("CONFIG = Experiment(", "CONFIG = 1 / 0\nExperiment(", "FILE, line 3: ZeroDivisionError: division by zero"),
        ("CONFIG =", 'raise ValueError("two\\nlines")\nCONFIG =', "FILE, line 3: ValueError: two lines"),
        ("import Experiment,", "import Experimnt,", "FILE, line 1: ImportError: cannot import name 'Experimnt'"),
    ],
)
def test_a_mistake_gets_one_line(write, before: str, after: str, said: str) -> None:
    assert OWN.count(before) == 1
    assert said in refused(write(OWN.replace(before, after)))


def test_a_file_that_is_not_there_is_answered_with_the_nearest(write) -> None:
    own = write(OWN)
    message = refused(own.with_name("OWNN.py"))
    assert "FILE is not there (did you mean 'OWN.py'?)" in message
    assert "has OWN.py" in message


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert refused(tmp_path / "nowhere" / "OWN.py") == "config FILE is not there"


def test_bytes_that_are_no_text_get_one_line(tmp_path: Path) -> None:
    path = tmp_path / "OWN.py"
    path.write_bytes(b"CONFIG = '\xff\xfe'\x00")
    refused(path)


def test_configs_cannot_be_changed_after_they_were_checked(write) -> None:
    experiment = load_config(write(OWN))
    with pytest.raises(ValueError, match="frozen"):
        experiment.seed = -1


@pytest.mark.parametrize("null_value", [0.0, -1.0, float("nan")])
def test_a_run_survives_json(null_value: float) -> None:
    series = SeriesSpec(
        name="TOWN",
        num_sensors=2,
        interval_minutes=5,
        start=datetime(2020, 2, 29, 23, 55),
        raw_file="t.npz",
        null_value=null_value,
    )
    experiment = Experiment(series=series, model_params={"entropy": "gaussian", "num_layers": 2})
    run = resolve(experiment, settings=["max_steps=7", "patience=None", "milestones=(1, 2)"])
    again = RunConfig.model_validate_json(run.model_dump_json())
    if math.isnan(null_value):
        assert math.isnan(again.series.null_value)
    else:
        assert again == run
    assert again.model_dump_json() == run.model_dump_json()
