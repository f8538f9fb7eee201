"""The runner: each thing it mends in BasicTS 1.1.0, next to what the stock runner does."""

import inspect
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from basicts.configs import BasicTSForecastingConfig
from basicts.runners import BasicTSRunner
from basicts.runners.builder import Builder
from basicts.runners.callback import BasicTSCallback, CurriculumLearning, EarlyStopping, GradAccumulation
from basicts.utils import BasicTSMode
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.optim import SGD, Adam
from torch.utils._python_dispatch import TorchDispatchMode

from ealinformer.data.prepared import PreparedSeries, open_prepared
from ealinformer.models import MODELS, ModelEntry
from ealinformer.training import RunConfig
from ealinformer.training.checkpoints.checkpoint import load_checkpoint
from ealinformer.training.distributed.devices import select_devices
from ealinformer.training.distributed.ranks import Ranks
from ealinformer.training.early_stopping import PatientStopping
from ealinformer.training.metrics import MetricSums
from ealinformer.training.predictions import target_windows
from ealinformer.training.runner import ForecastingRunner
from ealinformer.training.runs.history import read_history
from ealinformer.training.scaler import GlobalZScoreScaler
from ealinformer.training.watch import NotFiniteError

STEPS_PER_EPOCH = 6  # of 234 windows in batches of 40, the last of 34


class Recorder(BasicTSCallback):
    """Notes what a runner does, ours or the stock one."""

    def __init__(self) -> None:
        self.epochs: list[int] = []
        self.steps: list[int] = []
        self.batches: list[int] = []
        self.optimizer_steps = 0

    def on_epoch_start(self, runner: BasicTSRunner, epoch: int) -> None:
        self.epochs.append(epoch)

    def on_compute_loss(self, runner: BasicTSRunner, **kwargs: Any) -> None:
        if "step" in kwargs:
            self.steps.append(kwargs["step"])
            self.batches.append(len(kwargs["data"]["targets"]))

    def on_optimizer_step(self, runner: BasicTSRunner) -> None:
        self.optimizer_steps += 1


def stock_runner(
    run: RunConfig, data_dir: Path, folder: Path, callbacks: list[BasicTSCallback] | None = None, **host: Any
) -> BasicTSRunner:
    """BasicTS's own runner on the same model and data, set up as its examples do."""
    select_devices(None)
    entry = MODELS[run.model]
    sizes = {"input_len": run.input_len, "output_len": run.output_len, "num_features": run.series.num_sensors}
    settings: dict[str, Any] = {
        "model": entry.model,
        "model_config": entry.build_config(**sizes, num_time_in_day=run.series.steps_per_day, **run.model_params),
        "dataset_name": run.series.name,
        "dataset_params": {"data_file_path": str(data_dir)},
        "input_len": run.input_len,
        "output_len": run.output_len,
        "use_timestamps": True,
        "memmap": False,
        "null_val": 0.0,
        "rescale": True,
        "scaler": GlobalZScoreScaler,  # the stock one cannot fit this series at all
        "norm_each_channel": False,
        "callbacks": [],
        "metrics": ["MAE", "RMSE", "MAPE"],
        "loss": "MAE",
        "optimizer": Adam,
        "optimizer_params": {"lr": run.recipe.lr},
        "num_epochs": run.recipe.num_epochs,
        "train_batch_size": run.recipe.batch_size,
        "eval_after_train": False,
        "seed": run.seed,
        "ckpt_save_dir": str(folder),
    }
    runner = BasicTSRunner(BasicTSForecastingConfig(**{**settings, **host}))
    runner.callback_handler.callbacks.extend(callbacks or [])
    return runner


@dataclass
class FixedConfig:
    """Sizes of the models below, in the host's field names."""

    input_len: int
    output_len: int
    num_features: int
    num_time_in_day: int = 48


class Level(nn.Module):
    """Forecasts one number everywhere, z-scored: its gradient is easy to work out by hand."""

    def __init__(self, config: FixedConfig) -> None:
        super().__init__()
        self.shape = (config.output_len, config.num_features)
        self.level = nn.Parameter(torch.zeros(()))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.level.expand(len(inputs), *self.shape)


