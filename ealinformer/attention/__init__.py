"""The mechanism in plain PyTorch: entropy-equal linear attention, softmax attention, multi-head modules.

Knows nothing of traffic or of BasicTS; imports torch alone.
"""

from ealinformer.attention.entropy import ENTROPIES
from ealinformer.attention.entropy_equal import entropy_equal_attention
from ealinformer.attention.multi_head import ATTENTIONS, Attention, MultiHeadAttention, get_attention
from ealinformer.attention.reference import reference_attention, reference_weights
from ealinformer.attention.softmax import fused_softmax_attention, softmax_attention

__all__ = [
    "ATTENTIONS",
    "ENTROPIES",
    "Attention",
    "MultiHeadAttention",
    "entropy_equal_attention",
    "fused_softmax_attention",
    "get_attention",
    "reference_attention",
    "reference_weights",
    "softmax_attention",
]
