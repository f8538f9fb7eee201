"""Pages about run folders: a list of runs, all of one run, what runs differ in, what can be removed."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from ealinformer.errors import InputError
from ealinformer.report.tables import NOTHING, SHOWN_HORIZONS, Column, metrics_table, render_table

MB = 1e6
NOT_SHOWN = ("series.raw_source.", "series.graph_source.", "series.ids_source.")  # where the raw files come from

RUN_COLUMNS = (
    Column("folder", "run"),
    Column("model", "model"),
    Column("dataset", "data set"),
    Column("seed", "seed"),
    Column("state", "state"),
    Column("epochs", "epochs"),
    Column("best_score", "best val", ".4f"),
    Column("select_by", "of"),
    Column("test_mae", "test MAE", ".4f"),
    Column("seconds_per_epoch", "s/epoch", ".1f"),
    Column("started", "started (UTC)"),
    Column("mb", "MB", ".1f"),
)
EPOCH_COLUMNS = (
    Column("epoch", "epoch", ".0f"),
    Column("lr", "lr", ".1e"),
    Column("train_loss", "train loss", ".4f"),
    Column("val_loss", "val loss", ".4f"),
    Column("val_MAE", "val MAE", ".4f"),
    Column("train_seconds", "train s", ".1f"),
    Column("val_seconds", "val s", ".1f"),
)
SETTING_COLUMNS = (Column("key", "setting"), Column("value", "value"), Column("default", "default"))
START_COLUMNS = (
    Column("date", "started (UTC)"),
    Column("resumed_from", "resumed from"),
    Column("ended", "ended (UTC)"),
    Column("exit_reason", "how it ended"),
    Column("commit", "commit"),
)
CHECKPOINT_COLUMNS = (Column("file", "file"), Column("mb", "MB", ".1f"), Column("says", "state"))
REMOVAL_COLUMNS = (
    Column("run", "run"),
    Column("state", "state"),
    Column("changed", "last change (UTC)"),
    Column("count", "files"),
    Column("mb", "MB", ".1f"),
)


def runs_table(runs: Sequence[Mapping[str, Any]]) -> str:
    """One line for each run, as `RunSummary.as_dict` describes it."""
    rows = []
    for run in runs:
        done, most = run["epochs"], run["max_epochs"]
        rows.append(
            {
                **run,
                "state": _state(run),
                "epochs": f"{done}/{NOTHING if most is None else most}",
                "started": _moment(run["started"]),
                "mb": run["size_bytes"] / MB,
            }
        )
    return render_table(RUN_COLUMNS, rows)


def run_page(run: Mapping[str, Any]) -> str:
    """All about one run, as `run_details` describes it."""
    simulated = ", simulated" if run["simulated"] is True else ""
    data = _inner(run, "data").get("checksum")
    dirty = ", changed since" if str(run["commit"]).endswith("+dirty") else ""
    facts = {
        "run": run["folder"],
        "state": _joined(": ", _state({**run, "damage": []}), run["exit_reason"]),
        "model": _joined(", ", run["model"], _counted(run["parameters"], "parameters")),
        "data set": f"{_text(run['dataset'])}{simulated}{f', checksum {data}' if data else ''}",
        "recipe": run["recipe"],
        "seed": run["seed"],
        "epochs": f"{run['epochs']} of at most {_text(run['max_epochs'])}",
        "size": f"{run['size_bytes'] / MB:.1f} MB",
        "command": run["command"],
        "machine": _machine(run),
        "versions": ", ".join(f"{name} {version}" for name, version in _inner(run, "versions").items()),
        "commit": f"{str(run['commit']).removesuffix('+dirty')}{dirty}" if run["commit"] else None,
        "environment": " ".join(f"{name}={value}" for name, value in _inner(run, "environment").items()),
    }
    width = max(map(len, facts))
    parts = ["\n".join(f"{name.ljust(width)}  {_text(value)}" for name, value in facts.items())]
    parts += ["\n".join(f"damaged: {line}" for line in run["damage"])] if run["damage"] else []
    parts += _section("settings that are not the default", SETTING_COLUMNS, _settings(run["settings"]))
    parts += _section("starts", START_COLUMNS, [_start(start) for start in run["starts"]])
    parts += _section("last epochs", EPOCH_COLUMNS, run["last_epochs"])
    if run["metrics"]:
        parts.append(_metrics(run["metrics"]))
    parts += _section("checkpoints", CHECKPOINT_COLUMNS, [_checkpoint(one) for one in run["checkpoints"]])
    return "\n\n".join(parts)


def comparison_page(comparison: Mapping[str, Any]) -> str:
    """What runs differ in, as `compare_runs` describes it: a column for each run, by its number."""
    runs = comparison["runs"]
    numbers = [str(number) for number in range(1, len(runs) + 1)]
    legend = [
        f"{number}  {run}  ({state})" for number, run, state in zip(numbers, runs, comparison["states"], strict=True)
    ]
    columns = [Column(number, number) for number in numbers]
    parts = ["\n".join(legend)]
    for title, heading, lines in (
        ("config", "setting", comparison["config"]),
        ("code, machine and data", "", comparison["code"]),
    ):
        shown = [line for line in lines if not line["key"].startswith(NOT_SHOWN)]
        rows = [{"key": line["key"], **dict(zip(numbers, map(_text, line["values"]), strict=True))} for line in shown]
        if rows:
            parts.append(render_table([Column("key", heading), *columns], rows, title=title))
        else:
            parts.append(f"{title}: no difference")
    differences = [Column(f"-{number}", f"{number} - 1") for number in numbers[1:]]
    rows = [_compared(line, numbers) for line in comparison["metrics"] if _is_shown(line["metric"])]
    if rows:
        title = "metrics" if comparison["same_data"] else "metrics, of DIFFERENT data: they do not compare"
        columns = [Column("metric", "metric"), *_right([*columns, *differences])]
        parts.append(render_table(columns, rows, title=title))
    else:
        parts.append("metrics: none of the runs has any")
    return "\n\n".join(parts)


def removals_table(removals: Sequence[Mapping[str, Any]]) -> str:
    """What can be removed, as `Removal.as_dict` describes it."""
    rows = [
        {
            **removal,
            "changed": _moment(datetime.fromtimestamp(removal["changed"], timezone.utc).isoformat()),
            "count": len(removal["files"]),
            "mb": removal["size_bytes"] / MB,
        }
        for removal in removals
    ]
    return render_table(REMOVAL_COLUMNS, rows)


def _state(run: Mapping[str, Any]) -> str:
    if run["damage"]:
        return f"damaged: {run['damage'][0]}"
    return f"{run['state']}, incomplete" if run["complete"] is False else str(run["state"])


def _section(title: str, columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return [render_table(columns, rows, title=title)] if rows else []


def _settings(settings: Mapping[str, Mapping[str, Any]]) -> list[dict[str, str]]:
    shown = {key: said for key, said in settings.items() if not key.startswith(NOT_SHOWN)}
    return [
        {"key": key, "value": _text(said["value"]), "default": _text(said["default"])} for key, said in shown.items()
    ]


def _start(start: Mapping[str, Any]) -> dict[str, Any]:
    commit = str(start.get("commit") or NOTHING)
    short = f"{commit[:10]}{'+dirty' if commit.endswith('+dirty') else ''}"
    return {**start, "date": _moment(start.get("date")), "ended": _moment(start.get("ended")), "commit": short}


def _checkpoint(one: Mapping[str, Any]) -> dict[str, Any]:
    says = f"whole, epoch {one['epoch']}" if one["whole"] else one["problem"]
    return {"file": one["file"], "mb": one["size_bytes"] / MB, "says": says}


def _metrics(metrics: Mapping[str, Any]) -> str:
    split, windows, epoch = (_text(metrics.get(key)) for key in ("split", "windows", "epoch"))
    head = f"{split} part, {windows} windows, epoch {epoch}"
    try:
        return f"{head}\n\n{metrics_table(metrics)}"
    except InputError as error:
        return f"damaged: {error}"


def _compared(line: Mapping[str, Any], numbers: Sequence[str]) -> dict[str, str]:
    values = {number: _number(value) for number, value in zip(numbers, line["values"], strict=True)}
    differences = zip(numbers[1:], line["differences"][1:], strict=True)
    return {
        "metric": line["metric"],
        **values,
        **{f"-{number}": _difference(value) for number, value in differences},
    }


def _is_shown(metric: str) -> bool:
    kind, _, rest = metric.partition(".")
    return kind != "horizons" or rest.partition(".")[0] in map(str, SHOWN_HORIZONS)


def _right(columns: Sequence[Column]) -> list[Column]:
    # A format makes a column of numbers of it, and the texts in it are printed as they are.
    return [Column(column.key, column.heading, "s") for column in columns]


def _machine(run: Mapping[str, Any]) -> str:
    machine, process = _inner(run, "machine"), _inner(run, "process")
    gpus = machine.get("gpus")
    named = ", ".join(map(str, gpus)) if isinstance(gpus, list) and gpus else "no GPU"
    host = f" on {process['host']}" if "host" in process else ""
    cores, threads = _counted(machine.get("cores"), "cores"), _counted(machine.get("threads"), "threads")
    return f"{_joined(', ', machine.get('cpu'), cores, threads)}, {named}{host}" if machine else NOTHING


def _inner(content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = content.get(key)
    return value if isinstance(value, Mapping) else {}


def _joined(separator: str, *parts: object) -> str:
    return separator.join(str(part) for part in parts if part is not None)


def _counted(count: object, what: str) -> str | None:
    return f"{count:,} {what}" if isinstance(count, int) else None


def _moment(date: object) -> str | None:
    """`2024-05-06T07:08:09+00:00` -> `2024-05-06 07:08`; what is no date stays as it is."""
    if date is None:
        return None
    try:
        return datetime.fromisoformat(str(date)).astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M")
    except (ValueError, OverflowError):
        return str(date)


def _number(value: object, *, sign: str = "") -> str:
    if isinstance(value, float):
        return format(value, f"{sign}.4f")
    if isinstance(value, int) and not isinstance(value, bool):
        return format(value, f"{sign},d")
    return _text(value)


def _difference(value: float | None) -> str:
    """`0` for equal numbers alone: what rounds to nothing is told by its power of ten."""
    if isinstance(value, float) and 0 < abs(value) < 5e-5:
        return format(value, "+.0e")
    return "0" if value == 0 else _number(value, sign="+")


def _text(value: object) -> str:
    if value is None or value == "":
        return NOTHING
    return value if isinstance(value, str) else json.dumps(value)
