"""Time and peak memory of attentions over N: forward, and forward with the gradients of q, k and v.

Values are random: neither time nor memory depends on them. All attentions are warmed at a shape and then take turns, so
that a drift of the machine hits all alike. What is measured runs in processes of its own, under a memory limit: running
out of memory is a row, and so is what would take too long. An interrupted run goes on where it stopped.
"""

import itertools
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ealinformer.attention import ATTENTIONS, Attention, build_attention
from ealinformer.cli import ArgumentParser, run
from ealinformer.errors import InputError
from ealinformer.files import write_text
from ealinformer.measure import provenance
from ealinformer.measure.attention_cost import BOTH, FORWARD, SEED, Shape
from ealinformer.measure.attention_sweep import Plan, attention_fits, measure_shape, rows_at, seconds_left
from ealinformer.measure.memory import available_bytes
from ealinformer.report.attention_cost import fits_table, shape_table, targets_table

EXAMPLES = """examples:
  python benchmarks/attention.py --lengths 170,883 --attentions sdpa,entropy_equal:gaussian
  python benchmarks/attention.py --memory-limit 16 --output results/attention/cpu.json --check
  python benchmarks/attention.py --head-sizes 16,32,64,128 --lengths 883,8192 --output results/attention/head-sizes.json
  python benchmarks/attention.py --device cuda --dtype float32,bfloat16 --output results/attention/h100.json
  python benchmarks/attention.py --report results/attention/cpu.json --check

an attention is a name, with options behind colons: entropy_equal:gaussian is short for entropy_equal:entropy=gaussian,
linformer:rank=128 and performer:num_features=64 are others.
"""

