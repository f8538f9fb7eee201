"""BasicTS's additive masks, read as what a linear attention can take: key padding, a causal order, both or nothing.

BasicTS adds a mask of 0 and a large negative number to the N x N scores. A linear attention has no scores to add it
to. What it can do is to leave keys out for all queries alike, and to stop each query at its own position; so a mask
is recognised by its values. That costs O(N^2), as the mask itself does.
"""

import weakref
from typing import NamedTuple

import torch
from torch import Tensor

# Softmax turns such a number into a weight of 0. -1e4 stands in half-precision code for what is -inf elsewhere.
BLOCKED_BELOW = -1e4


class Visible(NamedTuple):
    """Which keys a query sees.

    Attributes:
        causal: query i sees the keys up to its own position; the last query stands at the last key.
        key_padding: bool `[..., N]`, True where no query sees the key, or None where there is no such key.
    """

    causal: bool
    key_padding: Tensor | None


class _Read(NamedTuple):
    mask: "weakref.ref[Tensor]"
    version: int
    lengths: tuple[int, int]
    visible: Visible


EVERYTHING = Visible(causal=False, key_padding=None)

# One mask goes through all layers of a model. Remembering the last one makes that one reading, and one wait for the
# device, per forward pass.
_last_read: _Read | None = None


def read_mask(mask: Tensor | None, scores: tuple[int, int, int, int]) -> Visible:
    """What an additive mask lets each query see.

    Waits for the device once per mask, and breaks a compiled graph there; without a mask it does neither.

    Args:
        mask: float, broadcasts to `[B, heads, Nq, N]`; 0 where a query sees a key, -1e4 or less where it does not.
            As `basicts.modules.transformer.prepare_causal_attention_mask` makes it.
        scores: the sizes B, heads, Nq, N.

    Raises:
        ValueError: dtype or shape do not fit, the mask is learned, it holds other numbers, or it is neither key
            padding nor causal. The message says what was found.
    """
    if mask is None:
        return EVERYTHING
    return _read(mask, scores)


@torch.compiler.disable
def _read(mask: Tensor, scores: tuple[int, int, int, int]) -> Visible:
    global _last_read
    _check(mask, scores)
    lengths = scores[-2:]
    # Inference tensors count no versions, so a change in place would go unnoticed.
    version = None if mask.is_inference() else mask._version
    last = _last_read
    if last is not None and last.mask() is mask and (last.version, last.lengths) == (version, lengths):
        return last.visible
    visible = _recognise(mask, *lengths)
    if version is not None:
        _last_read = _Read(weakref.ref(mask), version, lengths, visible)
    return visible


def _check(mask: Tensor, scores: tuple[int, int, int, int]) -> None:
    if not mask.is_floating_point():
        raise ValueError(
            f"attention_mask is added to scores, so it has to be a float tensor of 0 and -inf or the like, "
            f"got {mask.dtype}"
        )
    try:
        fits = torch.broadcast_shapes(mask.shape, scores) == scores
    except RuntimeError:
        fits = False
    if not fits:
        raise ValueError(
            f"attention_mask has to broadcast to [batch, heads, queries, keys] = {list(scores)}, got {list(mask.shape)}"
        )
    if mask.requires_grad:
        raise ValueError(
            "attention_mask asks for a gradient, so it is a learned bias on the scores; "
            "there are no scores here to add it to"
        )


def _recognise(mask: Tensor, num_queries: int, num_keys: int) -> Visible:
    mask = mask.broadcast_to(*mask.shape[:-2], num_queries, num_keys)
    blocked = mask <= BLOCKED_BELOW
    clear = blocked | (mask == 0)
    # In causal order too, the last query is the one that may see every key: what it does not see is padding.
    padding = blocked[..., -1, :]
    by_padding = padding.unsqueeze(-2)
    later = torch.ones(num_queries, num_keys, dtype=torch.bool, device=mask.device).triu(1 + num_keys - num_queries)
    facts = (clear.all(), (blocked == by_padding).all(), (blocked == (by_padding | later)).all(), padding.any())
    is_clear, is_padding, is_causal, has_padding = torch.stack(facts).tolist()
    if not is_clear:
        example = mask[~clear][0].item()
        raise ValueError(
            f"attention_mask holds numbers such as {example:.4g}, a bias on the scores; "
            f"there are no scores here to add it to: 0 or at most {BLOCKED_BELOW:g} is expected"
        )
    # With fewer keys than queries the first queries would see nothing, which no attention here takes.
    if not is_padding and not (is_causal and num_keys >= num_queries):
        raise ValueError(
            f"attention_mask {list(mask.shape)} blocks {int(blocked.sum())} of {blocked.numel()} pairs in an order "
            "that is neither key padding (all queries see the same keys) nor causal (each sees those up to its own), "
            "alone or together; linear attention can take no other"
        )
    # A copy, for a view would keep all pairs in memory.
    return Visible(causal=not is_padding, key_padding=padding.clone() if has_padding else None)
