"""experiments/analyze_attention.py: from a checkpoint to a row, tables and figures, or to one line."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from basicts.configs import BasicTSModelConfig

from ealinformer.analysis.attention import look_at
from ealinformer.analysis.attention_capture import captured
from ealinformer.attention import ENTROPIES
from ealinformer.models import ModelEntry
from ealinformer.training import load_config
from ealinformer.training.checkpoints.checkpoint import load_checkpoint
from ealinformer.training.checkpoints.sealed import write_sealed
from ealinformer.training.jobs import prepare_job
from ealinformer.training.predictions import read_predictions
from ealinformer.training.resolve import resolve
from ealinformer.training.runs.folder import birth

WINDOWS = 7


@pytest.fixture
def analyze(call, town):
    """`analyze(checkpoint, "--windows", 3)`: what the command line prints."""

    def print_out(checkpoint: object, *options: object) -> str:
        done = call("analyze_attention", *town.arguments, "--checkpoint", checkpoint, *options)
        assert (done.status, done.err) == (0, "")
        return done.out

    return print_out


@pytest.fixture
def refuse(refused, town):
    return lambda *options: refused("analyze_attention", *town.arguments, *options)


@pytest.fixture(scope="session")
def softmax_run(call, town, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """STAEformer after some steps, as simulated traffic would be told of."""
    folder = tmp_path_factory.mktemp("softmax") / "run"
    done = call("train", *town.arguments, "--model", "STAEformer", "--max-steps", "12", "--output-dir", folder)
    assert done.status == 0, done.err
    return folder


@pytest.fixture(scope="session")
def analysed(call, town, softmax_run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict, Path]:
    """What was printed, the row, and the folder that it is in."""
    output = tmp_path_factory.mktemp("analysed") / "results" / "own.json"
    options = ("--model", "STAEformer", "--checkpoint", softmax_run / "best.pt", "--windows", WINDOWS)
    done = call("analyze_attention", *town.arguments, *options, "--output", output)
    assert (done.status, done.err) == (0, "")
    return done.out, json.loads(output.read_text()), output.parent


@pytest.fixture
def no_figures(script, monkeypatch: pytest.MonkeyPatch) -> None:
    """They take seconds."""
    for name in ("deficit_figure", "theta_figure", "error_figure"):
        monkeypatch.setattr(script("analyze_attention"), name, lambda *arguments, **options: None)


# What is written


def test_row_tables_and_figures_are_written_and_nothing_else(analysed) -> None:
    printed, row, folder = analysed
    names = ["own-deficit.png", "own-error.png", "own-theta.png", "own.json", "own.txt"]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert printed.startswith((folder / "own.txt").read_text())
    assert printed.startswith(f"STAEformer on TOWN: {WINDOWS} windows of the test part, epoch ")
    assert all((folder / name).read_bytes()[:4] == b"\x89PNG" for name in names[:3])
    assert {"machine", "versions", "commit", "command", "date", "seed", "config"} <= row.keys()
    assert (row["model"], row["dataset"], row["simulated"], row["split"]) == ("STAEformer", "TOWN", False, "test")


def test_a_row_for_every_layer_head_and_estimator(analysed) -> None:
    _, row, _ = analysed
    assert [(r["axis"], r["layer"], r["head"], r["module"]) for r in row["heads"]] == [
        (axis, 1, head, f"{axis}_layers.0.attention") for axis in ("temporal", "spatial") for head in (1, 2)
    ]
    for head in row["heads"]:
        assert head["num_keys"] == (6 if head["axis"] == "temporal" else 5)
        assert head["queries"] == WINDOWS * 6 * 5
        assert list(head["estimators"]) == list(ENTROPIES)
        assert head["softmax"]["own_output_error"] < 1e-5  # it is softmax
        assert head["estimators"]["exact"]["log_theta_error"] == 0
    assert [(r["axis"], r["entropy"]) for r in row["summary"]] == [
        (axis, name) for axis in ("temporal", "spatial") for name in ENTROPIES
    ]


def test_numbers_are_finite_or_absent(analysed) -> None:
    """json.loads takes NaN, which is no JSON."""
    _, row, _ = analysed
    json.loads(json.dumps(row, allow_nan=False))


def test_the_checkpoint_says_where_it_comes_from(analysed, softmax_run: Path) -> None:
    _, row, _ = analysed
    _, state = load_checkpoint(softmax_run / "best.pt")
    checkpoint = row["checkpoint"]
    assert checkpoint["file"] == str(softmax_run / "best.pt")
    assert (checkpoint["epoch"], checkpoint["step"]) == (state["epoch"], state["step"])
    assert checkpoint["run"] == birth(softmax_run)
    assert row["config"]["model"] == "STAEformer"


@pytest.mark.usefixtures("no_figures")
def test_windows_are_spread_over_the_test_part(analysed, analyze, softmax_run: Path, tmp_path: Path) -> None:
    _, row, _ = analysed
    assert row["window_indices"] == [0, 14, 29, 43, 57, 72, 86]  # of 87
    output = tmp_path / "all.json"
    analyze(softmax_run / "best.pt", "--model", "STAEformer", "--windows", 500, "--queries", 4, "--output", output)
    everything = json.loads(output.read_text())
    assert everything["window_indices"] == list(range(87))
    assert everything["heads"][0]["queries"] == 87 * 4


@pytest.mark.usefixtures("no_figures")
def test_the_numbers_are_the_same_in_a_second_run(analysed, analyze, softmax_run: Path, tmp_path: Path) -> None:
    _, row, _ = analysed
    options = ("--model", "STAEformer", "--windows", WINDOWS)
    analyze(softmax_run / "best.pt", *options, "--output", tmp_path / "again.json")
    again = json.loads((tmp_path / "again.json").read_text())
    assert again["heads"] == row["heads"]


def test_without_a_name_the_files_lie_beside_the_checkpoint(call, town, tmp_path: Path) -> None:
    """ELinFormer on its own estimator: its output is that estimator's."""
    folder = tmp_path / "run"
    settings = ("--max-steps", "2", "--set", "model.entropy=gaussian", "--output-dir", folder)
    assert call("train", *town.arguments, *settings).status == 0
    before = set(folder.iterdir())
    done = call("analyze_attention", *town.arguments, "--checkpoint", folder / "last.pt", "--windows", "2")
    assert (done.status, done.err) == (0, "")
    found = sorted(path.name for path in set(folder.iterdir()) - before)
    assert found == [f"attention-last{end}" for end in ("-deficit.png", "-error.png", "-theta.png", ".json", ".txt")]
    for head in json.loads((folder / "attention-last.json").read_text())["heads"]:
        own, estimated = head["softmax"]["own_output_error"], head["estimators"]["gaussian"]["output_error"]
        assert own == pytest.approx(estimated, rel=1e-2, abs=1e-6)


