"""Which process of a run of several this is."""

import os
import re
from dataclasses import dataclass

from ealinformer.errors import InputError


@dataclass(frozen=True)
class Ranks:
    """Which process of how many this is, in all and on its machine."""

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int

    @classmethod
    def alone(cls) -> "Ranks":
        """A run of one process."""
        return cls(0, 1, 0, 1)

    @property
    def is_master(self) -> bool:
        """Whether this is the one process that writes and speaks."""
        return self.rank == 0


def ranks_from_environment() -> Ranks | None:
    """What torchrun says of this process, None when it was not started by it.

    Raises:
        InputError: the variables are incomplete or contradict each other.
    """
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    found = {name: os.environ[name] for name in names if name in os.environ}
    if not found:
        return None
    said = " ".join(f"{name}={value}" for name, value in found.items())
    missing = [name for name in names if name not in found]
    if missing:
        raise InputError(f"environment: {said} but no {' '.join(missing)}: torchrun sets all, or unset them")
    if not all(re.fullmatch(r"[0-9]{1,9}", value) for value in found.values()):
        raise InputError(f"environment: {said}: numbers as torchrun sets them are expected, or none of them")
    ranks = Ranks(*(int(found[name]) for name in names))
    if not (ranks.local_rank <= ranks.rank < ranks.world_size and ranks.local_rank < ranks.local_world_size):
        raise InputError(f"environment: {said}: a rank is less than its world size, and a local one than its own")
    if ranks.local_world_size > ranks.world_size:
        raise InputError(f"environment: {said}: there are fewer ranks in all than on this machine")
    return ranks
