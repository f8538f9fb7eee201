"""Adaptive graphs and the GRU with pooled weights, against loops over sensors, windows and channels."""

import math

import pytest
import torch

from baselines.layers.adaptive import AdaptiveEncoder, AdaptiveGRU, WeightPool, adaptive_adjacency
from baselines.layers.chebyshev import chebyshev_terms

N, B, L = 5, 3, 4


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def graph(*batch, seed=1):
    return adaptive_adjacency(normal(*batch, N, 3, seed=seed), normal(*batch, N, 3, seed=seed + 1))


def shuffled(module, seed=3):
    """The module in float64 with weights of ordinary size."""
    module = module.double()
    for i, parameter in enumerate(module.parameters()):
        parameter.data = normal(*parameter.shape, seed=seed + i) / 3
    return module


def polynomials(support, count):
    """T_0 ... of a matrix, by the recursion on matrices."""
    found = [torch.eye(len(support), dtype=support.dtype), support]
    while len(found) < count:
        found.append(2 * support @ found[-1] - found[-2])
    return found[:count]


def slow_convolution(pool, support, signal, embedding):
    """Of one window `[N, C]`, with an embedding `[N, d]`: each sensor's weights, times what it hears."""
    cheb_k, outputs = pool.weight.shape[1], pool.weight.shape[-1]
    found = []
    for n in range(len(signal)):
        total = sum(embedding[n, i] * pool.bias[i] for i in range(embedding.shape[1]))
        for k, polynomial in enumerate(polynomials(support, cheb_k)):
            weight = sum(embedding[n, i] * pool.weight[i, k] for i in range(embedding.shape[1]))
            heard = sum(polynomial[n, m] * signal[m] for m in range(len(signal)))
            total = total + heard @ weight
        assert total.shape == (outputs,)
        found.append(total)
    return torch.stack(found)


def slow_step(layer, support, inputs, state, embedding):
    """One step of one window, as the paper writes it."""
    both = slow_convolution(layer.gates, support, torch.cat([inputs, state], -1), embedding)
    z, r = 1 / (1 + (-both).exp())[:, : layer.hidden_size], 1 / (1 + (-both).exp())[:, layer.hidden_size :]
    proposal = torch.cat([inputs, z * state], -1)
    candidate = slow_convolution(layer.candidate, support, proposal, embedding).tanh()
    return r * state + (1 - r) * candidate


def slow_states(layer, inputs, support, embeddings):
    """`[B, L, N, C]` and an embedding `[N, d]` for each window -> `[B, L, N, D]`, window by window."""
    windows = []
    for window, embedding in zip(inputs, embeddings, strict=True):
        state = torch.zeros(window.shape[1], layer.hidden_size, dtype=window.dtype)
        states = []
        for step in window:
            state = slow_step(layer, support, step, state, embedding)
            states.append(state)
        windows.append(torch.stack(states))
    return torch.stack(windows)


class TestAdjacency:
    def test_it_is_the_softmax_of_products_that_are_not_negative(self):
        source, target = normal(N, 3), normal(N, 3, seed=1)
        found = adaptive_adjacency(source, target)
        for i in range(N):
            scores = [math.exp(max(0.0, float(source[i] @ target[j]))) for j in range(N)]
            for j in range(N):
                assert found[i, j].item() == pytest.approx(scores[j] / sum(scores), rel=1e-12)

    def test_rows_sum_to_one_for_every_window(self):
        found = graph(B)
        assert found.shape == (B, N, N)
        torch.testing.assert_close(found.sum(-1), torch.ones(B, N, dtype=torch.float64))
        assert (found.sum(-2) - 1).abs().max() > 0.1

    def test_sensors_that_are_opposite_or_large_give_no_nan(self):
        embedding = torch.tensor([[1e4, 0.0], [-1e4, 0.0], [0.0, 0.0]], requires_grad=True)
        found = adaptive_adjacency(embedding, embedding)
        torch.testing.assert_close(found, torch.tensor([[1.0, 0, 0], [0, 1, 0], [1 / 3, 1 / 3, 1 / 3]]))
        found[0].square().sum().backward()
        assert embedding.grad.isfinite().all()


class TestChebyshevTerms:
    @pytest.mark.parametrize("count", [1, 2, 3, 5])
    def test_they_are_the_polynomials_of_the_eigenvalues(self, count):
        matrix = normal(N, N)
        eigenvalues, vectors = torch.linalg.eigh(matrix + matrix.T)
        eigenvalues = eigenvalues / eigenvalues.abs().max()
        support = vectors @ eigenvalues.diag() @ vectors.T
        signal = normal(B, N, 2, seed=1)
        found = chebyshev_terms(support, signal, count)
        assert found.shape == (B, N, count * 2)
        for k in range(count):
            polynomial = vectors @ torch.cos(k * torch.arccos(eigenvalues.clamp(-1, 1))).diag() @ vectors.T
            torch.testing.assert_close(found[..., 2 * k : 2 * k + 2], polynomial @ signal, rtol=1e-9, atol=1e-9)

    @pytest.mark.parametrize("count", [1, 2, 3])
    def test_sensors_may_come_first(self, count):
        support, signal = graph(), normal(B, L, N, 2)
        expected = chebyshev_terms(support, signal, count)
        found = chebyshev_terms(support, signal.permute(2, 0, 1, 3), count, sensors_first=True)
        torch.testing.assert_close(found.permute(1, 2, 0, 3), expected)

    def test_every_window_may_have_its_own_graph(self):
        support, signal = graph(B), normal(B, N, 2)
        found = chebyshev_terms(support, signal, 3)
        for b in range(B):
            torch.testing.assert_close(found[b], chebyshev_terms(support[b], signal[b], 3))


