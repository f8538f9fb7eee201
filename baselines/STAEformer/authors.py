"""Reads checkpoints of the authors' own implementation (github: XDZhelheim/STAEformer)."""

import re
from collections.abc import Mapping

from torch import Tensor

from ealinformer.models import SpatioTemporalTransformer

# Our names on the left. The authors' input map takes the z-scored value, time of day in [0, 1) and day of week as
# 0 ... 6, as our embedding does, so that no weight has to be scaled.
_NAMES = {
    "embedding.input_proj": "input_proj",
    "embedding.time_in_day": "tod_embedding",
    "embedding.day_in_week": "dow_embedding",
    "embedding.adaptive": "adaptive_embedding",
    "output_proj": "output_proj",
    "attention.q_proj": "attn.FC_Q",
    "attention.k_proj": "attn.FC_K",
    "attention.v_proj": "attn.FC_V",
    "attention.out_proj": "attn.out_proj",
    "feed_forward.0": "feed_forward.0",
    "feed_forward.2": "feed_forward.2",
    "attention_norm": "ln1",
    "feed_forward_norm": "ln2",
}
_LAYER = re.compile(r"(temporal|spatial)_layers\.(\d+)\.(.+)")
_LAYERS = {"temporal": "attn_layers_t", "spatial": "attn_layers_s"}


def load_authors_state_dict(model: SpatioTemporalTransformer, state_dict: Mapping[str, Tensor]) -> None:
    """Copy the tensors of an authors' checkpoint into `model`, so that its outputs are those of the authors' model.

    Raises:
        ValueError: tensors are missing, left over, or of another shape than the model's; nothing is copied then.
    """
    own = model.state_dict()
    authors = {name: _authors_name(name) for name in own}
    missing, surplus = set(authors.values()) - state_dict.keys(), state_dict.keys() - set(authors.values())
    if missing or surplus:
        raise ValueError(
            f"the authors' tensors do not fit the model: missing {', '.join(sorted(missing)) or 'none'}; "
            f"left over {', '.join(sorted(surplus)) or 'none'}"
        )
    for name, tensor in own.items():
        found = state_dict[authors[name]].shape
        if found != tensor.shape:
            raise ValueError(f"{authors[name]} has shape {tuple(found)}, the model takes {tuple(tensor.shape)}")
    model.load_state_dict({name: state_dict[authors[name]] for name in own})


def _authors_name(name: str) -> str:
    """The authors' name of one of our tensors."""
    layer = _LAYER.fullmatch(name)
    prefix, rest = (f"{_LAYERS[layer[1]]}.{layer[2]}.", layer[3]) if layer else ("", name)
    if rest in _NAMES:
        return prefix + _NAMES[rest]
    stem, _, parameter = rest.rpartition(".")
    return f"{prefix}{_NAMES[stem]}.{parameter}"
