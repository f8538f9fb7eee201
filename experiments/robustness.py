"""Error of trained models on test windows whose readings go wrong, and with other attentions on the same weights.

The inputs of the windows get noise, gaps, outages, shifts and trends, the same for all models; the targets stay what
came. Models on entropy-equal attention are scored again with other eps, and models on it or on softmax with the
attention of the others: what a change costs without training.
"""

import argparse
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from _common import CATALOGUE

from ealinformer.analysis.attention_swaps import (
    ATTENTION_KEYS,
    SWAPS,
    trained_attention,
    with_other_attention,
    with_other_eps,
)
from ealinformer.analysis.perturbations import (
    PERTURBATIONS,
    check_strength,
    find_perturbation,
    lowest_allowed,
    spread_windows,
)
from ealinformer.analysis.perturbed_scores import Candidate, KeptScores, Task, Windows, measure
from ealinformer.cli import ArgumentParser, run
from ealinformer.data import PreparedSeries, open_prepared
from ealinformer.data.checksums import digest
from ealinformer.errors import InputError, suggestion
from ealinformer.files import write_text
from ealinformer.measure import provenance
from ealinformer.report.robustness import robustness_figure, robustness_tables
from ealinformer.training import Experiment, load_config
from ealinformer.training.checkpoints.checkpoint import BEST, check_fits, load_checkpoint
from ealinformer.training.host import quiet_host
from ealinformer.training.jobs import prepare_job
from ealinformer.training.progress import duration
from ealinformer.training.resolve import resolve
from ealinformer.training.runs.folder import STATUS, birth, write_json

EXAMPLES = """examples:
  python experiments/robustness.py -c configs/DEMO.py --checkpoint RUN1 --checkpoint RUN2
  python experiments/robustness.py -c configs/PEMS08.py --checkpoint RUN1 --checkpoint RUN2/last.pt \\
      --labels "softmax,entropy-equal" --gpus 0 --output results/robustness/PEMS08.json
  python experiments/robustness.py -c configs/DEMO.py --checkpoint RUN --windows 200 --perturbations noise,missing
  python experiments/robustness.py -c configs/DEMO.py --checkpoint RUN --strengths noise=0.1,0.3 --swaps none

An interrupted command that was given --output goes on where it was when it is called again.

perturbations and their usual strengths, beside 0:
"""

