"""AGCRN against its equations, sensor by sensor and step by step."""

import math

import pytest
import torch

import baselines.AGCRN.model
from baselines.AGCRN import AGCRN, ENTRY, AGCRNConfig
from ealinformer.recipe import DEFAULT

N, L, H, B = 6, 5, 4, 2
PARAMETERS = {"PEMS-BAY": 752_830, "PEMS03": 749_320, "PEMS04": 748_810, "PEMS07": 754_570, "PEMS08": 747_440}
SENSORS = {"PEMS-BAY": 325, "PEMS03": 358, "PEMS04": 307, "PEMS07": 883, "PEMS08": 170}


def build(**params):
    """A model in float64 whose weights are all of ordinary size."""
    sizes = {"input_len": L, "output_len": H, "num_features": N, "hidden_size": 4, "node_embedding_size": 3}
    model = AGCRN(AGCRNConfig(**{**sizes, **params})).double()
    g = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=g, dtype=torch.float64) / 2
    return model


def windows():
    g = torch.Generator().manual_seed(2)
    return torch.randn(B, L, N, generator=g, dtype=torch.float64), torch.rand(B, L, 2, generator=g, dtype=torch.float64)


def slow_forecast(model, inputs, timestamps, cheb_k):
    """The forecast of one window `[L, N]`, by the paper's equations."""
    weights = dict(model.named_parameters())
    E = weights["node_embedding"]
    scores = torch.stack([torch.stack([(E[i] * E[j]).sum().clamp(min=0).exp() for j in range(N)]) for i in range(N)])
    graph = scores / scores.sum(1, keepdim=True)
    supports = [torch.eye(N, dtype=E.dtype), graph, 2 * graph @ graph - torch.eye(N, dtype=E.dtype)][:cheb_k]

    def convolution(name, signal):
        """Node-adaptive graph convolution: every sensor's own weights, of its embedding and the pool."""
        pool, bias_pool = weights[f"{name}.weight"], weights[f"{name}.bias"]
        out = []
        for n in range(N):
            own = torch.einsum("d,dkio->kio", E[n], pool)
            heard = torch.stack([support[n] @ signal for support in supports])  # [K, C]
            out.append(torch.einsum("ki,kio->o", heard, own) + E[n] @ bias_pool)
        return torch.stack(out)

    clock = timestamps[:, :1].expand(-1, N)
    signal = list(torch.stack([inputs, clock] if model.if_time_in_day else [inputs], dim=-1))
    for i in range(len(model.encoder.layers)):
        h, states = torch.zeros(N, 4, dtype=E.dtype), []
        for x in signal:
            z, r = torch.sigmoid(convolution(f"encoder.layers.{i}.gates", torch.cat([x, h], 1))).chunk(2, 1)
            candidate = torch.tanh(convolution(f"encoder.layers.{i}.candidate", torch.cat([x, z * h], 1)))
            h = r * h + (1 - r) * candidate
            states.append(h)
        signal = states
    return (signal[-1] @ weights["output_proj.weight"].T + weights["output_proj.bias"]).T


@pytest.mark.parametrize("cheb_k", [1, 2, 3])
@pytest.mark.parametrize("options", [{"if_time_in_day": True}, {"if_time_in_day": False, "num_layers": 1}])
def test_forecast_and_gradients_are_those_of_the_equations(cheb_k, options):
    model = build(cheb_k=cheb_k, **options)
    inputs, timestamps = windows()
    found = model(inputs, timestamps)
    expected = torch.stack([slow_forecast(model, *window, cheb_k) for window in zip(inputs, timestamps, strict=True)])
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)

    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    parameters = list(model.parameters())
    of_found = torch.autograd.grad((found * weights).sum(), parameters)
    of_expected = torch.autograd.grad((expected * weights).sum(), parameters)
    for parameter_gradient, wanted in zip(of_found, of_expected, strict=True):
        assert wanted.abs().max() > 1e-4
        torch.testing.assert_close(parameter_gradient, wanted, rtol=1e-8, atol=1e-10)


def test_the_graph_is_made_once_a_forecast(monkeypatch):
    made = []

    def counted(source, target):
        made.append(source)
        return torch.eye(N, dtype=torch.float64)

    monkeypatch.setattr(baselines.AGCRN.model, "adaptive_adjacency", counted)
    build()(*windows())
    assert len(made) == 1


def test_the_time_of_day_is_read_only_where_it_is_asked_for():
    inputs, timestamps = windows()
    later = timestamps * 0.5
    with_clock, without = build(if_time_in_day=True), build()
    assert (with_clock(inputs, timestamps) - with_clock(inputs, later)).abs().max() > 1e-3
    assert torch.equal(without(inputs, timestamps), without(inputs, later))


@pytest.mark.parametrize("series", list(PARAMETERS))
def test_parameters_are_as_many_as_published(series):
    first = next(iter(ENTRY.recipes[series].values()))
    with torch.device("meta"):
        model = AGCRN(ENTRY.build_config(num_features=SENSORS[series], **first.params))
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[series]
    assert sum(t.numel() for t in model.state_dict().values()) == PARAMETERS[series]


@pytest.mark.parametrize("recipe", ["basicts-pre-0.4", "authors"])
def test_the_narrow_embedding_of_pems08_has_the_parameters_of_the_paper(recipe):
    with torch.device("meta"):
        model = AGCRN(ENTRY.build_config(num_features=170, **ENTRY.recipes["PEMS08"][recipe].params))
    assert sum(p.numel() for p in model.parameters()) == 150_112


def test_weights_are_drawn_as_the_authors_draw_them():
    torch.manual_seed(0)
    model = AGCRN(AGCRNConfig(num_features=200))
    bounds = {
        "node_embedding": 6 / (200 + 10),
        "encoder.layers.1.gates.weight": 6 / ((10 + 2) * 128 * 128),
        "encoder.layers.0.candidate.bias": 6 / (10 + 64),
        "output_proj.weight": 6 / (64 + 12 * 64),
    }
    parameters = dict(model.named_parameters())
    for name, square in bounds.items():
        assert parameters[name].abs().max() <= math.sqrt(square)
        assert parameters[name].std().item() == pytest.approx(math.sqrt(square / 3), rel=0.1)
    assert 0 <= parameters["output_proj.bias"].min() < parameters["output_proj.bias"].max() < 1


def test_the_first_recipe_of_a_series_is_that_of_basicts():
    for series in (*PARAMETERS, DEFAULT):
        name, published = next(iter(ENTRY.recipes[series].items()))
        recipe = published.recipe
        assert name == "basicts"
        assert (recipe.lr, recipe.weight_decay, recipe.milestones) == (3e-3, 0, ())
        assert (recipe.batch_size, recipe.num_epochs, recipe.patience) == (64, 100, None)
        assert published.params == ({"if_time_in_day": True} if series == "PEMS-BAY" else {})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_features", 0),
        ("input_len", 0),
        ("output_len", -1),
        ("hidden_size", 2.5),
        ("num_layers", 0),
        ("node_embedding_size", True),
        ("cheb_k", 0),
        ("if_time_in_day", 1),
    ],
)
def test_a_size_that_cannot_be_is_refused_by_its_name(name, value):
    with pytest.raises(ValueError, match=f"^{name} has to be .*, got {value!r}$"):
        AGCRN(AGCRNConfig(**{"num_features": N, name: value}))
