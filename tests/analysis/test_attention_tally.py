"""Adding up: the same numbers as all queries at once, in any pieces; a sample where there are too many."""

import numpy as np
import pytest
import torch

from ealinformer.analysis import attention_tally
from ealinformer.analysis.attention import look_at, outputs_of, squared_error, theta_of, weight_facts
from ealinformer.analysis.attention_capture import Call
from ealinformer.analysis.attention_tally import LayerTally, choose_queries
from ealinformer.attention import ENTROPIES, entropy_equal_attention, softmax_attention

HEADS, N, C = 3, 7, 4


def call_of(attention=softmax_attention, calls: int = 6, seed: int = 0, size: float = 2.0) -> Call:
    g = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(1, calls, HEADS, N, C, generator=g) * size for _ in range(3))
    return Call(q, k, v, attention(q, k, v))


def tally_of(*calls: Call, at_most: int = 1000) -> LayerTally:
    tally = LayerTally(at_most, torch.Generator().manual_seed(1))
    for call in calls:
        tally.add(call)
    return tally


def assert_same(found, expected) -> None:
    """Nested dictionaries of numbers, to rounding."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected:
            assert_same(found[key], expected[key])
    else:
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_a_row_holds_what_all_queries_at_once_give() -> None:
    call = call_of()
    rows = tally_of(call).heads()
    assert len(rows) == HEADS
    for head, row in enumerate(rows):
        q, k, v = (x[0, :, head] for x in (call.q, call.k, call.v))
        queries = look_at(q, k)
        outputs = outputs_of(queries, v)
        assert (row["num_keys"], row["queries"]) == (N, 6 * N)
        deficit = queries.deficit.flatten().numpy()
        expected = [deficit.mean(), deficit.min(), *np.quantile(deficit, [0.1, 0.5, 0.9]), deficit.max()]
        assert list(row["softmax"]["deficit"].values()) == pytest.approx(expected, rel=1e-5)
        assert list(row["softmax"]["deficit"]) == ["mean", "min", "p10", "median", "p90", "max"]
        exact = theta_of("exact", queries).log()
        assert list(row["estimators"]) == list(ENTROPIES)
        for entropy, found in row["estimators"].items():
            theta = theta_of(entropy, queries)
            assert found["theta"]["median"] == pytest.approx(np.median(theta.numpy()), rel=1e-5)
            assert found["log_theta_error"] == pytest.approx((theta.log() - exact).abs().mean().item())
            assert found["log_theta_bias"] == pytest.approx((theta.log() - exact).mean().item())
            for name, value in weight_facts(queries, theta).items():
                assert found[name] == pytest.approx(value.mean().item())
            error = squared_error(outputs, theta).sum() / outputs.softmax.square().sum()
            assert found["output_error"] == pytest.approx(error.sqrt().item())
            around = squared_error(outputs, theta).sum() / outputs.variation.square().sum()
            assert found["output_error_of_variation"] == pytest.approx(around.sqrt().item())


def test_the_exact_estimator_is_off_by_nothing() -> None:
    for row in tally_of(call_of()).heads():
        exact = row["estimators"]["exact"]
        assert (exact["log_theta_error"], exact["l1_to_exact_theta"], exact["deficit_bias"]) == (0, 0, 0)
        assert exact["deficit"] == row["softmax"]["deficit"]
        for name in ("taylor", "second_order", "gaussian"):
            assert row["estimators"][name]["log_theta_error"] > 0.01
        smallest = row["softmax"]["smallest_error_of_variation"]
        assert all(found["output_error_of_variation"] >= smallest for found in row["estimators"].values())


@pytest.mark.parametrize("pieces", [1, 10**9])
def test_pieces_of_work_change_no_number(monkeypatch: pytest.MonkeyPatch, pieces: int) -> None:
    expected = tally_of(call_of()).heads()
    monkeypatch.setattr(attention_tally, "SCORES_AT_A_TIME", pieces)
    for found, row in zip(tally_of(call_of()).heads(), expected, strict=True):
        assert_same(found, row)


def test_two_windows_give_what_their_attentions_side_by_side_give() -> None:
    first, second = call_of(seed=1), call_of(seed=2)
    both = Call(*(torch.cat([getattr(c, name) for c in (first, second)], dim=1) for name in ("q", "k", "v", "output")))
    for found, row in zip(tally_of(first, second).heads(), tally_of(both).heads(), strict=True):
        assert_same(found, row)


def test_the_error_of_the_models_own_attention_tells_which_it_is() -> None:
    (row, *_) = tally_of(call_of(softmax_attention)).heads()
    assert row["softmax"]["own_output_error"] < 1e-6
    (row, *_) = tally_of(call_of(lambda q, k, v: entropy_equal_attention(q, k, v, entropy="gaussian"))).heads()
    assert row["softmax"]["own_output_error"] == pytest.approx(row["estimators"]["gaussian"]["output_error"], rel=1e-5)


def test_values_without_variation_give_no_relative_error() -> None:
    call = call_of()
    flat = Call(call.q, call.k, torch.zeros_like(call.v), torch.zeros_like(call.v))
    (row, *_) = tally_of(flat).heads()
    assert row["estimators"]["gaussian"]["output_error"] is None
    assert row["softmax"]["smallest_error_of_variation"] is None


def test_deficits_are_those_of_all_heads_and_queries() -> None:
    call = call_of()
    deficits = tally_of(call).deficits()
    queries = look_at(call.q, call.k)
    assert sorted(deficits["exact"]) == pytest.approx(sorted(queries.deficit.flatten().tolist()), rel=1e-5)
    assert sorted(deficits["taylor"]) == pytest.approx(sorted(queries.moments.variance.flatten().tolist()), rel=1e-5)


# A sample where there are too many


@pytest.mark.parametrize(
    ("num_calls", "num_queries", "expected"),
    [
        (170, 12, (170, 12)),
        (12, 170, (12, 170)),
        (883, 12, (170, 12)),  # short sequences whole
        (12, 883, (12, 170)),  # some of long ones, in every call
        (12, 20_000, (12, 170)),
        (20_000, 12, (170, 12)),
        (1, 1, (1, 1)),
        (5000, 5000, (45, 45)),
    ],
)
def test_a_choice_is_of_as_many_queries_as_allowed(num_calls: int, num_queries: int, expected: tuple[int, int]) -> None:
    calls, queries = choose_queries(num_calls, num_queries, 2048, torch.Generator().manual_seed(0))
    assert (len(calls), len(queries)) == expected
    assert len(calls) * len(queries) <= 2048
    for chosen, num in ((calls, num_calls), (queries, num_queries)):
        assert len(chosen.unique()) == len(chosen)
        assert 0 <= int(chosen.min()) <= int(chosen.max()) < num


def test_a_single_query_is_allowed() -> None:
    calls, queries = choose_queries(12, 170, 1, torch.Generator().manual_seed(0))
    assert (len(calls), len(queries)) == (1, 1)


def test_a_sample_is_the_same_for_the_same_seed_and_near_the_whole() -> None:
    calls = [call_of(calls=20, seed=seed) for seed in range(8)]
    whole, some, again = (tally_of(*calls, at_most=at_most).heads()[0] for at_most in (1000, 40, 40))
    assert some == again
    assert some["queries"] <= 8 * 40 < whole["queries"]
    for entropy in ("gaussian", "skewed", "exact"):
        found, expected = some["estimators"][entropy], whole["estimators"][entropy]
        assert found["l1_to_softmax"] == pytest.approx(expected["l1_to_softmax"], rel=0.1)
        assert found["theta"]["median"] == pytest.approx(expected["theta"]["median"], rel=0.1)


def test_sampled_queries_keep_their_theta_and_their_output() -> None:
    """That of `skewed` depends on the mean over all queries of a call, sampled or not."""
    call = call_of(calls=20)
    whole, some = tally_of(call), tally_of(call, at_most=40)
    for entropy in ("gaussian", "skewed", "exact"):
        for head in range(HEADS):
            every = whole.columns[entropy, "theta"].values()[head]
            sampled = some.columns[entropy, "theta"].values()[head]
            nearest = np.abs(sampled[:, None] / every - 1).min(axis=1)
            assert len(sampled) < len(every)
            assert nearest.max() < 1e-6
    assert all(row["softmax"]["own_output_error"] < 1e-6 for row in some.heads())


def test_what_is_not_finite_is_refused() -> None:
    call = call_of()
    call.k[0, 0, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="keys that are not finite"):
        tally_of(call)


def test_another_number_of_keys_is_refused() -> None:
    call = call_of()
    shorter = Call(*(x[..., :5, :] for x in (call.q, call.k, call.v, call.output)))
    with pytest.raises(ValueError, match="5 keys after 7"):
        tally_of(call, shorter)