class OwnLoss(Level):
    """Brings its own loss, as some of the host's models do."""

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        return {"prediction": super().forward(inputs), "loss": (self.level - 2).square()}


LEVEL, OWN_LOSS = ModelEntry(Level, FixedConfig), ModelEntry(OwnLoss, FixedConfig)


@pytest.fixture(scope="session")
def data(datasets_dir: Path) -> PreparedSeries:
    return open_prepared(datasets_dir / "TINY")


# Every batch is trained, and epochs are counted


def test_every_batch_is_trained_where_the_stock_runner_leaves_the_last_out(
    build, configure, data: PreparedSeries, tmp_path: Path
) -> None:
    ours, stock = Recorder(), Recorder()
    runner = build(callbacks=[ours])
    runner.train()
    stock_runner(configure(), data.directory, tmp_path / "stock", [stock]).train()

    assert ours.optimizer_steps == 2 * STEPS_PER_EPOCH == runner.step
    assert ours.steps == list(range(1, 2 * STEPS_PER_EPOCH + 1))
    assert ours.batches == [40, 40, 40, 40, 40, 34] * 2
    assert stock.optimizer_steps == 2 * STEPS_PER_EPOCH - 1
    assert stock.batches == [40, 40, 40, 40, 40, 34, 40, 40, 40, 40, 40]


def test_epochs_of_one_step_are_counted_from_one_where_the_stock_runner_begins_with_two(
    build, configure, data: PreparedSeries, tmp_path: Path
) -> None:
    settings = ("batch_size=234", "num_epochs=3", "milestones=()")
    ours, stock = Recorder(), Recorder()
    runner = build(*settings, callbacks=[ours])
    runner.train()
    with pytest.raises(FileNotFoundError, match=r"ELinFormer_1\.pt"):  # the checkpoint of an epoch that never was
        stock_runner(configure(*settings), data.directory, tmp_path / "stock", [stock]).train()

    assert (ours.epochs, ours.optimizer_steps) == ([1, 2, 3], 3)
    assert [row["epoch"] for row in runner.history.rows] == [1, 2, 3]
    assert stock.epochs == [2]


def test_training_sees_every_window_once_an_epoch(build, data: PreparedSeries) -> None:
    class Windows(BasicTSCallback):
        def __init__(self) -> None:
            self.seen: list[bytes] = []

        def on_compute_loss(self, runner: BasicTSRunner, **kwargs: Any) -> None:
            if "data" in kwargs:
                self.seen.extend(target.numpy().tobytes() for target in kwargs["data"]["targets"])

    windows = Windows()
    runner = build("num_epochs=1", callbacks=[windows])
    runner.train()
    everything = target_windows(data.data("train"), runner.run)
    assert sorted(windows.seen) == sorted(np.ascontiguousarray(window).tobytes() for window in everything)


# The loss is on the original scale


def first_batch(runner: BasicTSRunner) -> dict[str, Tensor]:
    """All training windows as one batch, before any preprocessing."""
    dataset = Builder._build_dataset(runner.cfg, BasicTSMode.TRAIN)
    items = [dataset[index] for index in range(len(dataset))]
    return {key: torch.from_numpy(np.stack([item[key] for item in items])) for key in items[0]}


@pytest.mark.parametrize("loss", ["masked_mae", "masked_huber", "huber"])
def test_the_loss_is_in_units_of_the_series(build, data: PreparedSeries, loss: str) -> None:
    """A forecast of the mean, scored by hand."""
    runner = build(f"loss={loss}", "batch_size=234", "max_steps=1", entry=LEVEL)
    runner.train()
    targets = target_windows(data.data("train"), runner.run).astype(np.float64)
    errors = np.abs(targets - data.data("train").astype(np.float64).mean())
    size = errors if loss == "masked_mae" else np.where(errors <= 1, errors**2 / 2, errors - 0.5)
    expected = size.mean() if loss == "huber" else size[targets != 0].mean()
    assert runner.history.rows[0]["train_loss"] == pytest.approx(expected, rel=1e-5)
    assert runner.history.rows[0]["train_MAE"] == pytest.approx(errors[targets != 0].mean(), rel=1e-5)


