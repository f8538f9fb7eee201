"""experiments/train.py as a user runs it: what each option does, and what bad input is answered with."""

import json
import math
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from ealinformer.data.prepared import open_prepared
from ealinformer.training.runner import ForecastingRunner
from ealinformer.training.runs.history import read_history

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted(path.stem for folder in ("experiments", "scripts") for path in (ROOT / folder).glob("[!_]*.py"))
TRAIN_WINDOWS = 288 - 6 - 4 + 1


def read(folder: Path, name: str) -> dict:
    return json.loads((folder / name).read_text())


@pytest.fixture
def train(call, town, tmp_path: Path):
    """`train("--seed", 3)`: a run of two steps in `tmp_path`/run, with other options behind."""

    def run_it(*options: object, name: str = "run") -> Path:
        folder = tmp_path / name
        done = call("train", *town.arguments, "--max-steps", 2, "--output-dir", folder, *options)
        assert done.status == 0, done.err
        return folder

    return run_it


@pytest.fixture
def refuse(refused, town, tmp_path: Path):
    """`refuse("--epochs", 0)`: the line that answers bad options; no folder of a run is there afterwards."""
    return lambda *options: refused("train", *town.arguments, "--max-steps", 1, "--output-dir", "run", *options)


# What the options do


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_of_every_script_is_0_and_shows_how_to_call_it(call, name: str) -> None:
    done = call(name, "--help")
    assert (done.status, done.err) == (0, "")
    assert "example" in done.out
    assert (
        f"  python {'scripts' if (ROOT / 'scripts' / f'{name}.py').is_file() else 'experiments'}/{name}.py" in done.out
    )


def test_a_run_says_what_it_does_and_leaves_what_it_measured(trained) -> None:
    done, folder = trained.done, trained.folder
    assert done.out == ""
    head = done.err.splitlines()[0]
    assert head.startswith("ELinFormer (")
    assert "on TOWN: 5 sensors, 6 steps in, 4 out; recipe short: masked_mae, lr 0.005" in head
    assert "batch 40" in head
    assert "seed 42; CPU" in head
    assert done.err.count("\nepoch ") == 2
    assert f"run folder  {folder}" in done.err
    assert {path.name for path in folder.iterdir()} - {"code.diff"} == {  # there where the checkout is changed
        *("config.json", "run.json", "metrics.json", "history.csv", "train.log", "loss.png", "tensorboard"),
        *("best.pt", "last.pt", "previous.pt", "predictions.npz", "packages.txt"),
    }
    run = read(folder, "run.json")
    assert run["status"] == "finished"
    assert "train.py" in run["command"]
    metrics = read(folder, "metrics.json")
    assert (metrics["windows"], metrics["steps"], metrics["stopped_by"]) == (87, 12, "--max-steps 12")


def test_predictions_of_the_test_part_give_the_metrics_of_the_run(trained) -> None:
    with np.load(trained.folder / "predictions.npz") as file:
        prediction, targets = (file[name].astype(np.float64) for name in ("prediction", "targets"))
        present = targets != file["null_value"]
        assert file["sensor_ids"].tolist() == ["0", "1", "2", "3", "4"]
    assert prediction.shape == (87, 4, 5)
    assert not present.all()
    metrics = read(trained.folder, "metrics.json")
    for name, horizons in (("average", slice(None)), ("1", [0]), ("4", [3])):
        kept = present[:, horizons]
        errors, truth = (prediction - targets)[:, horizons][kept], targets[:, horizons][kept]
        score = metrics["average"] if name == "average" else metrics["horizons"][name]
        assert score["MAE"] == pytest.approx(np.abs(errors).mean(), rel=1e-9)
        assert score["RMSE"] == pytest.approx(np.sqrt(np.square(errors).mean()), rel=1e-9)
        assert score["MAPE"] == pytest.approx(100 * np.abs(errors / truth).mean(), rel=1e-9)


def test_without_predictions_none_are_written(train) -> None:
    assert not list(train().glob("*.npz"))


def test_the_seed_decides_the_numbers(train) -> None:
    first, again = train("--seed", 3, name="first"), train("--seed", 3, name="again")
    other = train("--seed", 4, name="other")
    scores = [read(folder, "metrics.json")["average"] for folder in (first, again, other)]
    assert scores[0] == scores[1]
    assert scores[0]["MAE"] != scores[2]["MAE"]
    assert read(first, "config.json")["seed"] == read(first, "metrics.json")["seed"] == 3


