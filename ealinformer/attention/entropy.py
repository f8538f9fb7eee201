"""How flat the weights of a query shall be: theta from the moments of its scores.

Linear weights phi_j = (1 + x_j / theta) / N, with scores x_j centred over the keys, have to second order the entropy
log N - s / (2 theta^2), where s = mean_j x_j^2. Setting that equal to the entropy log N - D of softmax gives
theta = sqrt(s / (2 D)), with D the entropy deficit of softmax (arXiv 2511.03190, section 3). Each estimator here says
what D is, from moments that cost O(N C^2); docs/method.md derives and compares them.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class ScoreMoments(NamedTuple):
    """What an estimator may know of the scores of a query: tensors `[..., Nq, 1]`, in float32 or wider."""

    variance: Tensor  # s, of the scores centred over the keys
    num_keys: Tensor | int  # N, where it depends on a mask or on the query a tensor that broadcasts against s
    mean: Tensor | None = None  # m, of the scores before centring
    third: Tensor | None = None  # an estimate of the third cumulant, divided by s


@dataclass(frozen=True)
class EntropyEstimator:
    """One way to say how much entropy softmax loses, and the theta that follows from it.

    `theta` and `deficit` (D, in nats) map moments to `[..., Nq, 1]`. `constant` is theta where it is the same for every
    input, so that no moment has to be computed. `needs` names the moments beside the variance. `exact` stands for
    softmax's own entropy, for which moments do not suffice: theta and deficit are then of the scores themselves.
    """

    theta: Callable[[ScoreMoments], Tensor]
    deficit: Callable[[ScoreMoments], Tensor]
    constant: float | None = None
    needs: frozenset[str] = frozenset()
    quadratic: bool = False


def log_count(num_keys: Tensor | int) -> Tensor | float:
    """log N, taken as log 2 for a single key: its score is centred to 0, so any bound above 0 serves."""
    if not isinstance(num_keys, Tensor) and (isinstance(num_keys, torch.SymInt) or torch.compiler.is_compiling()):
        # math.log would tie a compiled or exported program to the length of its example.
        num_keys = torch.scalar_tensor(num_keys, dtype=torch.float64)
    if isinstance(num_keys, Tensor):
        return num_keys.clamp(min=2).log()
    return math.log(max(num_keys, 2))


TAYLOR_THETA = 1 / math.sqrt(2)

TAYLOR = EntropyEstimator(
    theta=lambda moments: torch.full_like(moments.variance, TAYLOR_THETA),
    deficit=lambda moments: moments.variance,
    constant=TAYLOR_THETA,
)
"""Equation (2) of the paper, signs corrected, with the centred keys of its algorithm: D = s whatever the input, so
theta is 1 / sqrt(2) for every query. Domain: all scores."""


SECOND_ORDER = EntropyEstimator(
    theta=lambda moments: torch.ones_like(moments.variance),
    deficit=lambda moments: moments.variance / 2,
    constant=1.0,
)
"""The deficit of softmax to second order in its scores, D = s / 2, so theta = 1: InLine attention (arXiv 2412.06590).
Accurate for small scores; D exceeds log N, which no deficit can, once s > 2 log N."""


# The logarithm of 1 + m ends at m = -1; nearer than this, and beyond, m is held. Up to a third of the queries of random
# keys come there at score std 9.
DOMAIN_MARGIN = 1e-2
# Theta goes to 0 with s where m does not: a flat row would be sharpened without bound.
SMALLEST_THETA = 1e-2


def _taylor_uncentred_deficit(moments: ScoreMoments) -> Tensor:
    assert moments.mean is not None
    above = moments.mean.clamp(min=DOMAIN_MARGIN - 1)
    # (m + mean x^2) / (1 + m) - log(1 + m), where mean x^2 = s + m^2
    return moments.variance / (1 + above) + (above - above.log1p())


def _taylor_uncentred_theta(moments: ScoreMoments) -> Tensor:
    deficit = _taylor_uncentred_deficit(moments)
    tiny = torch.finfo(deficit.dtype).tiny
    return (moments.variance / (2 * deficit.clamp(min=tiny))).clamp(min=SMALLEST_THETA**2).sqrt()


TAYLOR_UNCENTRED = EntropyEstimator(
    theta=_taylor_uncentred_theta, deficit=_taylor_uncentred_deficit, needs=frozenset({"mean"})
)
"""Equation (2) of the paper, signs corrected, on uncentred scores of mean m: D = (m + s + m^2) / (1 + m) - log(1 + m).
Theta varies, but with the offset of the keys, of which softmax knows nothing. Domain: m > -1; held at its border."""


GAUSSIAN = EntropyEstimator(
    # The clamp stands inside the root, so its gradient at s = 0 is 0 and not infinite.
    theta=lambda moments: (moments.variance / (2 * log_count(moments.num_keys))).clamp(min=1).sqrt(),
    deficit=lambda moments: torch.clamp(moments.variance / 2, max=log_count(moments.num_keys)),
)
"""Many Gaussian scores: D = s / 2 until entropy runs out at log N, as in the random-energy model (Derrida, 1981), so
theta = max(1, sqrt(s / (2 log N))). Domain: all scores; sharp where real scores cross over smoothly."""


def _crossover_exponent(log_n: Tensor | float) -> Tensor | float:
    """How sharply D turns from s / 2 to log N: fitted to the entropy of N = 12 ... 32,768 Gaussian scores.

    It grows with log N, as the model's transition sharpens. Below 1 the slope of theta at s = 0 would be infinite.
    """
    exponent = 0.65 + log_n / 10
    return exponent.clamp(min=1) if isinstance(exponent, Tensor) else max(exponent, 1.0)


def _soft_maximum_root(ratio: Tensor, exponent: Tensor | float) -> Tensor:
    """(1 + r^p)^(1 / 2p): 1 for small r, sqrt(r) for large r; without overflow for any finite r."""
    low, high = ratio.clamp(max=1), ratio.clamp(min=1)
    return high.sqrt() * (1 + (low / high) ** exponent) ** (0.5 / exponent)


def _finite_size_theta(moments: ScoreMoments) -> Tensor:
    log_n = log_count(moments.num_keys)
    return _soft_maximum_root(moments.variance / (2 * log_n), _crossover_exponent(log_n))


FINITE_SIZE = EntropyEstimator(
    theta=_finite_size_theta,
    deficit=lambda moments: moments.variance / (2 * _finite_size_theta(moments).square()),
)
"""Finitely many Gaussian scores: D = ((s/2)^-p + (log N)^-p)^(-1/p), p = max(1, 0.65 + log(N) / 10), a smooth minimum
whose sharpness is fitted to the exact entropy. Costs what `gaussian` costs. Domain: all scores."""


# Where the first-order correction exceeds this, higher cumulants matter as much.
LARGEST_TILT = 1.5


def _tilt(moments: ScoreMoments) -> Tensor:
    """log of the factor on s / 2: D = s / 2 + kappa_3 / 3 + ... = (s / 2) exp(2 kappa_3 / (3 s)) to first order."""
    assert moments.third is not None
    return (moments.third * (2 / 3)).clamp(-LARGEST_TILT, LARGEST_TILT)


def _skewed_theta(moments: ScoreMoments) -> Tensor:
    log_n, tilt = log_count(moments.num_keys), _tilt(moments)
    # theta^2 = s / (2 D) = exp(-tilt) (1 + (s exp(tilt) / (2 log N))^p)^(1/p)
    ratio = moments.variance * tilt.exp() / (2 * log_n)
    return (tilt * -0.5).exp() * _soft_maximum_root(ratio, _crossover_exponent(log_n))


SKEWED = EntropyEstimator(
    theta=_skewed_theta,
    deficit=lambda moments: moments.variance / (2 * _skewed_theta(moments).square()),
    needs=frozenset({"third"}),
)
"""`finite_size` with the third cumulant: s / 2 becomes (s / 2) exp(2 kappa_3 / (3 s)). Scores of trained models are
skewed far more than of Gaussian ones, in a direction that their queries share; kappa_3 is therefore taken along the
mean query, in O(N C): with y the scores of the mean query scaled to mean square 1, kappa_3 ~ E[x y]^2 E[x y^2], exact
for a query parallel to it. Theta then depends on the other queries through their mean. Domain: all scores."""


def softmax_deficit(scores: Tensor, visible: Tensor | None = None) -> Tensor:
    """log N - H of softmax over the last dimension: `[..., N]` -> `[..., 1]`, in float64. Quadratic in use.

    `visible` is a bool mask that broadcasts against the scores; rows that see no key give 0.
    """
    scores = scores.double()
    if visible is None:
        visible = scores.new_ones((), dtype=torch.bool).expand_as(scores)
    visible = visible.expand_as(scores)
    count = visible.sum(dim=-1, keepdim=True).clamp(min=1).double()
    # A finite floor in place of -inf keeps the gradient of a row without keys finite.
    log_weights = torch.log_softmax(scores.masked_fill(~visible, torch.finfo(scores.dtype).min / 4), dim=-1)
    weights = torch.where(visible, log_weights.exp(), 0)
    return (weights * torch.where(visible, log_weights, 0)).sum(dim=-1, keepdim=True) + count.log()


def softmax_theta(scores: Tensor, variance: Tensor, visible: Tensor | None = None) -> Tensor:
    """Theta `[..., 1]` from softmax's own entropy, in float64; 1, its limit, where the row is flat."""
    variance = variance.double()
    deficit = softmax_deficit(scores, visible)
    # Below this the difference of two numbers near log N says nothing any more.
    flat = (variance < 1e-10) | (deficit <= 0)
    ratio = torch.where(flat, 1.0, variance) / (2 * torch.where(flat, 0.5, deficit))
    return ratio.sqrt()


def _moments_do_not_suffice(moments: ScoreMoments) -> Tensor:
    raise ValueError("the exact entropy of softmax does not follow from moments; use softmax_deficit on the scores")


EXACT = EntropyEstimator(theta=_moments_do_not_suffice, deficit=_moments_do_not_suffice, quadratic=True)
"""Softmax's own entropy from N x N scores: what the others estimate. Quadratic, for analysis."""


ESTIMATORS: dict[str, EntropyEstimator] = {
    "taylor": TAYLOR,
    "taylor_uncentred": TAYLOR_UNCENTRED,
    "second_order": SECOND_ORDER,
    "gaussian": GAUSSIAN,
    "finite_size": FINITE_SIZE,
    "skewed": SKEWED,
    "exact": EXACT,
}

ENTROPIES = tuple(ESTIMATORS)
