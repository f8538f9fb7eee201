"""How a cost grows with N: exponents in log-log, and what a larger N would cost."""

import math
from collections.abc import Sequence

# Of softmax with its N x N weights: nothing that is measured here grows faster.
WORST_EXPONENT = 2.0


def exponent(lengths: Sequence[float], costs: Sequence[float]) -> float | None:
    """The p of cost = a N^p, by least squares over log N and log cost; None with fewer than two lengths.

    Raises:
        ValueError: as many costs as lengths, all above 0, are expected.
    """
    if len(lengths) != len(costs) or any(value <= 0 for value in (*lengths, *costs)):
        raise ValueError(f"as many costs as lengths, all above 0, are expected, got {list(lengths)} and {list(costs)}")
    if len(set(lengths)) < 2:
        return None
    xs, ys = [math.log(n) for n in lengths], [math.log(cost) for cost in costs]
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    covariance = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True))
    return covariance / sum((x - mean_x) ** 2 for x in xs)


def predicted(
    lengths: Sequence[float], costs: Sequence[float], length: float, *, unknown: float = WORST_EXPONENT
) -> float | None:
    """The cost at a larger `length`, by the slope between the last two measured; None when nothing was measured.

    After a single measurement the exponent is taken to be `unknown`. A cost that fell is taken to stay: time does not
    fall with N, it is only noisy.
    """
    if not lengths:
        return None
    slope = exponent(lengths[-2:], costs[-2:])
    return costs[-1] * (length / lengths[-1]) ** max(0.0, unknown if slope is None else slope)
