"""What recipes and models ask of the runner: teaching, curricula, second losses, schedules."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from basicts.runners import BasicTSRunner
from basicts.runners.callback import BasicTSCallback
from torch import Tensor, nn

from ealinformer.errors import InputError
from ealinformer.models import ModelEntry
from ealinformer.recipe import Curriculum, PublishedRecipe, Recipe
from ealinformer.training import BASICTS_RECIPE, Experiment, scoring
from ealinformer.training.resolve import recipes_of, resolve
from ealinformer.training.runner import ForecastingRunner
from ealinformer.training.runs.history import read_history
from ealinformer.training.schedules import WarmUpCosine

Build = Callable[..., ForecastingRunner]


@dataclass
class TaughtConfig:
    """Sizes of the models below, in the host's field names."""

    input_len: int
    output_len: int
    num_features: int


class Taught(nn.Module):
    """Forecasts one number, and notes what it is shown of the targets."""

    def __init__(self, config: TaughtConfig) -> None:
        super().__init__()
        self.shape = (config.output_len, config.num_features)
        self.level = nn.Parameter(torch.zeros(()))
        self.shown: list[tuple[bool, Tensor, Tensor, int | Tensor]] = []

    def forward(
        self, inputs: Tensor, targets: Tensor, targets_timestamps: Tensor, step: int | Tensor
    ) -> Tensor | dict[str, Tensor]:
        self.shown.append((self.training, targets.clone(), targets_timestamps, step))
        return self.level.expand(len(inputs), *self.shape)


class SecondLoss(Taught):
    """Adds the distance of its number from 2, and a second forecast of the targets, as a model with branches would."""

    def forward(
        self, inputs: Tensor, targets: Tensor, targets_timestamps: Tensor, step: int | Tensor
    ) -> Tensor | dict[str, Tensor]:
        prediction = super().forward(inputs, targets, targets_timestamps, step)
        if not self.training:
            return prediction
        return {
            "prediction": prediction,
            "auxiliary_loss": (self.level - 2).square(),
            "auxiliary_prediction": torch.zeros_like(targets),
            "auxiliary_targets": torch.ones_like(targets),
        }


TAUGHT, SECOND = ModelEntry(Taught, TaughtConfig), ModelEntry(SecondLoss, TaughtConfig)


class Losses(BasicTSCallback):
    """Notes the loss that is taken back through the model, and how many horizons of the forecast it is of."""

    def __init__(self) -> None:
        self.values: list[float] = []
        self.horizons: list[int] = []
        self.parts: list[dict[str, Any]] = []

    def on_compute_loss(self, runner: BasicTSRunner, forward_return: dict[str, Any], **kwargs: Any) -> None:
        if "step" in kwargs:
            self.horizons.append(forward_return["prediction"].shape[1])
            self.parts.append(dict(forward_return))

    def on_backward(self, runner: BasicTSRunner, loss: Tensor) -> None:
        self.values.append(float(loss.detach()))


def test_a_model_is_taught_by_z_scored_targets_in_training_alone(build: Build) -> None:
    runner = build("num_epochs=1", "batch_size=234", entry=TAUGHT)
    runner.train()
    training = [shown for shown in runner.bare_model.shown if shown[0]]
    ((_, targets, calendar, step),) = training
    assert (step, targets.shape, calendar.shape) == (1, (234, 3, 5), (234, 3, 2))
    # All windows of the training part, on the scale of the inputs: mean 0 and deviation 1, but for the edges.
    assert abs(targets.mean()) < 0.1
    assert float(targets.std()) == pytest.approx(1, abs=0.1)
    assert float(runner.history.rows[0]["train_loss"]) > 10  # taken in units of the series all the same
    assert len(runner.bare_model.shown) > 1


def test_a_compiled_model_is_given_its_step_as_a_tensor(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "compile_in_place", lambda model, mode: None)
    runner = build("num_epochs=1", "batch_size=100", "compile=default", entry=TAUGHT)
    runner.train()
    steps = [shown[3] for shown in runner.bare_model.shown if shown[0]]
    assert all(isinstance(step, Tensor) for step in steps)
    assert [int(step) for step in steps] == [1, 2, 3]


