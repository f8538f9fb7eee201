"""Scheduled sampling (Bengio et al., arXiv 1506.03099): a decoder that learns to live on its own forecasts.

In training a recurrent decoder reads, at each step, either the true reading before it or its own forecast of it. The
probability of the truth falls from almost 1 to 0 along an inverse sigmoid of the training steps.
"""

import math

import torch
from torch import Tensor


def truth_probability(step: int, decay: float) -> float:
    """k / (k + exp(step / k)) with k = `decay`: how likely the decoder is to read the truth at a training step.

    Raises:
        ValueError: `decay` is not positive.
    """
    if not decay > 0:
        raise ValueError(f"decay has to be positive, got {decay!r}")
    excess = step / decay - math.log(decay)
    # The exponential is taken of what is negative, so that it never overflows.
    if excess > 0:
        return math.exp(-excess) / (1 + math.exp(-excess))
    return 1 / (1 + math.exp(excess))


@torch.compiler.disable
def truth_mask(horizon: int, step: int, decay: float) -> Tensor:
    """Which of the H decoder steps read the truth, `[H]`, bool, on the CPU; torch's seed fixes it.

    A tensor and no list, because `torch.compile` would compile a decoder anew for every list.
    """
    return torch.rand(horizon, dtype=torch.float64, device="cpu") < truth_probability(step, decay)


def draw_truth(horizon: int, step: int, decay: float) -> list[bool]:
    """The same draw as a list, for decoders that branch."""
    return truth_mask(horizon, step, decay).tolist()
