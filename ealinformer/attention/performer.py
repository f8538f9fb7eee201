"""Performer attention, FAVOR+ (arXiv 2009.14794): the softmax kernel by positive orthogonal random features."""

import math

import torch
from torch import Tensor, nn

from ealinformer.attention.checks import check_inputs, check_scale
from ealinformer.attention.kernelized import feature_attention, weighted_mean, with_ones
from ealinformer.attention.options import positive_whole
from ealinformer.attention.padding import zero_padding
from ealinformer.attention.precision import wide, without_autocast
from ealinformer.attention.prefix import CHUNK


class PerformerAttention(nn.Module):
    """Softmax attention in expectation, in time linear in N.

    exp(x . y) = E_w[exp(w . x - |x|^2 / 2) exp(w . y - |y|^2 / 2)] for normal w (lemma 1), so the exponentials at m
    draws of w are features whose products average to the softmax kernel. x and y are q and k times sqrt(scale). The
    draws are orthogonal within blocks of C (section 2.4), which lowers the variance of the estimate.

    The draws are made once, from a generator of their own: two instances of one seed agree, and building one leaves
    the global generator alone. They are saved with the weights, because a model trained on them works with no others,
    and neither torch's generators nor its QR promise the same numbers on the next version or device.

    Args:
        head_size: C.
        num_features: number m of random features; C log C, rounded up and at least C, when None (the order that
            theorem 4 asks for).
        seed: of the draws.

    Raises:
        ValueError: a size is no positive whole number, or the seed is no whole number of at least 0.
    """

    projection: Tensor

    def __init__(self, head_size: int, num_features: int | None = None, seed: int = 0) -> None:
        super().__init__()
        self.head_size = positive_whole("head_size", head_size)
        if num_features is None:
            num_features = max(self.head_size, math.ceil(self.head_size * math.log(self.head_size)))
        self.num_features = positive_whole("num_features", num_features)
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise ValueError(f"seed has to be a whole number of at least 0, got {seed!r}")
        drawn = _orthogonal_draws(self.num_features, self.head_size, seed)
        # The copy is on the default device and in the default dtype, like the parameters of any module.
        self.register_buffer("projection", torch.empty(drawn.shape).copy_(drawn))

    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        key_padding_mask: Tensor | None = None,
        causal: bool = False,
        scale: float | None = None,
    ) -> Tensor:
        """Attend. Sums are taken in float32 for half precision, under autocast too.

        Args:
            q: queries `[..., Nq, C]`.
            k: keys `[..., N, C]`.
            v: values `[..., N, Cv]`.
            key_padding_mask: bool `[..., N]`, True where a key is padding. A query that sees no key gives 0.
            causal: query i sees the keys up to i only, still in linear time.
            scale: of the scores; 1 / sqrt(C) when None.

        Returns:
            `[..., Nq, Cv]`, in the dtype of the inputs. With causal, a query whose weights all underflow gives 0.

        Raises:
            ValueError: C is not `head_size`, or shapes, dtypes, the mask or the scale do not fit.
        """
        check_inputs(q, k, v, key_padding_mask, causal)
        if q.shape[-1] != self.head_size:
            raise ValueError(f"performer was built for heads of size {self.head_size}, got {q.shape[-1]}")
        scale = check_scale(scale, self.head_size)
        root = math.sqrt(abs(scale))
        with without_autocast(q):
            x = wide(q) * math.copysign(root, scale)
            y = wide(zero_padding(k, key_padding_mask)) * root
            values = wide(zero_padding(v, key_padding_mask))
            draws = self.projection.to(x.dtype).transpose(0, 1)
            # -|x|^2 / 2 is the same for all weights of a query, so it cancels.
            log_q, log_k = x @ draws, y @ draws - y.square().sum(dim=-1, keepdim=True) / 2
            if key_padding_mask is not None:
                log_k = torch.where(key_padding_mask.unsqueeze(-1), -math.inf, log_k)
            attend = _causal if causal else _full
            return attend(log_q, log_k, values).to(q.dtype)

    def extra_repr(self) -> str:
        """What `print` shows of the module."""
        return f"head_size={self.head_size}, num_features={self.num_features}"