def test_what_a_model_adds_to_the_loss_is_trained_on_and_not_scored(build: Build) -> None:
    losses = Losses()
    runner = build("num_epochs=1", "max_steps=1", callbacks=[losses], entry=SECOND)
    runner.train()
    (part,) = losses.parts
    mask = part["targets_mask"]
    own = (part["prediction"] - part["targets"]).abs()[mask].mean().detach()
    deviation = float(runner.scaler.stats["std"])  # of the second forecast, which is off by 1 when z-scored
    assert losses.values[0] == pytest.approx(own.item() + 4 + deviation, rel=1e-5)
    assert runner.history.rows[0]["train_loss"] == pytest.approx(losses.values[0], rel=1e-5)
    assert runner.history.rows[0]["val_loss"] == pytest.approx(runner.history.rows[0]["val_MAE"], rel=1e-5)


@pytest.mark.parametrize(
    ("curriculum", "expected"),
    [
        ({"epochs": 1}, [1, 1, 2, 2, 3, 3, 3, 3]),
        ({"epochs": 1, "warm_epochs": 1}, [3, 3, 1, 1, 2, 2, 3, 3]),
        ({"steps": 3}, [1, 1, 1, 2, 2, 2, 3, 3]),
    ],
)
def test_a_curriculum_shows_the_loss_one_more_horizon_at_a_time(
    build: Build, curriculum: dict[str, int], expected: list[int]
) -> None:
    losses = Losses()
    runner = build("num_epochs=4", "batch_size=117", f"curriculum={curriculum}", callbacks=[losses])
    runner.train()
    assert losses.horizons == expected
    assert all(math.isfinite(row["train_MAE"]) for row in runner.history.rows)


def test_a_curriculum_leaves_the_gradient_of_later_horizons_at_zero(build: Build) -> None:
    runner = build("max_steps=1", "weight_decay=0", 'curriculum={"epochs": 5}')
    before: Tensor | None = None

    class Weights(BasicTSCallback):
        def on_optimizer_step(self, runner: BasicTSRunner) -> None:
            nonlocal before
            before = runner.model.output_proj.weight.grad.clone()

    runner.callback_handler.callbacks.append(Weights())
    runner.train()
    assert before is not None
    assert before[0].abs().sum() > 0
    assert not before[1:].any()


def test_a_curriculum_has_one_pace() -> None:
    for wrong in ({}, {"epochs": 1, "steps": 1}, {"steps": 3, "warm_epochs": 2}):
        with pytest.raises(ValueError, match=r"expected|warm_epochs goes with epochs"):
            Curriculum(**wrong)


def test_a_cosine_rises_to_the_rate_and_falls_to_its_end(build: Build) -> None:
    settings = ("schedule='cosine'", "warmup_epochs=2", "warmup_lr=0.001", "min_lr=0.002", "lr=0.01", "num_epochs=6")
    runner = build(*settings)
    runner.train()
    cosine = [0.002 + 0.008 * (1 + math.cos(math.pi * epoch / 6)) / 2 for epoch in range(2, 6)]
    rates = [row["lr"] for row in read_history(runner.folder / "history.csv")]
    assert rates == pytest.approx([0.001, 0.0055, *cosine])


def test_a_cosine_ends_at_its_least_rate() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = WarmUpCosine(optimizer, num_epochs=4, min_lr=0.25, warmup_epochs=0, warmup_lr=0.0)
    rates = []
    for _ in range(6):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx(
        [1.0, 0.25 + 0.75 * (1 + math.sqrt(0.5)) / 2, 0.625, 0.25 + 0.75 * (1 - math.sqrt(0.5)) / 2, 0.25, 0.25]
    )