@pytest.mark.parametrize("cheb_k", [1, 2, 3])
class TestAdaptiveGRU:
    @staticmethod
    def compare(layer, fast, slow, weights):
        """The same states, and the same gradients of all parameters."""
        torch.testing.assert_close(fast, slow, rtol=1e-10, atol=1e-10)
        parameters = list(layer.parameters())
        of_fast = torch.autograd.grad((fast * weights).sum(), parameters)
        of_slow = torch.autograd.grad((slow * weights).sum(), parameters)
        for found, expected in zip(of_fast, of_slow, strict=True):
            assert expected.abs().max() > 1e-3
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)

    def test_weights_by_sensor_are_those_of_the_slow_layer(self, cheb_k):
        layer = shuffled(AdaptiveGRU(3, cheb_k, 2, 4))
        inputs, support, embedding = normal(B, L, N, 2), graph(), normal(N, 3, seed=2)
        slow = slow_states(layer, inputs, support, [embedding] * B)
        states = layer(inputs.permute(2, 1, 0, 3), support, embedding, by_sensor=True)
        assert len(states) == L
        self.compare(layer, torch.stack(states, 1).permute(2, 1, 0, 3), slow, normal(B, L, N, 4, seed=5))

    def test_weights_by_window_are_those_of_the_slow_layer(self, cheb_k):
        layer = shuffled(AdaptiveGRU(3, cheb_k, 2, 4))
        inputs, support, embedding = normal(B, L, N, 2), graph(), normal(B, 3, seed=2)
        slow = slow_states(layer, inputs, support, [row.expand(N, 3) for row in embedding])
        states = layer(inputs, support, embedding, by_sensor=False)
        self.compare(layer, torch.stack(states, 1), slow, normal(B, L, N, 4, seed=5))

    def test_a_cell_by_sensor_and_window_is_the_slow_step(self, cheb_k):
        layer = shuffled(AdaptiveGRU(3, cheb_k, 2, 4))
        support, embedding = graph(B), normal(B, N, 3, seed=2)
        inputs, state = normal(B, N, 2, seed=3), normal(B, N, 4, seed=4)
        cell = layer.cell(support, embedding)
        once = [slow_step(layer, *of_window) for of_window in zip(support, inputs, state, embedding, strict=True)]
        twice = [slow_step(layer, *of_window) for of_window in zip(support, inputs, once, embedding, strict=True)]
        self.compare(layer, cell(inputs, cell(inputs, state)), torch.stack(twice), normal(B, N, 4, seed=5))

    def test_layers_stand_on_one_another(self, cheb_k):
        encoder = shuffled(AdaptiveEncoder(3, cheb_k, 2, 4, 3, by_sensor=True))
        inputs, support, embedding = normal(B, L, N, 2), graph(), normal(N, 3, seed=2)
        signal = inputs
        for layer in encoder.layers:
            signal = slow_states(layer, signal, support, [embedding] * B)
        torch.testing.assert_close(encoder(inputs, support, embedding), signal[:, -1], rtol=1e-10, atol=1e-10)


def test_a_step_does_not_see_what_comes_after_it():
    layer = shuffled(AdaptiveGRU(3, 2, 2, 4))
    inputs, support, embedding = normal(B, L, N, 2), graph(), normal(B, 3, seed=2)
    changed = inputs.clone()
    changed[:, 2] += 1
    before = layer(inputs, support, embedding, by_sensor=False)
    after = layer(changed, support, embedding, by_sensor=False)
    assert torch.equal(before[0], after[0])
    assert torch.equal(before[1], after[1])
    assert (before[2] - after[2]).abs().max() > 1e-3
    assert (before[3] - after[3]).abs().max() > 1e-4


def test_pools_are_xavier_uniform_at_first():
    torch.manual_seed(0)
    pool = WeightPool(10, 2, 66, 128)
    for tensor, fans in ((pool.weight, (2 + 10) * 66 * 128), (pool.bias, 10 + 128)):
        bound = math.sqrt(6 / fans)
        assert tensor.abs().max() <= bound
        assert tensor.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)


@pytest.mark.parametrize("by_sensor", [True, False])
def test_autocast_changes_no_more_than_its_rounding(by_sensor):
    encoder = shuffled(AdaptiveEncoder(3, 2, 2, 4, 2, by_sensor=by_sensor)).float()
    inputs, support = normal(B, L, N, 2).float(), graph().float()
    embedding = normal(N if by_sensor else B, 3, seed=2).float()
    expected = encoder(inputs, support, embedding)
    with torch.autocast("cpu", torch.bfloat16):
        found = encoder(inputs, support, embedding)
    torch.testing.assert_close(found.float(), expected, rtol=0, atol=0.03)
