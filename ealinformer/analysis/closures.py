"""How near each entropy estimator comes to softmax's own entropy, on random keys and queries of known kinds."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ealinformer.analysis.attention import look_at, score_facts, theta_of, weight_facts
from ealinformer.attention import ESTIMATORS

CENTRES = 8
GAMMA_SHAPE = 2.0


def gaussian(num_keys: int, head_size: int, g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Independent normal queries and keys: Gaussian scores."""
    return _normal(num_keys, head_size, g), _normal(num_keys, head_size, g)


def clustered(num_keys: int, head_size: int, g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Keys around eight centres, three times as far apart as a cluster is wide."""
    centres = _normal(CENTRES, head_size, g)
    chosen = torch.randint(CENTRES, (num_keys,), generator=g)
    return _normal(num_keys, head_size, g), centres[chosen] + _normal(num_keys, head_size, g) / 3


def skewed(num_keys: int, head_size: int, g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Keys gamma distributed along a direction that the queries share, as those of trained models are skewed."""
    keys = _normal(num_keys, head_size, g)
    shape = torch.full((num_keys,), GAMMA_SHAPE, dtype=torch.float64)
    keys[:, 0] = (torch._standard_gamma(shape, generator=g) - GAMMA_SHAPE) / math.sqrt(GAMMA_SHAPE)
    queries = _normal(num_keys, head_size, g) / math.sqrt(head_size)
    queries[:, 0] += 1
    return queries, keys


def heavy_tailed(num_keys: int, head_size: int, g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Normal keys with lengths drawn from an exponential distribution: a few keys far out, the others near the mean."""
    lengths = torch.empty(num_keys, 1, dtype=torch.float64).exponential_(generator=g)
    return _normal(num_keys, head_size, g), _normal(num_keys, head_size, g) * lengths


def offset(num_keys: int, head_size: int, g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Normal keys around a mean as far from 0 as they are from each other: nothing to softmax, which ignores it."""
    return _normal(num_keys, head_size, g), _normal(num_keys, head_size, g) + _normal(1, head_size, g)


FAMILIES: dict[str, Callable[[int, int, torch.Generator], tuple[Tensor, Tensor]]] = {
    "gaussian": gaussian,
    "offset": offset,
    "clustered": clustered,
    "skewed": skewed,
    "heavy-tailed": heavy_tailed,
}


def compare_closures(
    family: str, std: float, num_keys: int, *, head_size: int = 38, draws: int = 4, seed: int = 0
) -> list[dict[str, Any]]:
    """One row an estimator, over `draws` draws of keys and queries, scaled to scores of standard deviation `std`.

    A row holds theta's median and 10 and 90 % quantiles (`theta`, `theta_p10`, `theta_p90`), the mean of
    |log theta - log theta of softmax| and of the difference itself (`error`, `drift`), the mean L1 distance of the
    weights to those of softmax (`l1`), the mean deficit of softmax in nats (`deficit`), and `outside`, the share of
    queries at which uncentred Taylor's logarithm has left its domain.
    """
    g = torch.Generator().manual_seed(seed)
    thetas: dict[str, list[Tensor]] = {name: [] for name in ESTIMATORS}
    distances: dict[str, list[Tensor]] = {name: [] for name in ESTIMATORS}
    deficits, outside = [], []
    for _ in range(draws):
        q, k = FAMILIES[family](num_keys, head_size, g)
        q = q * (std / look_at(q, k).moments.variance.mean().sqrt())
        queries = look_at(q, k)
        facts = score_facts(queries)
        deficits.append(facts["deficit"])
        outside.append(facts["outside_domain"])
        for name in ESTIMATORS:
            theta = theta_of(name, queries)
            thetas[name].append(theta.squeeze(-1))
            distances[name].append(weight_facts(queries, theta)["l1_to_softmax"])
    exact = torch.cat(thetas["exact"])
    common = {"family": family, "std": std, "num_keys": num_keys, "head_size": head_size, "draws": draws, "seed": seed}
    rows = []
    for name in ESTIMATORS:
        theta = torch.cat(thetas[name])
        off = (theta / exact).log()
        low, median, high = theta.quantile(torch.tensor([0.1, 0.5, 0.9], dtype=theta.dtype)).tolist()
        rows.append(
            {
                **common,
                "entropy": name,
                "theta": median,
                "theta_p10": low,
                "theta_p90": high,
                "error": off.abs().mean().item(),
                "drift": off.mean().item(),
                "l1": torch.cat(distances[name]).mean().item(),
                "deficit": torch.cat(deficits).mean().item(),
                "outside": torch.cat(outside).mean().item(),
            }
        )
    return rows


def sweep(
    families: Sequence[str],
    stds: Sequence[float],
    lengths: Sequence[int],
    *,
    draws: int = 4,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """`compare_closures` over all combinations; `progress` is told how many of how many are done."""
    cases = [(family, n, std) for family in families for n in lengths for std in stds]
    rows = []
    for done, (family, n, std) in enumerate(cases, start=1):
        rows += compare_closures(family, std, n, draws=draws, seed=seed)
        if progress is not None:
            progress(done, len(cases))
    return rows


def _normal(rows: int, columns: int, g: torch.Generator) -> Tensor:
    return torch.randn(rows, columns, dtype=torch.float64, generator=g)
