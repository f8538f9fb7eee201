"""Exports: the weights bit by bit, a program that forecasts what the model does with torch alone, no half of either."""

import functools
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import torch
from torch import Tensor, nn

import baselines
from ealinformer.errors import InputError
from ealinformer.models import MODELS, BackboneConfig, ModelEntry, find_model
from ealinformer.training import RunConfig
from ealinformer.training.checkpoints.checkpoint import save_checkpoint
from ealinformer.training.exports.export import export_checkpoint, load_export, load_forecaster
from ealinformer.training.exports.forecaster import Forecaster, compare_program, export_program
from ealinformer.training.host import host_config

CATALOGUE = {**MODELS, **baselines.MODELS}
ROOT = Path(__file__).parents[3]
NOWHERE = Path("nowhere")
MEAN, STD = 211.3, 87.9
KINDS = {
    "STAEformer": {"model": "STAEformer"},
    "gaussian": {"model_params": {"entropy": "gaussian"}},
    "finite_size": {"model_params": {"entropy": "finite_size"}},
    "elu": {"model_params": {"attention": "elu"}},
    "sdpa": {"model_params": {"attention": "sdpa"}},
    "linformer": {"model_params": {"attention": "linformer", "linformer_rank": 3}},
    "float64": {"dtype": "float64"},
}


@dataclass(frozen=True)
class Export:
    """An export, and the model that it was made of, built without it."""

    folder: Path
    run: RunConfig
    model: nn.Module

    @property
    def file(self) -> Path:
        return self.folder / "forecaster.pt2"

    @functools.cached_property
    def program(self) -> Callable[..., Tensor]:
        return torch.export.load(self.file).module()


def run_of(run: RunConfig, **changes: Any) -> RunConfig:
    params = {**run.model_params, **changes.pop("model_params", {})}
    return run.model_copy(update={**changes, "model_params": params})


def new_model(run: RunConfig, catalogue: Any = CATALOGUE) -> nn.Module:
    entry = find_model(run.model, catalogue)
    torch.manual_seed(5)
    model = entry.model(host_config(run, entry, data_dir=NOWHERE, folder=NOWHERE, gpus=None).model_config)
    return model.to(getattr(torch, run.dtype)).eval()


def write_checkpoint(path: Path, run: RunConfig, model: nn.Module, **changes: Any) -> Path:
    scaler, metrics = {"mean": MEAN, "std": STD}, {"val/loss": 12.5}
    state = {"model": model.state_dict(), "epoch": 3, "step": 9, "scaler": scaler, "metrics": metrics, **changes}
    save_checkpoint(path, run, state)
    return path


@pytest.fixture(scope="module")
def exported(configure: Callable[..., RunConfig], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Export]:
    """`exported("elu")`: the export of a kind of model, compared on random numbers; made once."""

    @functools.cache
    def make(kind: str) -> Export:
        torch.set_num_threads(1)
        folder, run = tmp_path_factory.mktemp("export"), run_of(configure(), **KINDS[kind])
        model = new_model(run)
        checkpoint = write_checkpoint(folder / "best.pt", run, model)
        export_checkpoint(checkpoint, folder / "export", CATALOGUE, datasets_dir=NOWHERE)
        return Export(folder / "export", run, model)

    return make


@pytest.fixture(params=KINDS)
def export(request: pytest.FixtureRequest, exported: Callable[[str], Export]) -> Export:
    """One export a kind of model."""
    return exported(request.param)


@pytest.fixture
def gaussian(exported: Callable[[str], Export]) -> Export:
    """One export for what is the same with every model."""
    return exported("gaussian")


