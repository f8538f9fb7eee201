"""Measures of weights, query by query, against explicit loops, torch's distributions and the attention itself."""

import math

import pytest
import torch

from ealinformer.analysis.attention import (
    CLIP,
    deficit_of,
    look_at,
    output_facts,
    outputs_of,
    score_facts,
    squared_error,
    theta_of,
    weight_facts,
)
from ealinformer.attention import ENTROPIES, entropy_equal_attention, reference_weights, softmax_attention

N, C = 9, 4


@pytest.fixture
def qkv():
    """Queries that share a direction, keys that are skewed and not centred, values; scores of std 1 to 3."""
    g = torch.Generator().manual_seed(3)
    q = torch.randn(2, 3, N, C, generator=g, dtype=torch.float64) * 2 + 1
    k = torch.randn(2, 3, N, C, generator=g, dtype=torch.float64).exp() - 1.5
    v = torch.randn(2, 3, N, C, generator=g, dtype=torch.float64)
    return q, k, v


def theta_in_use(q, k, entropy: str, branch: str) -> torch.Tensor:
    """The theta of the attention itself, read off its weights: 1 + x / theta = N phi."""
    values = torch.eye(k.shape[-2], dtype=torch.float64).expand(*k.shape[:-1], k.shape[-2])
    weights = entropy_equal_attention(q, k, values, entropy=entropy, branch=branch)
    x = q @ (k - k.mean(dim=-2, keepdim=True)).transpose(-2, -1) / k.shape[-1] ** 0.5
    largest = x.abs().argmax(dim=-1, keepdim=True)
    return x.gather(-1, largest) / (k.shape[-2] * weights.gather(-1, largest) - 1)


def test_entropy_is_that_of_the_categorical_distribution(qkv) -> None:
    q, k, _ = qkv
    expected = torch.distributions.Categorical(logits=q @ k.transpose(-2, -1) / C**0.5).entropy()
    queries = look_at(q, k)
    facts = score_facts(queries)
    torch.testing.assert_close(facts["entropy"], expected)
    torch.testing.assert_close(facts["deficit"], math.log(N) - expected)
    torch.testing.assert_close(deficit_of("exact", queries).squeeze(-1), math.log(N) - expected)


@pytest.mark.parametrize("entropy", ENTROPIES)
def test_theta_is_the_one_that_the_attention_uses(qkv, entropy: str) -> None:
    q, k, _ = qkv
    found = theta_of(entropy, look_at(q, k))
    torch.testing.assert_close(found, theta_in_use(q, k, entropy, "quadratic"), rtol=1e-9, atol=0)
    if entropy != "exact":
        torch.testing.assert_close(found, theta_in_use(q, k, entropy, "linear"), rtol=1e-9, atol=0)


@pytest.mark.parametrize("entropy", ENTROPIES)
def test_theta_and_deficit_belong_together(qkv, entropy: str) -> None:
    queries = look_at(*qkv[:2])
    from_deficit = (queries.moments.variance / (2 * deficit_of(entropy, queries))).sqrt()
    torch.testing.assert_close(theta_of(entropy, queries), from_deficit.clamp(min=1e-4), rtol=1e-6, atol=0)


def test_some_queries_have_the_theta_that_they_have_among_all(qkv) -> None:
    q, k, _ = qkv
    some = [1, 4, 5]
    all_of_them = look_at(q, k)
    few = look_at(q[..., some, :], k, mean_query=q.mean(dim=-2, keepdim=True))
    for entropy in ENTROPIES:
        torch.testing.assert_close(theta_of(entropy, few), theta_of(entropy, all_of_them)[..., some, :])
    alone = look_at(q[..., some, :], k)
    assert not torch.allclose(theta_of("skewed", alone), theta_of("skewed", few), rtol=1e-3)


def test_facts_of_scores_are_those_of_a_loop(qkv) -> None:
    q, k = qkv[0][0, 0], qkv[1][0, 0]
    facts = score_facts(look_at(q, k))
    outside = 0
    for i in range(N):
        raw = [sum(float(a) * float(b) for a, b in zip(q[i], key, strict=True)) / math.sqrt(C) for key in k]
        mean = sum(raw) / N
        std = math.sqrt(sum((x - mean) ** 2 for x in raw) / N)
        assert facts["score_mean"][i].item() == pytest.approx(mean)
        assert facts["score_std"][i].item() == pytest.approx(std)
        assert facts["score_skewness"][i].item() == pytest.approx(sum(((x - mean) / std) ** 3 for x in raw) / N)
        assert facts["outside_domain"][i].item() == (mean <= -1)
        outside += mean <= -1
    assert 0 < outside < N