def _orthogonal_draws(num_features: int, head_size: int, seed: int) -> Tensor:
    """Rows `[m, C]` of the length of normal vectors, in orthogonal directions within blocks of C rows."""
    generator = torch.Generator("cpu").manual_seed(seed)

    def normal(rows: int) -> Tensor:
        return torch.randn(rows, head_size, generator=generator, dtype=torch.float64, device="cpu")

    def directions() -> Tensor:
        # QR leaves the signs to the library; with those of R's diagonal taken out, all directions are equally likely.
        q, r = torch.linalg.qr(normal(head_size))
        return q * r.diagonal().sign()

    blocks = [directions() for _ in range(math.ceil(num_features / head_size))]
    return torch.cat(blocks)[:num_features] * normal(num_features).norm(dim=-1, keepdim=True)


def _full(log_q: Tensor, log_k: Tensor, v: Tensor) -> Tensor:
    """From log features `[..., Nq, m]` and `[..., N, m]`, those of padding -inf.

    Each feature of the keys is divided by its maximum over the keys, which the queries are multiplied by; then each
    query by its maximum. Both cancel. No feature is above 1 then, and every query has a key with a product of 1 in
    one feature, so that neither overflow nor underflow can spoil a quotient.
    """
    highest = _finite(log_k.detach().amax(dim=-2, keepdim=True))
    log_q = log_q + highest
    q_features = (log_q - log_q.detach().amax(dim=-1, keepdim=True)).exp()
    return feature_attention(q_features, (log_k - highest).exp(), v)


def _causal(log_q: Tensor, log_k: Tensor, v: Tensor) -> Tensor:
    """As `_full`, for query i from the keys up to i alone.

    A maximum over all keys would let a large key of the future take the features of the past below the smallest
    number. So the maximum runs with the queries: key j counts exp(level_j - max_{l <= i} level_l) for query i.
    """
    highest = log_k.detach().amax(dim=-1, keepdim=True)  # [..., N, 1]
    k_features = (log_k - _finite(highest)).exp()
    q_features = (log_q - log_q.detach().amax(dim=-1, keepdim=True)).exp()
    # Padding is below every level, yet finite, so that differences are.
    level = highest.squeeze(-1).clamp(min=torch.finfo(log_k.dtype).min / 4)
    return weighted_mean(_running_sums(q_features, k_features, with_ones(v), level))


def _running_sums(q: Tensor, k: Tensor, v: Tensor, level: Tensor) -> Tensor:
    """out_i = sum over j <= i of exp(level_j - max_{l <= i} level_l) (q_i . k_j) v_j, for level `[..., N]`.

    Within a chunk the weights are written out; from chunk to chunk goes a state `[..., m, Cv]`, scaled to the highest
    level so far.
    """
    highest = level.cummax(dim=-1).values
    parts: list[Tensor] = []
    state, top = k.new_zeros(()), highest[..., :1]
    for start in range(0, q.shape[-2], CHUNK):
        here = slice(start, start + CHUNK)
        queries, keys, values = q[..., here, :], k[..., here, :], v[..., here, :]
        levels, running = level[..., here], highest[..., here]
        # Above the diagonal the difference may be large; tril takes that part away after exp, hence the clamp.
        damped = (levels.unsqueeze(-2) - running.unsqueeze(-1)).clamp(max=0).exp()
        part = (queries @ keys.transpose(-2, -1) * damped).tril() @ values
        if start:
            part = part + (top - running).exp().unsqueeze(-1) * (queries @ state)
        parts.append(part)
        end = running[..., -1:]
        added = (keys * (levels - end).exp().unsqueeze(-1)).transpose(-2, -1) @ values
        state = state * (top - end).exp().unsqueeze(-1) + added if start else added
        top = end
    return torch.cat(parts, dim=-2)


def _finite(highest: Tensor) -> Tensor:
    """A maximum over padding alone is -inf, and -inf - -inf would be NaN."""
    return highest.masked_fill(highest == -math.inf, 0)
