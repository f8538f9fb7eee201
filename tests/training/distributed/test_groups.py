"""Ranks as real processes (gloo): what they agree on, their gradients, and how all end when one does.

The processes are forked from a server that has torch imported, which takes them milliseconds in place of seconds.
"""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from ealinformer.errors import InputError
from ealinformer.training.distributed import groups as distribution
from ealinformer.training.distributed.devices import select_devices
from ealinformer.training.distributed.groups import (
    EXIT_RANK_LOST,
    agree_max,
    barrier,
    broadcast_bytes,
    gather_objects,
    join,
    sum_in_place,
    wrap,
)
from ealinformer.training.distributed.ranks import Ranks, ranks_from_environment

CONTEXT = multiprocessing.get_context("forkserver")
# torch._dynamo is what DistributedDataParallel imports late.
CONTEXT.set_forkserver_preload(["torch._dynamo", "ealinformer.training.distributed.processes", "pytest"])
SECONDS = 20  # none of these needs more than a few


class Group:
    """`world_size` processes that run `work(ranks, *arguments)` in `join`, each with what it returns and says."""

    def __init__(
        self, folder: Path, world_size: int, work: Callable[..., Any], *arguments: object, timeout: int = 60
    ) -> None:
        folder.mkdir()
        self.folder = folder
        self.store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        self.processes = [
            CONTEXT.Process(
                target=be_rank,
                args=(Ranks(rank, world_size, rank, world_size), self.store.port, timeout, folder, work, arguments),
            )
            for rank in range(world_size)
        ]
        for process in self.processes:
            process.start()

    def exit_codes(self) -> list[int | None]:
        """Of all ranks, None for those that have not ended by then."""
        deadline = time.monotonic() + SECONDS
        for process in self.processes:
            process.join(max(0, deadline - time.monotonic()))
        codes = [process.exitcode for process in self.processes]
        for process in self.processes:
            process.kill()
        return codes

    def results(self) -> list[Any]:
        assert self.exit_codes() == [0] * len(self.processes), self.said(0)
        return [torch.load(self.folder / f"result-{rank}") for rank in range(len(self.processes))]

    def said(self, rank: int) -> str:
        return (self.folder / f"stderr-{rank}").read_text()


def be_rank(
    ranks: Ranks, port: int, timeout: int, folder: Path, work: Callable[..., Any], arguments: tuple[object, ...]
) -> None:
    """The environment as torchrun sets it, with a store that outlives the ranks."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    numbers = (ranks.rank, ranks.world_size, ranks.local_rank, ranks.local_world_size)
    os.environ.update({name: str(number) for name, number in zip(names, numbers, strict=True)})
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    os.environ.update(TORCHELASTIC_USE_AGENT_STORE="True", TORCHELASTIC_RESTART_COUNT="0")
    os.dup2(os.open(folder / f"stderr-{ranks.rank}", os.O_WRONLY | os.O_CREAT), 2)
    torch.set_num_threads(1)
    assert ranks_from_environment() == ranks
    with join(ranks, cuda=False, timeout=timedelta(seconds=timeout)):
        result = work(ranks, *arguments)
    torch.save(result, folder / f"result-{ranks.rank}")


# Agreement


def agree(ranks: Ranks) -> dict[str, Any]:
    rank = ranks.rank
    summed = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)[rank] / 3, torch.tensor([rank, 1])
    sum_in_place(*summed)
    messages = [b"", bytes(range(256)) * 16384, "été".encode()]
    return {
        "largest": agree_max(rank, -rank, 2.5, rank == 1, 2**53 - 1),
        "messages": [broadcast_bytes(message if ranks.is_master else None) == message for message in messages],
        "gathered": gather_objects({"rank": rank, "state": torch.arange(rank)}),
        "sums": summed,
        "barrier": barrier(),
    }


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_agree(tmp_path: Path, world_size: int) -> None:
    results = Group(tmp_path / "group", world_size, agree).results()
    for rank, result in enumerate(results):
        assert result["largest"] == (world_size - 1, 0, 2.5, 1, 2**53 - 1)
        assert result["messages"] == [True, True, True]
        assert torch.equal(result["sums"][0], results[0]["sums"][0])
        assert result["sums"][0].item() == pytest.approx(sum([0.1, 0.2, 0.3, 0.4][:world_size]) / 3, rel=1e-15)
        assert result["sums"][1].tolist() == [sum(range(world_size)), world_size]
        assert (result["gathered"] is None) == (rank > 0)
    assert [one["rank"] for one in results[0]["gathered"]] == list(range(world_size))
    assert [len(one["state"]) for one in results[0]["gathered"]] == list(range(world_size))


def test_a_process_that_is_alone_agrees_with_itself() -> None:
    model, tensor = torch.nn.Linear(2, 2), torch.ones(2)
    with join(Ranks.alone(), cuda=False):
        assert not dist.is_initialized()
        assert agree_max(True, -1.5) == (1, -1.5)
        assert broadcast_bytes(b"abc") == b"abc"
        assert gather_objects("x") == ["x"]
        assert wrap(model, False, 0) is model
        sum_in_place(tensor)
        barrier()
    assert tensor.tolist() == [1, 1]


# Gradients

READINGS = [5, 0, 2, 3]  # of each rank, none on one of them


def build_model(seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)).double()


def data_of(rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(rank)
    inputs = torch.randn(max(1, READINGS[rank]), 3, dtype=torch.float64, generator=generator)
    return inputs, torch.randn(len(inputs), 1, dtype=torch.float64, generator=generator)


def gradients(ranks: Ranks) -> list[torch.Tensor]:
    """Of the mean over all readings; the weights of rank 0 are everyone's."""
    model = wrap(build_model(seed=ranks.rank), False, ranks.local_rank)
    inputs, targets = data_of(ranks.rank)
    count = torch.tensor(READINGS[ranks.rank], dtype=torch.float64)
    count_of_all = count.clone()
    sum_in_place(count_of_all)
    loss = torch.nn.functional.mse_loss(model(inputs), targets)
    (loss * (count * ranks.world_size / count_of_all)).backward()
    return [parameter.grad for parameter in model.parameters()]


