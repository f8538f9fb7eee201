"""experiments/robustness.py: clean scores are evaluate.py's, perturbed ones numpy's, interruptions cost little."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ealinformer.analysis.perturbations import PERTURBATIONS
from ealinformer.analysis.perturbed_scores import PerturbedRunner
from ealinformer.models import MODELS
from ealinformer.training.checkpoints.checkpoint import load_checkpoint
from ealinformer.training.runs.folder import birth
from ealinformer.training.scoring import ScoringRunner

QUICK = ("--perturbations", "noise", "--strengths", "noise=0.5", "--eps", "none", "--swaps", "none")
METRICS = ("MAE", "RMSE", "MAPE")
INPUT_LEN, OUTPUT_LEN, WINDOWS = 6, 4, 87


@pytest.fixture(scope="session")
def softmax(call, town, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a STAEformer after 12 steps."""
    folder = tmp_path_factory.mktemp("softmax") / "run"
    done = call("train", *town.arguments, "--model", "STAEformer", "--max-steps", "12", "--output-dir", folder)
    assert done.status == 0, done.err
    return folder


@pytest.fixture
def robustness(call, town, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """`robustness(checkpoint, ..., options=(...))`: the row that the command line writes."""

    def row_of(*checkpoints: object, options: tuple[object, ...] = QUICK) -> dict[str, Any]:
        folder = tmp_path / f"row{len(list(tmp_path.iterdir()))}"
        named = [word for checkpoint in checkpoints for word in ("--checkpoint", checkpoint)]
        done = call("robustness", *town.arguments, *named, *options, "--output", folder / "row.json")
        assert done.status == 0, done.err
        assert sorted(path.name for path in folder.iterdir()) == ["row.json", "row.png", "row.txt"]
        assert (folder / "row.txt").read_text() in done.out
        return json.loads((folder / "row.json").read_text())

    return row_of


@pytest.fixture
def refuse(refused, town, trained):
    """`refuse("--eps", "0")`: bad input for a checkpoint that is fine."""
    return lambda *options: refused("robustness", *town.arguments, "--checkpoint", trained.best, *options)


def scores(rows: list[dict[str, Any]], **about: Any) -> dict[str, float]:
    (found,) = [row for row in rows if about.items() <= row.items()]
    return {name: found[name] for name in METRICS}


def by_numpy(prediction: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    errors = np.abs(prediction.astype(np.float64) - targets)[targets != 0]
    present = targets[targets != 0].astype(np.float64)
    return {"MAE": errors.mean(), "RMSE": (errors**2).mean() ** 0.5, "MAPE": 100 * (errors / present).mean()}


# The numbers


def test_clean_inputs_score_what_evaluate_says_to_the_last_digit(call, robustness, town, trained, softmax) -> None:
    row = robustness(trained.folder, softmax, options=())
    for label, checkpoint in (("ELinFormer", trained.best), ("STAEformer", softmax / "best.pt")):
        done = call("evaluate", *town.arguments, "--model", label, "--checkpoint", checkpoint, "--json")
        expected = json.loads(done.out)["average"]
        for name in PERTURBATIONS:
            assert scores(row["perturbed"], label=label, perturbation=name, strength=0.0) == expected
        assert scores(row["swaps"], label=label, trained=True) == expected
    assert scores(row["eps"], label="ELinFormer", trained=True) == scores(
        row["swaps"], label="ELinFormer", trained=True
    )
    assert row["windows"] == WINDOWS


def test_perturbed_scores_are_those_of_numpy(robustness, town, trained) -> None:
    """Windows, shift, forecast and errors by hand; the model alone is the package's."""
    options = ("--perturbations", "shift", "--strengths", "shift=-0.7", "--eps", "none", "--swaps", "none")
    found = scores(robustness(trained.best, options=options)["perturbed"], strength=-0.7)
    rows = np.load(town.datasets / "TOWN" / "test_data.npy")
    times = torch.tensor(np.load(town.datasets / "TOWN" / "test_timestamps.npy"))
    std = json.loads((town.datasets / "TOWN" / "meta.json").read_text())["statistics"]["train_std"]
    run, state = load_checkpoint(Path(trained.best))
    entry = MODELS["ELinFormer"]
    sizes = {"input_len": 6, "output_len": 4, "num_features": 5, "num_time_in_day": 48}
    model = entry.model(entry.build_config(**sizes, **run.model_params)).eval()
    model.load_state_dict(state["model"])
    forecasts, targets = [], []
    for number in range(WINDOWS):
        window = rows[number : number + INPUT_LEN]
        window = np.where(window == 0, 0, np.maximum(window - 0.7 * std, 0))
        z = torch.tensor((window - state["scaler"]["mean"]) / state["scaler"]["std"], dtype=torch.float32)
        with torch.no_grad():
            forecast = model(z[None], times[None, number : number + INPUT_LEN])[0].numpy()
        forecasts.append(forecast * state["scaler"]["std"] + state["scaler"]["mean"])
        targets.append(rows[number + INPUT_LEN : number + INPUT_LEN + OUTPUT_LEN])
    assert found == pytest.approx(by_numpy(np.stack(forecasts), np.stack(targets)), rel=1e-4)


def test_a_subset_of_windows_is_scored_as_part_of_the_whole(call, robustness, town, trained, tmp_path: Path) -> None:
    call("evaluate", *town.arguments, "--checkpoint", trained.best, "--predictions", tmp_path / "all.npz")
    row = robustness(trained.best, options=(*QUICK, "--windows", 10))
    numbers = np.linspace(0, WINDOWS - 1, 10).round().astype(int)
    with np.load(tmp_path / "all.npz") as file:
        expected = by_numpy(file["prediction"][numbers], file["targets"][numbers])
    assert scores(row["perturbed"], strength=0.0) == pytest.approx(expected, rel=1e-5)
    assert row["windows"] == 10


def test_models_and_batch_sizes_see_the_same_inputs_and_seeds_other_ones(
    robustness, trained, softmax, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []
    predict = ScoringRunner._predict

    def spy(self, model, data, epoch=None):
        if self.strength:
            seen.append(data["inputs"].clone())
        return predict(self, model, data, epoch)

    monkeypatch.setattr(PerturbedRunner, "_predict", spy)
    options = ("--perturbations", "outage", "--strengths", "outage=0.4", "--eps", "none", "--swaps", "none")
    row = robustness(trained.best, softmax, options=options)
    rest = torch.cat(seen)
    assert torch.equal(rest[:WINDOWS], rest[WINDOWS:])
    seen.clear()
    again = robustness(trained.best, options=(*options, "--batch-size", 7))
    assert [len(batch) for batch in seen] == [7] * 12 + [3]
    assert torch.equal(torch.cat(seen), rest[:WINDOWS])
    about = {"label": "ELinFormer", "strength": 0.4}
    assert scores(again["perturbed"], **about) == pytest.approx(scores(row["perturbed"], **about), rel=1e-5)
    lost = [one["lost_share"] for one in row["perturbed"] + again["perturbed"] if one["strength"]]
    assert lost[0] == lost[1] == lost[2] > 0.2
    seen.clear()
    robustness(trained.best, options=(*options, "--seed", 1))
    assert not torch.equal(torch.cat(seen), rest[:WINDOWS])


def test_eps_and_other_attentions_change_the_forecasts_of_the_same_weights(robustness, trained, softmax) -> None:
    options = ("--perturbations", "none", "--eps", "1e-8,1e6", "--swaps", "softmax,gaussian")
    row = robustness(trained.best, softmax, options=options)
    assert [(one["label"], one["eps"], one["trained"]) for one in row["eps"]] == [
        ("ELinFormer", 1e-8, True),
        ("ELinFormer", 1e6, False),
    ]
    small, large = (one["MAE"] for one in row["eps"])
    assert abs(large - small) > 1e-3
    assert [(one["label"], one["attention"], one["trained"]) for one in row["swaps"]] == [
        ("ELinFormer", "taylor", True),
        ("ELinFormer", "softmax", False),
        ("ELinFormer", "gaussian", False),
        ("STAEformer", "softmax", True),
        ("STAEformer", "gaussian", False),
    ]
    assert len({one["MAE"] for one in row["swaps"]}) == 5


# The row


def test_the_row_says_where_its_numbers_come_from(robustness, trained, softmax) -> None:
    row = robustness(trained.folder, softmax / "last.pt", options=(*QUICK, "--labels", "ours, theirs", "--seed", "3"))
    assert {"machine", "versions", "commit", "command", "date", "seconds"} <= row.keys()
    assert (row["dataset"], row["simulated"], row["split"], row["seed"]) == ("TOWN", False, "test", 3)
    ours, theirs = row["checkpoints"]
    assert (ours["label"], ours["config"]["model"], ours["attention"]["entropy"]) == ("ours", "ELinFormer", "taylor")
    assert (theirs["label"], theirs["config"]["model"]) == ("theirs", "STAEformer")
    assert theirs["checkpoint"] == str(softmax / "last.pt")
    assert theirs["training"] == birth(softmax)
    assert [(one["label"], one["strength"]) for one in row["perturbed"]] == [
        ("ours", 0.0),
        ("ours", 0.5),
        ("theirs", 0.0),
        ("theirs", 0.5),
    ]


def test_the_table_of_a_simulated_series_says_so(call, town_config: str, flow, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(town_config.replace("channel=1", "channel=0, simulated=True"))
    np.savez(tmp_path / "town.npz", data=flow()[:, :, None])
    data = ("-c", tmp_path / "own.py", "--datasets-dir", tmp_path / "data")
    assert call("prepare_dataset", *data, "--raw-dir", tmp_path).status == 0
    assert call("train", *data, "--max-steps", 1, "--output-dir", tmp_path / "run").status == 0
    done = call("robustness", *data, "--checkpoint", tmp_path / "run", *QUICK)
    assert done.out.startswith("TOWN, SIMULATED series: test part, 87 windows, average over 4 horizons")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "own.py", "run", "town.npz"]


def test_models_of_one_name_are_told_apart(robustness, trained, tmp_path: Path) -> None:
    """A run, a copy of it in another folder, another checkpoint of that, and one that only its number can tell."""
    for folder in ("copy", "far/copy"):
        shutil.copytree(trained.folder, tmp_path / folder)
    copies = [tmp_path / "copy", tmp_path / "copy" / "last.pt", tmp_path / "far" / "copy"]
    row = robustness(trained.folder, *copies)
    assert [one["label"] for one in row["checkpoints"]] == [
        "ELinFormer run",
        "ELinFormer copy best #2",
        "ELinFormer copy last",
        "ELinFormer copy best #4",
    ]


def test_what_was_measured_before_an_interruption_is_not_measured_again(
    call, robustness, town, trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--perturbations", "noise,trend", "--eps", "none", "--swaps", "none")
    command = ("robustness", *town.arguments, "--checkpoint", trained.best, *options)
    expected = robustness(trained.best, options=options)
    scored = []
    evaluate = PerturbedRunner.evaluate

    def interrupted(self, split):
        scored.append((self.perturbation, self.strength))
        if len(scored) == 4:
            raise KeyboardInterrupt
        return evaluate(self, split)

    output = tmp_path / "own" / "row.json"
    monkeypatch.setattr(PerturbedRunner, "evaluate", interrupted)
    assert call(*command, "--output", output).status == 130
    assert [path.name for path in output.parent.iterdir()] == ["row.partial.json"]
    kept = (output.parent / "row.partial.json").read_bytes()

    scored.clear()
    monkeypatch.setattr(PerturbedRunner, "evaluate", lambda self, split: scored.append(1) or evaluate(self, split))
    done = call(*command, "--output", output)
    assert done.status == 0, done.err
    assert "11 evaluations of 87 windows, 3 of them measured before" in done.err
    assert len(scored) == 8
    assert sorted(path.name for path in output.parent.iterdir()) == ["row.json", "row.png", "row.txt"]
    found = json.loads(output.read_text())
    of_scores = [[{**one, "seconds": None} for one in row["perturbed"]] for row in (found, expected)]
    assert of_scores[0] == of_scores[1]

    # Of another seed, nothing is taken.
    (output.parent / "other.partial.json").write_bytes(kept)
    done = call(*command, "--seed", 1, "--output", output.parent / "other.json")
    assert "11 evaluations of 87 windows\n" in done.err


def test_help_lists_the_perturbations(call) -> None:
    done = call("robustness", "--help")
    assert done.status == 0
    for name, kind in PERTURBATIONS.items():
        assert f"{name} " in done.out
        assert kind.meaning in done.out


# What cannot be


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--perturbations", "nois"), "unknown perturbation 'nois' (did you mean 'noise'?); known: noise, missing"),
        (("--strengths", "noise=-0.1"), "noise: strengths from 0 to 100 are expected, got -0.1"),
        (("--strengths", "missing=0.2,1.2"), "missing: strengths from 0 to 1 are expected, got 1.2"),
        (("--strengths", "noise=much"), "--strengths noise much: numbers separated by commas are expected"),
        (("--strengths", "noise"), "--strengths noise: NAME=LIST is expected, such as noise=0.1,0.3"),
        (
            ("--perturbations", "trend", "--strengths", "noise=1"),
            "--strengths noise=1: noise is not among --perturbations trend",
        ),
        (("--eps", "0,1"), "--eps 0,1: numbers above 0 are expected"),
        (("--eps", "nan"), "--eps nan: numbers separated by commas are expected"),
        (("--swaps", "gausian"), "--swaps: unknown attention 'gausian' (did you mean 'gaussian'?); known: softmax, "),
        (("--windows", "88"), "--windows 88: from 1 to 87 are expected"),
        (("--windows", "0"), "--windows 0: from 1 to 87 are expected"),
        (("--batch-size", "0"), "--batch-size 0: at least 1 is expected"),
        (("--seed", "-1"), "--seed -1: at least 0 is expected"),
        (("--gpus", "0,1"), "--gpus 0,1: one device is expected"),
        (("--set", "lr=1"), "--set lr: the checkpoints bring their own; input_len, output_len can be set here"),
        (("--set", "input_len=12"), "is a checkpoint for input_len 6, the config says 12"),
        (("--labels", "a,b"), "--labels a,b: 1 different names are expected, one for each checkpoint"),
        (("--labels", " "), "--labels  : 1 different names are expected"),
        (("--checkpoint", "nowhere.pt"), "checkpoint nowhere.pt is not there"),
        (("--checkpoint", "."), "checkpoint . is not there: it is a folder, name the best.pt or last.pt in it"),
        (("--output", "row.txt"), "--output row.txt: a new file that ends in .json is expected"),
        (("--perturbations", "none", "--eps", "none", "--swaps", "none"), "nothing to measure: --perturbations, --eps"),
        (("--datasets-dir", "nowhere"), "nowhere/TOWN is not prepared"),
    ],
)
def test_options_that_cannot_be_are_one_line(refuse, options: tuple[str, ...], said: str) -> None:
    assert said in refuse(*options)


def test_a_row_is_not_written_over(refuse, tmp_path: Path) -> None:
    (tmp_path / "row.json").write_text("{}")
    assert refuse("--output", "row.json") == "--output row.json: a new file that ends in .json is expected"


def test_the_same_checkpoint_twice_is_refused(refuse, trained) -> None:
    assert refuse("--checkpoint", trained.folder) == f"--checkpoint {trained.best} is given 2 times, expected once"


def test_checkpoints_of_different_data_sets_are_refused(
    call, refuse, flow, town_config: str, trained, tmp_path: Path
) -> None:
    """Another name, and other readings under the same name."""
    np.savez(tmp_path / "town.npz", data=2 * flow()[:, :, None].repeat(2, axis=2))
    for name in ("CITY", "TOWN"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "own.py").write_text(town_config.replace('name="TOWN"', f'name="{name}"'))
        data = ("-c", folder / "own.py", "--datasets-dir", folder / "data")
        assert call("prepare_dataset", *data, "--raw-dir", tmp_path).status == 0
        assert call("train", *data, "--max-steps", 1, "--output-dir", folder / "run").status == 0
    said = refuse("--checkpoint", tmp_path / "CITY" / "run")
    assert "is a checkpoint for data set CITY, the config says TOWN" in said
    said = refuse("--checkpoint", tmp_path / "TOWN" / "run")
    assert f"{tmp_path}/TOWN/run/best.pt was trained on readings of mean " in said
    assert said.endswith(": expected checkpoints of one data set")


def test_running_out_of_memory_is_said(call, town, trained, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self, split):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes.")

    monkeypatch.setattr(PerturbedRunner, "evaluate", fail)
    done = call("robustness", *town.arguments, "--checkpoint", trained.best, *QUICK)
    assert (done.status, done.out) == (2, "")
    expected = "error: out of memory: ELinFormer, clean, 32 windows a batch: a smaller --batch-size is expected"
    assert done.err.splitlines()[-1] == expected
