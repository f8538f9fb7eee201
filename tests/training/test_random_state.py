"""Random generators go on where they were."""

import random

import numpy as np
import pytest
import torch

from ealinformer.training.checkpoints.sealed import seal, unseal
from ealinformer.training.random_state import random_state, restore_random_state

CPU = torch.device("cpu")


def draw() -> list[object]:
    """Some numbers from every generator; an odd number of normal ones, of which generators keep the second in hand."""
    return [
        random.random(),
        random.gauss(0, 1),
        np.random.rand(3).tolist(),
        float(np.random.standard_normal()),
        torch.rand(3).tolist(),
        torch.randn(1).tolist(),
        torch.nn.functional.dropout(torch.ones(16)).tolist(),
    ]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    random.seed(3)
    np.random.seed(4)
    torch.manual_seed(5)


def test_the_same_numbers_follow(tmp_path) -> None:
    draw()
    state = random_state(CPU)
    expected = draw()
    draw()
    restore_random_state(state, CPU)
    assert draw() == expected


def test_a_state_survives_a_checkpoint(tmp_path) -> None:
    draw()
    data = seal({"rng": [random_state(CPU)]})
    expected = draw()
    restore_random_state(unseal(data, tmp_path)["rng"][0], CPU)
    assert draw() == expected


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_generator_of_a_gpu_too() -> None:
    device = torch.device("cuda", torch.cuda.current_device())
    state = random_state(device)
    expected = torch.rand(5, device=device)
    torch.rand(7, device=device)
    restore_random_state(state, device)
    assert torch.equal(torch.rand(5, device=device), expected)
