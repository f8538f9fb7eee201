"""The Triton kernels against the plain form and fused softmax on a GPU: time and memory over N, taking turns.

q, k and v are random, `[batch, heads, N, C]`. Which of the forms is to be taken at which size has to follow from the
rows that this writes; until there are some, nothing takes the kernels by itself.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.attention import listed, whole_numbers
from ealinformer.attention import entropy_equal_attention, fused_softmax_attention
from ealinformer.attention.kernels import entropy_equal_kernel, kernel_reason
from ealinformer.attention.kernels.entropy_equal import DTYPES
from ealinformer.cli import ArgumentParser, run
from ealinformer.errors import InputError
from ealinformer.files import write_text
from ealinformer.measure import provenance
from ealinformer.measure.attention_cost import PASSES, SEED
from ealinformer.measure.attention_sweep import REFERENCE, Plan, attention_fits, measure_shape
from ealinformer.measure.rows import Row
from ealinformer.report.attention_cost import fits_table, shape_table

EXAMPLES = """examples:
  python benchmarks/kernels.py --output results/attention/kernels.json
  python benchmarks/kernels.py --lengths 170,883 --batch 192 --dtype float32,bfloat16
"""

TYPES = {str(dtype).removeprefix("torch."): dtype for dtype in DTYPES}
FORMS = tuple(f"{form}:{entropy}" for entropy in ("taylor", "gaussian") for form in ("plain", "kernel"))


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, measure, print tables and, when asked to, write the rows."""
    parser = ArgumentParser(description=__doc__, epilog=EXAMPLES)
    parser.add_argument("--lengths", default="12,170,883,2048,8192,65536", metavar="N,...", help="(%(default)s)")
    parser.add_argument("--batch", type=int, default=8, metavar="B", help="windows times steps (%(default)s)")
    parser.add_argument("--heads", default="4", metavar="H,...", help="numbers of heads (%(default)s)")
    parser.add_argument("--head-sizes", default="38", metavar="C,...", help="channels of a head (%(default)s)")
    parser.add_argument("--dtype", default="float32", metavar="D,...", help=f"of {', '.join(TYPES)} (%(default)s)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="JSON to write; the tables go beside it")
    given = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        raise InputError(f"the kernels are measured on a GPU: no CUDA device (torch {torch.__version__})")
    plan = Plan(
        attentions=(REFERENCE, *FORMS),
        passes=PASSES,
        lengths=whole_numbers("--lengths", given.lengths),
        head_sizes=whole_numbers("--head-sizes", given.head_sizes),
        heads=whole_numbers("--heads", given.heads),
        dtypes=listed("--dtype", given.dtype),
        batch=given.batch,
        device="cuda",
        causal=False,
        threads=torch.get_num_threads(),
        repeats=7,
        seconds=1.5,
        max_seconds=60,
        memory_limit=None,
        fit_from=2048,
    )
    if given.batch < 1 or not set(plan.dtypes) <= set(TYPES):
        raise InputError(f"--batch of at least 1 and --dtype of {', '.join(TYPES)} are expected")
    for shape in plan.shapes():
        x = torch.zeros(1, 1, shape.head_size, dtype=TYPES[shape.dtype], device="cuda")
        reason = kernel_reason(x, x, x)
        if reason is not None:
            raise InputError(reason)

    rows: list[Row] = []
    tables = []
    for shape in plan.shapes():
        rows += (measured := measure_shape(plan, shape, rows, build))
        title = f"N = {shape.length:,}: batch {shape.batch}, {shape.heads} heads, C = {shape.head_size}, {shape.dtype}"
        tables.append(shape_table(measured, title=title))
        print(tables[-1], end="\n\n", flush=True)
    fits = attention_fits(rows, plan.fit_from)
    if fits:
        tables.append(fits_table(fits))
        print(tables[-1])
    if given.output:
        kind = {"kind": "attention kernels", "random_values": True, "seed": SEED, "settings": asdict(plan)}
        given.output.parent.mkdir(parents=True, exist_ok=True)
        write_text(given.output, json.dumps({**kind, "rows": rows, "fits": fits, **provenance()}, indent=2) + "\n")
        write_text(given.output.with_suffix(".txt"), "\n\n".join(tables) + "\n")


def build(name: str, length: int, head_size: int) -> Callable[..., Tensor]:
    """A form of its name; they take no size."""
    if name == REFERENCE:
        return fused_softmax_attention
    form, entropy = name.split(":")
    if form == "plain":
        return partial(entropy_equal_attention, entropy=entropy, branch="linear")
    return partial(_kernel, entropy=entropy)


def _kernel(q: Tensor, k: Tensor, v: Tensor, *, entropy: str, causal: bool) -> Tensor:
    assert not causal
    return entropy_equal_kernel(q, k, v, entropy=entropy)


if __name__ == "__main__":
    run(main)
