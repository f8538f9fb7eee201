"""Ranks of one attempt find each other in a store that still holds an attempt before."""

import threading
from datetime import timedelta

import pytest
from torch.distributed import HashStore, Store, TCPStore

from ealinformer.training.distributed.ranks import Ranks
from ealinformer.training.distributed.rendezvous import _ask, _name, meet

SOON = timedelta(seconds=20)


def attempt(store: Store, late: int | None = None, size: int = 3) -> list[str]:
    """The names that the ranks of one attempt come to, each in a thread; the rank `late` begins after the others."""
    names = [""] * size

    def work(rank: int) -> None:
        ranks = Ranks(rank, size, rank, size)
        names[rank] = _name(store, ranks, SOON) if rank == 0 else _ask(store, ranks, SOON)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(size)]
    for rank, thread in enumerate(threads):
        if rank != late:
            thread.start()
    if late is not None:
        threads[late].start()
    for thread in threads:
        thread.join(timeout=20)
        assert not thread.is_alive()
    return names


@pytest.mark.parametrize("late", [None, 0, 2])
def test_all_ranks_of_an_attempt_come_to_one_name_and_the_next_attempt_to_another(late: int | None) -> None:
    store = HashStore()
    first = attempt(store)
    second = attempt(store, late)
    assert len(set(first)) == len(set(second)) == 1
    assert first[0] != second[0]


def test_a_rank_that_died_after_asking_is_not_taken_for_the_one_that_follows_it() -> None:
    store = HashStore()
    store.set("question/1", "of a process that is gone")
    assert len(set(attempt(store, late=1))) == 1


def test_a_rank_that_does_not_come_is_named() -> None:
    with pytest.raises(RuntimeError, match="rank 1 did not come in 0 s"):
        _name(HashStore(), Ranks(0, 2, 0, 2), timedelta(seconds=0.1))


def test_what_was_written_in_another_attempt_is_not_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over the store that a launcher keeps."""
    launcher = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    for name, value in {
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": str(launcher.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }.items():
        monkeypatch.setenv(name, value)
    alone = Ranks(0, 1, 0, 1)
    meet(alone, SOON).set("address", "old")
    assert not meet(alone, SOON).check(["address"])


@pytest.mark.parametrize(("address", "port"), [("", "1"), ("localhost", ""), ("localhost", "a")])
def test_a_store_that_is_not_named_is_an_error(monkeypatch: pytest.MonkeyPatch, address: str, port: str) -> None:
    monkeypatch.setenv("MASTER_ADDR", address)
    monkeypatch.setenv("MASTER_PORT", port)
    with pytest.raises(ValueError, match="MASTER_ADDR and MASTER_PORT have to name the store"):
        meet(Ranks(0, 2, 0, 2), SOON)
