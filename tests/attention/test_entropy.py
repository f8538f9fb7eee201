"""The entropy estimators: what they promise, where they end, and how near they come to softmax's own entropy."""

import math

import pytest
import torch

from ealinformer.attention import ENTROPIES, ESTIMATORS, ScoreMoments, entropy_equal_attention
from ealinformer.attention.entropy import DOMAIN_MARGIN, softmax_deficit, softmax_theta

MOMENTS = [e for e in ENTROPIES if e != "exact"]


def gaussian_scores(std, n, rows=200, seed=0):
    x = torch.randn(rows, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * std
    return x - x.mean(-1, keepdim=True)


def theta_of_scores(entropy, scores):
    """Theta from explicit centred scores of queries whose mean is not centred away."""
    variance = scores.square().mean(-1, keepdim=True)
    probe = scores.mean(-2, keepdim=True)
    probe = probe / probe.square().mean(-1, keepdim=True).sqrt()
    along, squared = ((scores * side).mean(-1, keepdim=True) for side in (probe, probe.square()))
    third = along.square() / variance * squared
    return ESTIMATORS[entropy].theta(ScoreMoments(variance, scores.shape[-1], torch.zeros_like(variance), third))


def log_error(entropy, scores):
    """Mean |log theta - log theta of softmax|."""
    exact = softmax_theta(scores, scores.square().mean(-1, keepdim=True))
    return (theta_of_scores(entropy, scores) / exact).log().abs().mean().item()


def moments(variance, num_keys, mean=0.0, third=0.0, dtype=torch.float64):
    return ScoreMoments(
        *(torch.tensor([x], dtype=dtype) for x in (variance,)),
        num_keys,
        *(torch.tensor([x], dtype=dtype) for x in (mean, third)),
    )


def test_the_exact_deficit_is_log_n_minus_the_entropy_of_softmax():
    x = gaussian_scores(3.0, 50)
    entropy = torch.distributions.Categorical(logits=x).entropy()
    torch.testing.assert_close(softmax_deficit(x).squeeze(-1), math.log(50) - entropy)
    visible = torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) < 0.5
    visible[:, 0] = True
    entropy = torch.distributions.Categorical(logits=x.masked_fill(~visible, -torch.inf)).entropy()
    torch.testing.assert_close(softmax_deficit(x, visible).squeeze(-1), visible.sum(-1).double().log() - entropy)


@pytest.mark.parametrize("entropy", MOMENTS)
@pytest.mark.parametrize("s", [1e-6, 0.01, 1.0, 9.0, 80.0])
def test_theta_follows_from_the_deficit(entropy, s):
    given = moments(s, 307, mean=0.1, third=0.2)
    estimator = ESTIMATORS[entropy]
    deficit = estimator.deficit(given)
    torch.testing.assert_close(estimator.theta(given), (s / (2 * deficit)).sqrt())
    if estimator.constant is not None:
        assert estimator.theta(given).item() == pytest.approx(estimator.constant)


@pytest.mark.parametrize("entropy", ["gaussian", "finite_size", "skewed"])
@pytest.mark.parametrize("n", [2, 12, 307, 65536])
def test_no_deficit_exceeds_log_n(entropy, n):
    for s in (0.1, 1.0, 30.0, 1e4, 1e12):
        deficit = ESTIMATORS[entropy].deficit(moments(s, n, third=0.5)).item()
        assert 0 < deficit <= math.log(n) * (1 + 1e-12)


@pytest.mark.parametrize("std", [2.0, 4.0, 6.0, 9.0])
@pytest.mark.parametrize("n", [40, 170, 883])
def test_finite_size_follows_gaussian_scores_where_gaussian_drifts(n, std):
    x = gaussian_scores(std, n, rows=1000)
    exact = softmax_theta(x, x.square().mean(-1, keepdim=True))
    drift = {e: (theta_of_scores(e, x) / exact).log().mean().item() for e in ("gaussian", "finite_size")}
    # What is left of the error is the scatter of single rows; the drift, common to all rows, is what the fit takes out.
    assert abs(drift["finite_size"]) < 0.06
    assert log_error("finite_size", x) < 0.12
    assert log_error("finite_size", x) <= log_error("gaussian", x)
    if std == 4.0:
        assert abs(drift["finite_size"]) < 0.3 * abs(drift["gaussian"])


