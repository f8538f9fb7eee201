"""Checkpoints: whole or not there, the one before when the last is damaged, never for another model or data set."""

import copy
import errno
import io
import math
import os
import random
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ealinformer.errors import InputError
from ealinformer.training import RunConfig
from ealinformer.training.checkpoints.checkpoint import (
    BEST,
    LAST,
    PREVIOUS,
    check_fits,
    keep_checkpoint,
    load_checkpoint,
    load_lr_scheduler,
    load_optimizer,
    load_weights,
    newest_checkpoint,
    parse_checkpoint,
    save_checkpoint,
)
from ealinformer.training.checkpoints.sealed import read_sealed, write_sealed
from ealinformer.training.differences import compare_code, compare_run

LIMIT = 20_000  # bytes, less than a checkpoint of `model()`


def model(width: int = 100) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, width), nn.Linear(width, 50))


def state_of(net: nn.Module, epoch: int = 3) -> dict[str, Any]:
    return {"model": net.state_dict(), "epoch": epoch, "step": 6 * epoch, "scaler": {"mean": 0.1, "std": 2.5}}


def optimizer_of(net: nn.Module, steps: int = 1) -> torch.optim.Adam:
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
    for _ in range(steps):
        net(torch.ones(2, 5)).square().sum().backward()
        optimizer.step()
    return optimizer


@pytest.fixture(scope="module")
def training() -> dict[str, Any]:
    """All that a run goes on from; the first of its steps is done."""
    net = model()
    optimizer = optimizer_of(net)
    version, words, gauss = random.Random(1).getstate()
    _, keys, *place = np.random.RandomState(1).get_state(legacy=True)
    rank = {
        "python": [version, list(words), gauss],
        "numpy": [keys.tolist(), *place],
        "torch": torch.Generator().manual_seed(1).get_state(),
        "cuda": None,
    }
    return {
        "epoch": 4,
        "steps_done": 1,
        "step": 13,
        "finished": False,
        "optimizer": optimizer.state_dict(),
        "lr_scheduler": torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 5]).state_dict(),
        "stopping_counter": 0,
        "best": {"epoch": 3, "step": 18, "scores": {"val/loss": 1.5}, "model": net.state_dict()},
        "rng": [rank],
        "sums": {"loss_sum": torch.zeros(1, dtype=torch.float64)},
        "seconds": 0.5,
        "skipped": 0,
        "history": [{"epoch": 1, "val_loss": 2.5, "val_MAPE": math.nan}],
        "stopped_by": "all epochs done",
        "code": {"torch": torch.__version__},
        "data": "0123",
    }


@pytest.fixture
def run(configure) -> RunConfig:
    return configure()


@pytest.fixture
def saved(tmp_path: Path, run: RunConfig) -> Path:
    """A checkpoint of `model()`, alone in its folder."""
    (tmp_path / "run").mkdir()
    save_checkpoint(tmp_path / "run" / BEST, run, state_of(model()))
    return tmp_path / "run" / BEST


@pytest.fixture
def keep(tmp_path: Path, run: RunConfig, training: dict[str, Any]) -> Callable[[int], Path]:
    """`keep(3)`: keeps a checkpoint of epoch 3, from which one can go on; returns the folder."""
    (tmp_path / "run").mkdir(exist_ok=True)

    def write(epoch: int) -> Path:
        keep_checkpoint(tmp_path / "run", run, {**state_of(model(), epoch), "training": training})
        return tmp_path / "run"

    return write


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("only the administrator can mount a small disk")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def epochs(folder: Path) -> dict[str, int]:
    return {path.name: load_checkpoint(path)[1]["epoch"] for path in sorted(folder.iterdir())}