@pytest.mark.parametrize("entropy", ENTROPIES)
def test_facts_of_weights_are_those_of_a_loop(qkv, entropy: str) -> None:
    """A larger query gives negative weights. Softmax and phi are taken from the reference, not from what is tested."""
    q, k = 2 * qkv[0][0, 0], qkv[1][0, 0]
    queries = look_at(q, k)
    theta = theta_of(entropy, queries)
    found = weight_facts(queries, theta)
    exact = reference_weights(q, k, entropy="exact")
    negatives = 0
    for i in range(N):
        phi = [(1 + float(x) / float(theta[i])) / N for x in queries.scores[i]]
        p = torch.softmax(q[i] @ k.T / math.sqrt(C), dim=-1).tolist()
        raised = [max(w, CLIP / N) for w in phi]
        clipped = [w / sum(raised) for w in raised]
        expected = {
            "l1_to_softmax": sum(abs(w - s) for w, s in zip(phi, p, strict=True)),
            "l1_to_exact_theta": sum(abs(w - float(e)) for w, e in zip(phi, exact[i], strict=True)),
            "negative_share": sum(w < 0 for w in phi) / N,
            "negative_mass": -sum(min(w, 0) for w in phi),
            "kl_softmax_to_clipped": sum(s * math.log(s / c) for s, c in zip(p, clipped, strict=True)),
            "kl_clipped_to_softmax": sum(c * math.log(c / s) for s, c in zip(p, clipped, strict=True)),
        }
        assert {name: value[i].item() for name, value in found.items()} == pytest.approx(expected, rel=1e-6, abs=1e-9)
        negatives += expected["negative_share"] > 0
    assert negatives > 0


@pytest.mark.parametrize("entropy", ["gaussian", "skewed", "exact"])
def test_errors_of_outputs_are_those_of_the_attentions(qkv, entropy: str) -> None:
    q, k, v = qkv
    queries = look_at(q, k)
    outputs = outputs_of(queries, v)
    softmax, linear = softmax_attention(q, k, v), entropy_equal_attention(q, k, v, entropy=entropy)
    torch.testing.assert_close(outputs.softmax, softmax)
    expected = (linear - softmax).square().sum(dim=-1)
    torch.testing.assert_close(squared_error(outputs, theta_of(entropy, queries)), expected)
    facts = output_facts(outputs)
    torch.testing.assert_close(facts["squared_output"], softmax.square().sum(dim=-1))
    around = softmax - v.mean(dim=-2, keepdim=True)
    torch.testing.assert_close(facts["squared_variation"], around.square().sum(dim=-1))


def test_the_smallest_error_is_what_a_search_over_theta_finds(qkv) -> None:
    q, k, v = qkv
    outputs = outputs_of(look_at(q, k), v)
    errors = [squared_error(outputs, torch.tensor(theta)) for theta in torch.logspace(-3, 6, 4000).tolist()]
    smallest = output_facts(outputs)["squared_residual"]
    torch.testing.assert_close(smallest, torch.stack(errors).amin(dim=0), rtol=1e-3, atol=1e-9)
    # Where the best factor would be below 0, no theta is better than mean(v) alone.
    at_mean = (smallest - output_facts(outputs)["squared_variation"]).abs() < 1e-12
    assert at_mean.any()
    assert not at_mean.all()


def test_flat_rows_are_uniform_whatever_the_estimator(qkv) -> None:
    _, k, v = qkv
    queries = look_at(torch.zeros_like(k), k)
    facts = score_facts(queries)
    assert facts["deficit"].abs().max() < 1e-12
    assert facts["score_skewness"].abs().max() == 0
    for entropy in ENTROPIES:
        theta = theta_of(entropy, queries)
        assert torch.isfinite(theta).all()
        for value in weight_facts(queries, theta).values():
            assert value.abs().max() < 1e-12
        assert squared_error(outputs_of(queries, v), theta).abs().max() < 1e-24


def test_half_precision_is_measured_in_double(qkv) -> None:
    q, k, v = (x.bfloat16() for x in qkv)
    expected, found = look_at(q.double(), k.double()), look_at(q, k)
    assert found.scores.dtype == torch.float64
    torch.testing.assert_close(found.theta, expected.theta)
    assert outputs_of(found, v).softmax.dtype == torch.float64
