"""Windows of a split, in memory where it fits there, else read from a memory map that stays small."""

import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
from basicts.data import BasicTSForecastingDataset
from basicts.utils import BasicTSMode

from ealinformer.data.mapped import drop_pages, fetch_rows
from ealinformer.measure.cgroups import cgroup_available_bytes
from ealinformer.measure.memory import available_bytes

Storage = Literal["in memory", "memory-mapped"]
# Of what is available when a split is opened; the model, its gradients and the other splits need room too.
SHARE_OF_MEMORY = 0.5
# Read from a map before its pages are dropped: enough to make dropping cheap, little beside torch itself.
BYTES_BETWEEN_DROPS = 32 << 20


class WindowDataset(BasicTSForecastingDataset):
    """The host's dataset, item for item, with a memory map whose pages do not pile up.

    An item has `inputs` `[L, N]` and `targets` `[H, N]` on the original scale and, with `use_timestamps`,
    `inputs_timestamps` `[L, 2]` and `targets_timestamps` `[H, 2]`, all float32. In memory they are views, as the host's
    are; of a memory map they are copies.

    Args:
        memmap: None maps the files where they are larger than a share of the memory that is available, and reads them
            into memory where not.
    """

    def __init__(
        self,
        dataset_name: str,
        input_len: int,
        output_len: int,
        mode: BasicTSMode | str,
        use_timestamps: bool = False,
        local: bool = True,
        data_file_path: str | None = None,
        memmap: bool | None = None,
    ) -> None:
        folder = Path(data_file_path or f"datasets/{dataset_name}")
        if memmap is None:
            kinds = ("data", "timestamps") if use_timestamps else ("data",)
            files = [folder / f"{mode}_{kind}.npy" for kind in kinds]
            memmap = not fits_in_memory(sum(path.stat().st_size for path in files if path.is_file()))
        super().__init__(dataset_name, input_len, output_len, mode, use_timestamps, local, str(folder), memmap)
        self._bytes_read = 0

    @property
    def storage(self) -> Storage:
        """Where the readings are, for the log."""
        return "memory-mapped" if self.memmap else "in memory"

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        if not self.memmap:
            return super().__getitem__(index)
        window = self._rows(self._data, index)
        item = {"inputs": window[: self.input_len], "targets": window[self.input_len :]}
        if self.use_timestamps:
            window = self._rows(self.timestamps, index)
            item["inputs_timestamps"] = window[: self.input_len]
            item["targets_timestamps"] = window[self.input_len :]
        self._drop_now_and_then(item)
        return item

    def __getstate__(self) -> dict[str, Any]:
        """A worker process maps the files itself: pickled, the arrays would travel whole."""
        state = self.__dict__.copy()
        if self.memmap:
            for name in ("_data", "timestamps"):
                if name in state:
                    state[name] = Path(state[name].filename)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        for name, value in state.items():
            if isinstance(value, Path):
                setattr(self, name, np.load(value, mmap_mode="r"))

    def _rows(self, array: np.memmap, index: int) -> np.ndarray:
        """The rows of one window, inputs and targets, in memory of their own."""
        stop = index + self.input_len + self.output_len
        fetch_rows(array, index, stop)
        return np.array(array[index:stop])

    def _drop_now_and_then(self, item: dict[str, np.ndarray]) -> None:
        self._bytes_read += sum(part.nbytes for part in item.values())
        if self._bytes_read > BYTES_BETWEEN_DROPS:
            self._bytes_read = 0
            drop_pages(self._data)
            if self.use_timestamps:
                drop_pages(self.timestamps)


def fits_in_memory(size: int) -> bool:
    """Whether `size` bytes may be read into memory by each of the processes on this machine."""
    known = [room for room in (available_bytes(), cgroup_available_bytes()) if room is not None]
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # set by torch's launcher
    return not known or size * processes <= SHARE_OF_MEMORY * min(known)
