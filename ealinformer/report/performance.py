"""Tables of what models cost: a step of training, a whole epoch, and both over N."""

from collections.abc import Mapping, Sequence
from typing import Any

from ealinformer.report.tables import Column, render_table

MIB = 1024**2
GIGA = 1e9

STEP_COLUMNS = (
    Column("model", "model"),
    Column("seconds", "s/step", ".3f"),
    Column("ratio", "ratio", ".3f"),
    Column("ratio_p20", "p20", ".3f"),
    Column("ratio_p80", "p80", ".3f"),
    Column("ratio_to_second", "of fused", ".3f"),
    Column("memory_mib", "MiB", ",.0f"),
    Column("memory_ratio", "of it", ".3f"),
    Column("system_mib", "system MiB", ",.0f"),
    Column("note", "note"),
)
PHASE_COLUMNS = (
    Column("model", "model"),
    Column("data_seconds", "data", ".4f"),
    Column("forward_seconds", "forward", ".3f"),
    Column("backward_seconds", "backward", ".3f"),
    Column("optimizer_seconds", "optimizer", ".4f"),
    Column("gflop", "GFLOP", ",.1f"),
    Column("gigabytes", "GB", ",.2f"),
    Column("flop_per_byte", "FLOP/B", ".1f"),
    Column("roofline_seconds", "roofline s", ".3f"),
    Column("roofline_share", "reached", ".0%"),
)
EPOCH_COLUMNS = (
    Column("case", "model, loop"),
    Column("epoch_seconds", "s/epoch", ".2f"),
    Column("ratio", "ratio", ".3f"),
    Column("step_seconds", "s/step", ".4f"),
    Column("data_seconds", "data s", ".4f"),
    Column("overhead", "overhead", ".1%"),
    Column("peak_mib", "peak MiB", ",.0f"),
    Column("note", "note"),
)
SCALING_COLUMNS = (
    Column("model", "model"),
    Column("pass", "pass"),
    Column("length", "N", ",d"),
    Column("seconds", "s", ".3f"),
    Column("seconds_p20", "p20", ".3f"),
    Column("seconds_p80", "p80", ".3f"),
    Column("memory_mib", "MiB", ",.0f"),
    Column("system_mib", "system MiB", ",.0f"),
    Column("note", "note"),
)
FIT_COLUMNS = (
    Column("model", "model"),
    Column("pass", "pass"),
    Column("from_length", "from N", ",d"),
    Column("to_length", "to N", ",d"),
    Column("time_exponent", "time", ".3f"),
    Column("memory_exponent", "memory", ".3f"),
)


def step_table(rows: Sequence[Mapping[str, Any]], *, title: str) -> str:
    """The rows of one shape: seconds of a step, ratio to the reference's, peak memory; then phases and ceilings."""
    shown = [_shown(row) for row in rows]
    measured = [row for row in shown if row["seconds"]]
    tables = [render_table(STEP_COLUMNS, shown, title=title)]
    if measured:
        tables.append(render_table(PHASE_COLUMNS, measured))
    return "\n\n".join(tables)


def ceilings_line(ceilings: Mapping[str, Any]) -> str:
    """The machine's measured ceilings in words."""
    flops, rate = ceilings["flops_per_second"] / GIGA, ceilings["bytes_per_second"] / GIGA
    return f"measured ceilings: {flops:,.1f} GFLOP/s ({ceilings['dtype']}), {rate:,.1f} GB/s"


def epoch_table(rows: Sequence[Mapping[str, Any]], *, title: str) -> str:
    """Whole epochs: seconds, ratio to the first row's, what of it is not the step itself, and peak memory."""
    shown = [{**row, "case": f"{row['model']}, {row['runner']}", "note": note_of(row)} for row in rows]
    return render_table(EPOCH_COLUMNS, shown, title=title)


def model_scaling_table(rows: Sequence[Mapping[str, Any]], *, title: str) -> str:
    """Seconds and memory of every model and pass at every N."""
    return render_table(SCALING_COLUMNS, [_shown(row) for row in rows], title=title)


def model_fits_table(fits: Sequence[Mapping[str, Any]]) -> str:
    """Exponents of N in time and memory."""
    return render_table(FIT_COLUMNS, fits, title="cost = a N^p: p by least squares in log-log")


def note_of(row: Mapping[str, Any]) -> str | None:
    """Why a row has no seconds; None where it has."""
    if row["status"] == "ok":
        return None
    if row.get("needed_bytes"):
        return f"{row['status']}: needs at least {row['needed_bytes'] / MIB:,.0f} MiB"
    return f"{row['status']}: {row['reason']}"


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    system = row["resident_bytes"] if row.get("reserved_bytes") is None else row["reserved_bytes"]
    scaled = {
        "memory_mib": (row["memory_bytes"], MIB),
        "system_mib": (system, MIB),
        "gflop": (row.get("flops"), GIGA),
        "gigabytes": (row.get("bytes"), GIGA),
    }
    values = {key: None if value is None else value / unit for key, (value, unit) in scaled.items()}
    return {**row, **values, "note": note_of(row)}