def test_the_gradient_is_that_of_the_original_scale_where_the_stock_ones_is_smaller_by_the_deviation(
    build, configure, data: PreparedSeries, tmp_path: Path
) -> None:
    class Gradient(BasicTSCallback):
        def __init__(self) -> None:
            self.values: list[float] = []

        def on_optimizer_step(self, runner: BasicTSRunner) -> None:
            self.values.append(runner.model.level.grad.item())

    settings = ("batch_size=234", "max_steps=1", "num_epochs=2")
    ours, stock = Gradient(), Gradient()
    runner = build(*settings, callbacks=[ours], entry=LEVEL)
    runner.train()
    reference = stock_runner(configure("batch_size=234", "num_epochs=2"), data.directory, tmp_path / "s", [stock])
    reference.model, reference.forward_params = Level(FixedConfig(4, 3, 5)), []
    reference._save_model = lambda epoch: None  # fails with one step per epoch, see above
    reference.train()

    train = data.data("train").astype(np.float64)
    targets = target_windows(train, runner.run)
    sign = np.sign(train.mean() - targets[targets != 0])
    assert ours.values == pytest.approx([train.std() * sign.mean()], rel=1e-5)
    assert stock.values == pytest.approx([sign.mean()], rel=1e-5)


def test_a_loss_over_an_epoch_is_the_mean_over_its_readings_not_over_its_batches(build, data: PreparedSeries) -> None:
    runner = build("lr=1e-12", "weight_decay=0", "num_epochs=1", entry=LEVEL)  # the forecast stays where it is
    runner.train()
    row = runner.history.rows[0]
    train, val = (target_windows(data.data(part), runner.run).astype(np.float64) for part in ("train", "val"))
    mean = data.data("train").astype(np.float64).mean()
    assert row["train_loss"] == pytest.approx(np.abs(train[train != 0] - mean).mean(), rel=1e-5)
    assert row["val_loss"] == pytest.approx(np.abs(val[val != 0] - mean).mean(), rel=1e-5)
    assert row["val_RMSE"] == pytest.approx(np.sqrt(np.square(val[val != 0] - mean).mean()), rel=1e-5)


# Metrics over a split


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_metrics_are_numpy_on_the_predictions(build, data: PreparedSeries, split: str) -> None:
    """With a last batch that is not full, and readings missing."""
    runner = build()
    runner.scaler.fit(data.data("train"))
    score = runner.evaluate(split, keep_predictions=True)
    prediction = torch.cat(score.predictions).numpy().astype(np.float64)
    targets = target_windows(data.data(split), runner.run).astype(np.float64)
    assert prediction.shape == targets.shape
    assert [len(batch) for batch in score.predictions][-1] < runner.run.recipe.eval_batch_size
    assert (targets == 0).any()

    def by_numpy(prediction: np.ndarray, targets: np.ndarray) -> dict[str, float]:
        errors, readings = (prediction - targets)[targets != 0], targets[targets != 0]
        return {
            "MAE": np.abs(errors).mean(),
            "RMSE": np.sqrt(np.square(errors).mean()),
            "MAPE": 100 * np.abs(errors / readings).mean(),
        }

    assert score.sums.average() == pytest.approx(by_numpy(prediction, targets), rel=1e-9)
    for step, row in score.sums.horizons().items():
        horizon = int(step) - 1
        assert row == pytest.approx(by_numpy(prediction[:, horizon], targets[:, horizon]), rel=1e-9)


def test_predictions_are_those_of_the_model_window_by_window(build, data: PreparedSeries) -> None:
    """Slowly: one window at a time, z-scored and brought back by hand."""
    runner = build()
    runner.scaler.fit(data.data("train"))
    prediction = torch.cat(runner.evaluate("test", keep_predictions=True).predictions).numpy()
    train = data.data("train").astype(np.float64)
    mean, std = train.mean(), train.std()
    for window in (0, 31, 32, 74):
        inputs = (data.data("test")[window : window + 4] - mean) / std
        times = np.array(data.timestamps("test")[window : window + 4])
        with torch.no_grad():
            expected = runner.model(torch.tensor(inputs[None], dtype=torch.float32), torch.tensor(times[None]))
        np.testing.assert_allclose(prediction[window], expected[0].numpy() * std + mean, rtol=1e-4)