@pytest.fixture
def copied(gaussian: Export, tmp_path: Path) -> Path:
    """A copy of an export, to be spoilt."""
    for path in gaussian.folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def readings(batch: int, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """float32 readings `[B, 4, 5]` with NaN and zeros in them, and timestamps `[B, 4, 2]`."""
    rng = np.random.default_rng(seed)
    inputs = (MEAN + STD * rng.standard_normal((batch, 4, 5))).astype(np.float32)
    inputs[rng.random(inputs.shape) < 0.1] = np.nan
    inputs[0, 0, 0] = 0
    inputs[-1, -1, -1] = np.nan
    return inputs, rng.random((batch, 4, 2)).astype(np.float32)


def by_hand(model: nn.Module, inputs: np.ndarray, timestamps: np.ndarray, dtype: str) -> np.ndarray:
    mean, std = np.float32(MEAN), np.float32(STD)
    z_scores = np.where(np.isnan(inputs), np.float32(0), (inputs - mean) / std)
    with torch.no_grad():
        out = model(*(torch.from_numpy(array.astype(dtype)) for array in (z_scores, timestamps)))
    return out.numpy() * std + mean


# The program


@pytest.mark.parametrize("batch", [1, 2, 6])
def test_the_program_forecasts_what_the_model_does_between_z_scores_taken_by_hand(export: Export, batch: int) -> None:
    inputs, timestamps = readings(batch)
    found = export.program(torch.from_numpy(inputs), torch.from_numpy(timestamps))
    expected = by_hand(export.model, inputs, timestamps, export.run.dtype)
    assert found.dtype == getattr(torch, export.run.dtype)
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-6)


def test_a_process_that_imports_torch_alone_gets_the_same_forecast(gaussian: Export, tmp_path: Path) -> None:
    arrays = readings(2)
    torch.save([torch.from_numpy(array) for array in arrays], tmp_path / "inputs.pt")
    code = (
        "import sys, torch; torch.set_num_threads(1); inputs = torch.load(sys.argv[2], weights_only=True)\n"
        "torch.save(torch.export.load(sys.argv[1]).module()(*inputs).detach(), sys.argv[3])\n"
        "assert not {'ealinformer', 'baselines', 'basicts', 'easytorch'} & set(sys.modules)"
    )
    paths = (gaussian.file, tmp_path / "inputs.pt", tmp_path / "out.pt")
    done = subprocess.run([sys.executable, "-I", "-c", code, *map(str, paths)], cwd=tmp_path, stderr=subprocess.PIPE)
    assert done.returncode == 0, done.stderr
    expected = by_hand(gaussian.model, *arrays, "float32")
    np.testing.assert_allclose(torch.load(tmp_path / "out.pt", weights_only=True).numpy(), expected, rtol=1e-6)


def test_the_program_names_no_folder_of_this_machine(gaussian: Export) -> None:
    with zipfile.ZipFile(gaussian.file) as archive:
        content = b"".join(archive.read(name) for name in archive.namelist())
    assert b"layer_norm" in content
    assert str(ROOT).encode() not in content
    assert b"site-packages" not in content


# The weights and what is said of them


def test_the_weights_are_those_of_the_checkpoint_bit_by_bit(export: Export) -> None:
    with safetensors.safe_open(export.folder / "model.safetensors", framework="pt") as file:
        about = file.metadata()
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dict
    expected = export.model.state_dict()
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].numpy().tobytes() == tensor.numpy().tobytes()
    assert (about["model"], about["dataset"], about["epoch"]) == (export.run.model, "TINY", "3")
    assert about.keys() == {"format", "model", "dataset", "epoch", "ealinformer"}


def test_an_export_comes_back_as_run_scaler_weights_and_model(export: Export) -> None:
    run, scaler, weights = load_export(export.folder)
    assert (run, scaler) == (export.run, {"mean": MEAN, "std": STD})
    assert weights.keys() == export.model.state_dict().keys()
    run, forecaster = load_forecaster(export.folder, CATALOGUE)
    inputs, timestamps = readings(3)
    with torch.no_grad():
        found = forecaster(torch.from_numpy(inputs), torch.from_numpy(timestamps)).numpy()
    assert not forecaster.training
    np.testing.assert_allclose(found, by_hand(export.model, inputs, timestamps, run.dtype), rtol=1e-6)
    assert torch.get_default_dtype() == torch.float32