@pytest.mark.usefixtures("no_figures")
def test_a_simulated_series_is_called_so(call, flow, town_config: str, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(town_config.replace("channel=1", "simulated=True"))
    np.savez(tmp_path / "town.npz", data=flow())
    data = ("-c", tmp_path / "own.py", "--datasets-dir", tmp_path / "data")
    call("prepare_dataset", *data, "--raw-dir", tmp_path)
    assert call("train", *data, "--max-steps", 1, "--output-dir", tmp_path / "run").status == 0
    done = call("analyze_attention", *data, "--checkpoint", tmp_path / "run" / "best.pt", "--windows", 1)
    assert done.out.startswith("ELinFormer on TOWN, SIMULATED series: 1 windows")
    assert json.loads((tmp_path / "run" / "attention-best.json").read_text())["simulated"] is True


# Whether it is the model as trained, on the windows that it is scored on


def test_the_model_sees_what_it_is_scored_on_and_forecasts_the_same(
    script, call, town, trained, tmp_path: Path
) -> None:
    module = script("analyze_attention")
    saved, state = load_checkpoint(Path(trained.best))
    job = prepare_job(resolve(load_config(town.config)), module.CATALOGUE, datasets_dir=town.datasets)
    model = module.load_model(job, saved, Path(trained.best), state)
    inputs, timestamps, chosen = module.choose_windows(job, saved, state, 500)
    with torch.no_grad(), captured(model, lambda name, layer_call: None):
        forecast = model(inputs, timestamps) * state["scaler"]["std"] + state["scaler"]["mean"]
    expected = read_predictions(trained.folder / "predictions.npz")["prediction"]
    assert chosen == list(range(len(expected)))
    np.testing.assert_allclose(forecast.numpy(), expected, rtol=1e-4)


def test_a_row_is_what_the_layer_itself_shows(script, town, softmax_run: Path, analysed) -> None:
    """Once more, without a tally: mean deficit and theta of the first spatial head over the windows of the row."""
    _, row, _ = analysed
    module = script("analyze_attention")
    saved, state = load_checkpoint(softmax_run / "best.pt")
    config = resolve(load_config(town.config), model="STAEformer")
    job = prepare_job(config, module.CATALOGUE, datasets_dir=town.datasets)
    model = module.load_model(job, saved, softmax_run / "best.pt", state)
    inputs, timestamps, _ = module.choose_windows(job, saved, state, WINDOWS)
    calls = {}
    with torch.no_grad(), captured(model, calls.__setitem__):
        model(inputs, timestamps)
    q, k = (x[:, :, 0] for x in (calls["spatial_layers.0.attention"].q, calls["spatial_layers.0.attention"].k))
    seen = look_at(q, k)
    (found,) = [head for head in row["heads"] if (head["axis"], head["head"]) == ("spatial", 1)]
    assert found["softmax"]["deficit"]["mean"] == pytest.approx(seen.deficit.mean().item(), rel=1e-4)
    assert found["estimators"]["exact"]["theta"]["mean"] == pytest.approx(seen.theta.mean().item(), rel=1e-4)


# What cannot be analysed


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--model", "STAEformer"), "is a checkpoint for model ELinFormer, the config says STAEformer; add --model"),
        (("--set", "input_len=12"), "is a checkpoint for input_len 6, the config says 12; add --set input_len=6"),
        (("--set", "lr=1"), "--set lr: the checkpoint brings its own; input_len, output_len can be set here"),
        (("--windows", "0"), "--windows has to be at least 1, got 0"),
        (("--queries", "-1"), "--queries has to be at least 1, got -1"),
        (("--output", "own.txt"), "output own.txt: the name of a file that ends in .json is expected"),
        (("--gpus", "0,1"), "--gpus 0,1: one device is expected here"),
        (("--datasets-dir", "nowhere"), "nowhere/TOWN is not prepared"),
    ],
)
def test_options_that_do_not_fit_are_one_line(refuse, trained, options: tuple[str, ...], said: str) -> None:
    assert said in refuse("--checkpoint", trained.best, *options)


