"""A run that was stopped ends as one that ran through: same weights, optimizer, history and metrics, to the bit."""

import dataclasses
import json
import math
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from basicts.utils import RunnerStatus
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ealinformer.errors import InputError, Interrupted
from ealinformer.training.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from ealinformer.training.jobs import Job
from ealinformer.training.launcher import train
from ealinformer.training.runner import ForecastingRunner

NewJob = Callable[..., Job]
# Everything that a checkpoint has to hold matters here: dropout, a rate that falls, clipping, patience.
SETTINGS = ("num_epochs=4", "model.dropout=0.2", "milestones=(2,3)", "clip_grad_norm=5", "patience=2")
STEPS = 6  # an epoch


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours handles it. Real kills are in tests/faults."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What must not depend on where a run was stopped."""

    last: dict[str, Any]
    best: dict[str, Any]
    history: list[dict[str, float]]
    metrics: dict[str, Any]

    @classmethod
    def of(cls, folder: Path) -> "Outcome":
        last, best = (load_checkpoint(folder / name)[1] for name in ("last.pt", "best.pt"))
        history = [untimed(row) for row in last["training"]["history"]]
        return cls(last, best, history, untimed(json.loads((folder / "metrics.json").read_text())))


def untimed(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if "seconds" not in key and "memory" not in key}


