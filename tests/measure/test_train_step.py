"""One train step: the right work in its phases, measured in real processes."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from ealinformer.measure.isolated import isolated
from ealinformer.measure.train_step import (
    INPUT_LEN,
    LR,
    PHASES,
    WEIGHT_DECAY,
    Readings,
    Setting,
    TrainStep,
    built,
    memory_and_counts,
    step_seconds,
)
from tests.measure.tiny import Mixing, build

SETTING = Setting(num_sensors=20, batch_size=3, threads=torch.get_num_threads(), fast_malloc=False)


def test_a_batch_is_gathered_scaled_and_masked() -> None:
    readings = Readings(SETTING)
    readings.values[readings.index[1, 2], 5] = 0  # missing in the inputs
    readings.values[readings.index[0, -1], 7] = 0  # and in the targets
    inputs, calendar, targets, mask = readings.batch()
    assert (inputs.shape, targets.shape, calendar.shape) == ((3, 12, 20), (3, 12, 20), (3, 12, 2))
    for place, start in enumerate(readings.index[:, 0].tolist()):
        window = readings.values[start : start + 24]
        expected = (window[:INPUT_LEN] - readings.mean) / readings.std
        torch.testing.assert_close(inputs[place], torch.where(window[:INPUT_LEN] == 0, 0, expected))
        torch.testing.assert_close(targets[place], window[INPUT_LEN:])
    assert inputs[1, 2, 5] == 0
    assert not mask[0, -1, 7]
    assert mask.sum() == (targets != 0).sum()


def test_a_step_is_one_step_of_the_recipe() -> None:
    readings = Readings(SETTING)
    model, twin = Mixing(20), Mixing(20)
    twin.load_state_dict(model.state_dict())
    TrainStep(model, SETTING, readings)()
    optimizer = torch.optim.Adam(twin.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
    inputs, calendar, targets, mask = readings.batch()
    assert mask.all()
    F.huber_loss(twin(inputs, calendar) * readings.std + readings.mean, targets).backward()
    optimizer.step()
    torch.testing.assert_close(model.weight, twin.weight, rtol=1e-5, atol=1e-6)
    assert model.weight.grad is None


def test_phases_add_up_and_are_told_once() -> None:
    step = TrainStep(Mixing(20), SETTING, Readings(SETTING))
    step()
    step()
    phases = step.phases()
    assert tuple(phases) == PHASES
    assert [len(seconds) for seconds in phases.values()] == [2, 2, 2, 2]
    assert all(seconds > 0 for phase in phases.values() for seconds in phase)
    assert step.phases() == {}


def test_bf16_is_that_of_products_and_weights_stay() -> None:
    for dtype, seen in (("bf16", torch.bfloat16), ("float32", torch.float32)):
        setting = replace(SETTING, dtype=dtype)
        model = Mixing(20)
        TrainStep(model, setting, Readings(setting))()
        assert model.seen == seen
        assert model.weight.dtype == torch.float32


def test_models_are_the_same_every_time() -> None:
    once, again = (built("mixing", SETTING, build).state_dict()["weight"] for _ in range(2))
    assert torch.equal(once, again)


def test_memory_and_counts_are_those_of_the_step() -> None:
    setting = replace(SETTING, num_sensors=1000)
    outcome = isolated(memory_and_counts, setting, "mixing", build, None)
    assert outcome.status == "ok", outcome.reason
    memory, counts = outcome.value
    weight = 4 * 1000 * 1000
    # Weight, gradient, both moments, and a few batches.
    assert 4 * weight < memory.value.allocated_bytes < 4.5 * weight
    assert memory.value.resident_bytes > 0.9 * 4 * weight
    assert counts.value.flops == 2 * 2 * (3 * 12) * 1000 * 1000  # inputs ask for no gradient
    assert counts.value.bytes > 8 * weight  # Adam alone


@pytest.mark.parametrize("name", ["greedy", "broken"])
def test_a_model_that_cannot_says_why(name: str) -> None:
    outcome = isolated(memory_and_counts, SETTING, name, build, None)
    if name == "broken":  # at the first, small step
        assert (outcome.status, outcome.reason) == ("failed", "ValueError: no such sensor")
    else:
        memory, counts = outcome.value
        assert (memory.status, counts.status) == ("out of memory", "out of memory")
        assert memory.needed_bytes >= 4 * 2**49


def test_models_take_turns_and_one_that_fails_stops_no_other() -> None:
    found = step_seconds(SETTING, ["mixing", "greedy", "scaling", "broken"], build, None, rounds=3)
    assert (found["greedy"].status, found["broken"].status) == ("out of memory", "failed")
    for name in ("mixing", "scaling"):
        samples, phases = found[name].value
        assert len(samples.rounds) == 3
        assert tuple(phases) == PHASES
        assert len(phases["forward"]) == 3 * samples.passes  # neither warm-up nor the round for nothing
        whole = sum(sum(seconds) for seconds in phases.values())
        assert whole <= sum(samples.all()) * samples.passes


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_is_measured_too() -> None:
    setting = replace(SETTING, device="cuda", num_sensors=1000, dtype="tf32")
    memory, counts = isolated(memory_and_counts, setting, "mixing", build, None).value
    assert memory.value.reserved_bytes >= memory.value.allocated_bytes > 4 * 4 * 1000 * 1000
    assert counts.value.flops == 2 * 2 * (3 * 12) * 1000 * 1000
    samples, phases = isolated(step_seconds, setting, ["mixing"], build, None, 2).value["mixing"].value
    assert 0 < sum(sum(seconds) for seconds in phases.values()) <= sum(samples.all()) * samples.passes
