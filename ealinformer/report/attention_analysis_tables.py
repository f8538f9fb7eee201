"""Tables of an attention analysis: what the scores of a trained model are like, and how near each estimator comes."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from ealinformer.report.tables import Column, render_table

Rows = Sequence[Mapping[str, Any]]

HEAD_COLUMNS = (
    Column("axis", "axis"),
    Column("layer", "layer"),
    Column("head", "head"),
    Column("num_keys", "N", ",d"),
    Column("score_std", "score std", ".2f"),
    Column("score_skewness", "skewness", ".2f"),
    Column("entropy", "entropy", ".3f"),
    Column("deficit", "deficit", ".3f"),
    Column("theta_p10", "theta p10", ".3f"),
    Column("theta", "median", ".3f"),
    Column("theta_p90", "p90", ".3f"),
    Column("variation_of_output", "variation %", ".1f"),
)
SUMMED = (
    "log_theta_error",
    "log_theta_bias",
    "l1_to_softmax",
    "l1_to_exact_theta",
    "kl_softmax_to_clipped",
    "kl_clipped_to_softmax",
    "negative_share",
    "negative_mass",
    "output_error",
    "output_error_of_variation",
)
SUMMARY_COLUMNS = (
    Column("axis", "axis"),
    Column("entropy", "entropy"),
    Column("log_theta_error", "|dlog theta|", ".3f"),
    Column("log_theta_bias", "bias", "+.3f"),
    Column("l1_to_softmax", "L1 to softmax", ".3f"),
    Column("l1_to_exact_theta", "to exact theta", ".3f"),
    Column("kl_softmax_to_clipped", "KL(p|c)", ".3f"),
    Column("kl_clipped_to_softmax", "KL(c|p)", ".3f"),
    Column("negative_percent", "negative %", ".1f"),
    Column("output_percent", "output error %", ".1f"),
    Column("variation_percent", "of variation %", ".1f"),
)


def summarise(heads: Rows) -> list[dict[str, Any]]:
    """Means over layers and heads, a row for each axis and estimator; those without a value are left out of the mean.

    Each row also has `outside_domain` and `smallest_error_of_variation` of its axis, which no estimator changes.
    """
    rows: list[dict[str, Any]] = []
    for axis in dict.fromkeys(row["axis"] for row in heads):
        own = [row for row in heads if row["axis"] == axis]
        common = {
            key: _mean([row["softmax"][key] for row in own])
            for key in ("outside_domain", "smallest_error_of_variation")
        }
        for entropy in own[0]["estimators"]:
            found = [row["estimators"][entropy] for row in own]
            rows.append(
                {"axis": axis, "entropy": entropy, **{key: _mean([r[key] for r in found]) for key in SUMMED}, **common}
            )
    return rows


def head_table(heads: Rows) -> str:
    """One line a head: medians over the queries of what softmax has to do with, and the theta of its entropy."""
    rows = []
    for row in heads:
        softmax, theta = row["softmax"], row["estimators"]["exact"]["theta"]
        medians = {key: softmax[key]["median"] for key in ("score_std", "score_skewness", "entropy", "deficit")}
        thetas = {"theta_p10": theta["p10"], "theta": theta["median"], "theta_p90": theta["p90"]}
        variation = {"variation_of_output": _percent(softmax["variation_of_output"])}
        rows.append({**row, **medians, **thetas, **variation})
    title = "softmax, medians over queries (nats); variation: its output around mean(v), relative to the output"
    return render_table(HEAD_COLUMNS, rows, title=title)


def summary_table(summary: Rows) -> str:
    """One line for each axis and estimator, and below them what bounds all estimators of an axis."""
    rows = [
        {
            **row,
            "negative_percent": _percent(row["negative_share"]),
            "output_percent": _percent(row["output_error"]),
            "variation_percent": _percent(row["output_error_of_variation"]),
        }
        for row in summary
    ]
    table = render_table(SUMMARY_COLUMNS, rows, title="estimators against softmax, means over layers and heads")
    notes = ["KL in nats: p is softmax, c an estimator's weights without the negative ones"]
    for axis in dict.fromkeys(row["axis"] for row in summary):
        first = next(row for row in summary if row["axis"] == axis)
        smallest = _percent(first["smallest_error_of_variation"])
        if smallest is not None:
            notes.append(f"{axis}: with the best theta for each query the error would be {smallest:.1f} % of variation")
        notes.append(f"{axis}: {100 * first['outside_domain']:.1f} % of queries outside the domain of taylor_uncentred")
    return "\n".join([table, "", *notes])


def _mean(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return fmean(present) if present else None


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share
