"""The comparison of the entropy estimators: its moments are the layer's, its numbers those of a loop over queries."""

import math

import pytest
import torch

from ealinformer.analysis.attention import look_at, theta_of
from ealinformer.analysis.closures import FAMILIES, compare_closures, sweep
from ealinformer.attention import ENTROPIES, entropy_equal_attention


@pytest.mark.parametrize("family", FAMILIES)
def test_theta_is_the_one_that_the_layer_uses(family):
    q, k = FAMILIES[family](20, 6, torch.Generator().manual_seed(0))
    q = q * 0.3  # within the domain of uncentred Taylor
    queries = look_at(q, k)
    for name in ENTROPIES:
        weights = entropy_equal_attention(q, k, torch.eye(20, dtype=torch.float64), entropy=name)
        expected = (1 + queries.scores / theta_of(name, queries)) / 20
        torch.testing.assert_close(weights, expected, rtol=1e-8, atol=1e-10)


def test_a_row_says_what_a_loop_over_queries_says():
    rows = {row["entropy"]: row for row in compare_closures("skewed", 1.5, 12, head_size=5, draws=1, seed=3)}
    assert set(rows) == set(ENTROPIES)
    q, k = FAMILIES["skewed"](12, 5, torch.Generator().manual_seed(3))
    raw = q @ k.T / math.sqrt(5)
    spread = (raw - raw.mean(-1, keepdim=True)).square().mean().sqrt()
    raw = raw * (1.5 / spread)
    errors, distances, outside = [], [], 0
    for row in raw:
        p = torch.softmax(row, dim=-1)
        deficit = math.log(12) + (p * p.log()).sum()
        centred = row - row.mean()
        exact = math.sqrt(centred.square().mean() / (2 * deficit))
        errors.append(abs(math.log(1 / exact)))  # theta = 1: second_order
        distances.append(((1 + centred) / 12 - p).abs().sum())
        outside += bool(row.mean() <= -1)
    assert rows["second_order"]["error"] == pytest.approx(sum(errors) / 12)
    assert rows["second_order"]["l1"] == pytest.approx(float(sum(distances) / 12))
    assert rows["second_order"]["outside"] == pytest.approx(outside / 12)
    assert rows["exact"]["error"] == 0
    assert rows["taylor"]["theta"] == pytest.approx(math.sqrt(0.5))


def test_a_seed_gives_its_numbers_again_and_a_sweep_covers_all_cases():
    steps = []
    rows = sweep(["gaussian", "offset"], [0.5, 2.0], [8, 12], draws=1, progress=lambda *done: steps.append(done))
    assert len(rows) == 2 * 2 * 2 * len(ENTROPIES)
    assert steps == [(i, 8) for i in range(1, 9)]
    again = compare_closures("offset", 2.0, 12, draws=1)
    assert [row for row in rows if (row["family"], row["std"], row["num_keys"]) == ("offset", 2.0, 12)] == again
    assert again != compare_closures("offset", 2.0, 12, draws=1, seed=1)


def test_the_order_that_the_documentation_states():
    """finite_size follows Gaussian keys where gaussian drifts; skewed follows skewed ones; an offset misleads one."""

    def error(family, std):
        return {row["entropy"]: row["error"] for row in compare_closures(family, std, 307, draws=2)}

    plain, skewed, offset = error("gaussian", 4.0), error("skewed", 0.5), error("offset", 4.0)
    assert plain["finite_size"] < 0.5 * plain["gaussian"] < 0.5 * plain["second_order"] < 0.5 * plain["taylor"]
    assert skewed["skewed"] < 0.5 * skewed["finite_size"]
    assert offset["taylor_uncentred"] > 1.5 * plain["taylor_uncentred"]
    assert offset["finite_size"] == pytest.approx(plain["finite_size"], rel=0.2)