def test_epochs_and_batch_size(train) -> None:
    folder = train("--epochs", 1, "--batch-size", 64, "--set", "max_steps=None", "--max-steps", 100)
    metrics = read(folder, "metrics.json")
    assert metrics["epochs"] == len(read_history(folder / "history.csv")) == 1
    assert metrics["steps"] == metrics["steps_per_epoch"] == math.ceil(TRAIN_WINDOWS / 64)
    assert metrics["stopped_by"] == "all epochs done"


def test_max_steps_stops_within_an_epoch(train) -> None:
    metrics = read(train(), "metrics.json")
    assert (metrics["steps"], metrics["epochs"], metrics["stopped_by"]) == (2, 1, "--max-steps 2")


def test_set_reaches_recipe_run_and_model(train) -> None:
    folder = train("--set", "lr=0.5", "--set", "output_len=2", "--set", "model.num_layers=2", "--set", "loss=huber")
    config = read(folder, "config.json")
    assert (config["recipe"]["lr"], config["recipe"]["loss"], config["output_len"]) == (0.5, "huber", 2)
    assert config["model_params"]["num_layers"] == 2
    assert read_history(folder / "history.csv")[0]["lr"] == 0.5
    metrics = read(folder, "metrics.json")
    assert list(metrics["horizons"]) == ["1", "2"]
    assert metrics["parameters"] > read(train(name="plain"), "metrics.json")["parameters"]


def test_settings_of_speed_and_memory_are_said_and_kept(call, town, tmp_path: Path) -> None:
    settings = ("dtype=bf16", "micro_batch_size=16", "windows=host", "optimizer=adafactor")
    options = [word for setting in settings for word in ("--set", setting)]
    done = call("train", *town.arguments, "--max-steps", 2, "--output-dir", tmp_path / "run", *options)
    assert done.status == 0, done.err
    head = done.err.splitlines()[0]
    assert head.endswith(", dtype bf16, windows host, micro_batch_size 16, optimizer adafactor")
    config = read(tmp_path / "run", "config.json")
    assert (config["dtype"], config["compile"], config["windows"]) == ("bf16", "off", "host")
    assert (config["recipe"]["micro_batch_size"], config["recipe"]["optimizer"]) == (16, "adafactor")


def test_tf32_without_a_gpu_is_one_line(refuse) -> None:
    assert "dtype=tf32: only CUDA devices have TF32" in refuse("--set", "dtype=tf32")


def test_model_and_recipe_by_name(train) -> None:
    folder = train("--model", "STAEformer", "--recipe", "basicts")
    config = read(folder, "config.json")
    assert (config["model"], config["recipe_name"], config["recipe"]["weight_decay"]) == ("STAEformer", "basicts", 3e-4)
    metrics = read(folder, "metrics.json")
    assert (metrics["model"], metrics["recipe"]) == ("STAEformer", "basicts")


