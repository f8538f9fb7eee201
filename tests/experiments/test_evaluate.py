"""experiments/evaluate.py: the same numbers as at the end of training, and no checkpoint that does not fit."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from ealinformer.training.checkpoints.sealed import read_sealed, write_sealed
from ealinformer.training.runs.history import read_history
from ealinformer.training.scoring import ScoringRunner

SCORE = ("model", "dataset", "simulated", "split", "windows", "average", "horizons", "epoch", "parameters", "seed")


@pytest.fixture
def evaluate(call, town):
    """`evaluate(checkpoint, "--json")`: what the command line prints."""

    def print_out(checkpoint: str, *options: object) -> str:
        done = call("evaluate", *town.arguments, "--checkpoint", checkpoint, *options)
        assert (done.status, done.err) == (0, "")
        return done.out

    return print_out


@pytest.fixture
def refuse(refused, town):
    return lambda checkpoint, *options: refused("evaluate", *town.arguments, "--checkpoint", checkpoint, *options)


# The same numbers


def test_the_table_is_the_one_that_training_ended_with(evaluate, trained) -> None:
    table = evaluate(trained.best)
    assert table.startswith("ELinFormer on TOWN: test part, 87 windows, epoch ")
    assert [line.split()[0] for line in table.splitlines()[3:]] == ["3", "4", "average"]
    assert f"\n{table}" in trained.done.err


def test_json_holds_the_metrics_of_the_run_to_the_last_digit(evaluate, trained) -> None:
    found = json.loads(evaluate(trained.best, "--json"))
    expected = json.loads((trained.folder / "metrics.json").read_text())
    assert {key: found[key] for key in SCORE} == {key: expected[key] for key in SCORE}
    assert {"machine", "versions", "commit", "command", "date"} <= found.keys()


def test_the_validation_part_scores_what_training_saw_in_that_epoch(evaluate, trained) -> None:
    found = json.loads(evaluate(trained.best, "--split", "val", "--json"))
    row = next(row for row in read_history(trained.folder / "history.csv") if row["epoch"] == found["epoch"])
    assert {name: row[f"val_{name}"] for name in ("MAE", "RMSE", "MAPE")} == found["average"]
    assert (found["split"], found["windows"]) == ("val", 87)
    table = evaluate(trained.best, "--split", "val")
    assert table.startswith("ELinFormer on TOWN: val part, 87 windows")
    assert table.split()[-3:] == [f"{found['average'][name]:.4f}" for name in ("MAE", "RMSE", "MAPE")]
    assert json.loads(evaluate(trained.best, "--split", "train", "--json"))["windows"] == 288 - 10 + 1


def test_last_and_best_are_both_checkpoints(evaluate, trained) -> None:
    last = json.loads(evaluate(str(trained.folder / "last.pt"), "--split", "val", "--json"))
    rows = read_history(trained.folder / "history.csv")
    assert last["epoch"] == len(rows) == 2
    assert last["average"]["MAE"] == rows[-1]["val_MAE"]


def test_predictions_are_those_of_the_split_and_give_its_metrics(evaluate, trained, tmp_path: Path) -> None:
    found = json.loads(evaluate(trained.best, "--split", "val", "--json", "--predictions", tmp_path / "out.npz"))
    with np.load(tmp_path / "out.npz") as file:
        errors = file["prediction"].astype(np.float64) - file["targets"]
        present = file["targets"] != 0
    assert found["average"]["MAE"] == pytest.approx(np.abs(errors[present]).mean(), rel=1e-9)
    assert [path.name for path in tmp_path.iterdir()] == ["out.npz"]
    before = (tmp_path / "out.npz").read_bytes()
    evaluate(trained.best, "--split", "test", "--predictions", tmp_path / "out.npz")
    assert (tmp_path / "out.npz").read_bytes() != before


def test_nothing_is_written_beside_the_predictions(evaluate, trained, town) -> None:
    folders = (trained.folder, town.datasets)
    before = [{path: path.stat().st_mtime_ns for path in folder.rglob("*")} for folder in folders]
    evaluate(trained.best)
    assert [{path: path.stat().st_mtime_ns for path in folder.rglob("*")} for folder in folders] == before


def test_the_model_of_the_checkpoint_is_scored_whatever_the_config_has_become(
    call, trained, town, town_config: str, tmp_path: Path
) -> None:
    changed = town_config.replace('"num_layers": 1', '"num_layers": 2').replace("batch_size=40", "batch_size=7")
    (tmp_path / "own.py").write_text(changed)
    done = call("evaluate", "-c", tmp_path / "own.py", "--datasets-dir", town.datasets, "--checkpoint", trained.best)
    assert f"\n{done.out}" in trained.done.err


def test_the_batch_of_an_evaluation_can_be_made_smaller(evaluate, trained, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    make = ScoringRunner._evaluation_loader

    def spy(self, dataset):
        loader = make(self, dataset)
        sizes.append(loader.batch_size)
        return loader

    monkeypatch.setattr(ScoringRunner, "_evaluation_loader", spy)
    expected = json.loads(evaluate(trained.best, "--json"))["average"]
    found = json.loads(evaluate(trained.best, "--json", "--set", "eval_batch_size=5"))["average"]
    assert sizes == [32, 5]
    assert found == pytest.approx(expected, rel=1e-5)


def test_dtype_compile_and_windows_are_for_the_machine_that_scores(evaluate, trained) -> None:
    expected = json.loads(evaluate(trained.best, "--json"))["average"]
    elsewhere = json.loads(evaluate(trained.best, "--json", "--set", "windows=host", "--set", "compile=off"))["average"]
    rounded = json.loads(evaluate(trained.best, "--json", "--set", "dtype=bf16"))["average"]
    assert elsewhere == expected != rounded
    assert rounded == pytest.approx(expected, rel=0.02)


# What does not fit


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ("--model", "STAEformer"),
            "is a checkpoint for model ELinFormer, the config says STAEformer; add --model ELin",
        ),
        (("--set", "input_len=12"), "is a checkpoint for input_len 6, the config says 12; add --set input_len=6"),
        (("--set", "output_len=2"), "is a checkpoint for output_len 4, the config says 2; add --set output_len=4"),
        (("--set", "model.num_layers=2"), "--set model.num_layers: the checkpoint brings its own"),
        (
            ("--set", "lr=1"),
            "--set lr: the checkpoint brings its own; input_len, output_len, eval_batch_size, dtype, ",
        ),
        (("--set", "eval_batch_size=0"), "eval_batch_size of Recipe: input should be greater than 0, got 0"),
        (("--set", "eval_batch_size"), "--set eval_batch_size: key=value is expected"),
        (("--split", "all"), "argument --split: invalid choice: 'all'"),
        (("--predictions", "out.csv"), "predictions out.csv: a name that ends in .npz is expected"),
        (("--predictions", "nowhere/out.npz"), "predictions nowhere/out.npz: the folder nowhere is not there"),
        (("--datasets-dir", "nowhere"), "nowhere/TOWN is not prepared"),
    ],
)
def test_options_that_do_not_fit_are_one_line(refuse, trained, options: tuple[str, ...], said: str) -> None:
    assert said in refuse(trained.best, *options)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("num_sensors=5", "num_sensors=4", "is a checkpoint for num_sensors 5, the config says 4"),
        ('name="TOWN"', 'name="CITY"', "is a checkpoint for data set TOWN, the config says CITY"),
        ("channel=1", "channel=0", "is a checkpoint for channel 1, the config says 0"),
        ("interval_minutes=30", "interval_minutes=60", "is a checkpoint for interval_minutes 30, the config says 60"),
        ("channel=1", "channel=1, null_value=float('nan')", "is a checkpoint for null_value 0.0, the config says nan"),
    ],
)
def test_a_checkpoint_of_another_series_is_refused(
    call, refused, flow, trained, town_config: str, tmp_path: Path, before: str, after: str, said: str
) -> None:
    """The other series is prepared, and as its own config says: the checkpoint alone is wrong."""
    (tmp_path / "own.py").write_text(town_config.replace(before, after))
    num_sensors = 4 if after == "num_sensors=4" else 5
    np.savez(tmp_path / "town.npz", data=flow(num_sensors=num_sensors)[:, :, None].repeat(2, axis=2))
    data = ("-c", tmp_path / "own.py", "--datasets-dir", tmp_path / "data")
    assert call("prepare_dataset", *data, "--raw-dir", tmp_path).status == 0
    assert said in refused("evaluate", *data, "--checkpoint", trained.best)


def test_a_folder_in_place_of_the_checkpoint_is_one_line_that_says_which_file(refuse, trained) -> None:
    expected = f"checkpoint {trained.folder} is not there: it is a folder, name the best.pt or last.pt in it"
    assert refuse(trained.folder) == expected
    assert refuse("nowhere.pt") == "checkpoint nowhere.pt is not there"


@pytest.mark.parametrize("damage", ["truncated", "altered", "junk", "empty", "foreign", "module"])
def test_a_damaged_or_foreign_file_is_one_line(refuse, trained, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "model.pt"
    content = Path(trained.best).read_bytes()
    if damage == "foreign":
        write_sealed(path, {"model_state_dict": {}})
    elif damage == "module":
        torch.save(torch.nn.Linear(2, 2), path)
    else:
        middle = len(content) // 2
        altered = (
            content[:middle] + bytes(byte ^ 255 for byte in content[middle : middle + 64]) + content[middle + 64 :]
        )
        path.write_bytes(
            {"truncated": content[:middle], "altered": altered, "junk": b"junk" * 99, "empty": b""}[damage]
        )
    said = {"foreign": "is not a checkpoint of this project", "altered": "does not agree with the checksum at its end"}
    assert said.get(damage, "damaged or another kind of file") in refuse("model.pt")


@pytest.mark.parametrize(
    "change",
    [
        {"run": 5},
        {"model": None},
        {"model": [1.0]},
        {"model": {"weight": 1.0}},
        {"scaler": {}},
        {"scaler": 5},
        {"scaler": {"mean": "much", "std": 1.0}},
        {"epoch": "third"},
        {"run": "{}"},
    ],
)
def test_a_checkpoint_with_other_things_in_it_is_one_short_line(
    refuse, trained, tmp_path: Path, change: dict[str, object]
) -> None:
    write_sealed(tmp_path / "model.pt", {**read_sealed(Path(trained.best)), **change})
    message = refuse("model.pt")
    assert message.startswith("model.pt ")
    assert len(message) < 300


def test_predictions_onto_a_folder_are_refused_before_the_work(refuse, trained, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "out.npz").mkdir()
    monkeypatch.setattr(ScoringRunner, "evaluate", lambda *arguments: pytest.fail("scored in vain"))
    assert refuse(trained.best, "--predictions", "out.npz").startswith("cannot write out.npz: it is a folder")


def test_a_checkpoint_can_be_moved(evaluate, trained, tmp_path: Path) -> None:
    shutil.copy(trained.best, tmp_path / "my best model.pt")
    assert evaluate(tmp_path / "my best model.pt") == evaluate(trained.best)


# What a run becomes in results/


def test_a_run_is_recorded_with_where_it_comes_from(call, trained, tmp_path: Path) -> None:
    done = call("record", trained.folder, tmp_path / "new" / "row.json")
    assert (done.status, done.err) == (0, "")
    assert done.out.endswith(", NOT a complete run: stopped by --max-steps 12\n")
    row = json.loads((tmp_path / "new" / "row.json").read_text())
    metrics = json.loads((trained.folder / "metrics.json").read_text())
    assert row["average"] == metrics["average"]
    assert (row["complete"], row["config"]["seed"], len(row["history"])) == (False, 42, 2)
    assert {"machine", "versions", "commit", "command", "date"} <= row.keys()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("run.json", None, "run.json cannot be read: No such file or directory"),
        ("run.json", '{"status": "interrupted"}', "the run's status is 'interrupted', expected 'finished'"),
        ("metrics.json", "", "metrics.json cannot be read"),
        ("metrics.json", "[]", "metrics.json holds a list, expected a JSON object"),
        ("metrics.json", '{"steps": 3}', "metrics.json lacks 'model', expected the metrics of a training"),
        ("config.json", "{", "config.json cannot be read"),
        ("history.csv", "epoch\nfirst\n", "history.csv cannot be read as the history of a run"),
    ],
)
def test_a_run_that_is_not_whole_is_not_recorded(
    refused, trained, tmp_path: Path, name: str, content: str | None, said: str
) -> None:
    folder = shutil.copytree(trained.folder, tmp_path / "run")
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(content)
    assert said in refused("record", "run", "row.json")


def test_a_row_is_never_written_over(refused, trained, tmp_path: Path) -> None:
    (tmp_path / "row.json").write_text("{}")
    assert refused("record", trained.folder, "row.json") == "row row.json: a new file that ends in .json is expected"
    assert refused("record", trained.folder, "row.json/new.json").startswith("row row.json/new.json: its folder cannot")