def test_predictions_are_kept_only_when_asked_for(build, data: PreparedSeries) -> None:
    runner = build()
    runner.scaler.fit(data.data("train"))
    assert runner.evaluate("val").predictions == []


@pytest.mark.parametrize("ranks", [2, 3])
def test_the_shares_of_all_ranks_add_up_to_the_whole_split(build, data: PreparedSeries, ranks: int) -> None:
    """One rank after the other in this process, with the sum over ranks left to the test."""
    total = MetricSums.zeros(3)
    windows = []
    for rank in range(ranks):
        runner = build()
        runner.ranks = Ranks(rank, ranks, rank, ranks)
        runner.scaler.fit(data.data("train"))
        runner._init_validation()
        score = runner._score(runner.val_data_loader, "validation", keep_predictions=True)
        windows.append(sum(len(batch) for batch in score.predictions))
        for field in ("absolute", "squared", "count", "relative", "nonzero"):
            getattr(total, field).add_(getattr(score.sums, field))
    runner.ranks = Ranks.alone()
    whole = runner.evaluate("val").sums
    assert (sum(windows), max(windows) - min(windows) <= 1) == (74, True)
    assert total.average() == pytest.approx(whole.average(), rel=1e-6)
    assert torch.equal(total.count, whole.count)


# Nothing is read from the device within a step


@contextmanager
def counted_reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Notes every call that would wait for a GPU."""
    reads: list[str] = []

    def noted(name: str) -> Callable[..., Any]:
        original = getattr(Tensor, name)

        def read(self: Tensor, *args: Any, **kwargs: Any) -> Any:
            reads.append(name)
            return original(self, *args, **kwargs)

        return read

    with monkeypatch.context() as patch:
        for name in ("item", "tolist", "numpy", "__float__", "__int__", "__bool__", "nonzero"):
            patch.setattr(Tensor, name, noted(name))
        yield reads


class Reads(TorchDispatchMode):
    """Counts operations whose result the host waits for."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += function in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "settings",
    [
        ("loss=masked_mae", "clip_grad_norm=1"),
        ("loss=masked_huber", "micro_batch_size=16"),
        ("loss=huber", "dtype=bf16"),
    ],
)
def test_a_training_step_reads_nothing_from_the_device(
    build, monkeypatch: pytest.MonkeyPatch, settings: tuple[str, ...]
) -> None:
    """From the numbers of its windows to the weights that it leaves."""
    runner = build(*settings)
    runner.on_train_start()
    runner.watch.at_once = False  # as on a GPU; on the CPU reading is free and done in every step
    monkeypatch.setattr("ealinformer.models.lean.packed", lambda kept: kept)  # as there; numpy packs on the CPU
    numbers = [numbers for _, numbers in zip(range(3), runner.batches, strict=False)]
    with counted_reads(monkeypatch) as reads, Reads() as below:
        for data in runner.train_data_loader.source.batches(numbers):
            runner.state.steps_done += 1
            runner._train_step(data)
            runner.state.step += 1
            runner._between_steps()
    assert (reads, below.count) == ([], 0)
    assert math.isfinite(runner.score.loss)


def test_on_the_cpu_a_step_is_read_once_by_the_watch(build) -> None:
    runner = build()
    runner.on_train_start()
    with Reads() as reads:
        for _, data in zip(range(3), runner.train_data_loader, strict=False):
            runner.state.steps_done += 1
            runner._train_step(data)
    assert reads.count == 3