def strict_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_the_shapes_and_types_that_the_config_says_are_those_of_the_program(export: Export) -> None:
    said = strict_json(export.folder / "config.json")
    given = [
        torch.zeros([2 if size == "B" else size for size in part["shape"]], dtype=getattr(torch, part["dtype"]))
        for part in said["inputs"].values()
    ]
    found = export.program(*given)
    assert ["B", *found.shape[1:]] == said["output"]["shape"]
    assert found.dtype == getattr(torch, said["output"]["dtype"])


def test_the_config_says_what_a_stranger_needs(gaussian: Export) -> None:
    said = strict_json(gaussian.folder / "config.json")
    assert said["scaler"] == {"mean": MEAN, "std": STD}
    assert said["parameters"] == sum(p.numel() for p in gaussian.model.parameters())
    assert (said["epoch"], said["validation"], said["simulated"]) == (3, {"loss": 12.5}, False)
    inputs = said["inputs"]["inputs"]
    assert (inputs["unit"], inputs["interval_minutes"], inputs["null_value"]) == ("vehicles per interval", 30, 0.0)
    assert RunConfig(**said["config"]) == gaussian.run


def test_a_null_value_of_nan_is_still_json_and_comes_back(configure: Callable[..., RunConfig], tmp_path: Path) -> None:
    run = configure()
    run = run_of(run, series=run.series.model_copy(update={"null_value": float("nan")}))
    checkpoint = write_checkpoint(tmp_path / "best.pt", run, new_model(run), metrics={"val/loss": float("nan")})
    export_checkpoint(checkpoint, tmp_path / "out", CATALOGUE, datasets_dir=NOWHERE, program=False)
    said = strict_json(tmp_path / "out" / "config.json")
    assert (said["inputs"]["inputs"]["null_value"], said["validation"]) == ("NaN", {"loss": None})
    assert np.isnan(load_export(tmp_path / "out")[0].series.null_value)


# Exports that are not as they were written


@pytest.mark.parametrize("name", ["model.safetensors", "forecaster.pt2"])
@pytest.mark.parametrize("place", [0, 0.5, 1])
def test_a_file_of_which_one_bit_is_another_is_named(copied: Path, name: str, place: float) -> None:
    content = bytearray((copied / name).read_bytes())
    content[int(place * (len(content) - 1))] ^= 1
    (copied / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name} is not the file that was exported: its sha256 is "):
        load_export(copied)


def test_a_truncated_file_is_named(copied: Path) -> None:
    path = copied / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"model\.safetensors is not the file that was exported"):
        load_export(copied)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_file_that_is_missing_is_named(copied: Path, name: str) -> None:
    (copied / name).unlink()
    with pytest.raises(InputError, match=f"{name} cannot be read: No such file"):
        load_export(copied)


def test_weights_can_be_read_where_the_program_was_left_out(copied: Path, gaussian: Export) -> None:
    (copied / "forecaster.pt2").unlink()
    assert load_export(copied)[2].keys() == gaussian.model.state_dict().keys()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 2}, "is not the config of an export"),
        ({"files": {}}, "is not the config of an export"),
        ({"files": {"model.safetensors": 5}}, "config.json says None"),
        ({"scaler": {"mean": 1.0}}, "the scaler is {'mean': 1.0}, a finite mean and a positive std are expected"),
        ({"scaler": {"mean": 1.0, "std": 0.0}}, "a positive std"),
        ({"scaler": None}, "the scaler is None"),
        ({"config": {}}, "holds the config of another version of this project: RunConfig needs the key 'series'"),
        ({"config": None}, "holds the config of another version"),
    ],
)
def test_a_config_that_was_changed_is_one_line(copied: Path, change: dict[str, Any], said: str) -> None:
    path = copied / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InputError) as caught:
        load_export(copied)
    assert str(caught.value).startswith(str(copied))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("param", "said"),
    [
        ({"num_layers": 2}, "model.safetensors does not fit the model: it lacks temporal_layers.1"),
        ({"intermediate_size": 8}, r"feed_forward.0.weight is \[16, 16\], expected \[8, 16\]"),
        ({"n_heads": 3}, "model ELinFormer cannot be built: n_heads has to divide the width 16, got 3"),
        ({"depth": 3}, "unknown key 'model.depth' of ELinFormer"),
    ],
)
def test_weights_of_another_model_than_the_config_says_are_refused(copied: Path, param: Any, said: str) -> None:
    path = copied / "config.json"
    content = json.loads(path.read_text())
    content["config"]["model_params"].update(param)
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=said):
        load_forecaster(copied, CATALOGUE)


