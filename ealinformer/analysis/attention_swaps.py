"""A trained model with another attention on the same weights: what the change costs without training.

ELinFormer and STAEformer differ in their attention alone, and softmax and entropy-equal attention learn nothing of
their own, so the weights of one fit the other.
"""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

from ealinformer.attention import ENTROPIES
from ealinformer.models import MODELS, BackboneConfig, ELinFormerConfig, SpatioTemporalTransformer
from ealinformer.training.jobs import Job

SOFTMAX = "softmax"
SWAPS = (SOFTMAX, *ENTROPIES)
# Keys of a config that say which attention a model has; all others are sizes.
ATTENTION_KEYS = {f.name for f in fields(ELinFormerConfig)} - {f.name for f in fields(BackboneConfig)}
# How attentions go by among the swaps. InLine attention is entropy-equal attention with theta = 1.
_NAMES = {"softmax": SOFTMAX, "sdpa": SOFTMAX, "inline": "second_order"}


def trained_attention(job: Job) -> dict[str, Any] | None:
    """What a model of the shared backbone says of its attention, defaults included; None for other models."""
    if not issubclass(job.entry.model, SpatioTemporalTransformer):
        return None
    defaults = {f.name: f.default for f in fields(job.entry.config)}
    return {key: value for key, value in {**defaults, **job.run.model_params}.items() if key in ATTENTION_KEYS}


def with_other_eps(job: Job, values: Sequence[float]) -> list[tuple[dict[str, Any], Job]]:
    """The model with each eps, the trained one among them, as `{"eps", "trained"}` and job.

    Nothing without values, or unless it has entropy-equal attention.
    """
    own = trained_attention(job) or {}
    if not values or own.get("attention") != "entropy_equal":
        return []
    found = []
    for eps in sorted({*values, own["eps"]}):
        trained = eps == own["eps"]
        other = job if trained else _on_its_weights(job, attention="entropy_equal", entropy=own["entropy"], eps=eps)
        found.append(({"eps": eps, "trained": trained}, other))
    return found


def with_other_attention(job: Job, names: Sequence[str]) -> list[tuple[dict[str, Any], Job]]:
    """The model with softmax or an estimator of entropy-equal attention, as `{"attention", "trained"}` and job.

    The trained one comes first, and its eps is kept. Nothing without names, or for a model on attention of another
    kind, whose queries and keys have learned other weights than those of softmax.
    """
    own = trained_attention(job) or {}
    entropy_equal = own.get("attention") == "entropy_equal"
    own_name = own["entropy"] if entropy_equal else _NAMES.get(own.get("attention", ""))
    if not names or own_name is None:
        return []
    eps = {"eps": own["eps"]} if entropy_equal else {}
    found = [({"attention": own_name, "trained": True}, job)]
    for name in dict.fromkeys(names):
        if name == own_name:
            continue
        said = {"attention": "sdpa"} if name == SOFTMAX else {"attention": "entropy_equal", "entropy": name, **eps}
        found.append(({"attention": name, "trained": False}, _on_its_weights(job, **said)))
    return found


def _on_its_weights(job: Job, **attention: Any) -> Job:
    sizes = {key: value for key, value in job.run.model_params.items() if key not in ATTENTION_KEYS}
    run = job.run.model_copy(update={"model": "ELinFormer", "model_params": {**sizes, **attention}})
    return replace(job, run=run, entry=MODELS["ELinFormer"])
