"""The mechanism in plain PyTorch: entropy-equal linear attention, others to compare it with, multi-head attention.

Knows nothing of traffic or of BasicTS; imports torch alone, and triton where a kernel for GPUs is first called.
"""

from ealinformer.attention.causal import CausalState, causal_state, entropy_equal_step
from ealinformer.attention.covariance import covariance_attention
from ealinformer.attention.entropy import ENTROPIES, ESTIMATORS, EntropyEstimator, ScoreMoments
from ealinformer.attention.entropy_equal import entropy_equal_attention
from ealinformer.attention.entropy_equal_options import EntropyEqualAttention
from ealinformer.attention.identity import identity_attention
from ealinformer.attention.kernelized import elu_attention
from ealinformer.attention.linformer import LinformerAttention
from ealinformer.attention.multi_head import MultiHeadAttention
from ealinformer.attention.performer import PerformerAttention
from ealinformer.attention.projections import Projections
from ealinformer.attention.reference import reference_attention, reference_weights
from ealinformer.attention.registry import ATTENTIONS, Attention, attention_options, build_attention
from ealinformer.attention.softmax import fused_softmax_attention, softmax_attention

__all__ = [
    "ATTENTIONS",
    "ENTROPIES",
    "ESTIMATORS",
    "Attention",
    "CausalState",
    "EntropyEqualAttention",
    "EntropyEstimator",
    "LinformerAttention",
    "MultiHeadAttention",
    "PerformerAttention",
    "Projections",
    "ScoreMoments",
    "attention_options",
    "build_attention",
    "causal_state",
    "covariance_attention",
    "elu_attention",
    "entropy_equal_attention",
    "entropy_equal_step",
    "fused_softmax_attention",
    "identity_attention",
    "reference_attention",
    "reference_weights",
    "softmax_attention",
]
