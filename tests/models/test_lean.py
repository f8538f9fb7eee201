"""Lean layers against plain ones: the same forecasts and gradients, less kept."""

import copy
import shutil

import pytest
import torch
from torch import nn

from baselines.STAEformer import STAEformer, STAEformerConfig
from ealinformer.measure.memory import allocated_peak
from ealinformer.models import ELinFormer, ELinFormerConfig, lean
from ealinformer.models.dropout import draw_kept, packed, unpacked

SIZES = {
    "input_len": 6,
    "output_len": 3,
    "num_time_in_day": 24,
    "input_hidden_size": 4,
    "tid_hidden_size": 4,
    "diw_hidden_size": 4,
    "adaptive_hidden_size": 8,
    "intermediate_size": 16,
    "n_heads": 2,
    "num_layers": 2,
}
MODELS = [
    pytest.param(ELinFormer, ELinFormerConfig, {}, id="taylor"),
    pytest.param(ELinFormer, ELinFormerConfig, {"attention": "inline"}, id="inline"),
    pytest.param(ELinFormer, ELinFormerConfig, {"entropy": "gaussian"}, id="gaussian"),
    pytest.param(ELinFormer, ELinFormerConfig, {"attention": "identity"}, id="identity"),
    pytest.param(STAEformer, STAEformerConfig, {}, id="STAEformer"),
]
# Fewer sensors than a head has channels (10), than the width (20), and more: each has a form of its own.
SENSORS = [3, 13, 31]


def pair(model_class, config_class, options, num_features, *, dropout=0.0, dtype=torch.float64):
    """A lean and a plain model with the same weights, far from those of their start."""
    torch.manual_seed(0)
    sizes = {**SIZES, "num_features": num_features, "dropout": dropout, **options}
    models = [model_class(config_class(**sizes, layers=layers)) for layers in ("lean", "plain")]
    with torch.no_grad():
        for parameter in models[1].parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    models[0].load_state_dict(models[1].state_dict())
    return [model.to(dtype) for model in models]


def windows(num_features, *, batch=3, dtype=torch.float64):
    g = torch.Generator().manual_seed(1)
    inputs = torch.randn(batch, 6, num_features, generator=g, dtype=dtype)
    return inputs, torch.rand(batch, 6, 2, generator=g, dtype=dtype) * 0.99


def forecast_and_gradients(model, inputs, timestamps):
    forecast = model(inputs, timestamps)
    g = torch.Generator().manual_seed(2)
    (forecast * torch.randn(forecast.shape, generator=g, dtype=forecast.dtype)).sum().backward()
    return forecast, {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in model.named_parameters()}