def test_the_stock_runner_reads_the_device_in_every_step(
    configure, data: PreparedSeries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = configure("num_epochs=1")
    runner = stock_runner(run, data.directory, tmp_path, optimizer=SGD, val_interval=10, test_interval=10)
    with counted_reads(monkeypatch) as reads:
        runner.train()
    # loss, three metrics and four weights in each of the five steps that it takes
    assert reads.count("item") >= 8 * (STEPS_PER_EPOCH - 1)


# The test part, hidden files, silent resume


def test_the_test_part_is_not_touched_while_training(build, monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[str] = []
    original = Builder._build_dataset

    def noted(cfg: Any, mode: BasicTSMode) -> Any:
        modes.append(str(mode))
        return original(cfg, mode)

    monkeypatch.setattr(Builder, "_build_dataset", staticmethod(noted))
    runner = build()
    runner.train()
    assert modes == ["train", "val"]
    runner.evaluate("test")
    assert modes == ["train", "val", "test"]


def test_the_stock_runner_scores_the_test_part_after_every_epoch(
    configure, data: PreparedSeries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tested: list[int] = []
    monkeypatch.setattr(BasicTSRunner, "_test", lambda self, train_epoch: tested.append(train_epoch))
    stock_runner(configure("num_epochs=2"), data.directory, tmp_path).train()
    assert tested == [1, 2]


def test_training_writes_its_own_files_and_no_others(build) -> None:
    runner = build()
    runner.train()
    assert {path.name for path in runner.folder.iterdir()} == {
        "best.pt",
        "history.csv",
        "last.pt",
        "previous.pt",
        "tensorboard",
    }
    assert len(list((runner.folder / "tensorboard").iterdir())) == 1


def test_a_run_in_the_same_folder_starts_afresh_where_the_stock_runner_resumes(
    build, configure, data: PreparedSeries, tmp_path: Path
) -> None:
    first = build(callbacks=[])
    first.train()
    ours, stock = Recorder(), Recorder()
    second = ForecastingRunner(first.cfg, first.run)
    second.callback_handler.callbacks.append(ours)
    second.train()
    assert (ours.epochs, ours.optimizer_steps) == ([1, 2], 2 * STEPS_PER_EPOCH)

    stock_runner(configure(), data.directory, tmp_path / "stock").train()
    stock_runner(configure(), data.directory, tmp_path / "stock", [stock]).train()
    assert stock.optimizer_steps == 0


def weights(runner: ForecastingRunner, name: str = "last.pt") -> dict[str, Tensor]:
    return load_checkpoint(runner.folder / name)[1]["model"]


def without_times(runner: ForecastingRunner) -> list[dict[str, float]]:
    return [{k: v for k, v in row.items() if "seconds" not in k} for row in runner.history.rows]


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(build) -> None:
    def trained(*settings: str) -> ForecastingRunner:
        runner = build("model.dropout=0.2", *settings)
        runner.train()
        return runner

    one, two, other = trained(), trained(), trained("seed=2")
    assert without_times(one) == without_times(two)
    for name, tensor in weights(one).items():
        assert torch.equal(tensor, weights(two)[name]), name
    assert without_times(one) != without_times(other)
    assert not torch.equal(weights(one)["output_proj.weight"], weights(other)["output_proj.weight"])


# Choosing the best epoch


class Scripted(BasicTSCallback):
    """Puts given scores in place of what validation measured, before any decision is taken on them."""

    def __init__(self, *scores: float, name: str = "val/loss") -> None:
        self.scores, self.name = list(scores), name

    def on_validate_end(self, runner: BasicTSRunner, train_step: int | None, train_epoch: int) -> None:
        meter = runner.meter_pool._pool[self.name]["meter"]
        meter.reset()
        meter.update(self.scores[train_epoch - 1])


def trained_on(build, scores: tuple[float, ...], *settings: str, name: str = "val/loss") -> ForecastingRunner:
    """A run whose validation gives these scores."""
    runner = build(f"num_epochs={len(scores)}", "milestones=()", *settings)
    runner.callback_handler.callbacks.insert(0, Scripted(*scores, name=name))
    runner.train()
    return runner


NAN = float("nan")


@pytest.mark.parametrize(
    ("scores", "last", "best"),
    [
        ((5, 4, 3, 2, 1), 5, 5),
        ((5, 4, 6, 4, 1), 4, 2),  # a score that is as good is not better
        ((5, 6, 4, 6, 6, 1), 5, 3),  # the counter starts anew
        ((1, NAN, NAN, 0.5), 3, 1),  # NaN is no improvement, here or in the counter
        ((5, NAN, 4, NAN, 3), 5, 5),
        ((NAN, 5, 6, 4), 4, 4),
        ((NAN, NAN, NAN, NAN), 3, 1),
        ((5, float("inf"), 4, 3), 4, 4),
    ],
)
def test_early_stopping_and_the_best_epoch(build, scores: tuple[float, ...], last: int, best: int) -> None:
    runner = trained_on(build, scores, "patience=2")
    assert len(runner.history.rows) == last
    assert runner.best_epoch == best
    assert load_checkpoint(runner.folder / "best.pt")[1]["epoch"] == best
    assert load_checkpoint(runner.folder / "last.pt")[1]["epoch"] == last
    stopped_early = last < len(scores)
    assert (runner.state.stopped_by == "no better validation score for 2 epochs") == stopped_early
    assert (runner.state.stopped_by == "all epochs done") == (not stopped_early)


def test_without_patience_every_epoch_is_run(build) -> None:
    assert len(trained_on(build, (1, 2, 3, 4, 5), "patience=None").history.rows) == 5


def test_the_stock_early_stopping_never_stops_on_nan(build) -> None:
    scores = (1, NAN, NAN, NAN, NAN)
    for stopping, epochs in ((EarlyStopping, 5), (PatientStopping, 3)):
        runner = build("num_epochs=5", "milestones=()", callbacks=[Scripted(*scores), stopping(2)])
        runner.train()
        assert len(runner.history.rows) == epochs


def test_the_best_epoch_is_picked_by_what_the_recipe_says(build) -> None:
    for select_by, best in (("loss", 1), ("MAE", 3)):
        runner = build("num_epochs=3", "milestones=()", f"select_by={select_by}")
        runner.callback_handler.callbacks[:0] = [Scripted(1, 2, 3), Scripted(3, 2, 1, name="val/MAE")]
        runner.train()
        assert load_checkpoint(runner.folder / "best.pt")[1]["epoch"] == best


def test_best_pt_holds_the_weights_of_the_best_epoch(build) -> None:
    short = build("num_epochs=1", "milestones=()")
    short.train()
    long = trained_on(build, (1, 2, 3))
    for name, tensor in weights(short).items():
        assert torch.equal(tensor, weights(long, "best.pt")[name]), name
        assert torch.equal(weights(short, "best.pt")[name], tensor)
    assert not torch.equal(weights(long, "best.pt")["output_proj.weight"], weights(long)["output_proj.weight"])


# Stopping after a number of steps


@pytest.mark.parametrize(
    ("max_steps", "per_epoch"), [(1, [1]), (STEPS_PER_EPOCH, [6]), (STEPS_PER_EPOCH + 2, [6, 2]), (18, [6, 6, 6])]
)
def test_max_steps_stops_there_and_still_validates(build, max_steps: int, per_epoch: list[int]) -> None:
    recorder = Recorder()
    runner = build("num_epochs=3", "patience=50", f"max_steps={max_steps}", callbacks=[recorder])
    runner.train()
    assert recorder.optimizer_steps == runner.step == max_steps
    assert [row["steps"] for row in runner.history.rows] == per_epoch
    assert all(math.isfinite(row["val_MAE"]) for row in runner.history.rows)
    assert runner.state.stopped_by == f"--max-steps {max_steps}"
    assert (runner.folder / "best.pt").is_file()


def test_more_max_steps_than_there_are_change_nothing(build) -> None:
    runner = build("max_steps=1000")
    runner.train()
    assert (runner.step, runner.state.stopped_by) == (2 * STEPS_PER_EPOCH, "all epochs done")


# The host's callbacks and models


def test_gradients_are_clipped_to_the_norm_of_the_recipe(build) -> None:
    class Norms(BasicTSCallback):
        def __init__(self) -> None:
            self.values: list[float] = []

        def on_optimizer_step(self, runner: BasicTSRunner) -> None:
            gradients = [p.grad.flatten() for p in runner.model.parameters() if p.grad is not None]
            self.values.append(torch.cat(gradients).norm().item())

    free, clipped = Norms(), Norms()
    build("max_steps=3", callbacks=[free]).train()
    build("max_steps=3", "clip_grad_norm=0.25", callbacks=[clipped]).train()
    assert min(free.values) > 1
    assert clipped.values == pytest.approx([0.25] * 3, rel=1e-4)


def test_a_model_with_its_own_loss_is_trained_on_it(build) -> None:
    runner = build("lr=0.1", "weight_decay=0", "num_epochs=20", "milestones=()", entry=OWN_LOSS)
    runner.train()
    assert runner.history.rows[0]["train_loss"] < 4
    assert runner.model.level.item() == pytest.approx(2, abs=0.1)
    assert runner.history.rows[0]["val_MAE"] > 10  # metrics are in units of the series all the same


def test_a_loss_put_in_by_a_callback_is_the_one_trained_on(build) -> None:
    class Replace(BasicTSCallback):
        def on_compute_loss(self, runner: BasicTSRunner, forward_return: dict[str, Tensor], **kwargs: Any) -> None:
            forward_return["loss"] = (runner.model.level + 1).square()

    runner = build("lr=0.1", "weight_decay=0", "num_epochs=15", "milestones=()", callbacks=[Replace()], entry=LEVEL)
    runner.train()
    assert runner.model.level.item() == pytest.approx(-1, abs=0.1)


def test_gradients_are_accumulated_over_steps(build) -> None:
    recorder = Recorder()
    runner = build("num_epochs=1", callbacks=[GradAccumulation(3), recorder])
    runner.train()
    assert (recorder.optimizer_steps, len(recorder.steps)) == (2, STEPS_PER_EPOCH)


def test_a_curriculum_trains_on_the_first_horizons(build, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[int] = []
    update = MetricSums.update
    monkeypatch.setattr(
        MetricSums, "update", lambda self, p, t, m: (lengths.append(p.shape[1]), update(self, p, t, m))[1]
    )
    runner = build("num_epochs=2", callbacks=[CurriculumLearning(prediction_length=3)])
    runner.train()
    assert lengths == [1] * STEPS_PER_EPOCH + [3] * 3 + [2] * STEPS_PER_EPOCH + [3] * 3
    assert all(math.isfinite(row["train_MAE"]) for row in runner.history.rows)


# Learning rate and records


def test_the_rate_falls_after_the_milestones(build) -> None:
    runner = build("lr=0.01", "gamma=0.1", "milestones=(2, 3)", "num_epochs=5")
    runner.train()
    rows = read_history(runner.folder / "history.csv")
    assert [row["lr"] for row in rows] == pytest.approx([0.01, 0.01, 0.001, 0.0001, 0.0001])


def test_without_milestones_the_rate_stays(build) -> None:
    runner = build("lr=0.01", "milestones=()", "num_epochs=3")
    runner.train()
    assert [row["lr"] for row in runner.history.rows] == [0.01] * 3


def test_history_and_tensorboard_agree(build) -> None:
    runner = build("milestones=(1,)", "num_epochs=3")
    runner.train()
    rows = read_history(runner.folder / "history.csv")
    assert rows == runner.history.rows
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert [row["steps"] for row in rows] == [STEPS_PER_EPOCH] * 3
    assert all(row["train_seconds"] > 0 and row["val_seconds"] > 0 for row in rows)

    events = EventAccumulator(str(runner.folder / "tensorboard")).Reload()
    columns = {
        "lr": "train/lr",
        "train_loss": "train/loss",
        "train_MAE": "train/MAE",
        "val_loss": "val/loss",
        "val_MAE": "val/MAE",
        "val_RMSE": "val/RMSE",
        "val_MAPE": "val/MAPE",
    }
    for column, tag in columns.items():
        scalars = events.Scalars(tag)
        assert [event.step for event in scalars] == [1, 2, 3], tag
        assert [event.value for event in scalars] == pytest.approx([row[column] for row in rows], rel=1e-6), tag


def test_scores_of_one_epoch_do_not_leak_into_the_next(build) -> None:
    """Meters of the host are running means until they are reset."""
    runner = trained_on(build, (100, 1, 1))
    assert [row["val_loss"] for row in runner.history.rows] == [100, 1, 1]


# What a training notices


def with_bad_steps(build, steps: set[int], what: str, *settings: str) -> tuple[ForecastingRunner, list[str]]:
    """A runner whose loss or gradients are not finite in some steps, and what it says."""

    runner = build(*settings)
    said: list[str] = []
    if what == "gradient":
        # The loss itself stays finite: its gradient overflows on the way back.
        def overflow(grad: Tensor) -> Tensor:
            return grad * math.inf if runner.step in steps else grad

        next(runner.model.parameters()).register_hook(overflow)
    else:
        original = runner.loss

        def loss(*arguments: Any, **named: Any) -> Tensor:
            value = original(*arguments, **named)
            return value * math.nan if runner.step in steps and runner.model.training else value

        loss.__name__, loss.__signature__ = "loss", inspect.signature(original)  # type: ignore[attr-defined]
        runner.loss = loss
    runner.log = logging.getLogger(f"test.{id(runner)}")
    runner.log.addHandler(Collecting(said))
    runner.log.setLevel(logging.INFO)
    return runner, said


class Collecting(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self.lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@pytest.mark.parametrize(("what", "said"), [("loss", "the loss, nan, is"), ("gradient", "a gradient is")])
def test_a_step_that_is_not_finite_ends_the_run_and_leaves_the_checkpoint_before_it(
    build, what: str, said: str
) -> None:
    runner, _ = with_bad_steps(build, {9}, what)
    with pytest.raises(NotFiniteError) as error:
        runner.train()
    windows = runner.batches.indices_of(2, 2)
    line = f"{said} not finite in step 9 (epoch 2, step 3 of 6), windows {', '.join(map(str, windows[:8]))} and 32 more"
    assert str(error.value).startswith(line)
    assert f"{runner.folder / 'last.pt'} is the last good checkpoint" in str(error.value)
    state = load_checkpoint(runner.folder / "last.pt")[1]
    assert state["training"]["step"] == 6
    assert all(torch.isfinite(tensor).all() for tensor in state["model"].values())


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_few_such_steps_are_skipped_where_the_recipe_says_so(build, what: str) -> None:
    runner, said = with_bad_steps(build, {3, 9}, what, "skip_nonfinite=2")
    before = Recorder()
    runner.callback_handler.callbacks.append(before)
    runner.train()
    assert before.optimizer_steps == 2 * STEPS_PER_EPOCH - 2
    assert runner.state.skipped == 2
    assert sum(line.startswith("warning: step skipped, ") for line in said) == 2
    assert all(math.isfinite(row["train_loss"]) for row in runner.history.rows)
    assert all(torch.isfinite(tensor).all() for tensor in weights(runner).values())


def test_one_step_too_many_ends_the_run(build) -> None:
    runner, _ = with_bad_steps(build, {3, 4, 9}, "loss", "skip_nonfinite=2")
    with pytest.raises(NotFiniteError, match=r"step 9 .* 2 such steps may be skipped"):
        runner.train()


def test_on_a_device_that_is_read_seldom_no_checkpoint_is_written_after_such_a_step(build) -> None:
    runner, _ = with_bad_steps(build, {9}, "loss")
    runner.watch.at_once = False  # as on a GPU: noticed before the next checkpoint
    with pytest.raises(
        NotFiniteError, match=r"the loss or a gradient is not finite in step 9 \(epoch 2, step 3 of 6\)"
    ):
        runner.train()
    assert load_checkpoint(runner.folder / "last.pt")[1]["training"]["step"] == 6


def test_divergence_is_said(build) -> None:
    runner, said = with_bad_steps(build, set(), "loss", "num_epochs=2")
    runner.callback_handler.callbacks.insert(0, Scripted(1.0, 50.0))
    runner.train()
    assert "warning: diverging: validation loss 50 is 50 times the best, 1 in epoch 1" in said
