"""Diffusion convolution against dense powers of the transition matrices, and the cell against its equations."""

import numpy as np
import pytest
import torch

from baselines.layers.diffusion import DiffusionGRUCell, diffuse, diffusion_powers
from ealinformer.graphs.transitions import double_transition

N, B = 7, 3


@pytest.fixture(autouse=True)
def _float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def directed_graph(seed=0):
    """Weights `[N, N]` of a directed graph with loops, whose last sensor has no edge at all."""
    g = np.random.default_rng(seed)
    weights = g.random((N, N)) * (g.random((N, N)) < 0.4)
    weights[-1] = weights[:, -1] = 0
    return weights


def walks_of(weights):
    return [torch.as_tensor(walk) for walk in double_transition(weights)]


def convolution(x, theta, weights, steps):
    """Equation 2 for signals `[N, P]` and weights `[1 + 2 K, P, Q]`, sensor by sensor, of numpy's matrix powers."""
    out_degree, in_degree = weights.sum(1), weights.sum(0)
    forward = np.array([row / degree if degree else row for row, degree in zip(weights, out_degree, strict=True)])
    backward = np.array([row / degree if degree else row for row, degree in zip(weights.T, in_degree, strict=True)])
    result = x @ theta[0]
    for k in range(1, steps + 1):
        for walk, weight in ((forward, theta[k]), (backward, theta[steps + k])):
            power = np.linalg.matrix_power(walk, k)
            for i in range(len(x)):
                moved = sum(power[i, j] * x[j] for j in range(len(x)))
                result[i] += moved @ weight
    return result


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_it_is_the_sum_of_dense_matrix_powers(steps):
    weights, g = directed_graph(), np.random.default_rng(1)
    signal, theta = g.standard_normal((N, B, 4)), g.standard_normal((1 + 2 * steps, 4, 5))
    powers = diffusion_powers(walks_of(weights), steps)
    ours = diffuse(torch.as_tensor(signal), powers) @ torch.as_tensor(theta).flatten(0, 1)
    for b in range(B):
        np.testing.assert_allclose(ours[:, b], convolution(signal[:, b], theta, weights, steps), rtol=0, atol=1e-12)


def test_each_power_of_the_second_walk_starts_from_the_input():
    forward, backward = walks_of(directed_graph())
    terms = diffuse(torch.randn(N, 2), diffusion_powers([forward, backward], 2)).unflatten(-1, (5, 2)).unbind(1)
    signal = terms[0]
    for term, expected in zip(terms[1:], (forward, forward @ forward, backward, backward @ backward), strict=True):
        torch.testing.assert_close(term, expected @ signal)


def test_a_walk_looks_ahead_and_the_other_back():
    chain = np.zeros((3, 3))
    chain[0, 1] = chain[1, 2] = 1  # 0 -> 1 -> 2
    reading = torch.tensor([[1.0], [10.0], [100.0]])
    terms = diffuse(reading, diffusion_powers([torch.as_tensor(w) for w in double_transition(chain)], 2))
    assert terms.tolist() == [[1, 10, 100, 0, 0], [10, 100, 0, 1, 0], [100, 0, 0, 10, 1]]


def test_a_graph_without_edges_leaves_the_signal_alone():
    terms = diffuse(torch.ones(N, 2), diffusion_powers(walks_of(np.zeros((N, N))), 2))
    assert terms[:, :2].eq(1).all()
    assert terms[:, 2:].eq(0).all()


def test_gradients_reach_a_matrix_that_is_learned():
    walk = torch.rand(4, 4, requires_grad=True)
    signal = torch.randn(4, 2, 3, requires_grad=True)
    assert torch.autograd.gradcheck(lambda w, x: diffuse(x, diffusion_powers([w], 3)), (walk, signal))


@pytest.mark.parametrize(("supports", "steps"), [([], 2), ([torch.eye(3)], 0)])
def test_nothing_to_walk_is_refused(supports, steps):
    with pytest.raises(ValueError, match="a matrix and a step are expected"):
        diffusion_powers(supports, steps)


def test_the_cell_is_a_gru_of_convolutions_of_input_and_state_together():
    weights, steps, inputs, hidden = directed_graph(), 2, 3, 4
    terms = 1 + 2 * steps
    torch.manual_seed(0)
    cell, powers = DiffusionGRUCell(inputs, hidden, terms), diffusion_powers(walks_of(weights), steps)
    torch.nn.init.normal_(cell.bias)
    x, h = torch.randn(N, B, inputs), torch.randn(N, B, hidden)
    with torch.no_grad():
        ours = cell(cell.project(diffuse(x, powers)), h, diffuse(h, powers), powers).numpy()

    def theta(columns, of_state):
        """Weights `[terms, inputs + hidden, columns]` of one of the three convolutions."""
        of_input = cell.input_weight.detach().unflatten(0, (terms, inputs))[..., columns]
        return torch.cat([of_input, of_state.detach().unflatten(0, (terms, hidden))], dim=1).numpy()

    def sigmoid(v):
        return 1 / (1 + np.exp(-v))

    reset_part, update_part, candidate_part = (slice(i * hidden, (i + 1) * hidden) for i in range(3))
    bias = cell.bias.detach().numpy()
    for b in range(B):
        signal, state = x[:, b].numpy(), h[:, b].numpy()
        both = np.concatenate([signal, state], axis=1)
        reset, update = (
            sigmoid(convolution(both, theta(part, cell.gate_weight[:, part]), weights, steps) + bias[part])
            for part in (reset_part, update_part)
        )
        gated = np.concatenate([signal, reset * state], axis=1)
        candidate = convolution(gated, theta(candidate_part, cell.candidate_weight), weights, steps)
        candidate = np.tanh(candidate + bias[candidate_part])
        np.testing.assert_allclose(ours[:, b], update * state + (1 - update) * candidate, rtol=0, atol=1e-12)


def test_weights_start_xavier_normal_and_the_gates_open():
    cell = DiffusionGRUCell(40, 60, 5)
    rows = 5 * (40 + 60)
    gates, candidate = (2 / (rows + 120)) ** 0.5, (2 / (rows + 60)) ** 0.5
    assert cell.gate_weight.std().item() == pytest.approx(gates, rel=0.02)
    assert cell.input_weight[:, :120].std().item() == pytest.approx(gates, rel=0.02)
    assert cell.input_weight[:, 120:].std().item() == pytest.approx(candidate, rel=0.02)
    assert cell.candidate_weight.std().item() == pytest.approx(candidate, rel=0.02)
    assert cell.bias.tolist() == [1.0] * 120 + [0.0] * 60
