"""One step of training on random values, in phases that are timed apart: what a model costs at a shape.

Knows no model: `build` makes one of its name. The functions at the end are run in processes of their own.
"""

import itertools
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ealinformer.measure.allocator import give_back_freed_memory, keep_freed_memory
from ealinformer.measure.ceilings import allow_tf32
from ealinformer.measure.counts import count
from ealinformer.measure.isolated import Outcome, attempt
from ealinformer.measure.memory import MIB, limit_memory, release
from ealinformer.measure.peak import peak_of
from ealinformer.measure.timing import interleaved, passes_in_a_sample, stopwatch, warm

PHASES = ("data", "forward", "backward", "optimizer")
SEED = 0
INPUT_LEN = OUTPUT_LEN = 12
STEPS_PER_DAY = 288
LR, WEIGHT_DECAY = 1e-3, 5e-4
COMPILE = ("off", "default", "reduce-overhead", "max-autotune")
SENSORS_TO_WARM = 8
# Beyond the limit that each model kept to alone: weights and optimizer state of them all, memory that is kept.
SLACK = 1024 * MIB

# name, N -> a model of (inputs [B, L, N], timestamps [B, L, 2]) -> forecast [B, H, N]
Build = Callable[[str, int], nn.Module]


@dataclass(frozen=True)
class Setting:
    """What a step is taken on and how: `dtype` is float32, tf32 (of products, on CUDA) or bf16 (by autocast)."""

    num_sensors: int
    batch_size: int
    dtype: str = "float32"
    device: str = "cpu"
    threads: int = 1
    compile: str = "off"
    fast_malloc: bool = True


