"""Checkpoints: whole or not there, never code, never for another model or data set."""

import errno
import io
import os
import pickle
import resource
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from ealinformer.errors import InputError
from ealinformer.training import RunConfig
from ealinformer.training.checkpoint import check_fits, load_checkpoint, load_weights, save_checkpoint

LIMIT = 20_000  # bytes, less than a checkpoint of `model()`


def model(width: int = 100) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, width), nn.Linear(width, 50))


def state_of(net: nn.Module) -> dict[str, object]:
    return {"model": net.state_dict(), "epoch": 3, "scaler": {"mean": 0.1, "std": 2.5}}


@pytest.fixture
def run(configure) -> RunConfig:
    return configure()


@pytest.fixture
def saved(tmp_path: Path, run: RunConfig) -> Path:
    """A checkpoint of `model()`, alone in its folder."""
    (tmp_path / "run").mkdir()
    save_checkpoint(tmp_path / "run" / "best.pt", run, state_of(model()))
    return tmp_path / "run" / "best.pt"


def refused(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_what_is_saved_comes_back(saved: Path, run: RunConfig) -> None:
    found, state = load_checkpoint(saved)
    assert found == run
    assert (state["epoch"], state["scaler"]) == (3, {"mean": 0.1, "std": 2.5})
    other = nn.Sequential(nn.Linear(5, 100), nn.Linear(100, 50))
    load_weights(saved, other, state)
    for (name, one), two in zip(other.state_dict().items(), model().state_dict().values(), strict=True):
        assert torch.equal(one, two), name


def test_the_state_of_an_optimizer_comes_back(tmp_path: Path, run: RunConfig) -> None:
    net = model()
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.ones(2, 5)).sum().backward()
    optimizer.step()
    save_checkpoint(tmp_path / "last.pt", run, {**state_of(net), "optimizer": optimizer.state_dict()})
    again = torch.optim.Adam(net.parameters())
    again.load_state_dict(load_checkpoint(tmp_path / "last.pt")[1]["optimizer"])
    assert torch.equal(again.state_dict()["state"][0]["exp_avg"], optimizer.state_dict()["state"][0]["exp_avg"])


def test_saving_leaves_one_file_and_replaces_it(saved: Path, run: RunConfig) -> None:
    save_checkpoint(saved, run, {**state_of(model()), "epoch": 4})
    assert load_checkpoint(saved)[1]["epoch"] == 4
    assert os.listdir(saved.parent) == ["best.pt"]


def test_a_write_that_fails_leaves_the_old_file(saved: Path, run: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved.read_bytes()

    def fail_half_way(content: object, file: io.BufferedIOBase) -> None:
        file.write(before[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", fail_half_way)
    with pytest.raises(InputError, match=rf"cannot write {saved}: No space left on device"):
        save_checkpoint(saved, run, {**state_of(model()), "epoch": 4})
    assert saved.read_bytes() == before
    assert os.listdir(saved.parent) == ["best.pt"]


def test_a_disk_that_fills_up_gets_one_line_and_leaves_the_old_file(saved: Path, run: RunConfig) -> None:
    """Past the limit a real write fails, of which torch's own writer makes a RuntimeError."""
    before = saved.read_bytes()
    assert len(before) > LIMIT
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, hard))
    try:
        with pytest.raises(InputError, match=rf"cannot write {saved}: File too large"):
            save_checkpoint(saved, run, {**state_of(model()), "epoch": 4})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert saved.read_bytes() == before
    assert os.listdir(saved.parent) == ["best.pt"]


def test_a_folder_that_is_not_there(tmp_path: Path, run: RunConfig) -> None:
    with pytest.raises(InputError, match=r"cannot write .*best.pt: No such file or directory"):
        save_checkpoint(tmp_path / "nowhere" / "best.pt", run, state_of(model()))


def test_an_interrupt_while_writing_leaves_no_temporary_file(
    saved: Path, run: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(content: object, file: io.BufferedIOBase) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(saved, run, state_of(model()))
    assert os.listdir(saved.parent) == ["best.pt"]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert "is not there" in refused(tmp_path / "best.pt")
    assert "is not there" in refused(tmp_path)


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.9, 0.9999])
def test_a_truncated_file_is_refused(saved: Path, share: float) -> None:
    content = saved.read_bytes()
    saved.write_bytes(content[: int(share * len(content))])
    assert "damaged or another kind of file" in refused(saved)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 1 << 20), value=st.integers(1, 255))