def test_a_checkpoint_that_is_none_is_one_line(refuse, tmp_path: Path) -> None:
    assert refuse("--checkpoint", "nowhere.pt") == "checkpoint nowhere.pt is not there"
    (tmp_path / "junk.pt").write_bytes(b"junk")
    assert "junk.pt has no checksum at its end" in refuse("--checkpoint", tmp_path / "junk.pt")
    assert "arguments are required: --checkpoint" in refuse()


def test_an_output_folder_that_cannot_be_is_one_line(refuse, trained, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = refuse("--checkpoint", trained.best, "--output", "file/own.json")
    assert said.startswith("output file/own.json: its folder cannot be made: ")


def test_weights_that_are_not_finite_are_one_line(refuse, trained, tmp_path: Path) -> None:
    content = torch.load(trained.best, weights_only=True)
    content["model"]["temporal_layers.0.attention.k_proj.weight"].fill_(torch.nan)
    write_sealed(tmp_path / "nan.pt", content)
    said = refuse("--checkpoint", tmp_path / "nan.pt")
    assert said.endswith("nan.pt: temporal_layers.0.attention has keys that are not finite")


@dataclass
class PlainConfig(BasicTSModelConfig):
    input_len: int = 0
    output_len: int = 0
    num_features: int = 0
    num_time_in_day: int = 0


class Plain(torch.nn.Module):
    """A linear map along time: a model without attention."""

    def __init__(self, config: PlainConfig) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(config.input_len, config.output_len)

    def forward(self, inputs: torch.Tensor, inputs_timestamps: torch.Tensor) -> torch.Tensor:
        return self.linear(inputs.transpose(1, 2)).transpose(1, 2)


def test_a_model_without_attention_is_one_line(
    script, call, refused, town, town_config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("train", "analyze_attention"):
        catalogue = {**script(name).CATALOGUE, "Plain": ModelEntry(Plain, PlainConfig)}
        monkeypatch.setattr(script(name), "CATALOGUE", catalogue)
    before, _, after = town_config.partition("    model_params")
    (tmp_path / "own.py").write_text(f'{before}    model="Plain",\n{after[after.index("    recipes") :]}')
    data = ("-c", tmp_path / "own.py", "--datasets-dir", town.datasets)
    done = call("train", *data, "--max-steps", 1, "--output-dir", tmp_path / "run")
    assert done.status == 0, done.err
    said = refused("analyze_attention", *data, "--checkpoint", tmp_path / "run" / "best.pt")
    assert said == "Plain has no layer of ealinformer.attention.MultiHeadAttention, at least one is expected"


def test_help_shows_examples(call) -> None:
    done = call("analyze_attention", "--help")
    assert done.status == 0
    assert "python experiments/analyze_attention.py -c configs/PEMS08.py --model STAEformer" in done.out