def test_the_rate_falls_on_a_plateau_of_the_validation_loss(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([5.0, 4.0, 4.5, 3.9999, 4.2, 4.1, 3.0])
    runner = build("schedule='plateau'", "plateau_epochs=2", "gamma=0.1", "lr=0.01", "min_lr=0.0005", "num_epochs=7")
    validate = runner.validate

    def scripted(**kwargs: Any) -> None:
        validate(**kwargs)
        meter = runner.meter_pool._pool["val/loss"]["meter"]
        meter.reset()
        meter.update(next(losses))

    monkeypatch.setattr(runner, "validate", scripted)
    runner.train()
    rates = [row["lr"] for row in runner.history.rows]
    # 3.9999 is no thousandth lower than 4, so that epochs 3, 4 and 5 are the plateau.
    assert rates == pytest.approx([0.01] * 5 + [0.001, 0.001])
    assert runner.optimizer.param_groups[0]["lr"] == pytest.approx(0.001)


def test_adamw_decays_the_weights_apart_from_the_gradient(build: Build) -> None:
    runner = build("optimizer='adamw'", "lr=0.1", "weight_decay=0.5", "max_steps=1", "eps=0.001", entry=TAUGHT)
    runner.train()
    (group,) = runner.optimizer.param_groups
    assert (type(runner.optimizer).__name__, group["eps"]) == ("AdamW", 0.001)


OWN = {
    "TINY": {"basicts": PublishedRecipe(Recipe(lr=0.1), {"width": 3}), "authors": PublishedRecipe(Recipe(lr=0.2))},
    "default": {"basicts": PublishedRecipe(Recipe(lr=0.3))},
}
CATALOGUE = {"Own": ModelEntry(Taught, TaughtConfig, recipes=OWN), "Shared": ModelEntry(Taught, TaughtConfig)}


def test_a_model_with_recipes_takes_its_own_for_the_series(experiment: Experiment) -> None:
    run = resolve(experiment, model="Own", catalogue=CATALOGUE)
    assert (run.recipe_name, run.recipe.lr, run.model_params) == ("basicts", 0.1, {"width": 3})
    assert resolve(experiment, model="Own", recipe="authors", catalogue=CATALOGUE).recipe.lr == 0.2
    elsewhere = experiment.model_copy(update={"series": experiment.series.model_copy(update={"name": "OTHER"})})
    assert resolve(elsewhere, model="Own", catalogue=CATALOGUE).recipe.lr == 0.3


def test_a_model_without_recipes_takes_those_of_the_file_and_its_sizes(experiment: Experiment) -> None:
    run = resolve(experiment, model="Shared", catalogue=CATALOGUE)
    assert (run.recipe_name, run.recipe, run.model_params) == (
        "tiny",
        experiment.recipes["tiny"],
        experiment.model_params,
    )


def test_a_file_that_names_the_model_says_its_recipe_first(experiment: Experiment) -> None:
    named = experiment.model_copy(update={"model": "Own", "model_params": {"width": 5}})
    found = recipes_of(named, "Own", CATALOGUE)
    assert list(found) == ["tiny", "basicts", "authors"]
    assert (found["tiny"].params, found["basicts"].params) == ({"width": 5}, {"width": 5})
    assert found["basicts"].recipe.lr == 0.1
    assert found["basicts"].recipe != BASICTS_RECIPE


def test_an_unknown_recipe_or_model_is_named_with_those_there_are(experiment: Experiment) -> None:
    with pytest.raises(
        InputError, match=r"unknown recipe 'author' of Own \(did you mean 'authors'\?\); known: basicts"
    ):
        resolve(experiment, model="Own", recipe="author", catalogue=CATALOGUE)
    with pytest.raises(InputError, match=r"unknown model 'Shard' \(did you mean 'Shared'\?\)"):
        resolve(experiment, model="Shard", catalogue=CATALOGUE)


def test_a_graph_is_refused_by_a_model_that_takes_none(new_job: Callable[..., Any], tmp_path: Any) -> None:
    with pytest.raises(InputError, match=r"^--graph knn: ELinFormer takes no graph$"):
        new_job(tmp_path / "run", "graph='knn'")