def test_an_altered_byte_never_changes_the_weights(saved: Path, position: int, value: int) -> None:
    """torch itself compares no checksums: it loads altered weights without a word."""
    content = bytearray(saved.read_bytes())
    content[position % len(content)] ^= value
    altered = saved.with_name("altered.pt")
    altered.write_bytes(content)
    try:
        _, state = load_checkpoint(altered)
    except InputError:
        return
    for name, tensor in model().state_dict().items():  # the byte was padding, or a date
        assert torch.equal(state["model"][name], tensor)


def test_altered_weights_are_refused_where_torch_takes_them(saved: Path) -> None:
    content = saved.read_bytes()
    weights = model()[0].weight.detach().numpy().tobytes()
    assert content.count(weights) == 1
    saved.write_bytes(content.replace(weights, b"\x00" * 4 + weights[4:]))
    assert torch.load(saved, weights_only=True)["model"]["0.weight"][0, 0] == 0
    assert "damaged" in refused(saved)


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200), head=st.sampled_from([b"", b"\x80\x02", b"\x80\x04", b"PK\x03\x04"]))
def test_foreign_bytes_are_refused(tmp_path: Path, head: bytes, content: bytes) -> None:
    path = tmp_path / "best.pt"
    path.write_bytes(head + content)
    refused(path)


class Attack:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("form", ["pickle", "torch", "torch legacy"])
def test_a_pickle_that_would_run_code_does_not(tmp_path: Path, run: RunConfig, form: str) -> None:
    path, trace = tmp_path / "best.pt", tmp_path / "attacked"
    content = {"format": 1, "run": run.model_dump_json(), **state_of(model()), "extra": Attack(trace)}
    if form == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "torch")
    assert "damaged or another kind of file" in refused(path)
    assert not trace.exists()
    if form != "torch legacy":
        # The attack is a real one.
        pickle.loads(path.read_bytes()) if form == "pickle" else torch.load(path, weights_only=False)
        assert trace.is_dir()


@pytest.mark.parametrize(
    "content",
    [
        {"model_state_dict": {}, "epoch": 3},  # the host's
        model().state_dict(),
        torch.ones(3),
        {"format": 2, "run": "{}", "model": {}, "epoch": 1, "scaler": {}},
        {"format": 1, "model": {}},
        {"format": 1, "run": "{}", "model": {}, "epoch": 1},
    ],
)
def test_other_checkpoints_are_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "best.pt")
    assert "is not a checkpoint of this project (format 1 is expected)" in refused(tmp_path / "best.pt")


def test_the_config_of_another_version_is_refused_with_its_key(tmp_path: Path, run: RunConfig) -> None:
    torch.save(
        {"format": 1, **state_of(model()), "run": run.model_dump_json().replace('"seed"', '"sead"')},
        tmp_path / "best.pt",
    )
    assert "unknown key 'sead' of RunConfig (did you mean 'seed'?)" in refused(tmp_path / "best.pt")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": "STAEformer"}, "is a checkpoint for model STAEformer, the config says ELinFormer; add --model STAE"),
        ({"name": "OTHER"}, "is a checkpoint for data set OTHER, the config says TINY"),
        ({"num_sensors": 6}, "is a checkpoint for num_sensors 6, the config says 5"),
        ({"input_len": 12}, "is a checkpoint for input_len 12, the config says 4; add --set input_len=12"),
        ({"output_len": 12}, "is a checkpoint for output_len 12, the config says 3; add --set output_len=12"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused_with_both(run: RunConfig, change: dict, said: str) -> None:
    series = {key: value for key, value in change.items() if key not in RunConfig.model_fields}
    other = {key: value for key, value in change.items() if key in RunConfig.model_fields}
    saved = run.model_copy(update={**other, "series": run.series.model_copy(update=series)})
    with pytest.raises(InputError) as caught:
        check_fits(Path("best.pt"), saved, run)
    assert str(caught.value).startswith(f"best.pt {said}")
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_another_recipe_and_seed_fits(run: RunConfig, configure) -> None:
    check_fits(Path("best.pt"), configure("seed=8", "lr=0.1", "loss=huber"), run)


def test_weights_of_another_width_are_refused(saved: Path) -> None:
    _, state = load_checkpoint(saved)
    with pytest.raises(InputError) as caught:
        load_weights(saved, model(width=99), state)
    assert str(caught.value).startswith(f"{saved} does not fit the model: size mismatch for 0.weight")
    assert "\n" not in str(caught.value)


def test_weights_of_another_model_are_refused(saved: Path) -> None:
    _, state = load_checkpoint(saved)
    with pytest.raises(
        InputError, match=rf"{saved} does not fit the model: Missing key\(s\) in state_dict: \"weight\""
    ):
        load_weights(saved, nn.Linear(5, 100), state)