GIB = 1024**3
LENGTHS = "12,64,170,307,883,2048,4096,8192,16384,32768,65536"
DTYPES = ("float32", "float64", "float16", "bfloat16")
# Enough room for the system and for this process.
SHARE_OF_AVAILABLE_MEMORY = 0.8
SAME_TO_RESUME = ("machine", "versions", "commit")


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line; measure what is missing, or only report what a file holds."""
    given = parse(arguments)
    if given.report is not None:
        content = read(given.report)
        for text in texts(content, check=given.check):
            print(text, end="\n\n")
        write_beside(content, given.report, check=given.check)
        return
    plan = plan_of(given)
    torch.set_num_threads(plan.threads)  # for the birth certificate; the work is done by other processes
    content = started(plan, given.output, limit_is_given=given.memory_limit is not None, overwrite=given.overwrite)
    measure(content, given.output)
    for text in texts(content, check=given.check)[len(shapes_of(content)) :]:  # those of the shapes are printed
        print(text, end="\n\n")
    if given.output:
        write_beside(content, given.output, check=given.check)


def parse(arguments: Sequence[str] | None) -> Any:
    """The command line as argparse gives it."""
    parser = ArgumentParser(description=__doc__, epilog=EXAMPLES)
    all_names = ",".join(("entropy_equal:gaussian", *ATTENTIONS))
    parser.add_argument("--attentions", default=all_names, metavar="NAMES", help=f"({all_names})")
    parser.add_argument("--lengths", default=LENGTHS, metavar="N,...", help=f"numbers of sensors ({LENGTHS})")
    parser.add_argument("--head-sizes", default="38", metavar="C,...", help="channels of a head (38)")
    parser.add_argument("--heads", default="4", metavar="H,...", help="numbers of heads (4)")
    parser.add_argument("--dtype", default="float32", metavar="D,...", help=f"of {', '.join(DTYPES)} (float32)")
    parser.add_argument("--batch", type=int, default=8, metavar="B", help="windows times steps attended at once (8)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="(cpu)")
    parser.add_argument("--threads", type=int, metavar="T", help="of the CPU (as many as torch takes by itself)")
    parser.add_argument("--causal", action="store_true", help="query i sees keys up to i")
    parser.add_argument("--forward", action="store_true", help="the forward pass alone, without gradients")
    parser.add_argument(
        "--backward", action="store_true", help="forward with backward alone; both without either option"
    )
    parser.add_argument("--repeats", type=int, default=7, metavar="R", help="rounds in which attentions take turns (7)")
    parser.add_argument("--seconds", type=float, default=1.5, metavar="S", help="all turns of one together (1.5)")
    parser.add_argument("--max-seconds", type=float, default=60, metavar="S", help="leave out longer passes (60)")
    parser.add_argument(
        "--memory-limit", type=float, metavar="GIB", help="of a process (0.8 of what is free; CUDA: the whole device)"
    )
    parser.add_argument("--fit-from", type=int, default=2048, metavar="N", help="fit exponents from this N up (2048)")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="JSON to write and to resume; .txt and .png beside it"
    )
    parser.add_argument("--overwrite", action="store_true", help="begin anew where the output is of another run")
    parser.add_argument("--report", type=Path, metavar="FILE", help="measure nothing: tables and figure of a JSON file")
    parser.add_argument("--check", action="store_true", help="also hold the rows against the targets")
    given = parser.parse_args(arguments)
    for path in (given.output, given.report):
        if path is not None and path.suffix != ".json":
            raise InputError(f"{path}: a name that ends in .json is expected")
    return given


def plan_of(given: Any) -> Plan:
    """The command line, checked. Raises InputError."""
    if given.device == "cuda" and not torch.cuda.is_available():
        raise InputError(f"--device cuda: no CUDA device (torch {torch.__version__})")
    for option in ("batch", "repeats", "fit_from", "threads"):
        value = getattr(given, option)
        if value is not None and value < 1:
            raise InputError(f"--{option.replace('_', '-')} has to be at least 1, got {value}")
    for option in ("seconds", "max_seconds", "memory_limit"):
        value = getattr(given, option)
        if value is not None and not 0 < value < float("inf"):
            raise InputError(f"--{option.replace('_', '-')} has to be above 0, got {value}")
    attentions = listed("--attentions", given.attentions)
    for name in attentions:
        try:
            build(name, 16, 16)
        except ValueError as error:
            raise InputError(f"--attentions: {name}: {error}") from error
    dtypes = listed("--dtype", given.dtype)
    for dtype in dtypes:
        if dtype not in DTYPES:
            raise InputError(f"--dtype is of {', '.join(DTYPES)}, got {dtype!r}")
    passes = tuple(kind for kind, wanted in ((FORWARD, given.forward), (BOTH, given.backward)) if wanted)
    if given.memory_limit is not None:
        memory_limit: int | None = round(given.memory_limit * GIB)
    else:
        available = available_bytes() if given.device == "cpu" else None
        memory_limit = None if available is None else int(SHARE_OF_AVAILABLE_MEMORY * available)
    return Plan(
        attentions=attentions,
        passes=passes or (FORWARD, BOTH),
        lengths=whole_numbers("--lengths", given.lengths),
        head_sizes=whole_numbers("--head-sizes", given.head_sizes),
        heads=whole_numbers("--heads", given.heads),
        dtypes=dtypes,
        batch=given.batch,
        device=given.device,
        causal=given.causal,
        threads=given.threads or torch.get_num_threads(),
        repeats=given.repeats,
        seconds=given.seconds,
        max_seconds=given.max_seconds,
        memory_limit=memory_limit,
        fit_from=given.fit_from,
    )


def listed(option: str, text: str) -> tuple[str, ...]:
    """The parts of `a,b,c`, each once."""
    parts = [part.strip() for part in text.split(",")]
    if not all(parts) or len(set(parts)) < len(parts):
        raise InputError(f"{option} is a list such as a,b without gaps or repetition, got {text!r}")
    return tuple(parts)


def whole_numbers(option: str, text: str) -> tuple[int, ...]:
    """The numbers of `12,170,883`, each at least 1."""
    parts = listed(option, text)
    if not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
        raise InputError(f"{option} is a list of whole numbers above 0, such as 12,170,883, got {text!r}")
    return tuple(int(part) for part in parts)


def build(name: str, length: int, head_size: int) -> Attention:
    """An attention of its name and options, such as `entropy_equal:gaussian` or `linformer:rank=128`."""
    base, *settings = name.split(":")
    options: dict[str, Any] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        options[key if equals else "entropy"] = _number_or_text(value if equals else key)
    return build_attention(base, head_size=head_size, num_keys=length, **options)


def _number_or_text(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def started(plan: Plan, output: Path | None, *, limit_is_given: bool, overwrite: bool) -> dict[str, Any]:
    """What the output holds already, if it is of this very run; else a run without rows. Raises InputError."""
    new = {"kind": "attention", "random_values": True, "seed": SEED, "complete": False, "settings": asdict(plan)}
    new = json.loads(json.dumps({**new, "rows": [], "fits": [], **provenance()}))
    if output is None or not output.exists() or overwrite:
        return new
    old = read(output)
    if not limit_is_given:  # what was free at the start differs from day to day, and the rows are of the old limit
        new["settings"]["memory_limit"] = old["settings"].get("memory_limit")
    for key, now in [*new["settings"].items(), *((key, new[key]) for key in SAME_TO_RESUME)]:
        before = old["settings"].get(key) if key in new["settings"] else old[key]
        if before != now:
            raise InputError(f"{output} is of another run: {key} was {before}, is {now}; --overwrite begins anew")
    return old


def read(path: Path) -> dict[str, Any]:
    """The content of a file that this benchmark wrote. Raises InputError."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        plan_in(content)
        well = content["kind"] == "attention" and all(row["attention"] for row in content["rows"])
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} was not written by benchmarks/attention.py: {type(error).__name__} {error}"
        ) from error
    if not well:
        raise InputError(f"{path} was not written by benchmarks/attention.py: kind is {content['kind']!r}")
    return content


