"""experiments/export.py: what it leaves forecasts what training saw, and a refusal leaves nothing."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view

from ealinformer.training.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from ealinformer.training.exports.export import load_export
from ealinformer.training.runs.history import read_history

NAMES = ("model.safetensors", "forecaster.pt2", "config.json")


@pytest.fixture(scope="module")
def exported(call, town, trained, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of an export of the trained run, and what the command line printed."""
    folder = tmp_path_factory.mktemp("exported") / "town"
    done = call("export", trained.folder, "--output-dir", folder, "--datasets-dir", town.datasets)
    assert (done.status, done.err) == (0, "")
    return folder, done.out


@pytest.fixture(scope="module")
def windows(town) -> tuple[torch.Tensor, torch.Tensor]:
    """Readings `[W, 6, 5]` and timestamps `[W, 6, 2]` before the last 4 of every window of the test part."""
    rows = (np.load(town.datasets / "TOWN" / f"test_{what}.npy") for what in ("data", "timestamps"))
    return tuple(torch.tensor(sliding_window_view(one[:-4], 6, axis=0).transpose(0, 2, 1).copy()) for one in rows)


def test_the_program_gives_the_forecasts_that_training_ended_with(exported, trained, windows) -> None:
    program = torch.export.load(exported[0] / "forecaster.pt2").module()
    with torch.no_grad():
        found = program(*windows).numpy()
    with np.load(trained.folder / "predictions.npz") as file:
        expected = file["prediction"]
    assert found.shape == expected.shape == (87, 4, 5)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_weights_are_those_of_the_best_epoch(exported, trained) -> None:
    run, _, weights = load_export(exported[0])
    _, saved = load_checkpoint(Path(trained.best))
    assert run.model == "ELinFormer"
    assert all(torch.equal(weights[name], tensor) for name, tensor in saved["model"].items())
    said = json.loads((exported[0] / "config.json").read_text())
    assert (said["epoch"], said["scaler"]) == (saved["epoch"], saved["scaler"])
    assert said["validation"] == {"loss": pytest.approx(saved["metrics"]["val/loss"])}


def test_the_summary_has_a_line_a_file_with_its_size(exported) -> None:
    folder, out = exported
    head, *lines = out.splitlines()
    assert head.startswith("ELinFormer on TOWN: epoch ")
    assert head.endswith(f" parameters, in {folder}")
    found = {line.split()[0]: int(line.split()[1].replace(",", "")) for line in lines}
    assert found == {path.name: path.stat().st_size for path in folder.iterdir()}
    assert set(found) == set(NAMES)
    assert "largest difference 0 vehicles per interval (0.0" in lines[1]
    assert lines[1].endswith(" is allowed), on 10 windows of the test part in batches of 1, 2, 7")


def test_json_says_the_same_and_the_data_need_not_be_there(call, trained, tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    done = call("export", trained.best, "--output-dir", folder, "--datasets-dir", tmp_path / "nowhere", "--json")
    assert (done.status, done.err) == (0, "")
    said = json.loads(done.out)
    assert (said["model"], said["dataset"], said["simulated"]) == ("ELinFormer", "TOWN", False)
    assert (said["folder"], said["checkpoint"]) == (str(folder), trained.best)
    assert said["files"] == json.loads((folder / "config.json").read_text())["files"]
    assert (said["program"]["windows_of"], said["program"]["largest_difference"]) == ("random numbers", 0)


def test_weights_alone_are_two_files(call, trained, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    done = call("export", trained.folder / "last.pt", "--output-dir", folder, "--no-program", "--json")
    assert (done.status, done.err) == (0, "")
    assert {path.name for path in folder.iterdir()} == {"model.safetensors", "config.json"}
    assert json.loads(done.out)["program"] is None


@pytest.mark.parametrize("steps_done", [0, 3])
def test_validation_scores_are_those_of_the_very_weights(call, trained, tmp_path: Path, steps_done: int) -> None:
    """Beside the last weights stand the scores of the best; weights from the middle of an epoch have none yet."""
    run, state = load_checkpoint(trained.folder / "last.pt")
    state["training"]["steps_done"] = steps_done
    save_checkpoint(tmp_path / "last.pt", run, state)
    done = call("export", tmp_path / "last.pt", "--output-dir", tmp_path / "out", "--no-program")
    assert (done.status, done.err) == (0, "")
    said = json.loads((tmp_path / "out" / "config.json").read_text())
    row = read_history(trained.folder / "history.csv")[-1]
    expected = {name: row[f"val_{name}"] for name in ("loss", "MAE", "RMSE", "MAPE")}
    assert said["epoch"] == row["epoch"] == 2
    assert said["validation"] == ({} if steps_done else expected)


def test_what_the_help_says_of_use_works(script, exported, windows) -> None:
    shown = [line.removeprefix("  ") for line in script("export").EXAMPLES.splitlines() if line.startswith("  ")]
    code = "\n".join(line for line in shown if not line.startswith("python "))
    assert code.count("exports/PEMS08") == 3
    names = dict(zip(("inputs", "inputs_timestamps"), windows, strict=True))
    exec(code.replace("exports/PEMS08", str(exported[0])), names)
    assert names["forecast"].shape == (87, 4, 5)
    with torch.no_grad():
        torch.testing.assert_close(names["forecaster"](*windows), names["forecast"])
    assert names["weights"].keys() == load_export(exported[0])[2].keys()


# What cannot be exported


@pytest.fixture
def refuse(refused, town) -> Callable[..., str]:
    return lambda *arguments: refused("export", *arguments, "--datasets-dir", town.datasets)


def test_what_is_no_checkpoint_is_one_line(refuse, tmp_path: Path) -> None:
    torch.save({"model_state_dict": {}}, tmp_path / "foreign.pt")
    (tmp_path / "junk.pt").write_bytes(b"junk" * 99)
    (tmp_path / "run").mkdir()
    assert refuse("foreign.pt", "--output-dir", "out").startswith("foreign.pt ")
    assert refuse("junk.pt", "--output-dir", "out").startswith("junk.pt ")
    assert refuse("nowhere.pt", "--output-dir", "out") == "checkpoint nowhere.pt is not there"
    expected = "run has no best.pt: the folder of a run or the name of a checkpoint is expected"
    assert refuse("run", "--output-dir", "out") == expected


def test_a_folder_that_holds_something_is_refused(refuse, trained, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    expected = "output folder out already holds files; name another one with --output-dir"
    assert refuse(trained.folder, "--output-dir", "out") == expected
    assert "already holds files" in refuse(trained.folder, "--output-dir", trained.folder)


def test_an_option_that_is_missing_is_one_line(refuse, trained) -> None:
    assert "the following arguments are required: --output-dir" in refuse(trained.folder)
