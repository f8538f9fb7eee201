"""How flat the weights of a query shall be: theta from the moments of its scores.

Linear weights phi_j = (1 + xhat_j / theta) / N, with scores centred over the keys, have to second order the entropy
log N - s / (2 theta^2), where s = mean_j xhat_j^2. Setting that equal to the entropy log N - D of softmax gives
theta = sqrt(s / (2 D)), with D, the entropy deficit of softmax, estimated in linear time. Each estimator here closes
the formula for D in its own way (arXiv 2511.03190, section 3; docs/architecture.md says what differs from print).
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

# variance [..., Nq, 1] of the scores, or None where it is not needed, and N -> theta [..., Nq, 1] or a constant
ThetaEstimator = Callable[[Tensor, int], Tensor]

TAYLOR_THETA = 1 / math.sqrt(2)


def gaussian_theta(variance: Tensor, num_keys: int) -> Tensor:
    """Theta `[..., Nq, 1]` for roughly Gaussian scores: D = min(s / 2, log N), so theta = max(1, sqrt(s / (2 log N))).

    s / 2 is the deficit of softmax over Gaussian scores; entropy cannot fall below 0, hence the bound log N, which
    the random-energy model reaches at s = 2 log N. Finite for flat rows (s = 0) and for a single key.
    """
    if num_keys == 1:
        return torch.ones_like(variance)
    # The clamp stands inside the root, so its gradient at s = 0 is 0 and not infinite.
    return (variance / (2 * math.log(num_keys))).clamp(min=1).sqrt()


# Equation (2) of the paper, signs corrected, with the centred keys that its algorithm uses: D = s exactly, whatever
# the input, so theta is the constant 1 / sqrt(2) and the variance need not be computed.
CONSTANT_THETA: dict[str, float] = {"taylor": TAYLOR_THETA}

THETA_ESTIMATORS: dict[str, ThetaEstimator] = {"gaussian": gaussian_theta}

ENTROPIES = (*CONSTANT_THETA, *THETA_ESTIMATORS)