# Models without a program


@dataclass
class OddConfig(BackboneConfig):
    what: str = field(default="plain")


class OddModel(nn.Module):
    """Repeats a linear map of the last reading; `what` says what is wrong with it."""

    seen: Tensor

    def __init__(self, config: OddConfig) -> None:
        super().__init__()
        self.what, self.output_len = config.what, config.output_len
        self.linear = nn.Linear(config.num_features, config.num_features)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, inputs: Tensor, inputs_timestamps: Tensor) -> Tensor:
        last = self.linear(inputs[:, -1:])
        if self.what == "branch" and inputs.sum() > 0:
            last = -last
        if self.what == "state":
            self.seen += 1
        if self.what == "assigned":
            self.seen = self.seen + 1
        if self.what == "random":
            last = last + torch.rand_like(last)
        if self.what == "batch" and len(inputs) != 3:
            last = last * 2
        if self.what == "nan":
            last = last / 0
        return last.expand(-1, self.output_len, -1)


ODD = {"Odd": ModelEntry(OddModel, OddConfig)}


@pytest.fixture
def odd(configure: Callable[..., RunConfig], tmp_path: Path) -> Callable[..., Path]:
    """`odd("branch")`: a checkpoint of such a model."""

    def make(what: str) -> Path:
        run = configure().model_copy(update={"model": "Odd", "model_params": {"what": what}})
        return write_checkpoint(tmp_path / "best.pt", run, new_model(run, ODD))

    return make


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("branch", "data-dependent"),
        ("state", "it changes its own state while it forecasts: seen"),
        ("assigned", ""),
        ("random", "its program differs by "),
        ("batch", ""),
        ("nan", "with these weights it forecasts numbers that are not finite"),
    ],
)
def test_a_model_without_a_program_leaves_one_line_and_nothing_else(
    odd: Callable[..., Path], tmp_path: Path, what: str, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    checkpoint = odd(what)
    with pytest.raises(InputError) as caught:
        export_checkpoint(checkpoint, tmp_path / "new" / "out", ODD, datasets_dir=NOWHERE)
    message = str(caught.value)
    assert capfd.readouterr() == ("", "")
    assert message.startswith("Odd cannot be exported as a program: ")
    assert said in message
    assert message.endswith("; --no-program writes the weights alone")
    assert "\n" not in message
    assert len(message) < 300
    assert [path.name for path in tmp_path.iterdir()] == ["best.pt"]
    export_checkpoint(checkpoint, tmp_path / "new" / "out", ODD, datasets_dir=NOWHERE, program=False)
    assert {path.name for path in (tmp_path / "new" / "out").iterdir()} == {"model.safetensors", "config.json"}


def test_a_model_with_nothing_wrong_has_one(odd: Callable[..., Path], tmp_path: Path) -> None:
    _, compared = export_checkpoint(odd("plain"), tmp_path / "out", ODD, datasets_dir=NOWHERE)
    assert compared is not None
    assert (compared.largest_difference, compared.windows_of) == (0, "random numbers")


def test_a_program_of_other_weights_is_noticed(configure: Callable[..., RunConfig], tmp_path: Path) -> None:
    run, scaler = configure("model.attention=identity"), {"mean": MEAN, "std": STD}
    model = new_model(run)
    (tmp_path / "program.pt2").write_bytes(export_program(run, Forecaster(model, **scaler)))
    assert compare_program(tmp_path / "program.pt2", run, model, scaler, NOWHERE).largest_difference == 0
    with torch.no_grad():
        model.output_proj.bias += 1e-4  # of a standard deviation: 0.009 vehicles
    with pytest.raises(InputError, match=r"its program differs by 0\.00\d+ vehicles per interval, 0\.0029\d+ is allo"):
        compare_program(tmp_path / "program.pt2", run, model, scaler, NOWHERE)


def test_the_windows_are_those_of_the_test_part_where_it_is_prepared(
    configure: Callable[..., RunConfig], datasets_dir: Path, tmp_path: Path
) -> None:
    run = configure("model.attention=identity")
    checkpoint = write_checkpoint(tmp_path / "best.pt", run, new_model(run))
    _, compared = export_checkpoint(checkpoint, tmp_path / "out", CATALOGUE, datasets_dir=datasets_dir)
    assert compared is not None
    assert (compared.windows, compared.windows_of, compared.largest_difference) == (10, "the test part", 0)
    other = run_of(run, series=run.series.model_copy(update={"interval_minutes": 15}))
    checkpoint = write_checkpoint(tmp_path / "best.pt", other, new_model(other))
    with pytest.raises(InputError, match=r"the config says interval_minutes=15, .* was prepared with 30"):
        export_checkpoint(checkpoint, tmp_path / "other", CATALOGUE, datasets_dir=datasets_dir)


# Where it is written


@pytest.fixture
def write(configure: Callable[..., RunConfig], tmp_path: Path) -> Callable[[Path], None]:
    run = configure()
    checkpoint = write_checkpoint(tmp_path / "best.pt", run, new_model(run))
    return lambda folder: export_checkpoint(checkpoint, folder, CATALOGUE, datasets_dir=NOWHERE, program=False) and None


@pytest.mark.parametrize("name", ["new", "empty", "deep/down/new", "."])
def test_a_new_and_an_empty_folder_take_the_files_and_nothing_else(
    write: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty" if name == "." else tmp_path)
    write(Path(name))
    files = {path.name for path in Path(name).iterdir()}
    assert files == {"model.safetensors", "config.json"}
    assert load_export(Path(name))[1] == {"mean": MEAN, "std": STD}
    assert not [path for path in tmp_path.rglob("*") if ".part" in path.name]


def test_a_folder_that_holds_something_is_refused(write: Callable[[Path], None], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="already holds files; name another one with --output-dir"):
        write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["best.pt"]


def test_a_file_in_place_of_the_folder_is_refused(write: Callable[[Path], None], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"best\.pt is a file, a new or an empty folder is expected"):
        write(tmp_path / "best.pt")
    with pytest.raises(InputError, match=r"best\.pt/out cannot be made: Not a directory"):
        write(tmp_path / "best.pt" / "out")


def test_a_name_that_the_system_refuses_leaves_no_folder_above_it(
    write: Callable[[Path], None], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="cannot be made: File name too long"):
        write(tmp_path / "new" / ("x" * 300))
    assert [path.name for path in tmp_path.iterdir()] == ["best.pt"]


@pytest.mark.parametrize("scaler", [{"mean": float("nan"), "std": 1.0}, {"mean": 1.0, "std": 0.0}])
def test_a_checkpoint_whose_scaler_divides_by_nothing_is_refused(
    configure: Callable[..., RunConfig], tmp_path: Path, scaler: dict[str, float]
) -> None:
    run = configure()
    checkpoint = write_checkpoint(tmp_path / "best.pt", run, new_model(run), scaler=scaler)
    with pytest.raises(InputError, match="a finite mean and a positive std are expected"):
        export_checkpoint(checkpoint, tmp_path / "out", CATALOGUE, datasets_dir=NOWHERE)