def assert_same(one: Any, two: Any, where: str = "") -> None:
    """Equal to the bit, whatever is nested in what; wall time aside."""
    if isinstance(one, torch.Tensor):
        assert one.dtype == two.dtype, where
        assert torch.equal(one, two), where
    elif isinstance(one, dict):
        assert one.keys() == two.keys(), where
        for key in one:
            if "seconds" not in str(key):
                assert_same(one[key], two[key], f"{where}.{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(two), where
        for index, (a, b) in enumerate(zip(one, two, strict=True)):
            assert_same(a, b, f"{where}[{index}]")
    else:
        assert one == two, where


@pytest.fixture(scope="module")
def straight(new_job: NewJob, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    job = new_job(tmp_path_factory.mktemp("straight") / "run", *SETTINGS)
    train(job)
    return Outcome.of(job.folder)


def assert_as_straight(folder: Path, straight: Outcome) -> None:
    outcome = Outcome.of(folder)
    for field in dataclasses.fields(Outcome):
        assert_same(getattr(outcome, field.name), getattr(straight, field.name), field.name)


def stop_in_step(
    monkeypatch: pytest.MonkeyPatch, number: int, how: Callable[[], None], name: str = "_train_step"
) -> None:
    """Have `how` happen at the `number`-th call of a method of the runner, once."""
    original, calls = getattr(ForecastingRunner, name), 0

    def stopping(self: ForecastingRunner, *arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            how()
        return original(self, *arguments, **options)

    monkeypatch.setattr(ForecastingRunner, name, stopping)


def kill() -> None:
    raise Killed


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def killed(job: Job, monkeypatch: pytest.MonkeyPatch, number: int, name: str = "_train_step") -> None:
    with monkeypatch.context() as patch:
        stop_in_step(patch, number, kill, name)
        with pytest.raises(Killed):
            train(job)


# Exact resume


@pytest.mark.parametrize("step", [1, 3, 6, 7, 9, 12, 13, 18, 23, 24])
@pytest.mark.parametrize("minutes", [0.0, 10.0])
def test_a_run_killed_in_any_step_ends_as_one_that_ran_through(
    new_job: NewJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, straight: Outcome, step: int, minutes: float
) -> None:
    """With a checkpoint in every step, and with one an epoch."""
    job = dataclasses.replace(new_job(tmp_path / "run", *SETTINGS), checkpoint_minutes=minutes)
    killed(job, monkeypatch, step)
    train(job)
    assert_as_straight(job.folder, straight)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("validate", 1),
        ("validate", 3),
        ("_save_best_model", 2),
        ("_record_epoch", 2),
        ("_save_model", 2),
        ("_save_model", 4),
        ("_save", 1),
        ("_fill_meters", 4),
        ("evaluate", 1),
    ],
)
def test_so_does_one_killed_between_epochs(
    new_job: NewJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, straight: Outcome, name: str, number: int
) -> None:
    job = new_job(tmp_path / "run", *SETTINGS)
    killed(job, monkeypatch, number, name)
    train(job)
    assert_as_straight(job.folder, straight)


def test_so_does_one_killed_again_and_again(
    new_job: NewJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, straight: Outcome
) -> None:
    job = dataclasses.replace(new_job(tmp_path / "run", *SETTINGS), checkpoint_minutes=0)
    for _ in range(7):
        killed(job, monkeypatch, 4)  # three steps further each time
    train(job)
    assert_as_straight(job.folder, straight)


@pytest.mark.parametrize(("name", "number"), [("_train_step", 1), ("_train_step", 9), ("_predict", 8), ("evaluate", 1)])
def test_sigterm_keeps_a_checkpoint_and_the_run_goes_on_from_it(
    new_job: NewJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, straight: Outcome, name: str, number: int
) -> None:
    """In a training step (the seventh forecast is the first one of a validation) and in the final scoring."""
    job = new_job(tmp_path / "run", *SETTINGS)
    with monkeypatch.context() as patch:
        stop_in_step(patch, number, terminate, name)
        with pytest.raises(Interrupted, match=r"interrupted by SIGTERM: .*last\.pt holds"):
            train(job)
    status = json.loads((job.folder / "run.json").read_text())
    assert status["status"] == "interrupted"
    assert "SIGTERM" in status["exit_reason"]
    training = load_checkpoint(job.folder / "last.pt")[1]["training"]
    expected = {"_train_step": number, "_predict": STEPS, "evaluate": 4 * STEPS}[name]
    assert training["step"] == expected  # the step in which it came is done
    train(job)
    assert_as_straight(job.folder, straight)


def test_the_line_on_a_resume_says_from_where(
    new_job: NewJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    job = dataclasses.replace(new_job(tmp_path / "run", *SETTINGS), checkpoint_minutes=0)
    killed(job, monkeypatch, 9)
    capfd.readouterr()
    train(job)
    line = f"resumed from {job.folder / 'last.pt'}: epoch 2, 2 steps of it done, step 8 in all"
    assert line in capfd.readouterr().err.splitlines()
    assert line in (job.folder / "train.log").read_text()
    starts = json.loads((job.folder / "run.json").read_text())["starts"]
    assert [start["resumed_from"] for start in starts] == [None, "epoch 2, 2 steps of it done, step 8 in all"]


@pytest.mark.parametrize("epoch", [1, 3])
def test_tensorboard_shows_every_epoch_once(
    new_job: NewJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epoch: int
) -> None:
    job = new_job(tmp_path / "run", *SETTINGS)
    killed(job, monkeypatch, epoch, "_save_model")  # the events of that epoch are written, its checkpoint is not
    time.sleep(1.1)  # TensorBoard orders files by the second that their names begin with
    train(job)
    events = EventAccumulator(str(job.folder / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("val/MAE")] == [1, 2, 3, 4]


# A damaged checkpoint


@pytest.mark.parametrize("damage", ["truncated", "altered", "gone"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_taken(
    new_job: NewJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, straight: Outcome, capfd, damage: str
) -> None:
    job = dataclasses.replace(new_job(tmp_path / "run", *SETTINGS), checkpoint_minutes=0)
    killed(job, monkeypatch, 9)
    last = job.folder / "last.pt"
    data = bytearray(last.read_bytes())
    if damage == "truncated":
        last.write_bytes(data[:-1000])
    elif damage == "altered":
        data[len(data) // 2] ^= 1
        last.write_bytes(data)
    else:
        last.unlink()
    capfd.readouterr()
    train(job)
    said = capfd.readouterr().err.splitlines()
    assert any(f"{last} " in line for line in said)
    assert f"resumed from {job.folder / 'previous.pt'}: epoch 2, 1 steps of it done, step 7 in all" in said
    assert_as_straight(job.folder, straight)


def test_without_a_whole_checkpoint_the_run_is_refused_and_left_as_it_is(
    new_job: NewJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = dataclasses.replace(new_job(tmp_path / "run", *SETTINGS), checkpoint_minutes=0)
    killed(job, monkeypatch, 9)
    for name in ("last.pt", "previous.pt"):
        (job.folder / name).write_bytes(b"nothing")
    before = contents(job.folder)
    with pytest.raises(InputError) as error:
        train(job)
    assert "last.pt" in str(error.value)
    assert "previous.pt" in str(error.value)
    assert "\n" not in str(error.value)
    assert contents(job.folder) == before


# What is resumed, and what is not


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def finished(new_job: NewJob, tmp_path_factory: pytest.TempPathFactory) -> Job:
    job = new_job(tmp_path_factory.mktemp("finished") / "run")
    train(job)
    return job


def refused(job: Job) -> str:
    """The line with which a job is refused; its folder stays as it is."""
    before = contents(job.folder)
    with pytest.raises(InputError) as error:
        train(job)
    assert contents(job.folder) == before
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("mode", ["auto", "must"])
def test_a_finished_run_says_so_and_does_nothing(finished: Job, capfd: pytest.CaptureFixture[str], mode: str) -> None:
    before = contents(finished.folder)
    metrics = train(dataclasses.replace(finished, resume=mode))
    assert metrics == json.loads((finished.folder / "metrics.json").read_text())
    assert capfd.readouterr().err == f"{finished.folder}: the run has finished, there is nothing to do\n"
    assert contents(finished.folder) == before


def test_a_finished_run_of_another_config_is_refused(finished: Job, new_job: NewJob) -> None:
    other = new_job(finished.folder, "lr=0.1", "num_epochs=9")
    for accept in (False, True):
        line = refused(dataclasses.replace(other, accept_changes=accept))
        assert "the run has finished, with another config" in line
        assert "recipe.lr 0.005 -> 0.1" in line
        assert "recipe.num_epochs 2 -> 9" in line


def test_never_refuses_a_run_and_must_refuses_an_empty_folder(finished: Job, new_job: NewJob, tmp_path: Path) -> None:
    line = refused(dataclasses.replace(finished, resume="never"))
    assert line == f"output folder {finished.folder} already holds a run; --resume auto goes on with it"
    empty = dataclasses.replace(new_job(tmp_path / "run"), resume="must")
    assert refused(empty) == f"--resume must: {tmp_path / 'run'} holds no run"
    assert not (tmp_path / "run").exists()


def test_must_wants_a_checkpoint(new_job: NewJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = new_job(tmp_path / "run")
    killed(job, monkeypatch, 2)
    assert refused(dataclasses.replace(job, resume="must")) == f"--resume must: {job.folder} holds no checkpoint yet"


def test_best_weights_alone_are_nothing_to_go_on_from_and_are_not_written_over(
    new_job: NewJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = new_job(tmp_path / "run")
    killed(job, monkeypatch, STEPS + 3)
    (job.folder / "last.pt").unlink()
    assert "holds a best.pt but neither last.pt nor previous.pt" in refused(job)


def test_predictions_of_a_finished_run_are_not_promised(finished: Job) -> None:
    line = refused(dataclasses.replace(finished, predictions=finished.folder / "predictions.npz"))
    assert "the run has finished without predictions.npz; experiments/evaluate.py --checkpoint" in line


def test_a_checkpoint_that_is_due_is_kept_in_a_long_validation_too(
    new_job: NewJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, straight: Outcome
) -> None:
    job = dataclasses.replace(new_job(tmp_path / "run", *SETTINGS), checkpoint_minutes=1000)
    validate = ForecastingRunner.validate

    def long(self: ForecastingRunner, *arguments: Any, **options: Any) -> None:
        self._saved_at -= 2000 * 60
        validate(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(ForecastingRunner, "validate", long)
        killed(job, patch, 1, "_save_best_model")
    training = load_checkpoint(job.folder / "last.pt")[1]["training"]
    assert (training["epoch"], training["steps_done"], training["history"]) == (1, STEPS, [])
    train(job)
    assert_as_straight(job.folder, straight)


def test_another_config_is_named_key_by_key_and_refused_unless_told_otherwise(
    new_job: NewJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    killed(new_job(tmp_path / "run"), monkeypatch, 8)
    other = new_job(tmp_path / "run", "weight_decay=0.5", "num_epochs=3")
    line = refused(other)
    differences = "recipe.weight_decay 0.0001 -> 0.5, recipe.num_epochs 2 -> 3"
    assert f"the run was started with another config: {differences}; --accept-changes goes on all the same" in line
    metrics = train(dataclasses.replace(other, accept_changes=True))
    assert f"{differences} (accepted)" in capfd.readouterr().err
    assert metrics["epochs"] == 3
    assert json.loads((tmp_path / "run" / "config.json").read_text())["recipe"]["weight_decay"] == 0.5
    (group,) = load_checkpoint(tmp_path / "run" / "last.pt")[1]["training"]["optimizer"]["param_groups"]
    assert group["weight_decay"] == 0.5


def test_where_windows_lie_is_free_to_change(
    new_job: NewJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, straight: Outcome
) -> None:
    killed(new_job(tmp_path / "run", *SETTINGS), monkeypatch, 8)
    train(new_job(tmp_path / "run", *SETTINGS, "windows=host"))
    outcome = Outcome.of(tmp_path / "run")
    assert '"windows":"host"' in outcome.last.pop("run")
    assert_same({**outcome.last, "run": straight.last["run"]}, straight.last)
    assert_same((outcome.history, outcome.metrics), (straight.history, straight.metrics))
    assert json.loads((tmp_path / "run" / "config.json").read_text())["windows"] == "host"
    metrics = train(new_job(tmp_path / "run", *SETTINGS, "windows=device"))  # finished, and of this config
    assert metrics["steps"] == 4 * STEPS


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("dtype=bf16", "dtype float32 -> bf16"),
        ("compile=default", "compile off -> default"),
        ("micro_batch_size=7", "recipe.micro_batch_size None -> 7"),
    ],
)
def test_settings_that_change_the_rounding_have_to_be_accepted(
    new_job: NewJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str, said: str
) -> None:
    killed(new_job(tmp_path / "run"), monkeypatch, 8)
    other = new_job(tmp_path / "run", setting)
    with monkeypatch.context() as patch:
        patch.setattr("ealinformer.training.launcher.check_compiler", lambda mode, device: None)
        assert f"the run was started with another config: {said}; --accept-changes goes on all the same" in refused(
            other
        )
    if "compile" not in setting:  # which takes its time
        assert train(dataclasses.replace(other, accept_changes=True))["epochs"] == 2


def test_an_accepted_recipe_is_the_one_trained_with(
    new_job: NewJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rate and milestones, too: after the first of four epochs the rate was 0.005, with milestones at 2 and 3."""
    killed(new_job(tmp_path / "run", *SETTINGS), monkeypatch, 8)
    changed = new_job(tmp_path / "run", *SETTINGS[:2], "milestones=(1,3)", "lr=0.02", "gamma=0.5", *SETTINGS[3:])
    train(dataclasses.replace(changed, accept_changes=True))
    history = load_checkpoint(tmp_path / "run" / "last.pt")[1]["training"]["history"]
    assert [row["lr"] for row in history] == pytest.approx([0.005, 0.01, 0.01, 0.005])


def test_an_accepted_cosine_goes_on_where_the_old_one_stood(
    new_job: NewJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cosine = ("schedule='cosine'", "warmup_epochs=1", "num_epochs=4")
    killed(new_job(tmp_path / "run", *cosine), monkeypatch, 2 * STEPS + 2)
    changed = new_job(tmp_path / "run", *cosine, "lr=0.02", "min_lr=0.001", "eps=0.001")
    train(dataclasses.replace(changed, accept_changes=True))
    training = load_checkpoint(tmp_path / "run" / "last.pt")[1]["training"]
    rates = [row["lr"] for row in training["history"]]
    old, new = ((lr, low, epoch) for lr, low, epoch in ((0.005, 0.0, 1), (0.02, 0.001, 2)))
    expected = [low + (lr - low) * (1 + math.cos(math.pi * epoch / 4)) / 2 for lr, low, epoch in (old, new)]
    assert rates[:3] == pytest.approx([1e-6, *expected])
    assert training["optimizer"]["param_groups"][0]["eps"] == 0.001


@pytest.mark.parametrize(
    ("batch_size", "steps"), [(20, 12), (80, 3), (60, None)]
)  # 234 windows; the checkpoint stands 80 windows into epoch 2
def test_an_accepted_batch_goes_on_where_the_windows_do_or_says_why_not(
    new_job: NewJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch_size: int, steps: int | None
) -> None:
    job = dataclasses.replace(new_job(tmp_path / "run", "num_epochs=2"), checkpoint_minutes=0)
    killed(job, monkeypatch, STEPS + 3)
    other = dataclasses.replace(
        new_job(tmp_path / "run", "num_epochs=2", f"batch_size={batch_size}"), accept_changes=True
    )
    if steps is None:
        with pytest.raises(InputError, match="stands 80 windows into epoch 2, where no batch of 60 windows begins"):
            train(other)
        return
    seen: list[int] = []
    add = ForecastingRunner._add

    def counted(self: ForecastingRunner, score: Any, forward_return: dict[str, Any], *rest: Any) -> None:
        if self.status == RunnerStatus.TRAINING:
            seen.append(len(forward_return["targets"]))
        add(self, score, forward_return, *rest)

    monkeypatch.setattr(ForecastingRunner, "_add", counted)
    train(other)
    assert sum(seen) == 234 - 80  # what was left of the epoch, no window twice
    assert load_checkpoint(job.folder / "last.pt")[1]["training"]["history"][1]["steps"] == steps


@pytest.mark.parametrize("key", ["sources", "torch", "device"])
def test_other_code_is_named_and_refused_unless_told_otherwise(
    new_job: NewJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    job = new_job(tmp_path / "run")
    killed(job, monkeypatch, 8)
    run, state = load_checkpoint(job.folder / "last.pt")
    now = state["training"]["code"][key]
    state["training"]["code"][key] = "older"
    save_checkpoint(job.folder / "last.pt", run, {k: v for k, v in state.items() if k not in ("format", "run")})
    said = f"the checkpoint is of other code: {key} older -> {now}; --accept-changes goes on all the same"
    assert said in refused(job)
    assert train(dataclasses.replace(job, accept_changes=True))["epochs"] == 2


def test_other_data_is_named_and_refused(new_job: NewJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = new_job(tmp_path / "run")
    killed(job, monkeypatch, 8)
    run, state = load_checkpoint(job.folder / "last.pt")
    state["training"]["data"] = "0" * 64
    save_checkpoint(job.folder / "last.pt", run, {k: v for k, v in state.items() if k not in ("format", "run")})
    assert "the run was started with another config: data set 000000000000 -> " in refused(job)


def test_a_folder_that_another_process_trains_in_is_left_alone(new_job: NewJob, tmp_path: Path) -> None:
    job = new_job(tmp_path / "run")
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        from ealinformer.training.runs.folder import at_work, create

        with at_work(job.folder):
            create(job.folder, job.run)
            os.write(writer, b"x")
            signal.pause()
    os.read(reader, 1)
    try:
        with pytest.raises(InputError, match=rf"another process \({child} on .*\) is training in it"):
            train(job)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert train(job)["epochs"] == 2
