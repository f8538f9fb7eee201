"""Replacing the attention of a model: what is replaced, what stays, and what is refused before anything changes."""

import copy
import re

import pytest
import torch
from basicts.models.Autoformer import Autoformer, AutoformerConfig
from basicts.models.DLinear import DLinear, DLinearConfig
from basicts.models.DUET import DUET, DUETConfig
from basicts.models.Informer import Informer, InformerConfig
from basicts.models.iTransformer import iTransformerConfig, iTransformerForForecasting
from basicts.models.NonstationaryTransformer import (
    NonstationaryTransformerConfig,
    NonstationaryTransformerForForecasting,
)
from basicts.modules.transformer import Encoder, EncoderLayer, MultiHeadAttention, Seq2SeqDecoderLayer
from torch import nn

from ealinformer.dropin import DropInAttention, replace_attention

SIZES = {"input_len": 12, "output_len": 12, "num_features": 5}
SMALL = {"hidden_size": 16, "n_heads": 2, "intermediate_size": 32}
LAYERS = [f"backbone.encoder.layers.{i}.self_attn" for i in range(3)]


def itransformer(**settings) -> iTransformerForForecasting:
    torch.manual_seed(0)
    return iTransformerForForecasting(iTransformerConfig(**SIZES, **SMALL, num_layers=3, dropout=0.0, **settings))


def informer(**settings) -> Informer:
    return Informer(InformerConfig(**SIZES, **SMALL, label_len=6, **settings))


def inputs() -> torch.Tensor:
    return torch.randn(2, 12, 5, generator=torch.Generator().manual_seed(1))


def classes(model: nn.Module) -> dict[str, type]:
    return {name: type(module) for name, module in model.named_modules() if isinstance(module, MultiHeadAttention)}


def test_replaces_every_module_and_names_them():
    model = itransformer()
    before = model(inputs())
    assert replace_attention(model) == LAYERS
    assert classes(model) == dict.fromkeys(LAYERS, DropInAttention)
    assert not torch.allclose(model(inputs()), before)


def test_with_softmax_the_model_stays_the_same():
    model = itransformer()
    before = model(inputs())
    replace_attention(model, "softmax")
    torch.testing.assert_close(model(inputs()), before)


def test_keeps_parameters_and_with_them_an_optimizer_made_before():
    model = itransformer().eval()
    model.backbone.encoder.layers[0].self_attn.requires_grad_(False)
    optimizer = torch.optim.Adam((p for p in model.parameters() if p.requires_grad), lr=1e-2)
    names = {name: id(parameter) for name, parameter in model.named_parameters()}
    replace_attention(model, "entropy_equal", entropy="gaussian")
    assert {name: id(parameter) for name, parameter in model.named_parameters()} == names
    assert not any(module.training for module in model.modules())
    state = copy.deepcopy(model.state_dict())
    model(inputs()).square().mean().backward()
    optimizer.step()
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, state[name])}
    assert {f"{LAYERS[1]}.{proj}.weight" for proj in ("q_proj", "k_proj", "v_proj", "out_proj")} <= changed
    assert not any(name.startswith(LAYERS[0]) for name in changed)


def test_keeps_the_dtype_and_the_device_of_the_model():
    model = itransformer().double().to("meta")
    replace_attention(model, "linformer", num_keys=5)
    assert {(p.dtype, p.device.type) for p in model.parameters()} == {(torch.float64, "meta")}


@pytest.mark.parametrize(
    "where", ["*.1.self_attn", lambda name: ".1." in name, lambda name: name == LAYERS[1]], ids=["glob", "part", "name"]
)
def test_replaces_only_what_is_asked_for(where):
    model = itransformer()
    assert replace_attention(model, where=where) == [LAYERS[1]]
    assert classes(model) == {name: DropInAttention if name == LAYERS[1] else MultiHeadAttention for name in LAYERS}