SETTINGS = ("input_len", "output_len")
NONE = "none"
EPS = (1e-8, 1e-4, 1e-2, 0.1, 0.3, 1.0, 3.0)
# Of the attentions to swap in, those that cost no more than the model's own.
USUAL_SWAPS = ("softmax", "taylor", "second_order", "gaussian", "finite_size", "skewed")


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, score, and print the tables."""
    given = parse(arguments)
    strengths = chosen_strengths(given.perturbations, given.strengths)
    eps, swaps = chosen_eps(given.eps), chosen_swaps(given.swaps)
    candidates = open_candidates(given)
    data = open_prepared(candidates[0].job.data_dir)
    windows = chosen_windows(given, candidates[0], data)
    plan = make_plan(candidates, strengths, eps, swaps)

    started = time.monotonic()
    birth = provenance()
    partial = given.output.with_suffix(".partial.json") if given.output else None
    kept = KeptScores(partial, identity(candidates, windows, data, birth))
    quiet_host()
    measure([task for _, _, task in plan], windows, kept, say)

    scores = {task.key: kept.scores[task.key] for _, _, task in plan}
    parts: dict[str, list[dict[str, Any]]] = {part: [] for part in ("perturbed", "eps", "swaps")}
    for part, about, task in plan:
        parts[part].append({"label": task.candidate.label, **about, **scores[task.key]})
    row = {
        **describe(candidates, windows, data, strengths),
        **parts,
        "evaluations": len(scores),
        "seconds": sum(score["seconds"] for score in scores.values()),
        **birth,
    }
    tables = robustness_tables(row)
    print(tables)
    print(f"\n{row['evaluations']} evaluations, {duration(time.monotonic() - started)} in all")
    if given.output is not None:
        write_text(given.output.with_suffix(".txt"), tables + "\n")
        robustness_figure(row, given.output.with_suffix(".png"))
        write_json(given.output, row)
        kept.discard()
        print(f"written to {given.output}, with tables (.txt) and figure (.png) beside it")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line, with what needs no file checked."""
    kinds = "".join(
        f"  {name:<14} {kind.meaning}: {', '.join(f'{s:g}' for s in kind.strengths)}\n"
        for name, kind in PERTURBATIONS.items()
    )
    parser = ArgumentParser(description=__doc__, epilog=EXAMPLES + kinds)
    add = parser.add_argument
    add("-c", "--config", type=Path, required=True, metavar="FILE", help="e.g. configs/PEMS08.py")
    add(
        "--checkpoint",
        type=Path,
        action="append",
        required=True,
        metavar="PATH",
        dest="checkpoints",
        help="run folder (its best.pt) or checkpoint; once for each model",
    )
    add("--labels", metavar="LIST", help="names of the checkpoints in tables and figure, in their order")
    add("--perturbations", metavar="LIST", help="e.g. noise,missing or none; all when left out")
    add("--strengths", action="append", default=[], metavar="NAME=LIST", help="e.g. noise=0.1,0.3 or shift=-1,1")
    add("--eps", metavar="LIST", help=f"for entropy-equal attention, or none; {','.join(f'{e:g}' for e in EPS)}")
    add("--swaps", metavar="LIST", help=f"attentions to swap in, or none; {','.join(USUAL_SWAPS)}")
    add("--split", choices=("train", "val", "test"), default="test", help="part to score (test)")
    add("--windows", type=int, metavar="N", help="score N windows spread evenly over the part; all when left out")
    add("--batch-size", type=int, metavar="N", help="windows at a time; eval_batch_size of each recipe when left out")
    add("--seed", type=int, default=0, metavar="N", help="of what perturbations draw (0)")
    add("--gpus", metavar="N", help="a CUDA device such as 0; the CPU when left out")
    add("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings", help="input_len=24, output_len=24")
    add("--datasets-dir", type=Path, default=Path("datasets"), metavar="DIR", help="prepared data sets")
    add("--output", type=Path, metavar="FILE", help="row to write (.json), with tables (.txt) and figure (.png)")
    given = parser.parse_args(arguments)

    if given.output is not None and (given.output.suffix != ".json" or given.output.exists()):
        raise InputError(f"--output {given.output}: a new file that ends in .json is expected")
    for setting in given.settings:
        key = setting.partition("=")[0].strip()
        if key not in SETTINGS:
            raise InputError(f"--set {key}: the checkpoints bring their own; {', '.join(SETTINGS)} can be set here")
    for option, value, least in (("--batch-size", given.batch_size, 1), ("--seed", given.seed, 0)):
        if value is not None and value < least:
            raise InputError(f"{option} {value}: at least {least} is expected")
    if given.gpus is not None and "," in given.gpus:
        raise InputError(f"--gpus {given.gpus}: one device is expected, such as 0")
    return given


def listed(text: str) -> list[str]:
    """The parts of a comma-separated list, in order and each once; no part in "none"."""
    return [] if text == NONE else list(dict.fromkeys(part.strip() for part in text.split(",")))


def numbers(option: str, text: str) -> list[float]:
    """The numbers of a comma-separated list.

    Raises:
        InputError: a part of it is no finite number.
    """
    try:
        found = [float(part) for part in listed(text)]
    except ValueError:
        found = [math.nan]
    if not all(map(math.isfinite, found)):
        raise InputError(f"{option} {text}: numbers separated by commas are expected")
    return found


def chosen_strengths(names: str | None, settings: Sequence[str]) -> dict[str, list[float]]:
    """The strengths of each perturbation, rising, with 0 among them.

    Raises:
        InputError: a perturbation is not known or not chosen, or cannot have a strength.
    """
    chosen = list(PERTURBATIONS) if names is None else listed(names)
    strengths = {name: list(find_perturbation(name).strengths) for name in chosen}
    for setting in settings:
        name, separator, text = setting.partition("=")
        if not separator:
            raise InputError(f"--strengths {setting}: NAME=LIST is expected, such as noise=0.1,0.3")
        find_perturbation(name)
        if name not in strengths:
            raise InputError(f"--strengths {setting}: {name} is not among --perturbations {names}")
        strengths[name] = numbers(f"--strengths {name}", text)
        for strength in strengths[name]:
            check_strength(name, strength)
    # 0.0 in front: of 0.0 and -0.0, a set keeps the first.
    return {name: sorted({0.0, *found}) for name, found in strengths.items()}


def chosen_eps(text: str | None) -> list[float]:
    """The values of eps to score; InputError unless all are above 0, as a logarithmic axis has them."""
    found = list(EPS) if text is None else numbers("--eps", text)
    if any(eps <= 0 for eps in found):
        raise InputError(f"--eps {text}: numbers above 0 are expected")
    return found


def chosen_swaps(text: str | None) -> list[str]:
    """The attentions to put in place of the trained one; InputError for one that is not known."""
    found = list(USUAL_SWAPS) if text is None else listed(text)
    for name in found:
        if name not in SWAPS:
            raise InputError(f"--swaps: unknown attention {name!r}{suggestion(name, SWAPS)}; known: {', '.join(SWAPS)}")
    return found


def open_candidates(given: argparse.Namespace) -> list[Candidate]:
    """The checkpoints, each checked against the config and all against the first.

    Raises:
        InputError: one is not there, damaged, given twice, or of another series, window or training data.
    """
    paths = [path / BEST if (path / BEST).is_file() else path for path in given.checkpoints]
    for path in paths:
        if paths.count(path) > 1:
            raise InputError(f"--checkpoint {path} is given {paths.count(path)} times, expected once")
    experiment = load_config(given.config)
    found = [open_candidate(path, experiment, given) for path in paths]
    for other in found[1:]:
        mine, theirs = found[0].state["scaler"], other.state["scaler"]
        # Another simulation of the same name, say: what is a std of noise to one would be none to the other.
        if any(not math.isclose(mine[name], theirs[name], rel_tol=1e-5) for name in ("mean", "std")):
            raise InputError(
                f"{other.path} was trained on readings of mean {theirs['mean']:.3f} and std {theirs['std']:.3f}, "
                f"{found[0].path} on {mine['mean']:.3f} and {mine['std']:.3f}: expected checkpoints of one data set"
            )
    labels = own_labels(found) if given.labels is None else [label.strip() for label in given.labels.split(",")]
    if len(labels) != len(found) or len(set(labels)) != len(found) or not all(labels):
        raise InputError(f"--labels {given.labels}: {len(found)} different names are expected, one for each checkpoint")
    return [replace(one, label=label) for one, label in zip(found, labels, strict=True)]


def open_candidate(path: Path, experiment: Experiment, given: argparse.Namespace) -> Candidate:
    """One checkpoint; model and recipe are its own, but for the batch."""
    saved, state = load_checkpoint(path)
    check_fits(path, saved, resolve(experiment, model=saved.model, settings=given.settings, catalogue=CATALOGUE))
    if given.batch_size is not None:
        recipe = saved.recipe.model_copy(update={"eval_batch_size": given.batch_size})
        saved = saved.model_copy(update={"recipe": recipe})
    job = prepare_job(saved, CATALOGUE, datasets_dir=given.datasets_dir, folder=path.parent, gpus=given.gpus)
    return Candidate(path, "", state, job)


def own_labels(candidates: Sequence[Candidate]) -> list[str]:
    """The model and what its run says of the attention; where that is not enough also folder, file and number."""
    labels = []
    for one in candidates:
        said = [(key, value) for key, value in one.job.run.model_params.items() if key in ATTENTION_KEYS]
        words = [value if isinstance(value, str) else f"{key} {value}" for key, value in said]
        labels.append(" ".join([one.job.run.model, *words]))
    folders, files = [one.path.parent.name for one in candidates], [one.path.stem for one in candidates]
    for more in (folders, files, [f"#{number}" for number in range(1, len(candidates) + 1)]):
        labels = [
            f"{label} {words}" if labels.count(label) > 1 else label for label, words in zip(labels, more, strict=True)
        ]
    return labels


def chosen_windows(given: argparse.Namespace, candidate: Candidate, data: PreparedSeries) -> Windows:
    """Which windows are scored, and what perturbations need to know of the series."""
    config = candidate.job.run
    available = data.meta["steps"][given.split] - config.input_len - config.output_len + 1
    settings = {
        "seed": given.seed,
        "std": data.meta["statistics"]["train_std"],
        "null_value": data.null_value,
        "lowest": lowest_allowed(data.data("train"), data.null_value),
    }
    return Windows(given.split, spread_windows(available, given.windows), settings)


def make_plan(
    candidates: Sequence[Candidate], strengths: dict[str, list[float]], eps: Sequence[float], swaps: Sequence[str]
) -> list[tuple[str, dict[str, Any], Task]]:
    """All that is to be measured: the part of the row it belongs to, what the row says of it, and the evaluation.

    Raises:
        InputError: it is nothing.
    """
    plan: list[tuple[str, dict[str, Any], Task]] = []
    for one in candidates:
        for name, values in strengths.items():
            for strength in values:
                task = Task(one, one.job, name, strength) if strength else Task(one, one.job)
                plan.append(("perturbed", {"perturbation": name, "strength": strength}, task))
        plan += [("eps", about, Task(one, job)) for about, job in with_other_eps(one.job, eps)]
        plan += [("swaps", about, Task(one, job)) for about, job in with_other_attention(one.job, swaps)]
    if not plan:
        raise InputError("nothing to measure: --perturbations, --eps and --swaps leave nothing for these checkpoints")
    return plan


def identity(
    candidates: Sequence[Candidate], windows: Windows, data: PreparedSeries, birth: dict[str, Any]
) -> dict[str, Any]:
    """What scores depend on beside their key: those kept from a command of another identity are measured again."""
    return {
        "checkpoints": [digest(one.path).sha256 for one in candidates],
        "batch_sizes": [one.job.run.recipe.eval_batch_size for one in candidates],
        "data": data.meta["files"],
        "split": windows.split,
        "windows": len(windows.numbers),
        "settings": {name: str(value) for name, value in windows.settings.items()},
        "gpus": candidates[0].job.gpus,
        **{key: birth[key] for key in ("machine", "versions", "commit")},
    }


def describe(
    candidates: Sequence[Candidate], windows: Windows, data: PreparedSeries, strengths: dict[str, list[float]]
) -> dict[str, Any]:
    """What the row says beside its numbers."""
    config = candidates[0].job.run
    return {
        "dataset": config.series.name,
        "simulated": config.series.simulated,
        "sensors": data.num_sensors,
        "unit": config.series.unit,
        "split": windows.split,
        "windows": len(windows.numbers),
        "input_len": config.input_len,
        "output_len": config.output_len,
        "seed": windows.settings["seed"],
        "training_std": windows.settings["std"],
        "held_at_zero": windows.settings["lowest"] == 0,
        "perturbations": {
            name: {"meaning": PERTURBATIONS[name].meaning, "axis": PERTURBATIONS[name].axis} for name in strengths
        },
        "checkpoints": [describe_checkpoint(one) for one in candidates],
    }


def describe_checkpoint(one: Candidate) -> dict[str, Any]:
    """What a checkpoint is and, where its run's folder says so, how it came about."""
    folder, config = one.path.parent, one.job.run
    return {
        "label": one.label,
        "checkpoint": str(one.path),
        "sha256": digest(one.path).sha256,
        "epoch": one.state["epoch"],
        "step": one.state.get("step"),
        "attention": trained_attention(one.job),
        "training": birth(folder) if (folder / STATUS).is_file() else None,
        "config": config.model_dump(mode="json"),
    }


def say(line: str) -> None:
    """Progress, on standard error."""
    if sys.stderr is not None:
        print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    run(main)
