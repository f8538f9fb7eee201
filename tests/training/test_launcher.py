"""A run from its config to its metrics, its folder, and everything that can be wrong before it starts."""

import dataclasses
import json
import os
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ealinformer.data.prepare import prepare
from ealinformer.data.prepared import open_prepared
from ealinformer.errors import InputError
from ealinformer.models import MODELS
from ealinformer.training import Experiment, RunConfig
from ealinformer.training.checkpoints.checkpoint import load_checkpoint
from ealinformer.training.distributed.devices import select_devices
from ealinformer.training.jobs import Job, prepare_job
from ealinformer.training.launcher import describe_score, evaluate, train
from ealinformer.training.predictions import check_path
from ealinformer.training.resolve import resolve
from ealinformer.training.runner import ForecastingRunner
from ealinformer.training.runs.folder import default_folder
from ealinformer.training.runs.history import read_history

NewJob = Callable[..., Job]
FILES = {
    "best.pt",
    "config.json",
    "history.csv",
    "last.pt",
    "loss.png",
    "metrics.json",
    "packages.txt",
    "previous.pt",
    "run.json",
    "tensorboard",
    "train.log",
}
SCORE = ("model", "dataset", "simulated", "split", "windows", "average", "horizons", "epoch", "parameters", "seed")


@dataclasses.dataclass(frozen=True)
class Finished:
    """A run that is through, and what it returned."""

    job: Job
    metrics: dict[str, Any]

    @property
    def folder(self) -> Path:
        return self.job.folder


