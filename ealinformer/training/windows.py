"""Windows of a split, in memory where it fits there, else read from its files one by one."""

import io
import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from basicts.data import BasicTSForecastingDataset
from basicts.utils import BasicTSMode

from ealinformer.errors import InputError
from ealinformer.measure.cgroups import cgroup_available_bytes
from ealinformer.measure.memory import available_bytes

Storage = Literal["in memory", "on disk"]
# Of what is available when a split is opened; the model, its gradients and the other splits need room too.
SHARE_OF_MEMORY = 0.5
ROWS_AT_A_TIME = 4096


class WindowDataset(BasicTSForecastingDataset):
    """The host's dataset, item for item, for files larger than memory too.

    An item has `inputs` `[L, N]` and `targets` `[H, N]` on the original scale and, with `use_timestamps`,
    `inputs_timestamps` `[L, 2]` and `targets_timestamps` `[H, 2]`, all float32. In memory they are views, as the host's
    are; from the files they are copies. `data` is a memory map then.

    Args:
        memmap: None leaves on disk the files that are larger than a share of the memory that is available, and reads
            others into memory.
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
        self._files: dict[str, io.FileIO] = {}
        try:
            super().__init__(dataset_name, input_len, output_len, mode, use_timestamps, local, str(folder), memmap)
        except (OSError, EOFError, ValueError) as error:  # whole when the run began, and gone or cut since
            said = getattr(error, "strerror", None) or str(error).splitlines()[0]
            raise InputError(f"{folder}: the {mode} part cannot be read any more: {said}") from error

    @property
    def storage(self) -> Storage:
        """Where the readings are, for the log."""
        return "on disk" if self.memmap else "in memory"

    @property
    def nbytes(self) -> int:
        """Size of readings and timestamps."""
        return self._data.nbytes + (self.timestamps.nbytes if self.use_timestamps else 0)

    def tensor(self, array: np.ndarray, device: torch.device) -> torch.Tensor:
        """`data` or `timestamps` as a tensor on a device; on the CPU, where it is in memory, without a copy."""
        if not isinstance(array, np.memmap):
            return torch.from_numpy(array).to(device)
        whole = torch.empty(array.shape, dtype=torch.float32, device=device)
        for first in range(0, len(array), ROWS_AT_A_TIME):
            rows = min(ROWS_AT_A_TIME, len(array) - first)
            whole[first : first + rows] = torch.from_numpy(self._read(array, first, rows))
        return whole

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        if not self.memmap:
            return super().__getitem__(index)
        rows = self.input_len + self.output_len
        window = self._read(self._data, index, rows)
        item = {"inputs": window[: self.input_len], "targets": window[self.input_len :]}
        if self.use_timestamps:
            window = self._read(self.timestamps, index, rows)
            item["inputs_timestamps"] = window[: self.input_len]
            item["targets_timestamps"] = window[self.input_len :]
        return item

    def __getstate__(self) -> dict[str, Any]:
        """A worker process opens the files itself: pickled, the arrays would travel whole."""
        state = {**self.__dict__, "_files": {}}
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

    def _read(self, array: np.memmap, first: int, rows: int) -> np.ndarray:
        """Some rows, in memory of their own.

        Read from the file, not through the map: its pages would pile up in the process, and a file that is cut off
        meanwhile would end it by a signal.
        """
        path = str(array.filename)
        found = np.empty((rows, *array.shape[1:]), dtype=array.dtype)
        unread, offset = found.reshape(-1).view(np.uint8), array.offset + first * array.strides[0]
        try:
            if path not in self._files:
                self._files[path] = open(path, "rb", buffering=0)  # noqa: SIM115, closed with the data set
            while unread.size:
                count = os.preadv(self._files[path].fileno(), [memoryview(unread)], offset)  # type: ignore[arg-type]
                if not count:
                    raise InputError(f"{path} ends before row {first + rows}, and did not when training began")
                unread, offset = unread[count:], offset + count
        except OSError as error:
            raise InputError(f"{path} cannot be read any more: {error.strerror or error}") from error
        return found


def fits_in_memory(size: int) -> bool:
    """Whether `size` bytes may be read into memory by each of the processes on this machine."""
    free = free_memory()
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # set by torch's launcher
    return free is None or size * processes <= SHARE_OF_MEMORY * free


def free_memory() -> int | None:
    """Bytes that the system and the control group of this process have left; None where neither says."""
    return min((room for room in (available_bytes(), cgroup_available_bytes()) if room is not None), default=None)
