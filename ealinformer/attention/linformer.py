"""Linformer attention (arXiv 2006.04768): softmax over a fixed number of learned mixtures of the keys."""

import torch
from torch import Tensor, nn

from ealinformer.attention.checks import check_inputs
from ealinformer.attention.options import positive_whole
from ealinformer.attention.padding import zero_padding
from ealinformer.attention.softmax import fused_softmax_attention

DEFAULT_RANK = 64


class LinformerAttention(nn.Module):
    """softmax(scale q (E k)^T) (F v), equation 7, with E and F `[rank, N]` learned: O(N rank) time and memory.

    E and F are shared by all heads and batches. The entries of both start from a normal distribution of variance
    1 / N, which gives mixtures of independent keys the variance of the keys. N is fixed, because each key has its own
    column of E; and a mixture of keys cannot be cut at a query, so there is no causal form.

    Args:
        num_keys: N.
        rank: number of mixtures; one above N is taken as N, since more rows than keys add nothing.

    Raises:
        ValueError: a size is no positive whole number.
    """

    def __init__(self, num_keys: int, rank: int = DEFAULT_RANK) -> None:
        super().__init__()
        self.num_keys = positive_whole("num_keys", num_keys)
        self.rank = min(positive_whole("rank", rank), self.num_keys)
        self.key_projection = nn.Parameter(torch.empty(self.rank, self.num_keys))
        self.value_projection = nn.Parameter(torch.empty(self.rank, self.num_keys))
        for projection in (self.key_projection, self.value_projection):
            nn.init.normal_(projection, std=self.num_keys**-0.5)

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
        """Attend.

        Args:
            q: queries `[..., Nq, C]`.
            k: keys `[..., N, C]`.
            v: values `[..., N, Cv]`.
            key_padding_mask: bool `[..., N]`, True where a key is padding; it is 0 in every mixture. Where all are,
                the output is 0.
            causal: has to be False.
            scale: of the scores; 1 / sqrt(C) when None.

        Returns:
            `[..., Nq, Cv]`, in the dtype of the inputs.

        Raises:
            ValueError: N is not `num_keys`, causal is asked for, or shapes, dtypes, the mask or the scale do not fit.
        """
        check_inputs(q, k, v, key_padding_mask)
        if causal:
            raise ValueError("linformer has no causal form: its mixtures of keys run over all of them")
        if k.shape[-2] != self.num_keys:
            raise ValueError(f"linformer was built for {self.num_keys} keys, got {k.shape[-2]}: its N is fixed")
        keys = self.key_projection.to(k.dtype) @ zero_padding(k, key_padding_mask)
        values = self.value_projection.to(v.dtype) @ zero_padding(v, key_padding_mask)
        return fused_softmax_attention(q, keys, values, scale=scale)

    def extra_repr(self) -> str:
        """What `print` shows of the module."""
        return f"num_keys={self.num_keys}, rank={self.rank}"