class Readings:
    """A series `[T, N]` of random values and its calendar `[T, 2]` on the device, from which batches are gathered."""

    def __init__(self, setting: Setting) -> None:
        generator = torch.Generator().manual_seed(SEED)
        window = INPUT_LEN + OUTPUT_LEN
        steps = window + 2 * setting.batch_size
        values = 200 + 100 * torch.randn(steps, setting.num_sensors, generator=generator)
        step = torch.arange(steps)
        calendar = torch.stack([step % STEPS_PER_DAY / STEPS_PER_DAY, step // STEPS_PER_DAY % 7 / 7], dim=1)
        self.values, self.calendar = values.to(setting.device), calendar.to(setting.device)
        self.mean, self.std = self.values.mean(), self.values.std()
        starts = torch.randperm(steps - window + 1, generator=generator)[: setting.batch_size]
        self.index = (starts[:, None] + torch.arange(window)).to(setting.device)

    def batch(self) -> tuple[Tensor, ...]:
        """Inputs `[B, L, N]` z-scored, their calendar, targets `[B, H, N]` as they are, and which are not missing."""
        windows = self.values[self.index]
        inputs, targets = windows[:, :INPUT_LEN], windows[:, INPUT_LEN:]
        inputs = torch.where(inputs != 0, (inputs - self.mean) / self.std, 0)
        return inputs, self.calendar[self.index[:, :INPUT_LEN]], targets, targets != 0


class TrainStep:
    """Calling it takes one step: a batch, Huber loss on the original scale, backward, fused Adam as in the recipe."""

    def __init__(self, model: nn.Module, setting: Setting, readings: Readings) -> None:
        self.model, self.readings = model.to(setting.device).train(), readings
        self.autocast = autocast(setting)
        self.optimizer = torch.optim.Adam(model.parameters(), lr=LR, weight_decay=WEIGHT_DECAY, fused=True)
        self._marks: list[list[Any]] = []
        self._mark = _event if torch.device(setting.device).type == "cuda" else time.perf_counter

    def __call__(self) -> None:
        """Nothing of the batch is left but the weights it changed; gradients go too."""
        marks = [self._mark()]
        inputs, calendar, targets, mask = self.readings.batch()
        marks.append(self._mark())
        with self.autocast:
            forecast = self.model(inputs, calendar)
        errors = F.huber_loss(forecast.float() * self.readings.std + self.readings.mean, targets, reduction="none")
        loss = torch.where(mask, errors, 0).sum() / mask.sum().clamp(min=1)
        marks.append(self._mark())
        loss.backward()
        marks.append(self._mark())
        self.optimizer.step()
        self.optimizer.zero_grad()
        marks.append(self._mark())
        self._marks.append(marks)

    def phases(self) -> dict[str, list[float]]:
        """Seconds of each phase in every step since the last call."""
        taken = [[_between(*pair) for pair in itertools.pairwise(marks)] for marks in self._marks]
        self._marks = []
        return dict(zip(PHASES, map(list, zip(*taken, strict=True)), strict=True)) if taken else {}


def autocast(setting: Setting) -> AbstractContextManager[object]:
    """What a forward pass runs in; can be entered again and again."""
    if setting.dtype != "bf16":
        return nullcontext()
    return torch.autocast(torch.device(setting.device).type, torch.bfloat16)


def built(name: str, setting: Setting, build: Build, *, compiled: bool = True) -> nn.Module:
    """A model on its device, the same in every process."""
    torch.manual_seed(SEED)
    model = build(name, setting.num_sensors).to(setting.device)
    if compiled and setting.compile != "off":
        model.compile(mode=None if setting.compile == "default" else setting.compile)
    return model


def prepare_process(setting: Setting, limit: int | None) -> None:
    """Threads, TF32 and a limit of memory for all that follows."""
    torch.set_num_threads(setting.threads)
    allow_tf32(setting.dtype)
    if limit is not None:
        limit_memory(limit, setting.device)


def memory_and_counts(setting: Setting, name: str, build: Build, limit: int | None) -> tuple[Outcome, Outcome]:
    """The `Memory` of a model's training and the `Counts` of one of its steps; either tells why it is not there.

    Memory is that of weights, gradients, optimizer state and two steps, without the series. Freed memory is given back
    to the system here: kept, its count would be of free pieces as well, and not of what the model needs.
    """
    small = replace(setting, num_sensors=SENSORS_TO_WARM, batch_size=1, compile="off")
    TrainStep(built(name, small, build), small, Readings(small))()  # loads libraries and starts threads
    give_back_freed_memory()
    prepare_process(setting, limit)
    readings = Readings(setting)

    def train() -> None:
        step = TrainStep(built(name, setting, build), setting, readings)
        step()
        step()

    memory = peak_of(train, setting.device)
    if memory.status != "ok":
        return memory, memory
    step = TrainStep(built(name, setting, build, compiled=False), setting, readings)
    step()
    return memory, attempt(count, step)


def step_seconds(
    setting: Setting, names: Sequence[str], build: Build, limit: int | None, rounds: int
) -> dict[str, Outcome]:
    """Of every model the `Samples` of whole steps and the seconds of the phases, or why there are none.

    All live in one process and take turns, but only the weights stay: what a step holds is free for the next.
    """
    if setting.fast_malloc:
        keep_freed_memory()
    prepare_process(setting, None if limit is None else limit + SLACK)
    readings, clock = Readings(setting), stopwatch(setting.device)
    outcomes: dict[str, Outcome] = {}
    steps: dict[str, TrainStep] = {}
    passes: dict[str, int] = {}
    for name in names:
        made = attempt(lambda name: TrainStep(built(name, setting, build), setting, readings), name)
        warmed = attempt(warm, made.value, clock) if made.status == "ok" else made
        if warmed.status == "ok":
            steps[name], passes[name] = made.value, passes_in_a_sample(warmed.value)
        else:
            outcomes[name] = warmed
            del made  # with the weights of a step that cannot be
            release(setting.device)
    # Once for nothing: the heap settles only when all had their turn.
    interleaved(steps, passes, rounds=1, turn_seconds=0.0, seconds_of=clock)
    for step in steps.values():
        step.phases()
    timed = interleaved(steps, passes, rounds=rounds, turn_seconds=0.0, seconds_of=clock)
    return outcomes | {name: Outcome("ok", (samples, steps[name].phases())) for name, samples in timed.items()}


def _event() -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _between(start: Any, end: Any) -> float:
    return end - start if isinstance(start, float) else start.elapsed_time(end) / 1000