@pytest.mark.parametrize(("std", "share", "bound"), [(0.3, 0.35, 0.05), (1.0, 0.5, 0.15)])
@pytest.mark.parametrize("sign", [1, -1])
def test_skewed_takes_out_most_of_the_error_on_skewed_scores(std, share, bound, sign):
    """Gamma distributed keys along one direction that the queries share, as the keys of trained models are."""
    g = torch.Generator().manual_seed(0)
    size = (1, 300)
    along = sign * (torch._standard_gamma(torch.full(size, 3.0, dtype=torch.float64), generator=g) - 3) / math.sqrt(3)
    x = std * (along + 0.3 * torch.randn(200, 300, dtype=torch.float64, generator=g))
    x = x - x.mean(-1, keepdim=True)
    assert log_error("skewed", x) < share * log_error("finite_size", x)
    assert log_error("skewed", x) < bound


def test_skewed_costs_nothing_where_scores_are_not_skewed():
    x = gaussian_scores(1.5, 307, rows=1000)
    assert log_error("skewed", x) < 1.1 * log_error("finite_size", x)


def test_for_small_scores_all_but_taylor_come_to_one():
    for entropy in ("second_order", "gaussian", "finite_size", "skewed"):
        assert ESTIMATORS[entropy].theta(moments(1e-8, 100)).item() == pytest.approx(1, abs=1e-6)
    x = gaussian_scores(1e-3, 100)
    assert (softmax_theta(x, x.square().mean(-1, keepdim=True)) - 1).abs().max() < 1e-3
    assert (softmax_theta(x * 1e-9, (x * 1e-9).square().mean(-1, keepdim=True)) == 1).all()


class TestDomains:
    def test_uncentred_taylor_is_held_at_the_border_of_its_logarithm(self):
        inside = ESTIMATORS["taylor_uncentred"].theta(moments(2.0, 50, mean=-1 + DOMAIN_MARGIN))
        for mean in (-1.0, -1.5, -1e9):
            assert ESTIMATORS["taylor_uncentred"].theta(moments(2.0, 50, mean=mean)) == inside
        assert inside.isfinite()

    @pytest.mark.parametrize("entropy", MOMENTS)
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("n", [1, 2, 65536])
    def test_finite_with_finite_slopes_everywhere(self, entropy, dtype, n):
        for s in (0.0, torch.finfo(dtype).tiny, 1e-30, 1e-12, 1e-3, 1.0, 1e3, 1e12, 1e36):
            for mean, third in ((0.0, 0.0), (-0.999, -5.0), (-3.0, 1e6), (1e15, -1e15)):
                given = moments(s, n, mean, third, dtype)
                leaves = [given.variance.requires_grad_(), given.mean.requires_grad_(), given.third.requires_grad_()]
                theta = ESTIMATORS[entropy].theta(given)
                assert theta.isfinite().all()
                assert (theta > 0).all()
                if theta.requires_grad:
                    slopes = torch.autograd.grad(theta, leaves, allow_unused=True)
                    assert all(g is None or g.isfinite().all() for g in slopes), (s, mean, third)

    def test_counts_may_differ_by_row(self):
        counts = torch.tensor([[1.0], [2.0], [50.0]], dtype=torch.float64)
        s = torch.full((3, 1), 20.0, dtype=torch.float64)
        for entropy in ("gaussian", "finite_size"):
            together = ESTIMATORS[entropy].theta(ScoreMoments(s, counts))
            apart = [ESTIMATORS[entropy].theta(ScoreMoments(s[i : i + 1], int(counts[i]))) for i in range(3)]
            torch.testing.assert_close(together, torch.cat(apart))

    def test_the_exact_entropy_is_not_asked_of_moments(self):
        with pytest.raises(ValueError, match="does not follow from moments"):
            ESTIMATORS["exact"].theta(moments(1.0, 5))
        with pytest.raises(ValueError, match="'exact' has no linear form"):
            entropy_equal_attention(*torch.zeros(3, 4, 2), entropy="exact", branch="linear")
