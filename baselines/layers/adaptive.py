"""Graphs and weights that embeddings make: the adaptive adjacency, and a GRU of graph convolutions with pooled weights.

They are AGCRN's (arXiv 2007.02842, sections 3.2 to 3.4), whose embeddings are of sensors. HimNet (arXiv 2405.10800) has
the same GRU for embeddings of sensors, of windows, and of every sensor in every window.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from baselines.layers.chebyshev import chebyshev_terms


def adaptive_adjacency(source: Tensor, target: Tensor) -> Tensor:
    """softmax(relu(source targetᵀ)) of embeddings `[..., N, d]` -> `[..., N, N]`, whose rows sum to 1."""
    return torch.softmax(torch.relu(source @ target.transpose(-2, -1)), dim=-1)


class WeightPool(nn.Module):
    """The pools out of which an embedding e picks a graph convolution: its weights Σ_i e_i W_i, its bias Σ_i e_i b_i.

    AGCRN calls it node-adaptive parameter learning (section 3.2), HimNet meta-parameters. Xavier uniform at first.
    """

    def __init__(self, embedding_size: int, cheb_k: int, input_size: int, output_size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(embedding_size, cheb_k, input_size, output_size))
        self.bias = nn.Parameter(torch.empty(embedding_size, output_size))
        nn.init.xavier_uniform_(self.weight)
        nn.init.xavier_uniform_(self.bias)

    def convolution(self, embedding: Tensor) -> Callable[[Tensor], Tensor]:
        """The convolution of Chebyshev terms `[..., K * C]` of signals that have an embedding `[..., d]` each.

        The weights of every sensor of every window would be B * N times those of a layer, and are used once each; so
        they are not made: of a term x all x W_i are, in one product with the pool, and then Σ_i e_i (x W_i).
        """
        pool = self.weight.permute(1, 2, 0, 3).flatten(2).flatten(0, 1)  # [K * C, d * out]
        bias = embedding @ self.bias

        def convolve(terms: Tensor) -> Tensor:
            products = (terms @ pool).unflatten(-1, self.bias.shape)
            return (embedding.unsqueeze(-2) @ products).squeeze(-2) + bias

        return convolve


class AdaptiveGRU(nn.Module):
    """A GRU layer of graph convolutions with weights that an embedding picks (AGCRN, section 3.4).

    z, r = σ(conv(x, h)), c = tanh(conv(x, z h)), h' = r h + (1 - r) c, where conv(x, h) is a `WeightPool`'s convolution
    of the Chebyshev terms of both, side by side.
    """

    def __init__(self, embedding_size: int, cheb_k: int, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.cheb_k, self.input_size, self.hidden_size = cheb_k, input_size, hidden_size
        self.gates = WeightPool(embedding_size, cheb_k, input_size + hidden_size, 2 * hidden_size)
        self.candidate = WeightPool(embedding_size, cheb_k, input_size + hidden_size, hidden_size)

    def forward(self, inputs: Tensor, support: Tensor, embedding: Tensor, *, by_sensor: bool) -> list[Tensor]:
        """The states after each step, from a state of zeros.

        Weights are picked once for all steps, and the part of the products that comes from the inputs, with the bias,
        is made for all steps at once.

        Args:
            inputs: by sensor `[N, L, B, C]`, else by window `[B, L, N, C]`.
            support: `[N, N]`, rows that sum to 1.
            embedding: by sensor `[N, d]`: a sensor has the same weights in all windows; else `[B, d]`: a window has the
                same weights at all sensors.

        Returns:
            L states, by sensor `[N, B, D]`, else `[B, N, D]`.
        """
        size, own = self.hidden_size, self.input_size
        gates, candidate = self.gates.weight, self.candidate.weight
        of_inputs = _pick(embedding, torch.cat([gates[:, :, :own], candidate[:, :, :own]], dim=-1))
        of_gates, of_candidate = _pick(embedding, gates[:, :, own:]), _pick(embedding, candidate[:, :, own:])
        bias = embedding @ torch.cat([self.gates.bias, self.candidate.bias], dim=-1)

        terms = chebyshev_terms(support, inputs, self.cheb_k, sensors_first=by_sensor)
        products = torch.baddbmm(bias.unsqueeze(1), terms.flatten(1, 2), of_inputs).unflatten(1, inputs.shape[1:3])
        state = products.new_zeros(inputs.shape[0], inputs.shape[2], size)
        states = []
        for to_gates, to_candidate in zip(
            products[..., : 2 * size].unbind(1), products[..., 2 * size :].unbind(1), strict=True
        ):
            terms = chebyshev_terms(support, state, self.cheb_k, sensors_first=by_sensor)
            reset, keep = torch.baddbmm(to_gates, terms, of_gates).sigmoid().chunk(2, dim=-1)
            terms = chebyshev_terms(support, reset * state, self.cheb_k, sensors_first=by_sensor)
            state = _blend(keep, state, torch.baddbmm(to_candidate, terms, of_candidate).tanh())
            states.append(state)
        return states

    def cell(self, support: Tensor, embedding: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """One step with other weights for every sensor of every window, of which inputs come one at a time.

        Args:
            support: `[B, N, N]`.
            embedding: `[B, N, d]`.

        Returns:
            a function of inputs `[B, N, C]` and state `[B, N, D]` that gives the next state.
        """
        to_gates, to_candidate = self.gates.convolution(embedding), self.candidate.convolution(embedding)

        def step(inputs: Tensor, state: Tensor) -> Tensor:
            terms = chebyshev_terms(support, torch.cat([inputs, state], dim=-1), self.cheb_k)
            reset, keep = to_gates(terms).sigmoid().chunk(2, dim=-1)
            terms = chebyshev_terms(support, torch.cat([inputs, reset * state], dim=-1), self.cheb_k)
            return _blend(keep, state, to_candidate(terms).tanh())

        return step


class AdaptiveEncoder(nn.Module):
    """Layers of `AdaptiveGRU` on one another, all with the same embedding and graph."""

    def __init__(
        self, embedding_size: int, cheb_k: int, input_size: int, hidden_size: int, num_layers: int, *, by_sensor: bool
    ) -> None:
        super().__init__()
        self.by_sensor = by_sensor
        sizes = [input_size] + [hidden_size] * (num_layers - 1)
        self.layers = nn.ModuleList([AdaptiveGRU(embedding_size, cheb_k, size, hidden_size) for size in sizes])

    def forward(self, inputs: Tensor, support: Tensor, embedding: Tensor) -> Tensor:
        """Signals `[B, L, N, C]`, a graph `[N, N]` and an embedding -> the last layer's last state `[B, N, D]`.

        The embedding is of sensors, `[N, d]`, where the encoder is by sensor, else of windows, `[B, d]`.
        """
        signal = inputs.transpose(0, 2) if self.by_sensor else inputs
        states: list[Tensor] = []
        for layer in self.layers:
            states = layer(
                torch.stack(states, dim=1) if states else signal, support, embedding, by_sensor=self.by_sensor
            )
        return states[-1].transpose(0, 1) if self.by_sensor else states[-1]


def _pick(embedding: Tensor, pool: Tensor) -> Tensor:
    """Weights `[G, K * C, out]` of embeddings `[G, d]` out of a pool `[d, K, C, out]`."""
    return (embedding @ pool.flatten(1)).view(len(embedding), -1, pool.shape[-1])


def _blend(keep: Tensor, state: Tensor, candidate: Tensor) -> Tensor:
    """keep * state + (1 - keep) * candidate, of whatever types autocast made them."""
    return torch.addcmul(candidate, keep, state - candidate)
