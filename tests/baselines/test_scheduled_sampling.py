"""Scheduled sampling against the formula in exact decimals, and the frequency of its draws."""

import math
from decimal import Decimal, getcontext

import pytest
import torch

from baselines.layers.scheduled_sampling import truth_mask, truth_probability


@pytest.mark.parametrize("decay", [0.5, 1, 20, 2000, 6000])
@pytest.mark.parametrize("step", [0, 1, 7, 500, 15_000, 20_000])
def test_the_probability_is_that_of_the_formula(step, decay):
    getcontext().prec = 60
    k = Decimal(decay)
    expected = float(k / (k + (Decimal(step) / k).exp()))
    assert truth_probability(step, decay).item() == pytest.approx(expected, rel=1e-12, abs=1e-300)


@pytest.mark.parametrize(("step", "decay"), [(10**9, 1), (10**12, 2000), (1, 1e-6)])
def test_a_late_step_does_not_overflow(step, decay):
    assert truth_probability(step, decay) == 0


def test_it_falls_with_the_steps_from_almost_one():
    assert truth_probability(1, 2000) > 0.999
    assert truth_probability(round(2000 * math.log(2000)), 2000).item() == pytest.approx(0.5, abs=1e-4)
    falling = [truth_probability(step, 2000).item() for step in range(1, 40_000, 1000)]
    assert falling == sorted(falling, reverse=True)


@pytest.mark.parametrize("decay", [0, -1, math.nan])
def test_a_decay_that_is_not_positive_is_refused(decay):
    with pytest.raises(ValueError, match="decay has to be positive"):
        truth_probability(1, decay)


@pytest.mark.parametrize("step", [1, 60, 75])
def test_the_truth_is_drawn_as_often_as_its_probability_says(step):
    torch.manual_seed(0)
    expected, draws = truth_probability(step, 20).item(), 40_000
    deviation = math.sqrt(expected * (1 - expected) / draws)
    assert truth_mask(draws, step, 20).double().mean().item() == pytest.approx(expected, abs=4 * deviation)


@pytest.mark.parametrize("given", [60, torch.tensor(60)], ids=["int", "tensor"])
def test_the_seed_fixes_one_coin_for_each_step(given):
    torch.manual_seed(3)
    mask = truth_mask(12, 60, 20)
    torch.manual_seed(3)
    assert torch.equal(truth_mask(12, given, 20), mask)
    assert (mask.shape, mask.dtype) == ((12,), torch.bool)
    assert set(mask.tolist()) == {True, False}
    assert not torch.equal(truth_mask(12, given, 20), mask)


def test_one_compiled_draw_serves_all_steps():
    graphs = []
    draw = torch.compile(
        lambda step: truth_mask(12, step, 20), backend=lambda graph, _: graphs.append(graph) or graph, dynamic=False
    )
    for step in range(1, 5):
        torch.manual_seed(step)
        expected = truth_mask(12, step, 20)
        torch.manual_seed(step)
        assert torch.equal(draw(torch.tensor(step)), expected)
    assert len(graphs) == 1