def plan_in(content: Mapping[str, Any]) -> Plan:
    """The plan of a file's settings."""
    settings: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in content["settings"].items()
    }
    return Plan(**settings)


def shapes_of(content: Mapping[str, Any]) -> list[Shape]:
    """The shapes that have rows, in the order of the plan."""
    return [shape for shape in plan_in(content).shapes() if rows_at(shape, content["rows"])]


def measure(content: dict[str, Any], output: Path | None) -> None:
    """Measure the shapes that have no rows yet; print each shape's table, and write the file after each."""
    plan = plan_in(content)
    done = shapes_of(content)
    missing = [shape for shape in plan.shapes() if shape not in done]
    if done:
        print(f"{output}: {len(done)} of {len(plan.shapes())} shapes are measured already", file=sys.stderr)
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
    on_terminal = sys.stderr.isatty()
    bar_format = "{n_fmt}/{total_fmt} |{bar:20}| {desc}{postfix}"
    with tqdm(total=len(missing), disable=not on_terminal, bar_format=bar_format, leave=False) as bar:
        for place, shape in enumerate(missing):
            start = time.monotonic()
            bar.set_description_str(_name(shape))
            left = _about(seconds_left(plan, missing[place:], content["rows"]))
            tell = partial(_tell, bar, left)
            tell("starting")
            rows = measure_shape(plan, shape, content["rows"], build, tell)
            content["rows"] += rows
            content["fits"] = attention_fits(content["rows"], plan.fit_from)
            content["complete"] = place == len(missing) - 1
            if output:
                write_text(output, json.dumps(content, indent=2) + "\n")
            bar.clear()
            print(shape_table(rows, title=_title(shape)), end="\n\n", flush=True)
            bar.update()
            if not on_terminal:
                left = _about(seconds_left(plan, missing[place + 1 :], content["rows"]))
                taken = _about(time.monotonic() - start)
                print(f"{_name(shape)}: {taken}; {place + 1}/{len(missing)} shapes, about {left} left", file=sys.stderr)


def _tell(bar: tqdm, left: str, what: str) -> None:
    bar.set_postfix_str(f"{what}; about {left} left")


def texts(content: Mapping[str, Any], *, check: bool) -> list[str]:
    """The tables: one a shape, the exponents, and with `check` the targets."""
    tables = [shape_table(rows_at(shape, content["rows"]), title=_title(shape)) for shape in shapes_of(content)]
    if content["fits"]:
        tables.append(fits_table(content["fits"]))
    if check:
        tables.append(targets_table(content["rows"], content["fits"]))
    return tables


def write_beside(content: Mapping[str, Any], output: Path, *, check: bool) -> None:
    """The tables beside the JSON file, and a figure for every group of shapes that differ in N alone."""
    write_text(output.with_suffix(".txt"), "\n\n".join(texts(content, check=check)) + "\n")
    # Here, because every process that measures imports this file, and should take no second to do so.
    from ealinformer.report.scaling import scaling_figure

    plan = plan_in(content)
    single = len(plan.dtypes) * len(plan.heads) * len(plan.head_sizes) == 1
    for group, shapes in itertools.groupby(shapes_of(content), key=lambda shape: replace(shape, length=1)):
        rows = [row for shape in shapes for row in rows_at(shape, content["rows"])]
        if not any(row["memory_bytes"] for row in rows):
            continue
        ending = "" if single else f"-C{group.head_size}-heads{group.heads}-{group.dtype}"
        path = output.with_name(f"{output.stem}{ending}.png")
        machine = content["machine"]
        cpu = f"{machine['cpu']}, threads: {group.threads}"
        device = cpu if group.device == "cpu" else ", ".join(machine["gpus"])
        note = f"{_title(group, with_length=False)}; random values; {device}"
        scaling_figure(rows, path, memory_limit=plan.memory_limit, note=note)
        print(f"figure: {path}", file=sys.stderr)


def _title(shape: Shape, *, with_length: bool = True) -> str:
    start = f"N = {shape.length:,}, " if with_length else ""
    causal = ", causal" if shape.causal else ""
    return (
        f"{start}batch {shape.batch}, {shape.heads} heads, C = {shape.head_size}, {shape.dtype}, {shape.device}{causal}"
    )


def _name(shape: Shape) -> str:
    return f"N = {shape.length:,}, C = {shape.head_size}, {shape.heads} heads, {shape.dtype}"


def _about(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


if __name__ == "__main__":
    run(main)