def test_left_out_folders_are_datasets_and_checkpoints_of_the_working_directory(
    call, town, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(town.datasets, "datasets")
    for _ in range(2):  # within a second, often enough
        assert call("train", "-c", town.config, "--max-steps", 1).status == 0
    runs = sorted(Path("checkpoints/ELinFormer/TOWN").iterdir())
    assert len(runs) == 2
    assert all(read(folder, "run.json")["status"] == "finished" for folder in runs)


def test_two_default_folders_of_one_second_differ(call, town, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ealinformer.training.runs import folder as run_folder

    class Frozen(run_folder.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2024, 5, 6, 7, 8, 9)

    monkeypatch.setattr(run_folder, "datetime", Frozen)
    monkeypatch.chdir(tmp_path)
    for _ in range(3):
        assert call("train", *town.arguments, "--max-steps", 1).status == 0
    names = sorted(path.name for path in Path("checkpoints/ELinFormer/TOWN").iterdir())
    assert names == [f"20240506-070809-seed42{number}" for number in ("", "-2", "-3")]


def test_paths_may_hold_spaces_and_umlauts(call, town, tmp_path: Path) -> None:
    own = tmp_path / "mes données" / "ville d'été.py"
    own.parent.mkdir()
    shutil.copy(town.config, own)
    shutil.copytree(town.datasets, own.parent / "data sets")
    folder = own.parent / "läufe" / "erster lauf"
    arguments = ("-c", own, "--datasets-dir", own.parent / "data sets")
    assert call("train", *arguments, "--max-steps", 1, "--output-dir", folder).status == 0
    assert call("evaluate", *arguments, "--checkpoint", folder / "best.pt").status == 0


# Bad options


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--epochs", "0"), "num_epochs of Recipe: input should be greater than 0, got 0"),
        (("--epochs", "ten"), "argument --epochs: invalid int value: 'ten'"),
        (("--batch-size", "-3"), "batch_size of Recipe: input should be greater than 0, got -3"),
        (("--batch-size", "9" * 20), "batch_size of Recipe: input should be less than"),
        (("--seed", "-1"), "seed of RunConfig: input should be greater than or equal to 0, got -1"),
        (("--seed", "1.5"), "argument --seed: invalid int value: '1.5'"),
        (("--max-steps", "0"), "max_steps of RunConfig: input should be greater than 0, got 0"),
        (("--set", "nonsense"), "--set nonsense: key=value is expected"),
        (("--set", "batchsize=3"), "unknown key 'batchsize' (did you mean 'batch_size'?)"),
        (("--set", "lr=fast"), "lr of Recipe: input should be a valid number"),
        (("--set", "lr=1e300"), "lr of Recipe: input should be less than or equal to"),
        (("--set", "weight_decay=1e300"), "weight_decay of Recipe: input should be less than or equal to"),
        (("--set", "input_len=1000"), "the train part has 288 steps, one window of 1000 in and 4 out needs 1004"),
        (("--set", "input_len=93"), "the val part has 96 steps, one window of 93 in and 4 out needs 97"),
        (("--set", "model.num_layer=2"), "unknown key 'model.num_layer' of ELinFormer (did you mean 'num_layers'?)"),
        (("--set", "model.n_heads=3"), "n_heads has to divide the width 16, got 3"),
        (("--set", "model.eps=small"), "eps has to be a finite number of at least 0, got 'small'"),
        (("--set", "model.num_features=9"), "model.num_features cannot be set, it follows from series and windows: 5"),
        (("--set", "model.input_len=9"), "model.input_len cannot be set, it follows from series and windows: 6 here"),
        (("--set", "model.adaptive_hidden_size=1" + "0" * 11), "model ELinFormer cannot be built"),
        (
            ("--model", "elinformer"),
            "unknown model 'elinformer' (did you mean 'ELinFormer'?); known: ELinFormer, AGCRN",
        ),
        (("--model", ""), "unknown model ''; known: ELinFormer, AGCRN, DCRNN, GTS"),
        (("--recipe", "author"), "unknown recipe 'author'"),
        (("--recipe", ""), "unknown recipe ''; known: short, basicts"),
        (("--gpus", "first"), "--gpus first: different device numbers such as 0 or 0,1 are expected"),
        (("--processes", "0"), "--processes 0: 1 or more, and not together with --gpus, is expected"),
        (("--processes", "2", "--gpus", "0"), "--processes 2: 1 or more, and not together with --gpus, is expected"),
        (("--checkpoint-minutes", "-1"), "--checkpoint-minutes -1.0: 0 or more is expected"),
        (("--checkpoint-minutes", "nan"), "--checkpoint-minutes nan: 0 or more is expected"),
        (("--resume", "yes"), "argument --resume: invalid choice: 'yes'"),
        (("--set", "dtype=float16"), "dtype of RunConfig: input should be 'float32', 'tf32', 'bf16' or 'float64', got"),
        (("--set", "skip_nonfinite=-1"), "skip_nonfinite of Recipe: input should be greater than or equal to 0"),
        (("--colour", "red"), "unrecognized arguments: --colour red"),
        (("--datasets-dir", "nowhere"), "nowhere/TOWN is not prepared: run  python scripts/prepare_dataset.py TOWN"),
    ],
)
def test_bad_options_are_one_line(refuse, options: tuple[str, ...], said: str) -> None:
    assert said in refuse(*options)


