"""Batches: the same bits wherever the series lies, and a thread that ends with whoever reads from it."""

import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from basicts.utils import BasicTSMode
from torch.utils.data import DataLoader

from ealinformer.errors import InputError
from ealinformer.training import batches, windows
from ealinformer.training.batches import THREAD, Batches, DeviceWindows, HostWindows, open_windows
from ealinformer.training.checkpoints.checkpoint import load_checkpoint
from ealinformer.training.jobs import Job
from ealinformer.training.launcher import train
from ealinformer.training.runs.history import read_history
from ealinformer.training.windows import WindowDataset

CPU = torch.device("cpu")
NUMBERS = [[3, 0, 33], [7], list(range(34)), [33, 33]]
NewJob = Callable[..., Job]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(5)
    np.save(tmp_path / "train_data.npy", rng.normal(size=(40, 3)).astype(np.float32))
    np.save(tmp_path / "train_timestamps.npy", rng.random((40, 2), dtype=np.float32))
    return tmp_path


def opened(folder: Path, *, memmap: bool | None = None) -> WindowDataset:
    return WindowDataset("TOWN", 4, 3, BasicTSMode.TRAIN, True, data_file_path=str(folder), memmap=memmap)


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith(THREAD)]


@pytest.mark.parametrize("source", [DeviceWindows, HostWindows])
@pytest.mark.parametrize("memmap", [True, False])
def test_batches_are_those_of_a_data_loader(folder: Path, source: Callable[..., Any], memmap: bool) -> None:
    dataset = opened(folder, memmap=memmap)
    expected = list(DataLoader(opened(folder, memmap=False), batch_sampler=NUMBERS))
    found = Batches(source(dataset, CPU), NUMBERS)
    assert len(found) == 4
    for _ in range(2):  # anew each time
        for one, other in zip(found, expected, strict=True):
            assert one.keys() == other.keys()
            for name, tensor in other.items():
                assert one[name].dtype == tensor.dtype
                assert one[name].is_contiguous()
                assert torch.equal(one[name], tensor)


def test_a_series_in_memory_is_gathered_from_without_a_copy_of_it(folder: Path) -> None:
    dataset = opened(folder, memmap=False)
    source = DeviceWindows(dataset, CPU)
    assert source.series[""].data_ptr() == dataset.data.ctypes.data
    (batch,) = source.batches([[2]])
    batch["inputs"].zero_()
    assert dataset.data[2:6].all()


def test_a_series_on_disk_is_read_in_blocks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "ROWS_AT_A_TIME", 7)
    dataset = opened(folder, memmap=True)
    assert torch.equal(dataset.tensor(dataset.data, CPU), torch.from_numpy(np.array(dataset.data)))


def test_the_host_reads_one_batch_ahead_and_no_more(folder: Path) -> None:
    asked: list[int] = []
    is_ahead = threading.Event()

    class Noted(WindowDataset):
        def __getitem__(self, index: int) -> dict[str, np.ndarray]:
            asked.append(index)
            if len(asked) == 2:
                is_ahead.set()
            return super().__getitem__(index)

    dataset = Noted("TOWN", 4, 3, BasicTSMode.TRAIN, True, data_file_path=str(folder))
    with closing(HostWindows(dataset, CPU).batches([[0], [1], [2], [3]])) as found:
        assert readers() == []
        next(found)
        assert is_ahead.wait(timeout=30)
        assert len(readers()) == 1
    assert asked == [0, 1]
    assert readers() == []


def test_the_reader_ends_when_the_loop_does(folder: Path) -> None:
    for _ in HostWindows(opened(folder), CPU).batches(NUMBERS):
        break
    assert readers() == []
    found = Batches(HostWindows(opened(folder), CPU), NUMBERS)
    with pytest.raises(ZeroDivisionError):
        [1 / 0 for _ in found]
    assert readers() == []
    assert len(list(HostWindows(opened(folder), CPU).batches(NUMBERS))) == 4
    assert readers() == []


def test_an_error_of_the_reader_is_the_loops(folder: Path) -> None:
    dataset = opened(folder, memmap=True)
    dataset[0]
    path = folder / "train_data.npy"
    path.write_bytes(path.read_bytes()[:300])
    found = HostWindows(dataset, CPU).batches([[0], [33], [1]])
    next(found)
    with pytest.raises(InputError) as error:
        next(found)
    assert str(error.value) == f"{path} ends before row 40, and did not when training began"
    assert readers() == []


