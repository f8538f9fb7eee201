"""How the ranks of one attempt find each other, and not what an attempt before left behind.

After a restart (`torchrun --max-restarts`) torch's launcher gives the ranks the store of the attempt before: seen with
torch 2.13. A rank that is early then reads the addresses of processes that are gone, and gives up. How often a rank was
started is no common number either, as on several machines only the one with the failure counts. So the first rank makes
up a name for the attempt and gives it to whoever asks with a number that was never used before.
"""

import os
import time
import uuid
from datetime import timedelta

from torch.distributed import PrefixStore, Store, TCPStore

from ealinformer.training.distributed.ranks import Ranks

_SECONDS_BETWEEN_LOOKS = 0.02


def meet(ranks: Ranks, timeout: timedelta) -> Store:
    """The part of the launcher's store (MASTER_ADDR, MASTER_PORT) that belongs to this attempt alone.

    Raises:
        RuntimeError, ValueError: there is no such store, or not all ranks came in time.
    """
    address, port = os.environ.get("MASTER_ADDR", ""), os.environ.get("MASTER_PORT", "")
    if not address or not port.isdecimal():
        raise ValueError("MASTER_ADDR and MASTER_PORT have to name the store of the launcher")
    is_launchers = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    store = TCPStore(
        address, int(port), ranks.world_size, is_master=ranks.is_master and not is_launchers, timeout=timeout
    )
    attempt = _name(store, ranks, timeout) if ranks.is_master else _ask(store, ranks, timeout)
    return PrefixStore(attempt, store)


def _ask(store: Store, ranks: Ranks, timeout: timedelta) -> str:
    question = uuid.uuid4().hex
    store.set(f"question/{ranks.rank}", question)
    store.wait([f"answer/{question}"], timeout)
    attempt = store.get(f"answer/{question}").decode()
    store.set(f"{attempt}/came/{ranks.rank}", "")
    return attempt


def _name(store: Store, ranks: Ranks, timeout: timedelta) -> str:
    """Answer the newest question of every rank until all have taken the answer."""
    attempt, deadline = uuid.uuid4().hex, time.monotonic() + timeout.total_seconds()
    answered: dict[int, bytes] = {}
    waited_for = set(range(1, ranks.world_size))
    while waited_for:
        for rank in sorted(waited_for):
            if store.check([f"{attempt}/came/{rank}"]):
                waited_for.discard(rank)
            elif store.check([f"question/{rank}"]):
                question = store.get(f"question/{rank}")
                if answered.get(rank) != question:
                    store.set(f"answer/{question.decode()}", attempt)
                    answered[rank] = question
        if waited_for:
            if time.monotonic() > deadline:
                raise RuntimeError(f"rank {min(waited_for)} did not come in {timeout.total_seconds():.0f} s")
            time.sleep(_SECONDS_BETWEEN_LOOKS)
    return attempt
