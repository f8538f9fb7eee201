"""Entropy-equal attention with its options chosen."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ealinformer.attention.checks import check_scale
from ealinformer.attention.entropy import ESTIMATORS
from ealinformer.attention.entropy_equal import Branch, entropy_equal_attention


@dataclass(frozen=True)
class EntropyEqualAttention:
    """`entropy_equal_attention` for one choice of its options.

    Raises:
        ValueError: an option is not what it has to be.
    """

    entropy: str = "taylor"
    eps: float = 1e-8
    branch: Branch = "auto"

    def __post_init__(self) -> None:
        # Refuses here already what cannot be taken; the kernels take nothing that lies on the CPU.
        branch = "auto" if self.branch == "kernel" else self.branch
        entropy_equal_attention(*torch.zeros(3, 1, 1, device="cpu"), entropy=self.entropy, eps=self.eps, branch=branch)

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        key_padding_mask: Tensor | None = None,
        causal: bool = False,
        scale: float | None = None,
    ) -> Tensor:
        """`[..., Nq, C]`, `[..., N, C]`, `[..., N, Cv]` -> `[..., Nq, Cv]`, as `entropy_equal_attention` says."""
        return entropy_equal_attention(
            q,
            k,
            v,
            entropy=self.entropy,
            eps=self.eps,
            key_padding_mask=key_padding_mask,
            causal=causal,
            scale=scale,
            branch=self.branch,
        )

    def sharpness(self, head_size: int) -> float | None:
        """scale / theta where that is the same for all queries, None where theta follows the query."""
        constant = ESTIMATORS[self.entropy].constant
        return None if constant is None else check_scale(None, head_size) / (constant + self.eps)
