"""Which windows a process trains on in which step, and which it validates on."""

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import Sampler


class EpochBatches(Sampler[list[int]]):
    """The batches of this process, for `DataLoader(dataset, batch_sampler=...)`, epoch by epoch.

    An epoch is one order of all windows that follows from seed and epoch alone, cut into global batches of
    `world_size * batch_size` windows; each rank has its contiguous part of every one. So `w` processes with batch `b`
    see in each step what one process with batch `w * b` sees, and an epoch can be taken up at any step. The last,
    smaller global batch is split as evenly as it can be. A rank that would have no window of it gets one that another
    rank has too, so that all take part in the step; `weightless` says so, and its loss has to count 0.

    Nothing is drawn from the global generators here. A `DataLoader` draws one number per iteration from them, unless
    it is given a `generator` of its own.
    """

    def __init__(self, num_windows: int, batch_size: int, *, seed: int, rank: int = 0, world_size: int = 1) -> None:
        if num_windows < 1 or batch_size < 1:
            raise ValueError(f"num_windows {num_windows}, batch_size {batch_size}: both have to be 1 or more")
        _check_rank(rank, world_size)
        self.num_windows = num_windows
        self.seed = seed
        self.rank, self.world_size = rank, world_size
        self.global_batch_size = world_size * batch_size
        self.epoch = 1
        self._first_step = 0

    def set_epoch(self, epoch: int) -> None:
        """Make the next iteration that of `epoch`."""
        self.epoch = epoch

    def start_at(self, step: int) -> None:
        """Leave out the first `step` batches of the next iteration, and of that one only.

        Raises:
            ValueError: an epoch has fewer steps.
        """
        if not 0 <= step <= len(self):
            raise ValueError(f"step {step}: an epoch has {len(self)} steps")
        self._first_step = step

    def __len__(self) -> int:
        """Steps of a whole epoch, on every rank."""
        return -(-self.num_windows // self.global_batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        # A generator: epoch and first step are read with the first batch. A loader with worker processes asks for two
        # iterations and drops the first one untouched.
        first, self._first_step = self._first_step, 0
        order = self._order(self.epoch)
        for step in range(first, len(self)):
            yield self._own_part(order, step)

    def weightless(self, step: int) -> bool:
        """Whether this rank's batch of a step (from 0) is a stand-in that other ranks count already."""
        return len(self._share(step)) == 0

    def indices_of(self, epoch: int, step: int) -> list[int]:
        """The windows of a step (from 0) on all ranks together."""
        return self._global_batch(self._order(epoch), step).tolist()

    def _order(self, epoch: int) -> Tensor:
        # Hashed, as the generator takes 32 bits of its seed and neighbours would be no more than neighbours.
        digest = hashlib.sha256(f"{self.seed} {epoch}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:4], "little"))
        return torch.randperm(self.num_windows, generator=generator)

    def _global_batch(self, order: Tensor, step: int) -> Tensor:
        return order[step * self.global_batch_size : (step + 1) * self.global_batch_size]

    def _share(self, step: int) -> range:
        size = min(self.global_batch_size, self.num_windows - step * self.global_batch_size)
        return share_of_rank(size, self.rank, self.world_size)

    def _own_part(self, order: Tensor, step: int) -> list[int]:
        share = self._share(step) or range(1)
        return self._global_batch(order, step)[share.start : share.stop].tolist()


def share_of_rank(num_windows: int, rank: int, world_size: int) -> range:
    """The windows that a rank validates or tests on: contiguous, in order over the ranks, none twice.

    Sizes differ by one at most; with fewer windows than ranks the last ranks have none.
    """
    _check_rank(rank, world_size)
    size, larger = divmod(num_windows, world_size)
    start = rank * size + min(rank, larger)
    return range(start, start + size + (rank < larger))


def _check_rank(rank: int, world_size: int) -> None:
    if not 0 <= rank < world_size:
        raise ValueError(f"rank {rank}: one of {world_size} is expected")