def test_may_be_called_again_with_other_options():
    model = itransformer()
    before = model(inputs())
    replace_attention(model, "linformer", num_keys=5)
    replace_attention(model, "entropy_equal", where="*.0.*")
    assert replace_attention(model, "softmax") == LAYERS
    torch.testing.assert_close(model(inputs()), before)
    assert model.state_dict().keys() == itransformer().state_dict().keys()


def test_a_module_used_at_two_places_stays_one_module():
    model = itransformer()
    layers = model.backbone.encoder.layers
    layers[2].self_attn = layers[0].self_attn
    assert replace_attention(model) == LAYERS
    assert layers[2].self_attn is layers[0].self_attn
    assert layers[2].self_attn is not layers[1].self_attn


def test_a_module_that_one_parent_holds_twice_is_replaced_at_both_places():
    shared = MultiHeadAttention(8, 2)
    layer = Seq2SeqDecoderLayer(shared, shared, nn.Linear(8, 8), (nn.LayerNorm, 8))
    assert replace_attention(layer) == ["self_attn", "cross_attn"]
    assert isinstance(layer.cross_attn, DropInAttention)
    assert layer.cross_attn is layer.self_attn


def test_a_module_of_two_names_has_to_be_chosen_by_both():
    model = itransformer()
    layers = model.backbone.encoder.layers
    layers[2].self_attn = layers[0].self_attn
    with pytest.raises(ValueError, match=f"{re.escape(LAYERS[0])} and {re.escape(LAYERS[2])} are one and the same"):
        replace_attention(model, where=LAYERS[0])
    assert set(classes(model).values()) == {MultiHeadAttention}


def test_finds_attention_in_a_model_of_ones_own():
    def layer() -> EncoderLayer:
        return EncoderLayer(MultiHeadAttention(8, 2), nn.Linear(8, 8), (nn.LayerNorm, 8))

    model = nn.ModuleDict({"own": Encoder(nn.ModuleList([layer(), layer()])), "head": nn.Linear(8, 1)})
    assert replace_attention(model) == ["own.layers.0.self_attn", "own.layers.1.self_attn"]
    assert model["own"](torch.randn(2, 5, 8))[0].shape == (2, 5, 8)


def test_leaves_the_compiled_call_of_the_hosts_module_behind():
    model = itransformer()
    attention = model.backbone.encoder.layers[0].self_attn
    attention.compile(backend="eager")
    replace_attention(model)
    attention.forward = None  # nothing may call it any more
    assert model(inputs()).shape == (2, 12, 5)


def test_a_compiled_model_is_compiled_without_a_break_where_there_is_no_mask():
    model = itransformer()
    replace_attention(model)
    compiled = torch.compile(model.backbone.encoder.layers[0].self_attn, backend="eager", fullgraph=True)
    states = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(compiled(states)[0], model.backbone.encoder.layers[0].self_attn(states)[0])


def test_a_compiled_model_reads_its_mask_outside_the_graph():
    model = informer(prob_attn=False).eval()
    replace_attention(model)
    expected = model(inputs(), inputs())
    torch.testing.assert_close(torch.compile(model, backend="eager")(inputs(), inputs()), expected)


class OwnAttention(MultiHeadAttention):
    """Attention with a forward of its own."""

    def forward(self, hidden_states, **kwargs):
        return hidden_states, None, None


def with_own_class() -> nn.Module:
    model = itransformer()
    model.backbone.encoder.layers[1].self_attn = OwnAttention(16, 2)
    return model


def with_own_forward() -> nn.Module:
    model = itransformer()
    attention = model.backbone.encoder.layers[1].self_attn
    attention.forward = lambda hidden_states, **kwargs: (hidden_states, None, None)
    return model


