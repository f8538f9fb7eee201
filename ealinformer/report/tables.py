"""Plain-text tables: what commands print and what README quotes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real

from ealinformer.errors import InputError

NOTHING = "-"
GAP = "  "
SHOWN_HORIZONS = (3, 6, 12)


@dataclass(frozen=True)
class Column:
    """One column: the key in each row, the heading printed above it, and a format such as `.4f` or `,d` for numbers."""

    key: str
    heading: str
    format: str = ""


def render_table(columns: Sequence[Column], rows: Sequence[Mapping[str, object]], *, title: str | None = None) -> str:
    """Align `rows` under `columns`; no trailing newline.

    Numbers stand right, names left. None and absent keys print as `-`. Text in a column of numbers, such as
    `out of memory`, is printed as it is. Raises ValueError without columns or when a format does not fit a number.
    """
    if not columns:
        raise ValueError("a table needs at least one column, got none")
    cells = [[_cell(row.get(column.key), column) for row in rows] for column in columns]
    blocks = [
        _aligned([column.heading, *texts], right=_is_numeric(column, rows))
        for column, texts in zip(columns, cells, strict=True)
    ]
    header, *body = [GAP.join(parts).rstrip() for parts in zip(*blocks, strict=True)]
    rule = GAP.join("-" * len(block[0]) for block in blocks)
    above = [] if title is None else [title, ""]
    return "\n".join([*above, header, rule, *body])


def metrics_table(metrics: Mapping[str, Mapping]) -> str:
    """The table of one evaluation: horizons 3, 6, 12 and the last as far as they exist, then the average over all.

    `metrics` is `{"average": {"MAE", "RMSE", "MAPE"}, "horizons": {"1": {...}, ...}}` with MAE and RMSE in the unit of
    the data, MAPE in percent, None where nothing could be measured. Raises InputError when it is built differently.
    """
    for field in ("average", "horizons"):
        if not isinstance(metrics.get(field), Mapping):
            raise InputError(f"metrics: field {field!r} is {metrics.get(field)!r}, expected a mapping")
    by_horizon = _by_step(metrics["horizons"])
    shown = sorted({h for h in SHOWN_HORIZONS if h in by_horizon} | set(list(by_horizon)[-1:]))
    rows = [{"horizon": str(h), **by_horizon[h]} for h in shown] + [{"horizon": "average", **metrics["average"]}]
    columns = [
        Column("horizon", "horizon"),
        Column("MAE", "MAE", ".4f"),
        Column("RMSE", "RMSE", ".4f"),
        Column("MAPE", "MAPE %", ".4f"),
    ]
    return render_table(columns, rows)


def _by_step(horizons: Mapping) -> dict[int, Mapping[str, float | None]]:
    """Horizons keyed by their number of steps, in rising order: JSON has text keys, and "12" sorts before "3"."""
    steps: dict[int, Mapping[str, float | None]] = {}
    for key, values in horizons.items():
        try:
            step = int(key)
        except ValueError:
            raise InputError(f"metrics: horizon {key!r} is not a number of steps, expected '1', '2', ...") from None
        if not isinstance(values, Mapping):
            raise InputError(f"metrics: horizon {key!r} is {values!r}, expected a mapping")
        steps[step] = values
    return dict(sorted(steps.items()))


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_numeric(column: Column, rows: Sequence[Mapping[str, object]]) -> bool:
    """Whether the column stands right: it has a format, or it holds numbers and nothing else."""
    present = [row[column.key] for row in rows if row.get(column.key) is not None]
    return bool(column.format) or (bool(present) and all(_is_number(value) for value in present))


def _cell(value: object, column: Column) -> str:
    if value is None:
        return NOTHING
    if not _is_number(value):
        return " ".join(str(value).split())  # a line break inside a cell would tear the table
    try:
        return format(value, column.format)
    except (TypeError, ValueError) as error:
        raise ValueError(f"column {column.key!r}: format {column.format!r} does not fit {value!r} ({error})") from None


def _aligned(texts: Sequence[str], *, right: bool) -> list[str]:
    width = max(map(len, texts))
    return [text.rjust(width) if right else text.ljust(width) for text in texts]
