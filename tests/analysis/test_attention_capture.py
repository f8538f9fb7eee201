"""Capturing: a model computes what it always computes, and what is captured is what its attention was given."""

import pytest
import torch

from baselines.STAEformer import STAEformer, STAEformerConfig
from ealinformer.analysis.attention_capture import attention_layers, captured
from ealinformer.attention import MultiHeadAttention, entropy_equal_attention, softmax_attention
from ealinformer.models import ELinFormer, ELinFormerConfig

SIZES = {
    "input_len": 6,
    "output_len": 4,
    "num_features": 5,
    "num_time_in_day": 48,
    "input_hidden_size": 4,
    "tid_hidden_size": 4,
    "diw_hidden_size": 4,
    "adaptive_hidden_size": 4,
    "intermediate_size": 16,
    "n_heads": 2,
    "num_layers": 2,
}
LAYERS = [f"{axis}_layers.{place}.attention" for axis in ("temporal", "spatial") for place in range(2)]


@pytest.fixture
def window():
    g = torch.Generator().manual_seed(5)
    return torch.randn(1, 6, 5, generator=g), torch.rand(1, 6, 2, generator=g)


def build(kind: str, seed: int = 0):
    torch.manual_seed(seed)
    if kind in ("sdpa", "softmax"):
        return STAEformer(STAEformerConfig(**SIZES, attention=kind)).eval()
    return ELinFormer(ELinFormerConfig(**SIZES, attention=kind)).eval()


@pytest.mark.parametrize("kind", ["sdpa", "softmax", "entropy_equal", "linformer", "performer"])
def test_the_forecast_is_the_same_while_and_after_it_is_captured(window, kind: str) -> None:
    model = build(kind)
    before = model(*window)
    seen = []
    with captured(model, lambda name, call: seen.append(name)):
        within = model(*window)
    torch.testing.assert_close(within, before)  # not to the bit where a layer goes without queries by itself
    assert seen == LAYERS == list(attention_layers(model))
    assert torch.equal(model(*window), before)
    assert len(seen) == len(LAYERS)  # nothing listens any more


@pytest.mark.parametrize(
    ("kind", "attention"), [("sdpa", softmax_attention), ("entropy_equal", entropy_equal_attention)]
)
def test_what_is_captured_gives_the_output_that_the_layer_had(window, kind: str, attention) -> None:
    calls = {}
    with torch.no_grad(), captured(model := build(kind), calls.__setitem__):
        model(*window)
    for name, call in calls.items():
        lengths = (5, 6) if name.startswith("temporal") else (6, 5)
        assert call.q.shape == call.k.shape == call.v.shape == call.output.shape == (1, lengths[0], 2, lengths[1], 8)
        torch.testing.assert_close(attention(call.q, call.k, call.v), call.output)
    assert not torch.allclose(calls[LAYERS[0]].q, calls[LAYERS[0]].k)


@pytest.mark.parametrize(
    "options", [{"causal": True}, {"key_padding_mask": torch.zeros(3, dtype=torch.bool)}, {"causal": False}]
)
def test_a_mask_or_causal_attention_is_refused_and_nothing_listens_then(options) -> None:
    layer, x = MultiHeadAttention(8, 2), torch.randn(3, 8)
    model = torch.nn.Sequential(layer)
    seen = []

    def take(name, call):
        seen.append(name)

    if options == {"causal": False}:  # says no more than nothing does
        with captured(model, take):
            layer(x=x, **options)
        assert seen == ["0"]
        return
    with pytest.raises(ValueError, match="0 is used with a mask or causally"), captured(model, take):
        layer(x, **options)
    layer(x)
    assert seen == []


def test_a_model_without_such_attention_has_no_layers() -> None:
    assert attention_layers(torch.nn.MultiheadAttention(8, 2)) == {}