@pytest.mark.parametrize("world_size", [2, 4])
def test_gradients_over_ranks_are_those_of_one_process_on_all_windows(tmp_path: Path, world_size: int) -> None:
    model = build_model(seed=0)
    used = [data_of(rank) for rank in range(world_size) if READINGS[rank]]
    inputs, targets = (torch.cat(parts) for parts in zip(*used, strict=True))
    torch.nn.functional.mse_loss(model(inputs), targets).backward()
    expected = [parameter.grad for parameter in model.parameters()]
    for found in Group(tmp_path / "group", world_size, gradients).results():
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


# Ends


def fail(ranks: Ranks, rank: int, how: str) -> None:
    """Some steps in, one rank ends while the others are in a backward pass or in an agreement."""
    model = wrap(build_model(seed=0), False, ranks.local_rank)
    for step in range(3):
        if step == 2 and ranks.rank == rank:
            if how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise ZeroDivisionError("of this rank")
        if how == "kill":
            model(data_of(0)[0]).sum().backward()
        else:
            agree_max(0)


@pytest.mark.parametrize(("how", "code"), [("kill", -signal.SIGKILL), ("raise", 1)])
def test_whichever_rank_ends_the_others_end_and_say_so(tmp_path: Path, how: str, code: int) -> None:
    groups = [Group(tmp_path / f"rank-{rank}", 4, fail, rank, how) for rank in range(4)]
    for rank, group in enumerate(groups):
        expected = [EXIT_RANK_LOST] * 4
        expected[rank] = code
        assert group.exit_codes() == expected
        for other in {0, 1, 2, 3} - {rank}:
            assert group.said(other).startswith(f"rank {other} has lost another rank (")
            assert len(group.said(other).splitlines()) == 1
        assert ("ZeroDivisionError: of this rank" in group.said(rank)) == (how == "raise")


def fail_alike(ranks: Ranks, error: BaseException) -> None:
    agree_max(0)
    raise error


@pytest.mark.parametrize(
    ("error", "code", "last_line"),
    [
        (InputError("no such thing"), 1, ["ealinformer.errors.InputError: no such thing"]),
        (RuntimeError("shapes cannot be multiplied"), 1, ["RuntimeError: shapes cannot be multiplied"]),
        (SystemExit(143), 143, []),
    ],
)
def test_an_error_of_its_own_stays_what_it_is(
    tmp_path: Path, error: BaseException, code: int, last_line: list[str]
) -> None:
    group = Group(tmp_path / "group", 2, fail_alike, error)
    assert group.exit_codes() == [code, code]
    assert [group.said(rank).splitlines()[-1:] for rank in (0, 1)] == [last_line, last_line]


def fail_in_the_middle(ranks: Ranks) -> None:
    distribution._SECONDS_TO_PART = 0.5
    if ranks.rank == 1:
        time.sleep(10 * SECONDS)
    dist.all_reduce(torch.ones(3), async_op=True)
    raise ZeroDivisionError