REFUSED = {
    "a class": (lambda: iTransformerForForecasting, {}, "model has to be a module that has been built, got <class"),
    "weights asked for": (
        lambda: itransformer(output_attentions=True),
        {},
        "^iTransformerForForecasting has output_attentions=True, but the weights are never formed; build the model",
    ),
    "weights asked for, other attention chosen": (
        lambda: itransformer(output_attentions=True),
        {"where": LAYERS[0]},
        "output_attentions=True",
    ),
    "ProbSparse": (
        informer,
        {},
        r"^encoder\.encoder_layers\.0\.self_attn \(ProbAttention\) cannot be replaced: ProbSparse .* prob_attn=False, "
        "or leave the module out with where=",
    ),
    "ProbSparse chosen": (informer, {"where": "decoder.*"}, r"^decoder\.layers\.0\.self_attn \(ProbAttention\)"),
    "auto-correlation": (
        lambda: Autoformer(AutoformerConfig(**SIZES, **SMALL, label_len=6, moving_avg=5)),
        {},
        "Autoformer has no BasicTS MultiHeadAttention to replace; its attention is of class AutoCorrelation",
    ),
    "de-stationary attention": (
        lambda: NonstationaryTransformerForForecasting(NonstationaryTransformerConfig(**SIZES, **SMALL, label_len=6)),
        {},
        "its attention is of class DSAttention",
    ),
    "no attention": (lambda: DLinear(DLinearConfig(**SIZES)), {}, "to replace; none of its modules is an attention"),
    "a mask drawn at random": (
        lambda: DUET(DUETConfig(**SIZES, **SMALL)),
        {},
        r"^mask_generator \(MahalanobisMask\) draws which sensors see each other anew in each step",
    ),
    "a subclass": (
        with_own_class,
        {},
        r"layers\.1\.self_attn \(OwnAttention\) has a forward of its own, which would be lost; leave the module out",
    ),
    "a forward of its own": (with_own_forward, {}, r"layers\.1\.self_attn \(MultiHeadAttention\) has a forward of its"),
    "attention alone": (
        lambda: MultiHeadAttention(16, 2),
        {},
        r"the model is itself a MultiHeadAttention.*DropInAttention\.from_host\(model\)",
    ),
    "nothing chosen": (itransformer, {"where": "decoder.*"}, rf"where='decoder\.\*' selects none of {LAYERS[0]}, "),
    "linformer without N": (itransformer, {"attention": "linformer"}, f"^{LAYERS[0]}: linformer needs num_keys"),
    "an unknown attention": (itransformer, {"attention": "sofmax"}, f"^{LAYERS[0]}: attention is one of softmax, "),
    "an unknown option": (itransformer, {"epsilon": 1.0}, f"^{LAYERS[0]}: an option of the attention 'entropy_equal'"),
}


@pytest.mark.parametrize(("build", "arguments", "message"), REFUSED.values(), ids=REFUSED)
def test_refuses_what_cannot_work_and_changes_nothing(build, arguments, message):
    model = build()
    before = list(model.modules()) if isinstance(model, nn.Module) else None
    with pytest.raises(ValueError, match=message):
        replace_attention(model, **arguments)
    if before is not None:
        assert [id(module) for module in model.modules()] == [id(module) for module in before]


@pytest.mark.parametrize("build", [with_own_class, with_own_forward])
def test_what_is_refused_can_be_left_out(build):
    model = build()
    assert replace_attention(model, where=lambda name: ".1." not in name) == [LAYERS[0], LAYERS[2]]


def test_informer_with_probsparse_can_have_its_cross_attention_replaced():
    model = informer()
    assert replace_attention(model, where="*.cross_attn") == ["decoder.layers.0.cross_attn"]
    assert model(inputs(), inputs()).shape == (2, 12, 5)


def test_an_error_in_the_middle_replaces_nothing():
    model = itransformer()
    wide = MultiHeadAttention(16, 2)
    wide.n_heads = 3
    model.backbone.encoder.layers[2].self_attn = wide
    with pytest.raises(ValueError, match=f"^{LAYERS[2]}: n_heads has to divide hidden_size 16, got 3"):
        replace_attention(model)
    assert set(classes(model).values()) == {MultiHeadAttention}
