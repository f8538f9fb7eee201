"""Scheduled sampling (Bengio et al., arXiv 1506.03099): a decoder that learns to live on its own forecasts.

In training a recurrent decoder reads, at each step, either the true reading before it or its own forecast of it. The
probability of the truth falls from almost 1 to 0 along an inverse sigmoid of the training steps.
"""

import math

import torch
from torch import Tensor


def truth_probability(step: int | Tensor, decay: float) -> Tensor:
    """k / (k + exp(step / k)) with k = `decay`: how likely the decoder is to read the truth at a training step.

    `[]`, float64, on the device of `step`: `torch.compile` compiles anew for every whole number it meets, and not for
    tensors.

    Raises:
        ValueError: `decay` is not positive.
    """
    if not decay > 0:
        raise ValueError(f"decay has to be positive, got {decay!r}")
    # The same as a sigmoid, which does not overflow.
    return torch.sigmoid(math.log(decay) - torch.as_tensor(step, dtype=torch.float64) / decay)


def truth_mask(horizon: int, step: int | Tensor, decay: float, device: torch.device | str = "cpu") -> Tensor:
    """Which of the H decoder steps read the truth, `[H]`, bool; torch's seed fixes it."""
    coins = torch.rand(horizon, dtype=torch.float64, device=device)
    return coins < truth_probability(step, decay).to(device)