@pytest.fixture(scope="module")
def finished(new_job: NewJob, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    job = new_job(tmp_path_factory.mktemp("finished") / "a run", "num_epochs=3")
    return Finished(job, train(job))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def files(folder: Path) -> set[str]:
    """Names in a folder, without the diff that is there only where the checkout is not as committed."""
    return {path.name for path in folder.iterdir()} - {"code.diff"}


def score(metrics: dict[str, Any]) -> dict[str, Any]:
    return {key: metrics[key] for key in SCORE}


# A run that goes well


def test_the_folder_holds_what_is_documented_and_nothing_else(finished: Finished) -> None:
    assert files(finished.folder) == FILES
    (events,) = (finished.folder / "tensorboard").iterdir()
    assert events.name.startswith("events.out.tfevents")


def test_the_folder_says_what_was_asked_for_and_what_happened(finished: Finished) -> None:
    folder = finished.folder
    assert RunConfig.model_validate_json((folder / "config.json").read_text()) == finished.job.run
    status = json.loads((folder / "run.json").read_text())
    assert status["status"] == "finished"
    assert {"machine", "versions", "commit", "command", "date"} <= status.keys()
    assert json.loads((folder / "metrics.json").read_text()) == finished.metrics
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_the_metrics_count_what_was_done(finished: Finished) -> None:
    metrics, rows = finished.metrics, read_history(finished.folder / "history.csv")
    assert (metrics["epochs"], metrics["steps"], metrics["steps_per_epoch"]) == (3, 18, 6)
    assert metrics["stopped_by"] == "all epochs done"
    assert metrics["windows"] == 75
    assert metrics["epoch"] == min(rows, key=lambda row: row["val_loss"])["epoch"]
    assert metrics["seconds_per_epoch"] == sorted(row["train_seconds"] for row in rows)[1]
    assert metrics["seconds_per_step"] == pytest.approx(sum(row["train_seconds"] for row in rows) / 18)
    assert metrics["peak_memory_mib"] >= 0
    state = load_checkpoint(finished.folder / "best.pt")[1]
    assert metrics["parameters"] == sum(tensor.numel() for tensor in state["model"].values())


def test_training_learns_something(finished: Finished) -> None:
    rows = read_history(finished.folder / "history.csv")
    assert rows[-1]["train_loss"] < 0.8 * rows[0]["train_loss"]


def test_the_best_epoch_is_scored_and_not_the_last(
    new_job: NewJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = ForecastingRunner._save_best_model
    monkeypatch.setattr(
        ForecastingRunner, "_save_best_model", lambda self, epoch, name: save(self, epoch, name) if epoch == 1 else None
    )
    job = new_job(tmp_path / "run")
    metrics = train(job)
    assert metrics["epoch"] == 1
    assert metrics["average"] == evaluate(job, job.folder / "best.pt", "test")["average"]
    assert metrics["average"] != evaluate(job, job.folder / "last.pt", "test")["average"]


def test_evaluation_gives_the_metrics_of_training_to_the_last_digit(finished: Finished) -> None:
    again = evaluate(finished.job, finished.folder / "best.pt", "test")
    assert score(again) == score(finished.metrics)
    assert describe_score(again) == describe_score(finished.metrics)


def test_the_table_is_in_the_log(finished: Finished) -> None:
    log = (finished.folder / "train.log").read_text()
    assert describe_score(finished.metrics) in log
    assert describe_score(finished.metrics).startswith("ELinFormer on TINY: test part, 75 windows, epoch ")
    assert "ELinFormer (3,903 parameters) on TINY: 5 sensors, 4 steps in, 3 out; recipe tiny: masked_mae" in log
    assert log.count("best so far") >= 1


def test_evaluation_on_the_validation_part_is_the_best_row_of_the_history(finished: Finished) -> None:
    metrics = evaluate(finished.job, finished.folder / "best.pt", "val")
    row = read_history(finished.folder / "history.csv")[metrics["epoch"] - 1]
    assert (metrics["split"], metrics["windows"]) == ("val", 74)
    assert metrics["average"] == {"MAE": row["val_MAE"], "RMSE": row["val_RMSE"], "MAPE": row["val_MAPE"]}


def test_evaluation_takes_scaler_and_sizes_from_the_checkpoint(finished: Finished, new_job: NewJob) -> None:
    """A wider model and another seed in the config change nothing."""
    job = new_job(finished.folder, "model.intermediate_size=32", "seed=77")
    assert score(evaluate(job, finished.folder / "best.pt", "test")) == score(finished.metrics)


def test_evaluation_does_not_depend_on_the_seed_or_the_random_state(finished: Finished) -> None:
    torch.manual_seed(123)
    assert score(evaluate(finished.job, finished.folder / "best.pt", "test")) == score(finished.metrics)


def test_evaluation_writes_nothing(finished: Finished) -> None:
    before = contents(finished.folder)
    evaluate(finished.job, finished.folder / "best.pt", "val")
    assert contents(finished.folder) == before


def test_the_same_config_in_two_folders_trains_twice_to_the_same_numbers(
    finished: Finished, new_job: NewJob, tmp_path: Path
) -> None:
    metrics = train(new_job(tmp_path / "again", "num_epochs=3"))
    assert score(metrics) == score(finished.metrics)
    assert metrics["steps"] == finished.metrics["steps"]
    one, two = (load_checkpoint(folder / "best.pt")[1]["model"] for folder in (finished.folder, tmp_path / "again"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_simulated_series_are_called_so(finished: Finished) -> None:
    assert describe_score({**finished.metrics, "simulated": True}).startswith("ELinFormer on TINY, simulated series:")


def test_two_runs_in_one_process_keep_their_logs_apart(new_job: NewJob, tmp_path: Path) -> None:
    for seed in (11, 22):
        train(new_job(tmp_path / f"run{seed}", f"seed={seed}", "max_steps=1"))
    for seed, other in ((11, 22), (22, 11)):
        log = (tmp_path / f"run{seed}" / "train.log").read_text()
        assert f"seed {seed}" in log
        assert f"seed {other}" not in log
        assert log.count("test part, 75 windows") == 1


def test_a_run_cut_off_by_max_steps_is_scored(new_job: NewJob, tmp_path: Path) -> None:
    metrics = train(new_job(tmp_path / "run", "max_steps=2"))
    assert (metrics["steps"], metrics["epochs"], metrics["stopped_by"]) == (2, 1, "--max-steps 2")
    assert metrics["seconds_per_epoch"] is None
    assert metrics["average"]["MAE"] > 0


def test_default_folders_are_named_after_model_series_time_and_seed(finished: Finished) -> None:
    folder = default_folder(finished.job.run)
    assert folder.parent == Path("checkpoints/ELinFormer/TINY")
    assert datetime.strptime(folder.name, "%Y%m%d-%H%M%S-seed1") <= datetime.now()


# A run that does not


def test_an_interrupted_run_says_so_and_leaves_no_metrics(
    new_job: NewJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = ForecastingRunner._train_step

    def interrupt(self: ForecastingRunner, *arguments: Any) -> None:
        if self.step == 8:
            raise KeyboardInterrupt
        step(self, *arguments)

    monkeypatch.setattr(ForecastingRunner, "_train_step", interrupt)
    job = new_job(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        train(job)
    assert json.loads((job.folder / "run.json").read_text())["status"] == "interrupted"
    assert files(job.folder) == FILES - {"metrics.json", "loss.png", "previous.pt"}
    assert len(read_history(job.folder / "history.csv")) == 1
    assert evaluate(job, job.folder / "best.pt", "test")["epoch"] == 1  # what was reached can be scored


def test_an_interrupt_while_a_checkpoint_is_written_leaves_no_part_of_it(
    new_job: NewJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Path.write_bytes

    def interrupt(self: Path, data: Any) -> int:
        write(self, data[:10])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(new_job(tmp_path / "run", "num_epochs=1"))
    assert files(tmp_path / "run") == {
        "config.json",
        "history.csv",
        "packages.txt",
        "run.json",
        "train.log",
        "tensorboard",
    }


def test_a_failing_run_says_why_and_raises_it(new_job: NewJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: ForecastingRunner, *arguments: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(ForecastingRunner, "_train_step", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        train(new_job(tmp_path / "run"))
    status = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (status["status"], status["exit_reason"]) == ("failed", "RuntimeError('out of memory')")
    assert not (tmp_path / "run" / "metrics.json").exists()


def test_the_log_of_a_failed_run_is_closed(new_job: NewJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: ForecastingRunner, *arguments: Any) -> None:
        raise RuntimeError

    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else None
    with monkeypatch.context() as patch:
        patch.setattr(ForecastingRunner, "_train_loop", fail)
        patch.setattr(ForecastingRunner, "_init_train", lambda self: None)
        for number in range(4):
            with pytest.raises(RuntimeError):
                train(new_job(tmp_path / str(number)))
    if before is None:
        pytest.skip("no /proc to count open files with")
    assert len(os.listdir("/proc/self/fd")) <= before + 1


def test_a_run_begins_as_running(new_job: NewJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    loop = ForecastingRunner._train_loop

    def look(self: ForecastingRunner) -> None:
        seen.append(json.loads((self.folder / "run.json").read_text())["status"])
        loop(self)

    monkeypatch.setattr(ForecastingRunner, "_train_loop", look)
    train(new_job(tmp_path / "run", "max_steps=1"))
    assert seen == ["running"]
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "finished"


# Where a run is put


def one_line(error: pytest.ExceptionInfo[InputError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_folder_that_holds_something_is_left_alone(new_job: NewJob, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError) as error:
        train(new_job(tmp_path))
    assert f"output folder {tmp_path} already holds files" in one_line(error)
    assert contents(tmp_path) == {"notes.txt": b"mine"}


def test_an_empty_folder_is_taken(new_job: NewJob, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    train(new_job(tmp_path / "run", "max_steps=1"))
    assert (tmp_path / "run" / "metrics.json").is_file()


@pytest.mark.parametrize("folder", ["file", "file/run"])
def test_a_folder_that_cannot_be_made(new_job: NewJob, tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError) as error:
        train(new_job(tmp_path / folder))
    assert f"output folder {tmp_path / folder} cannot be made" in one_line(error)
    assert contents(tmp_path) == {"file": b"mine"}


# Data that is not what the config says


def changed(experiment: Experiment, **fields: Any) -> Experiment:
    """The experiment with another series."""
    return experiment.model_copy(update={"series": experiment.series.model_copy(update=fields)})


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"num_sensors": 6}, "the config says num_sensors=6, {} was prepared with 5"),
        ({"interval_minutes": 15}, "the config says interval_minutes=15, {} was prepared with 30"),
        ({"null_value": -1.0}, "the config says null_value=-1.0, {} was prepared with 0.0"),
        ({"null_value": float("nan")}, "the config says null_value=nan, {} was prepared with 0.0"),
        ({"split": (0.7, 0.1, 0.2)}, "the config says split=[0.7, 0.1, 0.2], {} was prepared with [0.6, 0.2, 0.2]"),
        ({"start": datetime(2018, 1, 5)}, "the config says start=2018-01-05 00:00:00, {} was prepared with 2018-01-05"),
        ({"day_of_week": "row"}, "the config says day_of_week=row, {} was prepared with calendar"),
        ({"name": "OTHER"}, "OTHER is not prepared: run  python scripts/prepare_dataset.py OTHER"),
    ],
)
def test_another_series_than_was_prepared_is_refused(
    experiment: Experiment, datasets_dir: Path, tmp_path: Path, fields: dict[str, Any], said: str
) -> None:
    run = resolve(changed(experiment, **fields))
    with pytest.raises(InputError) as error:
        prepare_job(run, MODELS, datasets_dir=datasets_dir, folder=tmp_path / "run")
    assert said.format(datasets_dir / "TINY") in one_line(error)
    assert not (tmp_path / "run").exists()


def test_a_part_shorter_than_a_window_is_refused(new_job: NewJob, tmp_path: Path, datasets_dir: Path) -> None:
    with pytest.raises(InputError) as error:
        new_job(tmp_path / "run", "input_len=70", "output_len=11")
    assert one_line(error) == (
        f"{datasets_dir / 'TINY'}: the val part has 80 steps, one window of 70 in and 11 out needs 81"
    )
    job = new_job(tmp_path / "run", "input_len=70", "output_len=10", "max_steps=1")
    assert train(job)["windows"] == 2


@pytest.fixture(scope="module")
def holes(experiment: Experiment, tmp_path_factory: pytest.TempPathFactory) -> tuple[Experiment, Path]:
    """A series of which a fifth is missing and marked with NaN, and the folder it was prepared in."""
    root = tmp_path_factory.mktemp("holes")
    rng = np.random.default_rng(0)
    values = rng.uniform(50, 60, (401, 5)).astype(np.float32)
    values[rng.random(values.shape) < 0.2] = np.nan
    np.savez(root / "TINY.npz", data=values)
    own = changed(experiment, null_value=float("nan"))
    prepare(own.series, root, root / "datasets", report=lambda line: None)
    return own, root / "datasets"


@pytest.mark.parametrize("loss", ["masked_mae", "masked_huber"])
def test_nan_for_missing_readings_trains_with_the_masked_losses(
    holes: tuple[Experiment, Path], tmp_path: Path, loss: str
) -> None:
    own, datasets_dir = holes
    run = resolve(own, settings=[f"loss={loss}", "num_epochs=1"])
    job = prepare_job(run, MODELS, datasets_dir=datasets_dir, folder=tmp_path / "run")
    metrics = train(job)
    assert 0 < metrics["average"]["MAE"] < 60
    assert score(evaluate(job, tmp_path / "run" / "best.pt", "test")) == score(metrics)


def test_nan_for_missing_readings_is_refused_by_the_loss_that_counts_them(
    holes: tuple[Experiment, Path], tmp_path: Path
) -> None:
    own, datasets_dir = holes
    run = resolve(own, settings=["loss=huber"])
    with pytest.raises(InputError) as error:
        prepare_job(run, MODELS, datasets_dir=datasets_dir, folder=tmp_path / "run")
    assert "loss huber counts missing readings, which are NaN here: --set loss=masked_mae" in one_line(error)


# Checkpoints that do not fit


def test_checkpoints_of_something_else_are_refused(finished: Finished, new_job: NewJob) -> None:
    for settings, said in (
        (("input_len=6",), "is a checkpoint for input_len 4, the config says 6; add --set input_len=4"),
        (("output_len=2",), "is a checkpoint for output_len 3, the config says 2; add --set output_len=3"),
    ):
        with pytest.raises(InputError) as error:
            evaluate(new_job(finished.folder, *settings), finished.folder / "best.pt", "test")
        assert said in one_line(error)


def test_a_checkpoint_that_is_not_there(finished: Finished) -> None:
    with pytest.raises(InputError, match=r"nothing\.pt is not there"):
        evaluate(finished.job, finished.folder / "nothing.pt", "test")


# Devices


@pytest.mark.parametrize("gpus", ["", "a", "0,0", "-1", "0,", "0 1", "cuda:0"])
def test_gpus_that_are_no_list_of_numbers(gpus: str) -> None:
    with pytest.raises(InputError) as error:
        select_devices(gpus)
    assert f"--gpus {gpus}: different device numbers such as 0 or 0,1 are expected" in one_line(error)


def test_no_gpus_are_the_cpu() -> None:
    assert select_devices(None) == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_gpu_that_is_not_there(
    configure: Callable[..., RunConfig], datasets_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # put back after the test
    with pytest.raises(InputError) as error:
        prepare_job(configure(), MODELS, datasets_dir=datasets_dir, folder=tmp_path / "run", gpus="0")
    assert "--gpus 0: no such CUDA device" in one_line(error)
    assert not (tmp_path / "run").exists()


# Predictions


@pytest.fixture(scope="module", params=["val", "test"])
def exported(request: pytest.FixtureRequest, finished: Finished, tmp_path_factory: pytest.TempPathFactory):
    """Split, its metrics and the arrays of an exported file."""
    path = tmp_path_factory.mktemp("exported") / "forecasts.npz"
    job = dataclasses.replace(finished.job, predictions=path)
    metrics = evaluate(job, finished.folder / "best.pt", request.param)
    assert os.listdir(path.parent) == ["forecasts.npz"]
    with np.load(path) as file:
        return request.param, metrics, dict(file)


def test_predictions_have_the_shapes_of_all_windows(exported) -> None:
    _, metrics, arrays = exported
    windows = metrics["windows"]
    assert {name: array.shape for name, array in arrays.items()} == {
        "prediction": (windows, 3, 5),
        "targets": (windows, 3, 5),
        "timestamps": (windows, 3, 2),
        "times": (windows, 3),
        "sensor_ids": (5,),
        "null_value": (),
    }
    assert arrays["sensor_ids"].tolist() == ["0", "1", "2", "3", "4"]
    assert arrays["null_value"] == 0


def test_exported_targets_are_the_rows_of_the_data_file(exported, datasets_dir: Path) -> None:
    split, _, arrays = exported
    data = np.load(datasets_dir / "TINY" / f"{split}_data.npy")
    stamps = np.load(datasets_dir / "TINY" / f"{split}_timestamps.npy")
    for window in range(len(arrays["targets"])):
        np.testing.assert_array_equal(arrays["targets"][window], data[window + 4 : window + 7])
        np.testing.assert_array_equal(arrays["timestamps"][window], stamps[window + 4 : window + 7])


def test_exported_times_are_calendar_times(exported) -> None:
    """The series begins on Friday, 5 January 2018, 22:30; 240 rows are for training and 80 for validation."""
    split, _, arrays = exported
    first_row = {"val": 240, "test": 320}[split]
    start = datetime(2018, 1, 5, 22, 30)
    for window in (0, 1, 50, len(arrays["times"]) - 1):
        for step in range(3):
            expected = start + timedelta(minutes=30 * (first_row + window + 4 + step))
            assert arrays["times"][window, step].astype(datetime) == expected
            time_of_day, day_of_week = arrays["timestamps"][window, step]
            assert round(time_of_day * 48) == expected.hour * 2 + expected.minute // 30
            assert round(day_of_week * 7) == expected.weekday()
    if split == "val":
        assert str(arrays["times"][0, 0]) == "2018-01-11T00:30"
    else:
        assert str(arrays["times"][-1, -1]) == "2018-01-14T06:30"


def test_the_metrics_can_be_had_again_from_the_exported_file(exported) -> None:
    _, metrics, arrays = exported
    prediction, targets = arrays["prediction"].astype(np.float64), arrays["targets"].astype(np.float64)
    present = targets != arrays["null_value"]
    errors = (prediction - targets)[present]
    assert np.abs(errors).mean() == pytest.approx(metrics["average"]["MAE"], rel=1e-9)
    assert np.sqrt(np.square(errors).mean()) == pytest.approx(metrics["average"]["RMSE"], rel=1e-9)
    assert 100 * np.abs(errors / targets[present]).mean() == pytest.approx(metrics["average"]["MAPE"], rel=1e-9)


def test_predictions_are_not_written_unless_asked_for(finished: Finished) -> None:
    assert not list(finished.folder.parent.rglob("*.npz"))


def test_names_of_predictions_are_checked(tmp_path: Path) -> None:
    check_path(tmp_path / "forecasts.npz")
    with pytest.raises(InputError, match=r"a name that ends in \.npz is expected"):
        check_path(tmp_path / "forecasts.npy")
    with pytest.raises(InputError, match=r"the folder .*nowhere is not there"):
        check_path(tmp_path / "nowhere" / "forecasts.npz")


def test_predictions_that_cannot_be_written_leave_nothing(finished: Finished, tmp_path: Path) -> None:
    (tmp_path / "taken.npz").mkdir()
    job = dataclasses.replace(finished.job, predictions=tmp_path / "taken.npz")
    with pytest.raises(InputError) as error:
        evaluate(job, finished.folder / "best.pt", "test")
    assert f"cannot write {tmp_path / 'taken.npz'}" in one_line(error)
    assert os.listdir(tmp_path) == ["taken.npz"]


def test_the_test_rows_follow_train_and_validation(datasets_dir: Path) -> None:
    assert open_prepared(datasets_dir / "TINY").meta["steps"] == {"train": 240, "val": 80, "test": 81}