def test_a_run_that_must_be_there_has_to_be_named(refused, town) -> None:
    said = refused("train", *town.arguments, "--resume", "must")
    assert said == "--resume must: --output-dir has to name the run; experiments/runs.py list shows them"


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_gpu_that_is_not_there(refuse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # put back after the test
    assert refuse("--gpus", "0").startswith("--gpus 0: no such CUDA device")


def test_more_than_memory_holds_is_one_line_that_says_what_to_make_smaller(
    call, town, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(ForecastingRunner, "_train_epoch", exhausted)
    for error in (
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ):
        folder = tmp_path / type(error).__name__
        done = call("train", *town.arguments, "--output-dir", folder)
        assert done.status == 2
        assert "error: out of memory: ELinFormer with 5 sensors, batch_size 40" in done.err.splitlines()[-1]
        run = read(folder, "run.json")
        assert run["status"] == "failed"
        assert run["exit_reason"].startswith("out of memory")


def test_other_errors_of_torch_keep_their_traceback(
    call, town, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(ForecastingRunner, "_train_epoch", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        call("train", *town.arguments, "--output-dir", tmp_path / "run")
    run = read(tmp_path / "run", "run.json")
    assert (run["status"], run["exit_reason"]) == ("failed", "RuntimeError('a bug')")


# Output folders


def test_a_folder_that_holds_files_is_refused(refused, town, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    message = refused("train", *town.arguments, "--output-dir", "mine")
    assert message == "output folder mine already holds files; name another one with --output-dir"
    assert "output folder . already holds files" in refused("train", *town.arguments, "--output-dir", "")


def test_a_folder_that_cannot_be_made_is_refused(refused, town, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("keep")
    for folder, said in (("file", "File exists"), ("file/run", "Not a directory"), ("x" * 300, "File name too long")):
        message = refused("train", *town.arguments, "--output-dir", folder)
        assert message == f"output folder {folder} cannot be made: {said}"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_refused(refused, town, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    message = refused("train", *town.arguments, "--output-dir", "locked/run")
    assert message == "output folder locked/run cannot be made: Permission denied"


# Configs


@pytest.mark.parametrize("command", ["train", "floor"])
@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (
            "num_sensors=5",
            "num_sensor=5",
            "own.py: unknown key 'num_sensor' of SeriesSpec (did you mean 'num_sensors'?)",
        ),
        ("batch_size=40", "batchsize=40", "own.py: unknown key 'batchsize' of Recipe (did you mean 'batch_size'?)"),
        ("num_epochs=2", "num_epochs=-2", "own.py: num_epochs of Recipe: input should be greater than 0, got -2"),
        ("interval_minutes=30", "interval_minutes=7", "own.py: interval_minutes of SeriesSpec: 7 does not divide"),
        ("num_sensors=5", "num_sensors='five'", "own.py: num_sensors of SeriesSpec: input should be a valid integer"),
        ("num_sensors=5", "num_sensors=6", "the config says num_sensors=6, {} was prepared with 5"),
        ("interval_minutes=30", "interval_minutes=15", "the config says interval_minutes=15, {} was prepared with 30"),
        ("channel=1", "channel=0", "the config says channel=0, {} was prepared with 1"),
        ("town.npz", "city.npz", "the config says raw_file=city.npz, {} was prepared with town.npz"),
        ("channel=1", "channel=1, simulated=True", "the config says simulated=True, {} was prepared with False"),
        ('name="TOWN"', 'name="CITY"', "CITY is not prepared: run  python scripts/prepare_dataset.py CITY"),
        ("CONFIG =", "CONFIG = =", "own.py, line 4: invalid syntax"),
        ("CONFIG =", "CONF =", "own.py has to set CONFIG to an Experiment, found nothing of that name"),
        ("CONFIG =", "raise SystemExit(0)\nCONFIG =", "own.py ends the program (exit 0)"),
        ("recipes={", "recipes=[{1: 'x' * 5000}], model_params={", "keyword argument repeated"),
    ],
)
def test_a_mistake_in_a_config_is_one_line(
    refused, town, town_config: str, tmp_path: Path, command: str, before: str, after: str, said: str
) -> None:
    assert town_config.count(before) == 1
    (tmp_path / "own.py").write_text(town_config.replace(before, after))
    message = refused(command, "-c", "own.py", "--datasets-dir", town.datasets)
    assert said.format(town.datasets / "TOWN") in message


def test_a_config_that_is_no_config_is_one_short_line(refused, tmp_path: Path) -> None:
    (tmp_path / "bytes.py").write_bytes(bytes(range(256)))
    (tmp_path / "folder.py").mkdir()
    long = "from ealinformer.training import Experiment\nCONFIG = Experiment(series='x' * 5000)"
    (tmp_path / "long.py").write_text(long)
    assert refused("train", "-c", "bytes.py").startswith("bytes.py")
    assert (
        refused("train", "-c", "folder.py") == "config folder.py is a folder, expected a file such as configs/PEMS08.py"
    )
    assert len(refused("train", "-c", "long.py")) < 300
    assert "config longer.py is not there (did you mean 'long.py'?)" in refused("train", "-c", "longer.py")
    assert "File name too long" in refused("train", "-c", "x" * 5000)


def test_a_public_series_without_its_data_says_how_to_prepare_it(start, tmp_path: Path) -> None:
    process = start("train", "-c", ROOT / "configs" / "PEMS04.py", cwd=tmp_path)
    out, err = process.communicate(timeout=120)
    expected = "error: datasets/PEMS04 is not prepared: run  python scripts/prepare_dataset.py PEMS04\n"
    assert (process.returncode, out, err) == (2, "", expected)
    assert not list(tmp_path.iterdir())


def test_a_config_elsewhere_finds_the_way_from_its_name_to_its_file(refused) -> None:
    """train.py names the series alone, which prepare_dataset.py looks up in configs/."""
    assert refused("prepare_dataset", "TOWN").endswith(
        "one of a config that is not in configs/ is prepared with -c CONFIG"
    )


def test_a_simulated_series_without_its_data_is_sent_to_the_simulation(refused) -> None:
    message = refused("prepare_dataset", "DEMO", "--raw-dir", "raw")
    assert message == (
        "raw/DEMO/DEMO.npz is not there: make it with  "
        "python scripts/simulate_traffic.py DEMO --sensors 40 --raw-dir raw"
    )


# Prepared data that was damaged


@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        ("train_data.npy", "truncate", "train_data.npy has"),
        ("val_timestamps.npy", "remove", "val_timestamps.npy is missing: run  python scripts/prepare_dataset.py TOWN"),
        ("test_data.npy", "overwrite", "test_data.npy cannot be read as an array"),
        ("meta.json", "truncate", "meta.json cannot be read as JSON"),
        ("meta.json", "remove", "TOWN is not prepared: run  python scripts/prepare_dataset.py TOWN"),
    ],
)
@pytest.mark.parametrize("command", ["train", "floor"])
def test_damaged_data_is_one_line(
    refused, town, tmp_path: Path, command: str, name: str, damage: str, said: str
) -> None:
    shutil.copytree(town.datasets, tmp_path / "data")
    path = tmp_path / "data" / "TOWN" / name
    content = path.read_bytes()
    if damage == "remove":
        path.unlink()
    else:
        path.write_bytes(content[: len(content) // 2] if damage == "truncate" else bytes(len(content)))
    assert said in refused(command, "-c", town.config, "--datasets-dir", "data")


# Ctrl-C


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGINT")
def test_ctrl_c_ends_a_run_in_order(start, call, town, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    endless = ("--epochs", 100_000, "--set", "patience=None")
    process = start("train", *town.arguments, *endless, "--output-dir", folder)
    deadline = time.monotonic() + 120
    while not (folder / "last.pt").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)

    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-1].startswith(f"interrupted by SIGINT: {folder / 'last.pt'} holds epoch ")
    assert err.splitlines()[-1].endswith(f"; the same command with --output-dir {folder} goes on from there")
    assert "Traceback" not in err
    assert read(folder, "run.json")["status"] == "interrupted"
    assert not [path for path in folder.rglob("*") if path.name.startswith(".")]
    assert not (folder / "metrics.json").exists()
    # What was reached is there, and nothing stands in the way of another run.
    evaluated = call("evaluate", *town.arguments, "--checkpoint", folder / "best.pt")
    assert evaluated.status == 0, evaluated.err
    assert call("train", *town.arguments, "--max-steps", 1, "--output-dir", tmp_path / "again").status == 0
    assert open_prepared(town.datasets / "TOWN").num_sensors == 5
