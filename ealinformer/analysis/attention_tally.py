"""Calls of one attention layer added up, window by window, in memory that does not grow with the number of sensors."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ealinformer.analysis.attention import (
    Outputs,
    Queries,
    deficit_of,
    look_at,
    output_facts,
    outputs_of,
    score_facts,
    squared_error,
    theta_of,
    weight_facts,
)
from ealinformer.analysis.attention_capture import Call
from ealinformer.attention import ENTROPIES

# Scores in one piece of work, unless a single call has more: what a cache holds.
SCORES_AT_A_TIME = 2**18
# Per query values whose distribution over the queries is told, beside those of every estimator.
SPREAD = ("deficit", "entropy", "score_std", "score_skewness", "score_mean")
QUANTILES = {"min": 0.0, "p10": 0.1, "median": 0.5, "p90": 0.9, "max": 1.0}

Values = NDArray[np.float32]


def choose_queries(num_calls: int, num_queries: int, at_most: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Which calls of `num_calls`, and which of their `num_queries` queries, are looked at: `at_most` in all.

    Short sequences are looked at whole, in some of the calls; of long ones, some queries in every call.
    """
    queries = min(num_queries, max(at_most // num_calls, math.isqrt(at_most)))
    calls = min(num_calls, max(1, at_most // queries))
    return _some(num_calls, calls, generator), _some(num_queries, queries, generator)


@dataclass
class LayerTally:
    """What a layer showed so far. `at_most` bounds the queries of a call to `add`, for every head."""

    at_most: int
    generator: torch.Generator
    num_keys: int = 0
    count: int = 0  # queries of each head
    sums: dict[tuple[str, str], Tensor] = field(default_factory=dict)  # [heads], float64
    columns: dict[tuple[str, str], "Column"] = field(default_factory=dict)

    def add(self, call: Call) -> None:
        """Take in one call; leading dimensions are separate attentions.

        Raises:
            ValueError: a query, key or value is not finite, or the number of keys has changed.
        """
        q, k, v, own = (x.reshape(-1, *x.shape[-3:]) for x in (call.q, call.k, call.v, call.output))
        for name, x in (("queries", q), ("keys", k), ("values", v)):
            if not bool(torch.isfinite(x).all()):
                raise ValueError(f"{name} that are not finite")
        if self.num_keys not in (0, k.shape[-2]):
            raise ValueError(f"{k.shape[-2]} keys after {self.num_keys}, the same number in every call is expected")
        self.num_keys = k.shape[-2]
        mean_query = q.double().mean(dim=-2, keepdim=True)
        calls, queries = choose_queries(q.shape[0], q.shape[-2], self.at_most, self.generator)
        calls, queries = calls.to(q.device), queries.to(q.device)
        self.count += len(calls) * len(queries)
        at_a_time = max(1, SCORES_AT_A_TIME // (q.shape[1] * len(queries) * self.num_keys))
        for some in calls.split(at_a_time):
            seen = look_at(q[some][..., queries, :], k[some], mean_query=mean_query[some])
            self._add_seen(seen, outputs_of(seen, v[some]), own[some][..., queries, :].double())

    def _add_seen(self, seen: Queries, outputs: Outputs, own: Tensor) -> None:
        facts = score_facts(seen)
        for name in SPREAD:
            self._keep("", name, facts[name])
        self._sum("", "outside_domain", facts["outside_domain"])
        for name, value in output_facts(outputs).items():
            self._sum("", name, value)
        self._sum("", "squared_own_error", (own - outputs.softmax).square().sum(dim=-1))
        exact = theta_of("exact", seen).log().squeeze(-1)
        for entropy in ENTROPIES:
            theta, deficit = theta_of(entropy, seen), deficit_of(entropy, seen)
            self._keep(entropy, "theta", theta.squeeze(-1))
            self._keep(entropy, "deficit", deficit.squeeze(-1))
            off = theta.log().squeeze(-1) - exact
            self._sum(entropy, "log_theta_bias", off)
            self._sum(entropy, "log_theta_error", off.abs())
            self._sum(entropy, "deficit_bias", (deficit - seen.deficit).squeeze(-1))
            self._sum(entropy, "squared_error", squared_error(outputs, theta))
            for name, value in weight_facts(seen, theta).items():
                self._sum(entropy, name, value)

    def _sum(self, entropy: str, name: str, value: Tensor) -> None:
        """Add up `[calls, heads, Nq]` by head."""
        total = value.sum(dim=(0, -1))
        self.sums[entropy, name] = self.sums[entropy, name] + total if (entropy, name) in self.sums else total

    def _keep(self, entropy: str, name: str, value: Tensor) -> None:
        """Keep `[calls, heads, Nq]` by head."""
        values = value.transpose(0, 1).flatten(1).float().cpu().numpy()
        self.columns.setdefault((entropy, name), Column(len(values))).append(values)

    def deficits(self) -> dict[str, Values]:
        """D of every query `[heads * queries]` by estimator; `exact` is softmax's own."""
        return {entropy: self.columns[entropy, "deficit"].values().ravel() for entropy in ENTROPIES}

    def heads(self) -> list[dict[str, Any]]:
        """One row a head: `softmax`, what its scores and softmax's weights are like, and `estimators` by name.

        Means are over the queries. Errors of outputs are norms over queries and channels, of the difference to
        softmax's output: `output_error` relative to that output, `output_error_of_variation` relative to what it is
        around mean(v), which every estimator has for nothing. None where there is nothing to be relative to.
        """
        spreads = {key: column.values() for key, column in self.columns.items()}
        sums = {key: total.tolist() for key, total in self.sums.items()}
        heads = next(iter(spreads.values())).shape[0]
        return [
            self._head({k: v[h] for k, v in spreads.items()}, {k: v[h] for k, v in sums.items()}) for h in range(heads)
        ]

    def _head(self, spreads: dict[tuple[str, str], Values], sums: dict[tuple[str, str], float]) -> dict[str, Any]:
        squared_output, squared_variation = sums["", "squared_output"], sums["", "squared_variation"]
        softmax: dict[str, Any] = {name: spread(spreads["", name]) for name in SPREAD}
        softmax["outside_domain"] = sums["", "outside_domain"] / self.count
        softmax["variation_of_output"] = _root_ratio(squared_variation, squared_output)
        # Whatever theta an estimator finds, the output comes no nearer than this.
        softmax["smallest_error_of_variation"] = _root_ratio(sums["", "squared_residual"], squared_variation)
        softmax["own_output_error"] = _root_ratio(sums["", "squared_own_error"], squared_output)
        estimators: dict[str, dict[str, Any]] = {}
        for entropy in ENTROPIES:
            found = {name: total / self.count for (of, name), total in sums.items() if of == entropy}
            squared = found.pop("squared_error") * self.count
            estimators[entropy] = {
                "theta": spread(spreads[entropy, "theta"]),
                "deficit": spread(spreads[entropy, "deficit"]),
                **found,
                "output_error": _root_ratio(squared, squared_output),
                "output_error_of_variation": _root_ratio(squared, squared_variation),
            }
        return {"num_keys": self.num_keys, "queries": self.count, "softmax": softmax, "estimators": estimators}


class Column:
    """Values of the queries by head, in float32: there are many.

    It grows by doubling. Thousands of small arrays between large temporary ones would scatter the memory and take ten
    times as much of it.
    """

    def __init__(self, heads: int) -> None:
        self._held: Values = np.empty((heads, 1024), dtype=np.float32)
        self._count = 0

    def append(self, values: Values) -> None:
        """Add `[heads, queries]`."""
        end = self._count + values.shape[1]
        if end > self._held.shape[1]:
            larger = np.empty((len(self._held), max(end, 2 * self._held.shape[1])), dtype=np.float32)
            larger[:, : self._count] = self.values()
            self._held = larger
        self._held[:, self._count : end] = values
        self._count = end

    def values(self) -> Values:
        """All of them so far, `[heads, queries]`."""
        return self._held[:, : self._count]


def spread(values: Values) -> dict[str, float]:
    """Mean, smallest, 10 %, median, 90 % and largest."""
    wide = values.astype(np.float64)
    quantiles = np.quantile(wide, list(QUANTILES.values()))
    return {"mean": float(wide.mean()), **dict(zip(QUANTILES, quantiles.tolist(), strict=True))}


def _some(num: int, wanted: int, generator: torch.Generator) -> Tensor:
    if wanted >= num:
        return torch.arange(num)
    return torch.randperm(num, generator=generator)[:wanted].sort().values


def _root_ratio(squared: float, squared_whole: float) -> float | None:
    return math.sqrt(squared / squared_whole) if squared_whole > 0 else None
