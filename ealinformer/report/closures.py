"""Figures and table of the entropy estimators on random scores; docs/method.md shows them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from ealinformer.report.drawing import colour_of, dress, label_ends, new_figure, write_png
from ealinformer.report.tables import Column, render_table

Rows = Sequence[Mapping[str, Any]]

# The order is that of the colours; exact is black and stands apart.
SHOWN = ("skewed", "taylor_uncentred", "finite_size", "gaussian", "second_order", "taylor")


def theta_figure(rows: Rows, path: str | Path, *, family: str = "gaussian", num_keys: int = 307) -> Path:
    """Theta against the standard deviation of the scores: softmax's with its 10 to 90 % band, and every estimator's."""
    figure = new_figure(8.5, 5.0, f"simulated scores: {family} keys, N = {num_keys}, C = 38; medians over queries")
    axes = figure.subplots()
    exact = _curve(rows, "exact", family, num_keys)
    stds = [row["std"] for row in exact]
    axes.fill_between(
        stds,
        [row["theta_p10"] for row in exact],
        [row["theta_p90"] for row in exact],
        color="#DDDDDD",
        lw=0,
        label="_band",
    )
    axes.plot(stds, [row["theta"] for row in exact], color="black", lw=2.4, label="exact (softmax)")
    for place, name in enumerate(SHOWN):
        curve = _curve(rows, name, family, num_keys)
        axes.plot(stds, [row["theta"] for row in curve], color=colour_of(place), lw=1.6, label=name)
    axes.set_xscale("log")
    dress(axes, "standard deviation of the scores", "theta")
    label_ends(figure, axes)
    return write_png(figure, path)


def error_figure(rows: Rows, path: str | Path, *, num_keys: int = 307) -> Path:
    """Mean |log theta - log theta of softmax| against the standard deviation, a panel for each kind of keys."""
    # An offset of the keys shows in one estimator alone, and in `domain_figure`.
    families = [family for family in dict.fromkeys(row["family"] for row in rows) if family != "offset"]
    figure = new_figure(13.0, 7.6, f"simulated scores, N = {num_keys}, C = 38")
    panels = figure.subplots(2, (len(families) + 1) // 2, sharex=True, squeeze=False).flatten()
    for axes, family in zip(panels, families, strict=False):
        for place, name in enumerate(SHOWN):
            curve = _curve(rows, name, family, num_keys)
            axes.plot(
                [row["std"] for row in curve], [row["error"] for row in curve], color=colour_of(place), label=name
            )
        axes.set_title(f"{family} keys", loc="left", fontsize=11)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_ylim(3e-4, 4)
        _only_outer(axes, panels)
        label_ends(figure, axes)
    return write_png(figure, path)


def domain_figure(rows: Rows, path: str | Path, *, num_keys: int = 307) -> Path:
    """Share of queries at which uncentred Taylor's logarithm has left its domain, a curve for each kind of keys."""
    figure = new_figure(7.0, 4.2, f"simulated scores, N = {num_keys}, C = 38; 1 + mean score <= 0")
    axes = figure.subplots()
    for place, family in enumerate(dict.fromkeys(row["family"] for row in rows)):
        curve = _curve(rows, "taylor_uncentred", family, num_keys)
        shares = [100 * row["outside"] for row in curve]
        axes.plot([row["std"] for row in curve], shares, color=colour_of(place), marker="o", ms=3.5, label=family)
    dress(axes, "standard deviation of the scores", "queries outside the domain, %")
    label_ends(figure, axes)
    return write_png(figure, path)


def closures_table(rows: Rows, *, num_keys: int = 307) -> str:
    """Mean error of log theta by kind of keys and estimator, over the standard deviations of the sweep."""
    families = list(dict.fromkeys(row["family"] for row in rows))
    table = []
    for name in dict.fromkeys(row["entropy"] for row in rows):
        line: dict[str, object] = {"entropy": name}
        for family in families:
            errors = [row["error"] for row in _curve(rows, name, family, num_keys)]
            line[family] = sum(errors) / len(errors)
        table.append(line)
    columns = [Column("entropy", "entropy"), *(Column(family, family, ".3f") for family in families)]
    stds = sorted({row["std"] for row in rows})
    title = (
        f"simulated scores, N = {num_keys}: mean |log theta - log theta of softmax| "
        f"over {len(stds)} standard deviations from {stds[0]:g} to {stds[-1]:g}"
    )
    return render_table(columns, table, title=title)


def _curve(rows: Rows, entropy: str, family: str, num_keys: int) -> list[Mapping[str, Any]]:
    chosen = [r for r in rows if (r["entropy"], r["family"], r["num_keys"]) == (entropy, family, num_keys)]
    if not chosen:
        raise ValueError(f"no row of entropy {entropy!r}, {family} keys, N = {num_keys}")
    return sorted(chosen, key=lambda row: row["std"])


def _only_outer(axes: Axes, panels: Any) -> None:
    place = list(panels).index(axes)
    columns = (len(panels) + 1) // 2
    dress(
        axes,
        "standard deviation of the scores" if place >= len(panels) - columns else "",
        "mean |log theta error|" if place % columns == 0 else "",
    )
