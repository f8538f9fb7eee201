"""Tables of what attentions cost, and whether entropy-equal attention is as cheap as it set out to be."""

from collections.abc import Mapping, Sequence
from typing import Any

from ealinformer.report.tables import Column, render_table

MIB = 1024**2
BOTH = "forward+backward"
OURS = "entropy_equal:gaussian"

# The setting that the targets are about.
TARGET_SETTING = {"batch": 8, "heads": 4, "head_size": 38, "dtype": "float32", "pass": BOTH}
# At N sensors, ours is to take at most 1 / factor of the other's time.
SPEED_TARGETS = (
    (170, "sdpa", 2.0),
    (170, "softmax", 4.0),
    (883, "sdpa", 5.0),
    (883, "softmax", 12.0),
    (2048, "sdpa", 10.0),
)
HIGHEST_EXPONENT = 1.05

SHAPE_COLUMNS = (
    Column("attention", "attention"),
    Column("pass", "pass"),
    Column("ms", "ms", ".3f"),
    Column("ms_p20", "p20", ".3f"),
    Column("ms_p80", "p80", ".3f"),
    Column("ratio", "of sdpa", ".3f"),
    Column("memory_mib", "MiB", ".2f"),
    Column("resident_mib", "RSS MiB", ".1f"),
    Column("note", "note"),
)
FIT_COLUMNS = (
    Column("attention", "attention"),
    Column("pass", "pass"),
    Column("dtype", "dtype"),
    Column("heads", "heads"),
    Column("head_size", "C"),
    Column("from_length", "from N", ",d"),
    Column("to_length", "to N", ",d"),
    Column("time_exponent", "time", ".3f"),
    Column("memory_exponent", "memory", ".3f"),
)
TARGET_COLUMNS = (
    Column("target", "target"),
    Column("wanted", "wanted"),
    Column("found", "found"),
    Column("verdict", "verdict"),
)


def shape_table(rows: Sequence[Mapping[str, Any]], *, title: str) -> str:
    """The rows of one shape: milliseconds of a pass, what share of sdpa's time that is, and MiB over q, k and v."""
    return render_table(SHAPE_COLUMNS, [_shown(row) for row in rows], title=title)


def fits_table(fits: Sequence[Mapping[str, Any]]) -> str:
    """Exponents of N in time and memory."""
    return render_table(FIT_COLUMNS, fits, title="cost = a N^p: p by least squares in log-log")


def targets_table(rows: Sequence[Mapping[str, Any]], fits: Sequence[Mapping[str, Any]]) -> str:
    """The targets against what was measured: reached, missed or not measured."""
    setting = f"batch {TARGET_SETTING['batch']}, {TARGET_SETTING['heads']} heads, C = {TARGET_SETTING['head_size']}"
    title = f"targets for {OURS}, {BOTH}, {setting}, {TARGET_SETTING['dtype']}, without mask"
    return render_table(TARGET_COLUMNS, targets(rows, fits), title=title)


def targets(rows: Sequence[Mapping[str, Any]], fits: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """One row a target, as text: `target`, `wanted`, `found`, `verdict`."""
    # In units of sdpa's time in the same round, as in the tables: a drift of the machine plays no part.
    costs = {(row["attention"], row["length"]): row["ratio"] for row in rows if _is_of_targets(row)}
    judged = []
    for length, other, factor in SPEED_TARGETS:
        ours, theirs = costs.get((OURS, length)), costs.get((other, length))
        found = theirs / ours if ours and theirs else None
        target = f"faster than {other} at N = {length:,}"
        judged.append(_judged(target, f"at least {factor:g}x", found, "x", found is not None and found >= factor))
    (fit,) = [fit for fit in fits if fit["attention"] == OURS and _is_of_targets(fit)][:1] or [{}]
    reach = f" from N = {fit['from_length']:,} to {fit['to_length']:,}" if fit else ""
    for what, key in (("time", "time_exponent"), ("memory", "memory_exponent")):
        found = fit.get(key)
        fine = found is not None and found <= HIGHEST_EXPONENT
        judged.append(_judged(f"exponent of {what} in N{reach}", f"at most {HIGHEST_EXPONENT}", found, "", fine))
    return judged


def _judged(target: str, wanted: str, found: float | None, unit: str, fine: bool) -> dict[str, str]:
    if found is None:
        return {"target": target, "wanted": wanted, "found": "-", "verdict": "not measured"}
    return {
        "target": target,
        "wanted": wanted,
        "found": f"{found:.3f}{unit}",
        "verdict": "reached" if fine else "MISSED",
    }


def _is_of_targets(row: Mapping[str, Any]) -> bool:
    return all(row[key] == value for key, value in TARGET_SETTING.items())


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    milliseconds = {key: _scaled(row[f"seconds{key[2:]}"], 1e3) for key in ("ms", "ms_p20", "ms_p80")}
    memory = {f"{key}_mib": _scaled(row[f"{key}_bytes"], 1 / MIB) for key in ("memory", "resident")}
    note = None
    if row["status"] != "ok":
        note = f"{row['status']}: {row['reason']}"
        if row["needed_bytes"]:
            note = f"{row['status']}: needs at least {row['needed_bytes'] / MIB:,.0f} MiB"
    return {**row, **milliseconds, **memory, "note": note}


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor
