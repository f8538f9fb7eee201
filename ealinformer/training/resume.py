"""Whether a folder is trained in from the start, from its last checkpoint, or not at all, and what is said of it."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from ealinformer.errors import InputError
from ealinformer.training.checkpoints.checkpoint import BEST, LAST, PREVIOUS, Found, newest_checkpoint
from ealinformer.training.config import RunConfig, describe
from ealinformer.training.differences import compare_code, compare_run
from ealinformer.training.runs import folder as run_folder

MODES = ("auto", "never", "must")


@dataclass(frozen=True)
class Start:
    """Where a training begins; `said` is for the user, one line each."""

    found: Found | None = None
    finished: bool = False
    said: tuple[str, ...] = ()

    @property
    def place(self) -> str | None:
        """Where the checkpoint stands, None where there is none."""
        if self.found is None:
            return None
        training = self.found.state["training"]
        if training["finished"]:
            return f"the end of training, step {training['step']}"
        return f"epoch {training['epoch']}, {training['steps_done']} steps of it done, step {training['step']} in all"


def take_up(
    folder: Path, run: RunConfig, mode: str, *, code: dict[str, str], data_checksum: str, accept_changes: bool
) -> Start:
    """Look at a folder and decide; nothing is written.

    Raises:
        InputError: the folder holds something else, a run although `mode` is "never", no run although it is "must", a
            run of another config, of other code or on other data, or checkpoints of which none is whole.
    """
    if not run_folder.is_run(folder):
        if folder.is_dir() and any(not run_folder.is_leftover(path) for path in folder.iterdir()):
            raise InputError(f"output folder {folder} already holds files; name another one with --output-dir")
        if mode == "must":
            raise InputError(f"--resume must: {folder} holds no run")
        return Start()
    if mode == "never":
        raise InputError(f"output folder {folder} already holds a run; --resume auto goes on with it")
    if has_finished(folder):
        _accept(folder, compare_run(_read_config(folder), run), "the run has finished, with another config", None)
        return Start(finished=True, said=(f"{folder}: the run has finished, there is nothing to do",))
    found = newest_checkpoint(folder)
    if found is None:
        if (folder / BEST).exists():
            line = f"{folder} holds a {BEST} but neither {LAST} nor {PREVIOUS}: there is nothing to go on from"
            raise InputError(f"{line}; --output-dir names another folder")
        if mode == "must":
            raise InputError(f"--resume must: {folder} holds no checkpoint yet")
        differences = compare_run(_read_config(folder), run)
        said = _accept(folder, differences, "the run was started with another config", accept_changes)
        return Start(said=(*said, f"{folder}: no checkpoint was written yet: from the start"))
    training = found.state["training"]
    differences = compare_run(found.run, run)
    if training["data"] != data_checksum:
        differences.append(f"data set {training['data'][:12]} -> {data_checksum[:12]}")
    said = (
        *_accept(folder, differences, "the run was started with another config", accept_changes),
        *_accept(folder, compare_code(training["code"], code), "the checkpoint is of other code", accept_changes),
    )
    return Start(found, said=(*found.complaints, *said, f"resumed from {found.path}: {Start(found).place}"))


def has_finished(folder: Path) -> bool:
    """Whether the run in a folder is through, so that nothing has to be done or locked."""
    return (folder / run_folder.STATUS).is_file() and run_folder.state_of(folder) == "finished"


def _read_config(folder: Path) -> RunConfig:
    path = folder / run_folder.CONFIG
    try:
        return RunConfig.model_validate(run_folder.read_json(path))
    except ValidationError as error:
        raise InputError(f"{path}: {describe(error)}") from error


def _accept(folder: Path, differences: list[str], what: str, accept: bool | None) -> tuple[str, ...]:
    """A line on `differences`, none without any; `accept` None: they cannot be accepted."""
    if not differences:
        return ()
    line = f"{folder}: {what}: {', '.join(differences)}"
    if accept:
        return (f"{line} (accepted)",)
    way = "--accept-changes goes on all the same, " if accept is not None else ""
    raise InputError(f"{line}; {way}--output-dir names another folder")
