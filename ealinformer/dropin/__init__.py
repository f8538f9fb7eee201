"""Entropy-equal attention in the models of BasicTS: a drop-in module, and functions that put it in place.

    replace_attention(model, "entropy_equal")                                       # a model that has been built
    model = with_attention(iTransformerForForecasting, "entropy_equal")             # a class, for BasicTSLauncher
    attention = DropInAttention(hidden_size=64, n_heads=4, entropy="gaussian")      # one module

docs/dropin.md says for each model of BasicTS whether that works, and whether it can pay.
"""

from ealinformer.dropin.multi_head import DropInAttention
from ealinformer.dropin.replace import replace_attention
from ealinformer.dropin.variant import with_attention

__all__ = ["DropInAttention", "replace_attention", "with_attention"]
