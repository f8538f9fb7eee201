"""Reads checkpoints of the authors' own implementation (github: XDZhelheim/STAEformer)."""

import re
from collections.abc import Mapping

from torch import Tensor

from ealinformer.models import SpatioTemporalTransformer

# The authors' names on the left. Their input map takes the z-scored value, time of day in [0, 1) and day of week as
# 0 ... 6, as our embedding does, so that no weight has to be scaled.
_NAMES = {
    "input_proj": "embedding.input_proj",
    "tod_embedding": "embedding.time_in_day",
    "dow_embedding": "embedding.day_in_week",
    "adaptive_embedding": "embedding.adaptive",
    "output_proj": "output_proj",
    "attn.FC_Q": "attention.q_proj",
    "attn.FC_K": "attention.k_proj",
    "attn.FC_V": "attention.v_proj",
    "attn.out_proj": "attention.out_proj",
    "feed_forward.0": "feed_forward.0",
    "feed_forward.2": "feed_forward.2",
    "ln1": "attention_norm",
    "ln2": "feed_forward_norm",
}
_LAYER = re.compile(r"attn_layers_([ts])\.(\d+)\.(.+)")
_LAYERS = {"t": "temporal_layers", "s": "spatial_layers"}


def load_authors_state_dict(model: SpatioTemporalTransformer, state_dict: Mapping[str, Tensor]) -> None:
    """Copy the tensors of an authors' checkpoint into `model`, so that its outputs are those of the authors' model.

    Raises:
        ValueError: tensors are missing, left over, or of another shape than the model's; nothing is copied then.
    """
    renamed = {_our_name(name): tensor for name, tensor in state_dict.items()}
    own = model.state_dict()
    missing, unknown = sorted(own.keys() - renamed.keys()), sorted(renamed.keys() - own.keys())
    if missing or unknown:
        raise ValueError(
            f"the authors' tensors do not fit the model: missing {', '.join(missing) or 'none'}; "
            f"left over {', '.join(unknown) or 'none'}"
        )
    for name, tensor in renamed.items():
        if tensor.shape != own[name].shape:
            raise ValueError(f"{name} has shape {tuple(own[name].shape)}, the checkpoint's {tuple(tensor.shape)}")
    model.load_state_dict(renamed)


def _our_name(name: str) -> str:
    """Our name of one of the authors' tensors; a name that is not theirs comes back as it is."""
    layer = _LAYER.fullmatch(name)
    prefix, rest = (f"{_LAYERS[layer[1]]}.{layer[2]}.", layer[3]) if layer else ("", name)
    if rest in _NAMES:
        return prefix + _NAMES[rest]
    stem, _, parameter = rest.rpartition(".")
    return f"{prefix}{_NAMES[stem]}.{parameter}" if stem in _NAMES else name