# Where the series lies


def test_the_device_holds_what_fits_there_and_one_line_says_what_does_not(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device without memory of its own stands in for a GPU."""
    device, dataset, size = torch.device("meta"), opened(folder), 40 * 5 * 4
    assert dataset.nbytes == size

    monkeypatch.setattr(batches, "available_bytes", lambda device: 4 * size)
    source, said = open_windows(dataset, device)
    assert (type(source), said) == (DeviceWindows, None)
    (batch,) = source.batches([[1, 2]])
    assert {tensor.device for tensor in batch.values()} == {device}

    monkeypatch.setattr(batches, "available_bytes", lambda device: 4 * size - 1)
    source, said = open_windows(dataset, device)
    assert type(source) is HostWindows
    assert said == (
        "windows are sent to meta one batch ahead: their series would fill more than a quarter of what is free there, "
        "and is in memory"
    )
    (batch,) = source.batches([[1, 2]])
    assert {tensor.device for tensor in batch.values()} == {device}
    assert type(open_windows(dataset, device, "device")[0]) is DeviceWindows

    monkeypatch.setattr(batches, "available_bytes", lambda device: size - 1)
    with pytest.raises(InputError, match=r"^windows=device: the train part has 0 MiB, 0 MiB are free on meta: windows"):
        open_windows(dataset, device, "device")


def test_on_the_cpu_it_is_gathered_from_where_the_data_set_is_in_memory(folder: Path) -> None:
    for memmap, kind in ((False, DeviceWindows), (True, HostWindows)):
        source, said = open_windows(opened(folder, memmap=memmap), CPU)
        assert type(source) is kind
        assert (said is None) is not memmap
        assert type(open_windows(opened(folder, memmap=memmap), CPU, "host")[0]) is HostWindows
        assert type(open_windows(opened(folder, memmap=memmap), CPU, "device")[0]) is DeviceWindows


# A training


@pytest.mark.parametrize("other", ["host", "disk", "device from disk"])
def test_a_run_ends_with_the_same_bits_wherever_its_windows_come_from(
    new_job: NewJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    settings = ("num_epochs=2", "model.dropout=0.2", "clip_grad_norm=5")
    gathered = new_job(tmp_path / "gathered", *settings)
    expected = train(gathered)
    kinds: list[type] = []

    def note(*arguments: Any) -> Any:
        source, said = open_windows(*arguments)
        kinds.append(type(source))
        return source, said

    for module in ("runner", "scoring"):
        monkeypatch.setattr(f"ealinformer.training.{module}.open_windows", note)
    if other != "host":
        monkeypatch.setattr(windows, "SHARE_OF_MEMORY", 0.0)
    where = {"host": "windows=host", "disk": "windows=auto", "device from disk": "windows=device"}[other]
    job = new_job(tmp_path / "other", *settings, where)
    found = train(job)
    assert kinds == [DeviceWindows if other == "device from disk" else HostWindows] * 3
    assert {key: found[key] for key in ("average", "horizons")} == {
        key: expected[key] for key in ("average", "horizons")
    }
    rows = [
        [{k: v for k, v in row.items() if "seconds" not in k} for row in read_history(each.folder / "history.csv")]
        for each in (job, gathered)
    ]
    assert rows[0] == rows[1]
    one, two = (load_checkpoint(each.folder / "last.pt")[1]["model"] for each in (job, gathered))
    assert all(torch.equal(one[name], two[name]) for name in one)
    said = "windows are read from disk, one batch ahead" in (job.folder / "train.log").read_text()
    assert said is (other == "disk")
    assert readers() == []


def test_a_run_whose_data_vanish_ends_in_one_line_and_without_a_thread(
    new_job: NewJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "SHARE_OF_MEMORY", 0.0)
    read, calls = WindowDataset._read, 0

    def cut(self: WindowDataset, array: np.memmap, first: int, rows: int) -> np.ndarray:
        nonlocal calls
        calls += 1
        if calls == 300:
            raise InputError("the file is cut")
        return read(self, array, first, rows)

    monkeypatch.setattr(WindowDataset, "_read", cut)
    with pytest.raises(InputError, match=r"^the file is cut$"):
        train(new_job(tmp_path / "run"))
    assert readers() == []
    assert '"failed"' in (tmp_path / "run" / "run.json").read_text()