@pytest.mark.parametrize("num_features", SENSORS)
@pytest.mark.parametrize(("model_class", "config_class", "options"), MODELS)
def test_forecast_and_every_gradient_are_those_of_the_plain_layers(model_class, config_class, options, num_features):
    ours, plain = pair(model_class, config_class, options, num_features)
    forecast, gradients = forecast_and_gradients(ours, *windows(num_features))
    expected, expected_gradients = forecast_and_gradients(plain, *windows(num_features))
    torch.testing.assert_close(forecast, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-8, atol=1e-10)
    with torch.no_grad():
        torch.testing.assert_close(ours(*windows(num_features)), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("num_features", SENSORS)
@pytest.mark.parametrize(("model_class", "config_class", "options"), MODELS)
def test_float32_forecasts_are_as_near_to_float64_as_those_of_the_plain_layers(
    model_class, config_class, options, num_features
):
    models = pair(model_class, config_class, options, num_features, dtype=torch.float32)
    exact = copy.deepcopy(models[1]).double()(*windows(num_features))
    ours, plain = ((model(*windows(num_features, dtype=torch.float32)) - exact).abs().max() for model in models)
    assert ours < max(4 * plain, 1e-5)


@pytest.mark.parametrize("num_features", [3, 13])
def test_the_same_dropout_masks_drop_the_same_entries(num_features, monkeypatch):
    """Through heads the spatial layers of both see the same order of rows, so that masks can be compared."""
    ours, plain = pair(STAEformer, STAEformerConfig, {}, num_features, dropout=0.3)

    class DropByTheSameMasks(nn.Dropout):
        def forward(self, x):
            return x * draw_kept(x, self.p) / (1 - self.p)

    for layer in [*plain.temporal_layers, *plain.spatial_layers]:
        layer.dropout = DropByTheSameMasks(0.3)
    torch.manual_seed(3)
    forecast, gradients = forecast_and_gradients(ours, *windows(num_features))
    torch.manual_seed(3)
    expected, expected_gradients = forecast_and_gradients(plain, *windows(num_features))
    torch.testing.assert_close(forecast, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-8, atol=1e-10)
    assert not torch.allclose(forecast, ours.eval()(*windows(num_features)))


@pytest.mark.parametrize("entries", [1, 100, 1 << 30])
def test_portions_do_not_show(entries, monkeypatch):
    ours, plain = pair(ELinFormer, ELinFormerConfig, {}, 31)
    monkeypatch.setattr(lean, "BLOCK_ENTRIES", entries)
    monkeypatch.setattr("ealinformer.attention.slabs.ENTRIES", entries)
    forecast, gradients = forecast_and_gradients(ours, *windows(31))
    expected, expected_gradients = forecast_and_gradients(plain, *windows(31))
    torch.testing.assert_close(forecast, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("layers", ["lean", "plain"])
@pytest.mark.parametrize("num_features", [13, 31])
def test_what_is_computed_again_is_the_same_to_the_bit(layers, num_features):
    torch.manual_seed(0)
    sizes = {**SIZES, "num_features": num_features, "dropout": 0.3, "layers": layers}
    once, again = (ELinFormer(ELinFormerConfig(**sizes, recompute=recompute)) for recompute in (False, True))
    again.load_state_dict(once.state_dict())
    results = []
    for model in (once, again):
        torch.manual_seed(4)
        results.append(forecast_and_gradients(model, *windows(num_features, dtype=torch.float32)))
    assert torch.equal(results[0][0], results[1][0])
    assert all(torch.equal(results[0][1][name], results[1][1][name]) for name in results[0][1])


@pytest.mark.parametrize(("model_class", "config_class", "options"), MODELS)
def test_a_training_step_holds_less_and_less_still_with_recomputation(model_class, config_class, options):
    sizes = {**SIZES, "num_features": 64, "dropout": 0.1, **options}
    inputs, timestamps = windows(64, batch=8, dtype=torch.float32)

    def peak(**how):
        model = model_class(config_class(**sizes, **how))
        model(inputs, timestamps).sum().backward()  # gradients lie there from then on
        return allocated_peak(lambda: model(inputs, timestamps).sum().backward())

    plain, ours, recomputed = peak(layers="plain"), peak(), peak(recompute=True)
    assert ours < 0.85 * plain
    assert recomputed < 0.7 * ours


@pytest.mark.parametrize("num_features", SENSORS)
@pytest.mark.parametrize(("model_class", "config_class", "options"), MODELS)
def test_under_autocast_forecasts_are_bfloat16_and_weights_gradients_float32(
    model_class, config_class, options, num_features
):
    models = pair(model_class, config_class, options, num_features, dtype=torch.float32)
    exact, exact_gradients = forecast_and_gradients(copy.deepcopy(models[1]).double(), *windows(num_features))
    errors = []
    for model in models:
        inputs, timestamps = windows(num_features, dtype=torch.float32)
        with torch.autocast("cpu", torch.bfloat16):
            forecast = model(inputs, timestamps)
        assert forecast.dtype == torch.bfloat16
        g = torch.Generator().manual_seed(2)
        (forecast.double() * torch.randn(forecast.shape, generator=g, dtype=torch.float64)).sum().backward()
        grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        assert all(grad.dtype == torch.float32 for grad in grads.values())
        far = [((grads[n] - e).norm() / e.norm()).item() for n, e in exact_gradients.items() if e.norm() > 1e-6]
        errors.append((((forecast - exact).norm() / exact.norm()).item(), sorted(far)[len(far) // 2]))
    for ours, plain in zip(*errors, strict=True):
        assert ours < 3 * plain + 0.005


class TestDropout:
    @pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
    def test_a_mask_drops_its_share_and_neighbours_apart(self, p):
        torch.manual_seed(0)
        kept = draw_kept(torch.empty(1000, 1003), p).double()
        assert set(kept.unique().tolist()) == {0.0, 1.0}
        std = (p * (1 - p) / kept.numel()) ** 0.5
        assert abs(1 - kept.mean().item() - p) < 5 * std + 2**-16
        flat = kept.flatten() - kept.mean()
        for distance in (1, 2, 3, 4, 1003):  # four entries share a number
            correlation = (flat[distance:] * flat[:-distance]).mean() / flat.square().mean()
            assert abs(correlation) < 5e-3
        by_place = kept.flatten()[: kept.numel() // 4 * 4].view(-1, 4).mean(0)
        assert (by_place - (1 - p)).abs().max() < 1e-2 * p

    def test_the_seed_decides(self):
        draws = []
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            draws.append(draw_kept(torch.empty(50, 7), 0.5))
        assert torch.equal(draws[0], draws[1])
        assert not torch.equal(draws[0], draws[2])

    @pytest.mark.parametrize("shape", [(1, 1), (3, 5), (2, 3, 8), (0, 4)])
    def test_a_packed_mask_comes_back(self, shape):
        torch.manual_seed(0)
        kept = draw_kept(torch.empty(shape), 0.5)
        assert packed(kept).numel() == -(-kept.numel() // 8)
        assert torch.equal(unpacked(packed(kept), kept.shape), kept)


def test_a_training_has_the_losses_of_the_plain_layers_step_by_step():
    losses = []
    for model in pair(ELinFormer, ELinFormerConfig, {}, 31, dtype=torch.float32):
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        g = torch.Generator().manual_seed(5)
        of_model = []
        for _ in range(20):
            inputs, timestamps = torch.randn(4, 6, 31, generator=g), torch.rand(4, 6, 2, generator=g) * 0.99
            targets = inputs[:, -3:].flip(1)
            loss = (model(inputs, timestamps) - targets).abs().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            of_model.append(loss.item())
        losses.append(of_model)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[0][-1] < losses[0][0]


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_it_gives_the_same_numbers():
    num_features = 31  # the short form along time, the covariance form along sensors
    torch.manual_seed(0)
    model = ELinFormer(ELinFormerConfig(**SIZES, num_features=num_features, dropout=0.0))
    compiled = copy.deepcopy(model)
    compiled.compile()
    expected, expected_gradients = forecast_and_gradients(model, *windows(num_features, dtype=torch.float32))
    forecast, gradients = forecast_and_gradients(compiled, *windows(num_features, dtype=torch.float32))
    torch.testing.assert_close(forecast, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-3, atol=1e-4)


def test_unknown_layers_and_a_recompute_that_is_no_switch_are_refused():
    with pytest.raises(ValueError, match="layers has to be one of lean, plain, got 'fat'"):
        ELinFormer(ELinFormerConfig(**SIZES, num_features=5, layers="fat"))
    with pytest.raises(ValueError, match="recompute has to be True or False, got 1"):
        ELinFormer(ELinFormerConfig(**SIZES, num_features=5, recompute=1))
