"""Batches of windows on the model's device: gathered there by index, or read on the host one ahead of the model.

Both give the same bits. A source is asked with lists of window numbers, and yields for each a dictionary with `inputs`
`[B, L, N]` and `targets` `[B, H, N]` on the original scale, and `inputs_timestamps` and `targets_timestamps`.
"""

from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ealinformer.errors import InputError
from ealinformer.measure.memory import MIB, available_bytes
from ealinformer.training.windows import WindowDataset, free_memory

SHARE_OF_DEVICE = 0.25  # of the free memory of a GPU, which the activations of the model have yet to come to
THREAD = "windows"

Batch = dict[str, Tensor]


class Source(Protocol):
    """Where batches come from."""

    def batches(self, lists: Iterable[list[int]]) -> Generator[Batch, None, None]:
        """A batch for each list of window numbers."""


class Batches:
    """What a loop goes through: the batches of a source, anew each time, for the lists that `numbers` gives."""

    def __init__(self, source: Source, numbers: Any) -> None:
        self.source, self.numbers = source, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Generator[Batch, None, None]:
        return self.source.batches(self.numbers)


class DeviceWindows:
    """Windows of a series that lies on the device as a whole: no copies from the host but of their numbers."""

    def __init__(self, dataset: WindowDataset, device: torch.device) -> None:
        self.device = device
        arrays = {"": dataset.data} | ({"_timestamps": dataset.timestamps} if dataset.use_timestamps else {})
        self.series = {name: dataset.tensor(array, device) for name, array in arrays.items()}
        steps = torch.arange(dataset.input_len + dataset.output_len, device=device)
        # Apart, so that both are contiguous: sums over other strides could end in other bits.
        self.steps = {"inputs": steps[: dataset.input_len], "targets": steps[dataset.input_len :]}

    def batches(self, lists: Iterable[list[int]]) -> Generator[Batch, None, None]:
        for numbers in lists:
            first = _send(torch.tensor(numbers), self.device)[:, None]
            rows = {part: first + steps for part, steps in self.steps.items()}
            yield {
                part + name: series.index_select(0, those.flatten()).view(*those.shape, -1)
                for name, series in self.series.items()
                for part, those in rows.items()
            }


class HostWindows:
    """Windows of a data set on the host. While the model works on a batch, a thread puts the next one together."""

    def __init__(self, dataset: Dataset, device: torch.device) -> None:
        self.dataset, self.device = dataset, device

    def batches(self, lists: Iterable[list[int]]) -> Generator[Batch, None, None]:
        ahead: Future[Batch] | None = None
        reader = ThreadPoolExecutor(1, THREAD, initializer=self._enter_thread)
        try:
            for numbers in lists:
                following = reader.submit(self._read, numbers)
                if ahead is not None:
                    yield self._send(ahead.result())
                ahead = following
            if ahead is not None:
                yield self._send(ahead.result())
        finally:
            reader.shutdown(cancel_futures=True)

    def _enter_thread(self) -> None:
        if self.device.type == "cuda":  # each thread has its own current device, where it pins memory
            torch.cuda.set_device(self.device)

    def _read(self, numbers: list[int]) -> Batch:
        windows = [self.dataset[number] for number in numbers]
        # numpy, since torch would start as many threads as the model has for this one.
        batch = {name: torch.from_numpy(np.stack([window[name] for window in windows])) for name in windows[0]}
        return {name: _pinned(tensor, self.device) for name, tensor in batch.items()}

    def _send(self, batch: Batch) -> Batch:
        return {name: tensor.to(self.device, non_blocking=True) for name, tensor in batch.items()}


def split(batch: Batch, size: int | None) -> list[Batch]:
    """A batch in parts of `size` windows, the last one of what is left; None: in one."""
    if size is None:
        return [batch]
    parts = {name: tensor.split(size) for name, tensor in batch.items()}
    return [dict(zip(parts, tensors, strict=True)) for tensors in zip(*parts.values(), strict=True)]


def open_windows(dataset: Dataset, device: torch.device, where: str = "auto") -> tuple[Source, str | None]:
    """The source for `where` ("auto", "device" or "host"), and a line where auto found no room on the device.

    Raises:
        InputError: the device is asked for, and is too small.
    """
    if where == "host" or not isinstance(dataset, WindowDataset):
        return HostWindows(dataset, device), None
    if device.type == "cpu" and dataset.storage == "in memory":
        return DeviceWindows(dataset, device), None
    size, free = dataset.nbytes, free_memory() if device.type == "cpu" else available_bytes(str(device))
    if where == "device" and free is not None and size > free:
        raise InputError(
            f"windows=device: the {dataset.mode} part has {size // MIB} MiB, {free // MIB} MiB are free on {device}: "
            "windows=auto is expected"
        )
    if where == "device":
        return DeviceWindows(dataset, device), None
    if device.type == "cpu":
        return HostWindows(dataset, device), (
            "windows are read from disk, one batch ahead: in memory they would fill more than half of it"
        )
    if free is None or size <= SHARE_OF_DEVICE * free:
        return DeviceWindows(dataset, device), None
    return HostWindows(dataset, device), (
        f"windows are sent to {device} one batch ahead: their series would fill more than a quarter of what is free "
        f"there, and is {dataset.storage}"
    )


def _send(tensor: Tensor, device: torch.device) -> Tensor:
    """A copy on the device that the host does not wait for."""
    return _pinned(tensor, device).to(device, non_blocking=True)


def _pinned(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor.pin_memory() if device.type == "cuda" else tensor