def test_a_rank_does_not_wait_with_leaving_for_a_collective_that_others_never_join(tmp_path: Path) -> None:
    group = Group(tmp_path / "group", 2, fail_in_the_middle)
    group.processes[0].join(SECONDS)
    assert group.processes[0].exitcode == 1
    assert group.processes[1].is_alive()
    group.processes[1].kill()


def fall_silent(ranks: Ranks) -> None:
    if ranks.rank == 1:
        time.sleep(10 * SECONDS)
    agree_max(0)


def test_a_rank_that_lives_and_is_silent_is_waited_for_as_long_as_said(tmp_path: Path) -> None:
    group = Group(tmp_path / "group", 2, fall_silent, timeout=2)
    group.processes[0].join(SECONDS)
    assert group.processes[0].exitcode == EXIT_RANK_LOST
    assert group.said(0).startswith("rank 0 has lost another rank (Timed out waiting 2000ms")
    group.processes[1].kill()


def miss_the_others(port: int, folder: Path) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    os.environ.update(TORCHELASTIC_USE_AGENT_STORE="True", TORCHELASTIC_RESTART_COUNT="0")
    try:
        with join(Ranks(0, 2, 0, 2), cuda=False, timeout=timedelta(seconds=1)):
            raise AssertionError
    except InputError as error:
        (folder / "said").write_text(str(error))


def test_ranks_that_do_not_meet_say_where_they_waited(tmp_path: Path) -> None:
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    process = CONTEXT.Process(target=miss_the_others, args=(store.port, tmp_path))
    process.start()
    process.join(SECONDS)
    assert process.exitcode == 0
    said = (tmp_path / "said").read_text()
    assert said.startswith(f"rank 0 of 2 did not find the others at 127.0.0.1:{store.port}: ")
    assert len(said.splitlines()) == 1


# What needs no process


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """`environment("RANK=1 WORLD_SIZE=2")` has these variables of torchrun and no others."""

    def set_to(variables: str) -> None:
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
            monkeypatch.delenv(name, raising=False)
        for variable in variables.split():
            monkeypatch.setenv(*variable.split("="))

    return set_to


def test_ranks_of_the_environment(environment: Callable[[str], None]) -> None:
    environment("")
    assert ranks_from_environment() is None
    environment("RANK=5 WORLD_SIZE=8 LOCAL_RANK=1 LOCAL_WORLD_SIZE=4")
    ranks = ranks_from_environment()
    assert ranks == Ranks(5, 8, 1, 4)
    assert ranks is not None
    assert not ranks.is_master
    assert Ranks.alone().is_master


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ("RANK=0", "RANK=0 but no WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE"),
        ("WORLD_SIZE=4", "WORLD_SIZE=4 but no RANK LOCAL_RANK LOCAL_WORLD_SIZE"),
        ("RANK=a WORLD_SIZE=2 LOCAL_RANK=0 LOCAL_WORLD_SIZE=2", "RANK=a .*: numbers as torchrun sets them"),
        ("RANK=-1 WORLD_SIZE=2 LOCAL_RANK=0 LOCAL_WORLD_SIZE=2", "RANK=-1 .*: numbers"),
        ("RANK= WORLD_SIZE=2 LOCAL_RANK=0 LOCAL_WORLD_SIZE=2", "RANK= .*: numbers"),
        ("RANK=2 WORLD_SIZE=2 LOCAL_RANK=0 LOCAL_WORLD_SIZE=2", "RANK=2 .*: a rank is less than its world size"),
        ("RANK=1 WORLD_SIZE=2 LOCAL_RANK=1 LOCAL_WORLD_SIZE=1", "LOCAL_RANK=1 .*: a rank is less"),
        ("RANK=0 WORLD_SIZE=2 LOCAL_RANK=1 LOCAL_WORLD_SIZE=2", "LOCAL_RANK=1 .*: a rank is less"),
        ("RANK=0 WORLD_SIZE=0 LOCAL_RANK=0 LOCAL_WORLD_SIZE=0", "WORLD_SIZE=0 .*: a rank is less"),
        ("RANK=0 WORLD_SIZE=1 LOCAL_RANK=0 LOCAL_WORLD_SIZE=2", "fewer ranks in all than on this machine"),
    ],
)
def test_an_environment_that_torchrun_does_not_make(environment, variables: str, message: str) -> None:
    environment(variables)
    with pytest.raises(InputError, match=message) as error:
        ranks_from_environment()
    assert len(str(error.value).splitlines()) == 1


def test_gpus_that_are_not_one_for_each_rank() -> None:
    with pytest.raises(InputError, match="--gpus 0,1: 2 devices for 3 processes on this machine"):
        select_devices("0,1", Ranks(0, 6, 0, 3))
    assert select_devices(None, Ranks(0, 2, 0, 2)) == 0
