"""Random queries, keys and values for the attention tests."""

import pytest
import torch


@pytest.fixture(scope="session")
def make_qkv():
    """A function that draws q, k, v whose scores have about the standard deviation `std`; `shift` moves all keys."""

    def make(nq, n, c, cv=None, *, batch=(2, 3), std=1.0, dtype=torch.float64, seed=0, shift=0.0, grad=False):
        g = torch.Generator().manual_seed(seed)
        q = torch.randn(*batch, nq, c, generator=g, dtype=torch.float64) * std
        k = torch.randn(*batch, n, c, generator=g, dtype=torch.float64) + shift
        v = torch.randn(*batch, n, cv or c, generator=g, dtype=torch.float64)
        return [x.to(dtype).requires_grad_(grad) for x in (q, k, v)]

    return make


@pytest.fixture(scope="session")
def make_padding():
    """A function that draws a mask `[*batch, n]` with about that share of padding; key 0 never is."""

    def make(*shape, share=0.3, seed=0):
        mask = torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < share
        mask[..., 0] = False
        return mask

    return make


@pytest.fixture(scope="session")
def gradients():
    """A function that gives the gradients of a random linear functional of an output."""

    def of(out, inputs, seed=1):
        direction = torch.randn(out.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        return torch.autograd.grad((out.double() * direction).sum(), inputs)

    return of
