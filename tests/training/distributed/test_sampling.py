"""The order of an epoch, its batches on several ranks, and the shares of validation."""

import itertools
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from ealinformer.training.distributed.sampling import EpochBatches, share_of_rank

SIZES = {"num_windows": st.integers(1, 60), "batch_size": st.integers(1, 9), "world_size": st.integers(1, 6)}


def of_ranks(num_windows: int, batch_size: int, world_size: int, *, seed: int = 3) -> list[EpochBatches]:
    return [
        EpochBatches(num_windows, batch_size, seed=seed, rank=rank, world_size=world_size) for rank in range(world_size)
    ]


def counted(ranks: list[EpochBatches]) -> list[list[int]]:
    """Step by step the windows of all ranks, in order, without those that count 0."""
    batches = [list(rank) for rank in ranks]
    assert len({len(steps) for steps in batches}) == 1
    return [
        list(
            itertools.chain.from_iterable(
                b[step] for r, b in zip(ranks, batches, strict=True) if not r.weightless(step)
            )
        )
        for step in range(len(batches[0]))
    ]


@given(**SIZES, seed=st.integers(-(2**40), 2**70), epoch=st.integers(0, 2**40))
def test_ranks_together_see_what_one_process_with_the_whole_batch_sees(
    num_windows, batch_size, world_size, seed, epoch
):
    ranks = of_ranks(num_windows, batch_size, world_size, seed=seed)
    alone = EpochBatches(num_windows, batch_size * world_size, seed=seed)
    for batches in (*ranks, alone):
        batches.set_epoch(epoch)
    expected = list(alone)
    assert counted(ranks) == expected
    assert [alone.indices_of(epoch, step) for step in range(len(alone))] == expected
    assert [ranks[-1].indices_of(epoch, step) for step in range(len(alone))] == expected
    assert sorted(itertools.chain.from_iterable(expected)) == list(range(num_windows))
    assert [len(batch) for batch in expected[:-1]] == [batch_size * world_size] * (len(alone) - 1)


@given(**SIZES)
def test_every_rank_has_a_window_in_every_step_and_shares_of_the_last_differ_by_one(
    num_windows, batch_size, world_size
):
    ranks = of_ranks(num_windows, batch_size, world_size)
    for step, batches in enumerate(zip(*ranks, strict=True)):
        sizes = [len(batch) for batch in batches]
        assert min(sizes) >= max(1, max(sizes) - 1)
        assert max(sizes) <= batch_size
        for rank, batch in zip(ranks, batches, strict=True):
            assert set(batch) <= set(rank.indices_of(rank.epoch, step))


def test_fewer_windows_than_ranks_leave_the_last_ranks_weightless() -> None:
    ranks = of_ranks(14, 3, 4)  # 12 and 2
    assert [[rank.weightless(step) for rank in ranks] for step in (0, 1)] == [
        [False, False, False, False],
        [False, False, True, True],
    ]
    last = [list(rank)[-1] for rank in ranks]
    assert [len(batch) for batch in last] == [1, 1, 1, 1]
    assert last[0] + last[1] == ranks[0].indices_of(1, 1)


@given(**SIZES, data=st.data())
def test_an_iteration_taken_up_at_a_step_is_the_rest_of_the_whole_one_and_the_next_is_whole(
    num_windows, batch_size, world_size, data
):
    rank = data.draw(st.integers(0, world_size - 1))
    batches = of_ranks(num_windows, batch_size, world_size)[rank]
    batches.set_epoch(5)
    step = data.draw(st.integers(0, len(batches)))
    whole = list(batches)
    batches.start_at(step)
    assert len(batches) == len(whole)
    assert list(batches) == whole[step:]
    assert list(batches) == whole


def test_an_iteration_keeps_the_epoch_and_the_step_it_began_with() -> None:
    batches = EpochBatches(10, 3, seed=1)
    first = list(batches)
    iteration = iter(batches)
    begun = [next(iteration)]
    batches.set_epoch(2)
    batches.start_at(1)
    assert begun + list(iteration) == first
    assert len(list(batches)) == 3
    assert list(batches) != first


def test_orders_of_neighbouring_seeds_and_epochs_are_independent() -> None:
    """Over 900 pairs the correlation of two orders of 2000 windows is that of chance: sd 1 / sqrt(2000)."""
    orders = [
        list(itertools.chain.from_iterable(batches))
        for seed in range(6)
        for epoch in range(1, 8)
        if (batches := EpochBatches(2000, 64, seed=seed)).set_epoch(epoch) is None
    ]
    correlations = np.corrcoef(np.array(orders))[np.triu_indices(len(orders), 1)]
    assert np.abs(correlations).max() < 5 / np.sqrt(2000)
    assert correlations.std() == pytest.approx(1 / np.sqrt(2000), rel=0.1)
    # Seed 1 in epoch 2 is not seed 2 in epoch 1.
    assert EpochBatches(50, 50, seed=1).indices_of(2, 0) != EpochBatches(50, 50, seed=2).indices_of(1, 0)


def test_an_order_does_not_depend_on_global_generators_nor_change_them() -> None:
    expected = list(EpochBatches(100, 7, seed=4))
    for seed in (0, 1):
        random.seed(seed), np.random.seed(seed), torch.manual_seed(seed)
        python, numpy, of_torch = random.getstate(), np.random.get_state(), torch.get_rng_state()
        assert list(EpochBatches(100, 7, seed=4)) == expected
        assert random.getstate() == python
        assert np.array_equal(np.random.get_state()[1], numpy[1])
        assert torch.equal(torch.get_rng_state(), of_torch)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_loader_brings_the_windows_of_these_batches(num_workers: int) -> None:
    batches = EpochBatches(11, 2, seed=4, rank=1, world_size=2)
    expected = list(batches)
    batches.start_at(1)
    loader = DataLoader(range(11), batch_sampler=batches, num_workers=num_workers, generator=torch.Generator())
    before = torch.get_rng_state()
    assert [batch.tolist() for batch in loader] == expected[1:]
    assert [batch.tolist() for batch in loader] == expected
    assert len(loader) == len(expected)
    assert torch.equal(torch.get_rng_state(), before)


@given(num_windows=st.integers(0, 200), world_size=st.integers(1, 30))
@settings(max_examples=200)
def test_shares_are_all_windows_in_order_in_sizes_that_differ_by_one(num_windows, world_size):
    shares = [share_of_rank(num_windows, rank, world_size) for rank in range(world_size)]
    assert list(itertools.chain.from_iterable(shares)) == list(range(num_windows))
    sizes = [len(share) for share in shares]
    assert max(sizes) - min(sizes) <= 1
    assert all(share.step == 1 for share in shares)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EpochBatches(0, 4, seed=1), "num_windows 0"),
        (lambda: EpochBatches(4, 0, seed=1), "batch_size 0"),
        (lambda: EpochBatches(4, 4, seed=1, rank=2, world_size=2), "rank 2: one of 2 is expected"),
        (lambda: EpochBatches(4, 4, seed=1).start_at(2), "step 2: an epoch has 1 steps"),
        (lambda: EpochBatches(4, 4, seed=1).start_at(-1), "step -1"),
        (lambda: share_of_rank(4, -1, 2), "rank -1: one of 2 is expected"),
    ],
)
def test_sizes_ranks_and_steps_that_cannot_be(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
