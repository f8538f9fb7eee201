"""Chebyshev polynomials and convolutions, by the eigendecomposition of the support."""

import numpy as np
import pytest
import torch
from numpy.polynomial.chebyshev import chebval
from torch.autograd import gradcheck

from baselines.layers.chebyshev import ChebyshevConvolution, chebyshev_terms
from ealinformer.graphs.laplacians import scaled_laplacian


def laplacian(num_sensors: int, seed: int = 0) -> torch.Tensor:
    """The scaled Laplacian of a random graph, with eigenvalues in [-1, 1]."""
    generator = np.random.default_rng(seed)
    weights = generator.random((num_sensors, num_sensors)) * (generator.random((num_sensors, num_sensors)) < 0.4)
    return torch.as_tensor(scaled_laplacian(weights), dtype=torch.float64)


def polynomials_of(support: torch.Tensor, count: int) -> torch.Tensor:
    """The matrices themselves, `[..., N, N]` -> `[count, ..., N, N]`: what becomes of the identity."""
    identity = torch.eye(support.shape[-1], dtype=support.dtype).expand_as(support)
    return torch.stack(chebyshev_terms(support, identity, count).chunk(count, dim=-1))


def of_eigenvalues(support: torch.Tensor, coefficients: list[float]) -> torch.Tensor:
    """sum of c_k T_k of a symmetric matrix: the same sum of each of its eigenvalues, by cos(k arccos)."""
    values, vectors = torch.linalg.eigh(support)
    angles = torch.arccos(values.clamp(-1, 1))
    spectrum = sum(c * torch.cos(k * angles) for k, c in enumerate(coefficients))
    return vectors @ torch.diag(spectrum) @ vectors.T


@pytest.mark.parametrize("num_sensors", [1, 2, 17, 40])
def test_the_kth_polynomial_takes_the_cosine_of_k_times_the_angle_of_each_eigenvalue(num_sensors: int) -> None:
    support = laplacian(num_sensors)
    polynomials = polynomials_of(support, 6)
    assert polynomials.shape == (6, num_sensors, num_sensors)
    for k in range(6):
        unit = [0.0] * k + [1.0]
        torch.testing.assert_close(polynomials[k], of_eigenvalues(support, unit), rtol=0, atol=1e-10)
        assert torch.linalg.eigvalsh(polynomials[k]).abs().max() <= 1 + 1e-10


def test_polynomials_of_a_matrix_that_is_not_symmetric_are_those_of_its_powers() -> None:
    support = torch.randn(2, 3, 7, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    s2, identity = support @ support, torch.eye(7, dtype=torch.float64).expand_as(support)
    expected = [identity, support, 2 * s2 - identity, 4 * s2 @ support - 3 * support]
    torch.testing.assert_close(polynomials_of(support, 4), torch.stack(expected))


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_terms_are_the_polynomials_times_the_signal(count: int) -> None:
    support = laplacian(11)
    signal = torch.randn(4, 3, 11, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    polynomials = polynomials_of(support, count)
    expected = torch.cat([torch.einsum("nm,btmc->btnc", polynomial, signal) for polynomial in polynomials], dim=-1)
    torch.testing.assert_close(chebyshev_terms(support, signal, count), expected)
    first = chebyshev_terms(support, signal.movedim(2, 0).contiguous(), count, sensors_first=True)
    torch.testing.assert_close(first.movedim(0, 2), expected)


def test_every_window_may_have_a_support_of_its_own() -> None:
    supports = torch.stack([laplacian(6, seed) for seed in range(4)])
    signal = torch.randn(4, 6, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = chebyshev_terms(supports, signal, 3)
    for window in range(4):
        torch.testing.assert_close(found[window], chebyshev_terms(supports[window], signal[window], 3))


@pytest.mark.parametrize("num_terms", [1, 2, 3, 4])
def test_the_convolution_is_that_of_the_spectrum(num_terms: int) -> None:
    """Out channel o is the sum over in channels i of U diag(sum_k W[k, i, o] T_k(lambda)) U^T x_i, and the bias."""
    support = laplacian(9)
    layer = ChebyshevConvolution(3, 2, num_terms).double()
    x = torch.randn(5, 4, 9, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    values, vectors = np.linalg.eigh(support.numpy())
    weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    expected = np.zeros((5, 4, 9, 2))
    for o in range(2):
        for i in range(3):
            response = chebval(values, weight[:, i, o])
            expected[..., o] += x[..., i].numpy() @ (vectors * response) @ vectors.T
        expected[..., o] += bias[o]
    np.testing.assert_allclose(layer(x, support).detach().numpy(), expected, atol=1e-10)


def test_a_sensor_sees_no_further_than_the_degree() -> None:
    """On a path of 9 sensors a convolution of 3 terms carries a change at the first to the third, and no further."""
    path = np.diag(np.ones(8), 1)
    layer = ChebyshevConvolution(1, 4, 3).double()
    x = torch.zeros(9, 1, dtype=torch.float64)
    changed = x.clone()
    changed[0] = 1
    support = torch.as_tensor(scaled_laplacian(path))
    difference = (layer(changed, support) - layer(x, support)).abs().amax(-1)
    assert (difference[:3] > 1e-6).all()
    assert (difference[3:] == 0).all()


def test_gradients_are_those_of_finite_differences() -> None:
    layer = ChebyshevConvolution(2, 3, 3).double()
    x = torch.randn(2, 5, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64, requires_grad=True)
    support = laplacian(5).requires_grad_()
    parameters = [p.detach().clone().requires_grad_() for p in (layer.weight, layer.bias)]

    def run(x: torch.Tensor, support: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (x, support))

    assert gradcheck(run, (x, support, *parameters))