def spoil(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def refused(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


# One file


def test_what_is_saved_comes_back(saved: Path, run: RunConfig) -> None:
    found, state = load_checkpoint(saved)
    assert found == run
    assert (state["epoch"], state["scaler"]) == (3, {"mean": 0.1, "std": 2.5})
    other = nn.Sequential(nn.Linear(5, 100), nn.Linear(100, 50))
    load_weights(saved, other, state)
    for (name, one), two in zip(other.state_dict().items(), model().state_dict().values(), strict=True):
        assert torch.equal(one, two), name


def test_another_process_makes_the_same_of_the_bytes(keep: Callable[[int], Path], run: RunConfig) -> None:
    found = newest_checkpoint(keep(3))
    assert found is not None
    again, state = parse_checkpoint(found.path, found.data)
    assert (again, state["training"]["history"][0]["epoch"]) == (run, 1)
    assert found.data == found.path.read_bytes()


def test_saving_leaves_one_file_and_replaces_it(saved: Path, run: RunConfig) -> None:
    save_checkpoint(saved, run, state_of(model(), epoch=4))
    assert epochs(saved.parent) == {BEST: 4}


def test_weights_that_are_not_finite_are_read(saved: Path, run: RunConfig) -> None:
    net = model()
    nn.init.constant_(net[0].weight, math.nan)
    save_checkpoint(saved, run, state_of(net))
    assert load_checkpoint(saved)[1]["model"]["0.weight"].isnan().all()


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """torch writes a part, and then `error` comes."""

    def fail_half_way(content: object, file: io.BufferedIOBase) -> None:
        file.write(bytes(100))
        raise error

    monkeypatch.setattr(torch, "save", fail_half_way)


def test_a_write_that_fails_leaves_the_old_file(saved: Path, run: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved.read_bytes()
    fail_with(monkeypatch, OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(InputError, match=rf"^cannot write {saved}: No space left on device$"):
        save_checkpoint(saved, run, state_of(model(), epoch=4))
    assert saved.read_bytes() == before
    assert os.listdir(saved.parent) == [BEST]


def test_an_interrupt_while_writing_leaves_the_old_file_alone(
    saved: Path, run: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = saved.read_bytes()
    fail_with(monkeypatch, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(saved, run, state_of(model(), epoch=4))
    assert saved.read_bytes() == before
    assert os.listdir(saved.parent) == [BEST]


def test_a_folder_that_is_not_there(tmp_path: Path, run: RunConfig) -> None:
    with pytest.raises(InputError, match=r"cannot write .*best.pt: No such file or directory"):
        save_checkpoint(tmp_path / "nowhere" / BEST, run, state_of(model()))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert refused(tmp_path / BEST).endswith("best.pt is not there")
    assert refused(tmp_path).endswith("is not there: it is a folder, name the best.pt or last.pt in it")


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.9, 0.9999])
def test_a_truncated_file_is_refused(saved: Path, share: float) -> None:
    content = saved.read_bytes()
    saved.write_bytes(content[: int(share * len(content))])
    assert "it is damaged or another kind of file" in refused(saved)


@pytest.mark.parametrize("share", [0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 0.9999])
def test_an_altered_file_is_refused(saved: Path, share: float) -> None:
    content = bytearray(saved.read_bytes())
    content[int(share * len(content))] ^= 1
    saved.write_bytes(content)
    assert "damaged" in refused(saved)


@pytest.mark.parametrize(
    "content", [{"model_state_dict": {}, "epoch": 3}, {"weight": torch.ones(3)}, {"format": "2"}, {}]
)
def test_other_checkpoints_are_refused(tmp_path: Path, content: dict[str, Any]) -> None:
    torch.save(content, tmp_path / BEST)
    assert "it is damaged or another kind of file" in refused(tmp_path / BEST)
    write_sealed(tmp_path / BEST, content)
    assert "is not a checkpoint of this project (format 2 is expected)" in refused(tmp_path / BEST)


@pytest.mark.parametrize("number", [1, 3])
def test_another_format_is_refused_with_both(saved: Path, number: int) -> None:
    write_sealed(saved, {**read_sealed(saved), "format": number})
    assert f"is a checkpoint of format {number}, this version of the project reads format 2" in refused(saved)


def test_the_config_of_another_version_is_refused_with_its_key(saved: Path, run: RunConfig) -> None:
    write_sealed(saved, {**read_sealed(saved), "run": run.model_dump_json().replace('"seed"', '"sead"')})
    assert "unknown key 'sead' of RunConfig (did you mean 'seed'?)" in refused(saved)


# What is in it: each key in turn is taken away, or given another type


def without(content: Any, *keys: str | int) -> Any:
    content = copy.deepcopy(content)
    inner = content
    for key in keys[:-1]:
        inner = inner[key]
    del inner[keys[-1]]
    return content


def with_value(content: Any, value: object, *keys: str | int) -> Any:
    content = copy.deepcopy(content)
    inner = content
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    return content


@pytest.mark.parametrize(
    "keys", [("model",), ("epoch",), ("step",), ("scaler",), ("scaler", "mean"), ("scaler", "std")]
)
def test_what_scoring_needs_is_missed_by_name(saved: Path, keys: tuple[str, ...]) -> None:
    content = read_sealed(saved)
    write_sealed(saved, without(content, *keys))
    assert refused(saved).endswith(f"best.pt lacks the key {'.'.join(keys)}")
    write_sealed(saved, with_value(content, "other", *keys))
    assert f"best.pt holds 'other' as {'.'.join(keys)}, expected a " in refused(saved)


@pytest.mark.parametrize(
    ("value", "keys", "said"),
    [
        (3.5, ("run",), "holds 3.5 as run, expected a valid string"),
        (-1, ("epoch",), "holds -1 as epoch, expected greater than or equal to 0"),
        (True, ("epoch",), "holds True as epoch, expected a valid integer"),
        ([1], ("model", "0.weight"), "holds a list as model.0.weight, expected an instance of Tensor"),
        ({"val/loss": "low"}, ("metrics",), "holds 'low' as metrics.val/loss, expected a valid number"),
        ("x" * 500, ("epoch",), "as epoch, expected a valid integer"),
    ],
)
def test_what_scoring_cannot_use_is_named(saved: Path, value: object, keys: tuple[str, ...], said: str) -> None:
    write_sealed(saved, with_value(read_sealed(saved), value, *keys))
    assert said in refused(saved)
    assert len(refused(saved)) < len(str(saved)) + 200


TRAINING = (
    *(
        "epoch",
        "steps_done",
        "step",
        "finished",
        "optimizer",
        "lr_scheduler",
        "stopping_counter",
        "best",
        "rng",
        "sums",
    ),
    *("seconds", "skipped", "history", "stopped_by", "code", "data"),
)
PLACES: list[tuple[str | int, ...]] = [
    *((key,) for key in TRAINING),
    *(("best", key) for key in ("epoch", "step", "scores", "model")),
    *(("rng", 0, key) for key in ("python", "numpy", "torch", "cuda")),
    *(("optimizer", key) for key in ("state", "param_groups")),
]


def resumed(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        newest_checkpoint(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_what_resuming_needs_is_missed_by_name(
    keep: Callable[[int], Path], training: dict[str, Any], place: tuple[str | int, ...]
) -> None:
    last = keep(3) / LAST
    content = read_sealed(last)
    name = ".".join(str(key) for key in ("training", *place))
    assert set(training) == set(TRAINING)
    write_sealed(last, without(content, "training", *place))
    assert f"{last} lacks the key {name}; " in resumed(last.parent)
    write_sealed(last, with_value(content, {"x": "y"} if place[-1] == "data" else 1.5, "training", *place))
    if place != ("seconds",):
        assert f" as {name}" in resumed(last.parent)


RNG = ("rng", 0)


@pytest.mark.parametrize(
    ("value", "place", "said"),
    [
        (0, ("epoch",), "holds 0 as training.epoch, expected greater than or equal to 1"),
        ("1", ("step",), "holds '1' as training.step, expected a valid integer"),
        (1, ("finished",), "holds 1 as training.finished, expected a valid boolean"),
        ([], ("rng",), "holds a list as training.rng, expected"),
        (None, RNG, "holds None as training.rng.0, expected a dictionary"),
        ([3, [1, 2], None], (*RNG, "python"), "as training.rng.0.python, expected a state of Python's generator"),
        ([3, [2**40] * 625, None], (*RNG, "python"), "expected a state of Python's generator"),
        ([], (*RNG, "python"), "expected a state of Python's generator"),
        ([[1] * 624, 10**6, 0, 0.0], (*RNG, "numpy"), "as training.rng.0.numpy, expected a state of numpy's generator"),
        ([[1] * 623, 3, 0, 0.0], (*RNG, "numpy"), "expected a state of numpy's generator"),
        ([[-1] * 624, 3, 0, 0.0], (*RNG, "numpy"), "expected a state of numpy's generator"),
        ([[1] * 624, 3, 7, 0.0], (*RNG, "numpy"), "expected a state of numpy's generator"),
        (torch.zeros(5), (*RNG, "torch"), "as training.rng.0.torch, expected a state of torch's generator"),
        (torch.zeros(8, dtype=torch.uint8), (*RNG, "torch"), "expected a state of torch's generator"),
        (torch.zeros(8), (*RNG, "cuda"), "as training.rng.0.cuda, expected a state of a CUDA generator"),
        ({"a": 1}, ("optimizer", "state"), "as training.optimizer.state.a.[key], expected a valid integer"),
        ([{"epoch": "one"}], ("history",), "holds 'one' as training.history.0.epoch, expected a valid number"),
        ({"torch": 2}, ("code",), "holds 2 as training.code.torch, expected a valid string"),
        (
            {"0.weight": torch.zeros(3)},
            ("best", "model"),
            "training.best.model that does not fit model: 0.weight is [3]",
        ),
        ([1, 2], (), "holds a list as training, expected a dictionary"),
    ],
)
def test_what_resuming_cannot_use_is_named(
    keep: Callable[[int], Path], value: object, place: tuple[str | int, ...], said: str
) -> None:
    last = keep(3) / LAST
    write_sealed(last, with_value(read_sealed(last), value, "training", *place))
    assert said in resumed(last.parent)


# Two files


def test_the_last_two_are_kept(keep: Callable[[int], Path]) -> None:
    assert epochs(keep(1)) == {LAST: 1}
    assert epochs(keep(2)) == {LAST: 2, PREVIOUS: 1}
    assert epochs(keep(3)) == {LAST: 3, PREVIOUS: 2}


def test_the_newest_is_the_last(keep: Callable[[int], Path], run: RunConfig) -> None:
    keep(1)
    found = newest_checkpoint(keep(2))
    assert found is not None
    assert (found.path.name, found.run, found.state["epoch"], found.complaints) == (LAST, run, 2, [])


def test_an_empty_folder_has_none(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path) is None
    assert newest_checkpoint(tmp_path / "nowhere") is None


def for_scoring_only(path: Path) -> None:
    run, state = load_checkpoint(path)
    save_checkpoint(path, run, {key: value for key, value in state.items() if key not in ("format", "run", "training")})


def make_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (spoil, "is damaged: its content does not agree with the checksum at its end"),
        (lambda path: os.truncate(path, 5000), "has no checksum at its end: it is damaged or another kind of file"),
        (lambda path: os.truncate(path, 0), "has no checksum at its end: it is damaged or another kind of file"),
        (os.unlink, "is not there"),
        (make_a_folder, "is not there: it is a folder, name the best.pt or last.pt in it"),
        (for_scoring_only, "lacks the key training: it is for scoring, not to go on from"),
    ],
)
def test_the_previous_one_is_used_when_the_last_cannot_be(
    keep: Callable[[int], Path], damage: Callable[[Path], None], said: str
) -> None:
    keep(1)
    folder = keep(2)
    damage(folder / LAST)
    found = newest_checkpoint(folder)
    assert found is not None
    assert (found.path.name, found.state["epoch"]) == (PREVIOUS, 1)
    assert [one.removeprefix("checkpoint ") for one in found.complaints] == [f"{folder / LAST} {said}"]
    spoil(folder / PREVIOUS)
    with pytest.raises(InputError) as caught:
        newest_checkpoint(folder)
    told = str(caught.value)
    assert told.startswith(f"no checkpoint in {folder} can be used: ")
    assert said in told
    assert told.endswith(f"; {folder / PREVIOUS} is damaged: its content does not agree with the checksum at its end")


def test_a_damaged_one_does_not_replace_the_one_that_was_resumed_from(keep: Callable[[int], Path]) -> None:
    keep(1)
    folder = keep(2)
    spoil(folder / LAST)
    assert epochs(keep(3)) == {LAST: 3, PREVIOUS: 1}
    (folder / LAST).unlink()
    assert epochs(keep(4)) == {LAST: 4, PREVIOUS: 1}
    assert epochs(keep(5)) == {LAST: 5, PREVIOUS: 4}


def test_a_disk_that_fills_up_leaves_both(keep: Callable[[int], Path]) -> None:
    """Past the limit a real write fails."""
    keep(1)
    folder = keep(2)
    assert (folder / LAST).stat().st_size > LIMIT
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, hard))
    try:
        with pytest.raises(InputError, match=rf"^cannot write {folder / LAST}: File too large$"):
            keep(3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert epochs(folder) == {LAST: 2, PREVIOUS: 1}


def test_a_disk_that_is_full_leaves_both(small_disk: Path, run: RunConfig, training: dict[str, Any]) -> None:
    for epoch in (1, 2):
        keep_checkpoint(small_disk, run, {**state_of(model(), epoch), "training": training})
    (small_disk / "filler").write_bytes(bytes(shutil.disk_usage(small_disk).free - 4096))
    with pytest.raises(InputError, match=rf"^cannot write {small_disk / LAST}: No space left on device$"):
        keep_checkpoint(small_disk, run, {**state_of(model(), 3), "training": training})
    (small_disk / "filler").unlink()
    assert epochs(small_disk) == {LAST: 2, PREVIOUS: 1}


def test_a_disk_that_gives_an_error_on_syncing_leaves_both(
    keep: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On some file systems a full disk only shows when the bytes are to be put there."""
    keep(1)
    folder = keep(2)

    def fail(descriptor: int) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(InputError, match="Disk quota exceeded"):
            keep(3)
    assert epochs(folder) == {LAST: 2, PREVIOUS: 1}


STEPS = ("fsync", "replace", "unlink")


def killed_at(call: int, write: Callable[[], object]) -> int:
    """Run `write` in a process that is killed before its `call`-th system call of `STEPS`; its status."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    try:
        seen = 0

        def counted(real: Callable[..., None]) -> Callable[..., None]:
            def step(*arguments: Any, **options: Any) -> None:
                nonlocal seen
                seen += 1
                if seen == call:
                    os.kill(os.getpid(), signal.SIGKILL)
                real(*arguments, **options)

            return step

        for name in STEPS:
            setattr(os, name, counted(getattr(os, name)))
        write()
        os._exit(0)
    finally:
        os._exit(1)


@pytest.mark.parametrize("damaged", [False, True], ids=["last whole", "last damaged"])
def test_a_kill_at_any_step_leaves_a_whole_one(keep: Callable[[int], Path], tmp_path: Path, damaged: bool) -> None:
    keep(1)
    folder = keep(2)
    if damaged:
        spoil(folder / LAST)
    shutil.copytree(folder, tmp_path / "before")
    expected, found_epochs = {1} if damaged else {2}, []
    for call in range(1, 20):
        shutil.rmtree(folder)
        shutil.copytree(tmp_path / "before", folder)
        status = killed_at(call, lambda: keep(3))
        found = newest_checkpoint(folder)
        assert found is not None
        found_epochs.append(found.state["epoch"])
        if status == 0:
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
        # And the run goes on from there.
        keep(4)
        assert epochs_of_whole(folder)[LAST] == 4
    assert status == 0
    assert len(found_epochs) > 5  # steps
    assert set(found_epochs) == expected | {3}
    assert found_epochs == sorted(found_epochs)


def epochs_of_whole(folder: Path) -> dict[str, int]:
    return {name: load_checkpoint(folder / name)[1]["epoch"] for name in (LAST, PREVIOUS) if (folder / name).exists()}


# Whether it fits


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


def test_every_difference_of_two_configs_is_named(run: RunConfig, configure) -> None:
    other = configure("lr=0.1", "milestones=[3, 4]", "patience=5", "model.n_heads=4", "model.attention='elu'", "seed=9")
    assert sorted(compare_run(run, other)) == [
        "model_params.attention (not set) -> elu",
        "model_params.n_heads 2 -> 4",
        "recipe.lr 0.005 -> 0.1",
        "recipe.milestones [2] -> [3, 4]",
        "recipe.patience None -> 5",
        "seed 1 -> 9",
    ]
    assert "model_params.attention elu -> (not set)" in compare_run(other, run)


def test_equal_configs_have_no_difference(run: RunConfig) -> None:
    series = run.series.model_copy(update={"null_value": math.nan})
    params = {"sizes": (1, 2), "nested": {"rate": math.nan}}
    one = run.model_copy(update={"series": series, "model_params": params})
    assert compare_run(one, one.model_copy(deep=True)) == []
    assert compare_run(RunConfig.model_validate_json(run.model_dump_json()), run) == []
    said = compare_run(run, one)
    assert [line.lower() for line in said if "null" in line] == ["series.null_value 0.0 -> nan"]


def test_every_difference_of_two_versions_is_named() -> None:
    saved = {"torch": "2.6.0", "sources": "a" * 64, "device": "cpu"}
    assert compare_code(saved, {**saved, "torch": "2.7.0"}) == ["torch 2.6.0 -> 2.7.0"]
    assert compare_code(saved, {"torch": "2.6.0", "sources": "a" * 64, "numpy": "2"}) == [
        "device cpu -> (not set)",
        "numpy (not set) -> 2",
    ]
    assert compare_code(saved, dict(saved)) == []


@pytest.mark.parametrize(
    ("net", "said"),
    [
        (model(width=99), "0.weight is [100, 5], expected [99, 5]"),
        (nn.Linear(5, 100), "it lacks weight"),
        (nn.Sequential(nn.Linear(5, 100), nn.Linear(100, 50), nn.Linear(2, 2)), "it lacks 2.weight"),
        (nn.Sequential(nn.Linear(5, 100)), "it has 1.weight, which the model lacks"),
        (model().double(), "0.weight is float32, expected float64"),
        (model().bfloat16(), "0.weight is float32, expected bfloat16"),
    ],
)
def test_weights_of_another_model_are_refused(saved: Path, net: nn.Module, said: str) -> None:
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(InputError) as caught:
        load_weights(saved, net, load_checkpoint(saved)[1])
    assert str(caught.value) == f"{saved} does not fit the model: {said}"
    assert all(torch.equal(one, before[name]) for name, one in net.state_dict().items())


# Optimizer and schedule


def test_a_restored_optimizer_takes_the_same_steps(tmp_path: Path, run: RunConfig) -> None:
    net = model()
    optimizer = optimizer_of(net, steps=2)
    save_checkpoint(tmp_path / LAST, run, {**state_of(net), "optimizer": optimizer.state_dict()})
    state = load_checkpoint(tmp_path / LAST)[1]
    other = model()
    load_weights(tmp_path / LAST, other, state)
    restored = torch.optim.Adam(other.parameters())
    load_optimizer(tmp_path / LAST, restored, state["optimizer"])
    for one, stepping in ((net, optimizer), (other, restored)):
        stepping.zero_grad()
        one(torch.ones(2, 5)).square().sum().backward()
        stepping.step()
    for name, weights in net.state_dict().items():
        assert torch.equal(weights, other.state_dict()[name])


GROUP = ("param_groups", 0)
MOMENT = ("state", 1, "exp_avg")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: with_value(state, [], "param_groups"), "it has 0 parameter groups, expected 1"),
        (lambda state: without(state, *GROUP, "lr"), "of group 0, lr is not there"),
        (lambda state: with_value(state, "high", *GROUP, "lr"), "of group 0, lr is a str, expected 0.1 or the like"),
        (
            lambda state: with_value(state, (0.9,), *GROUP, "betas"),
            "of group 0, betas is a tuple, expected (0.9, ",
        ),
        (
            lambda state: with_value(state, (0.9, "x"), *GROUP, "betas"),
            "of group 0, betas is a tuple, expected (0.9",
        ),
        (lambda state: with_value(state, [0, 1], *GROUP, "params"), "group 0 is not of the parameters [0, 1, 2, 3]"),
        (lambda state: with_value(state, None, *GROUP, "params"), "group 0 is not of the parameters [0, 1, 2, 3]"),
        (lambda state: with_value(state, {}, "state", 4), "it has a state for parameter 4 of 4"),
        (lambda state: without(state, *MOMENT), "of parameter 1, exp_avg is not there"),
        (lambda state: with_value(state, 0.5, *MOMENT), "of parameter 1, exp_avg is not there"),
        (lambda state: with_value(state, torch.zeros(7), *MOMENT), "of parameter 1, exp_avg is [7], expected [100]"),
        (
            lambda state: with_value(state, torch.zeros(100).double(), *MOMENT),
            "of parameter 1, exp_avg is float64, expected float32",
        ),
        (
            lambda state: with_value(state, torch.ones(2), "state", 0, "step"),
            "of parameter 0, step is [2] ",
        ),
    ],
)
def test_the_state_of_another_optimizer_is_refused(change: Callable[[Any], Any], said: str) -> None:
    optimizer = optimizer_of(model())
    state = change(optimizer.state_dict())
    with pytest.raises(InputError) as caught:
        load_optimizer(Path(LAST), optimizer, state)
    assert str(caught.value).startswith(f"last.pt does not fit the optimizer: {said}")
    load_optimizer(Path(LAST), optimizer, optimizer.state_dict())


def test_a_schedule_is_restored_or_refused() -> None:
    optimizer = optimizer_of(model())
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 5])
    state = {**schedule.state_dict(), "last_epoch": 3}
    load_lr_scheduler(Path(LAST), schedule, state)
    assert schedule.last_epoch == 3
    for other, said in (
        (without(state, "gamma"), "gamma is not there"),
        ({**state, "last_epoch": "third"}, "last_epoch is a str, expected 3 or the like"),
    ):
        with pytest.raises(InputError, match=rf"^last.pt does not fit the learning rate schedule: {said}$"):
            load_lr_scheduler(Path(LAST), schedule, other)
