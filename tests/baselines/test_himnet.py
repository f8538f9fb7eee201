"""HimNet against its equations, and what its decoder reads."""

import math

import pytest
import torch

import baselines.HimNet.model
from baselines.HimNet import ENTRY, HimNet, HimNetConfig
from baselines.HimNet.calendar import continued

N, L, H, B, DAY = 5, 4, 3, 3, 24
PARAMETERS = {"PEMS-BAY": 1_252_825, "PEMS03": 1_253_353, "PEMS04": 1_253_661, "PEMS07": 1_261_753, "PEMS08": 2_069_573}
SENSORS = {"PEMS-BAY": 325, "PEMS03": 358, "PEMS04": 307, "PEMS07": 883, "PEMS08": 170}
SIZES = {"input_len": L, "output_len": H, "num_features": N, "num_time_in_day": DAY, "hidden_size": 4}
WIDTHS = {"node_embedding_size": 3, "tid_hidden_size": 2, "diw_hidden_size": 2, "st_embedding_size": 3}
SMALL = {**SIZES, **WIDTHS}


def build(**params):
    """A model in float64 whose weights are all of ordinary size."""
    model = HimNet(HimNetConfig(**{**SMALL, **params})).double()
    g = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=g, dtype=torch.float64) / 2
    return model


def calendar(first, count):
    """Time of day and day of week of steps from `first` on, of hours from Monday 0:00: `[count, 2]`."""
    hour = (first + torch.arange(count)) % (7 * DAY)
    return torch.stack([(hour % DAY).double() / DAY, (hour // DAY).double() / 7], dim=-1)


def windows():
    """Readings, their calendar, targets, their calendar; the second window ends with a Sunday."""
    g = torch.Generator().manual_seed(2)
    starts = (3, 7 * DAY - L, 50)
    past = torch.stack([calendar(start, L) for start in starts])
    future = torch.stack([calendar(start + L, H) for start in starts])
    inputs = torch.randn(B, L, N, generator=g, dtype=torch.float64)
    return inputs, past, torch.randn(B, H, N, generator=g, dtype=torch.float64), future


def slow_forecast(model, cheb_k, inputs, past, future, truth):
    """The forecast `[H, N]` of one window, by the paper's equations; `truth` has what is read, or None."""
    weights = dict(model.named_parameters())
    identity = torch.eye(N, dtype=inputs.dtype)

    def graph_of(embedding):
        scores = (embedding @ embedding.T).clamp(min=0).exp()
        graph = scores / scores.sum(1, keepdim=True)
        return [identity, graph, 2 * graph @ graph - identity][:cheb_k]

    def convolution(name, supports, signal, embedding):
        """Every sensor's own weights: its embedding `[d]` times the pool."""
        out = []
        for n in range(N):
            own = torch.einsum("d,dkio->kio", embedding[n], weights[f"{name}.weight"])
            heard = torch.stack([support[n] @ signal for support in supports])
            out.append(torch.einsum("ki,kio->o", heard, own) + embedding[n] @ weights[f"{name}.bias"])
        return torch.stack(out)

    def gru(name, supports, x, h, embedding):
        both = convolution(f"{name}.gates", supports, torch.cat([x, h], 1), embedding)
        z, r = torch.sigmoid(both).chunk(2, 1)
        candidate = convolution(f"{name}.candidate", supports, torch.cat([x, z * h], 1), embedding)
        return r * h + (1 - r) * torch.tanh(candidate)

    def channels(reading, stamp):
        return torch.stack([reading, stamp[0].expand(N), (stamp[1] * 7).round().expand(N)], -1)

    def encode(name, embedding):
        signal = [channels(*step) for step in zip(inputs, past, strict=True)]
        for i in range(len(model.decoder)):
            h, states = torch.zeros(N, 4, dtype=inputs.dtype), []
            for x in signal:
                h = gru(f"{name}.layers.{i}", supports, x, h, embedding)
                states.append(h)
            signal = states
        return signal[-1]

    supports = graph_of(weights["node_embedding"])
    hour, day = int((past[-1, 0] * DAY).round()), int((past[-1, 1] * 7).round())
    of_time = torch.cat([weights["time_in_day"][hour], weights["day_in_week"][day]])
    state = encode("sensor_encoder", weights["node_embedding"]) + encode("hour_encoder", of_time.expand(N, -1))
    mixed = state @ weights["mixed_proj.weight"].T + weights["mixed_proj.bias"]

    supports = graph_of(mixed)
    hidden = [state] * len(model.decoder)
    reading, forecast = torch.zeros(N, dtype=inputs.dtype), []
    for t in range(H):
        signal = channels(reading, future[t])
        for i in range(len(hidden)):
            signal = hidden[i] = gru(f"decoder.{i}", supports, signal, hidden[i], mixed)
        reading = (signal @ weights["output_proj.weight"].T + weights["output_proj.bias"])[:, 0]
        forecast.append(reading)
        if truth[t] is not None:
            reading = truth[t]
    return torch.stack(forecast)


def slow_batch(model, cheb_k, batch, reads=(False,) * H):
    inputs, past, targets, future = batch
    return torch.stack(
        [
            slow_forecast(
                model, cheb_k, inputs[b], past[b], future[b], [targets[b, t] if reads[t] else None for t in range(H)]
            )
            for b in range(len(inputs))
        ]
    )


@pytest.mark.parametrize(("cheb_k", "num_layers"), [(1, 1), (2, 1), (2, 2), (3, 1)])
def test_forecast_and_gradients_are_those_of_the_equations(cheb_k, num_layers):
    model = build(cheb_k=cheb_k, num_layers=num_layers)
    batch = windows()
    inputs, past, _, future = batch
    found = model(inputs, past, targets_timestamps=future)
    expected = slow_batch(model, cheb_k, batch)
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)

    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    parameters = list(model.parameters())
    of_found = torch.autograd.grad((found * weights).sum(), parameters)
    of_expected = torch.autograd.grad((expected * weights).sum(), parameters)
    for gradient, wanted in zip(of_found, of_expected, strict=True):
        assert wanted.abs().max() > 1e-5
        torch.testing.assert_close(gradient, wanted, rtol=1e-8, atol=1e-10)


class TestTeacherForcing:
    @pytest.mark.parametrize("reads", [(True, False, True), (False, True, False), (True, True, True)])
    def test_the_decoder_reads_the_truth_where_the_coins_say_so(self, reads, monkeypatch):
        monkeypatch.setattr(baselines.HimNet.model, "truth_mask", lambda *_: torch.tensor(reads))
        model, batch = build().train(), windows()
        inputs, past, targets, future = batch
        found = model(inputs, past, targets=targets, targets_timestamps=future, step=7)
        torch.testing.assert_close(found, slow_batch(model, 2, batch, reads), rtol=1e-10, atol=1e-10)
        assert (found - slow_batch(model, 2, batch)).abs().max() > 1e-3

    def test_the_coins_are_of_the_horizons_the_step_and_the_decay(self, monkeypatch):
        asked = []
        monkeypatch.setattr(
            baselines.HimNet.model, "truth_mask", lambda *given: asked.append(given) or torch.zeros(H, dtype=torch.bool)
        )
        inputs, past, targets, _ = windows()
        build(tf_decay_steps=55).train()(inputs, past, targets=targets, step=9)
        assert asked == [(H, 9, 55, torch.device("cpu"))]

    def test_early_it_reads_the_truth_and_late_its_own_forecasts(self):
        model, (inputs, past, targets, future) = build(tf_decay_steps=100).train(), windows()
        alone = model(inputs, past, targets_timestamps=future)
        torch.manual_seed(0)
        early = model(inputs, past, targets=targets, targets_timestamps=future, step=1)
        late = model(inputs, past, targets=targets, targets_timestamps=future, step=10**6)
        torch.testing.assert_close(late, alone)
        assert torch.equal(early[:, 0], alone[:, 0])  # nothing is read before the first horizon
        assert (early[:, 1:] - alone[:, 1:]).abs().max() > 1e-3

    def test_a_forecast_does_not_see_its_own_target_or_a_later_one(self, monkeypatch):
        monkeypatch.setattr(baselines.HimNet.model, "truth_mask", lambda *_: torch.ones(H, dtype=torch.bool))
        model, (inputs, past, targets, _) = build().train(), windows()
        changed = targets.clone()
        changed[:, 1:] += 1
        before, after = (model(inputs, past, targets=given) for given in (targets, changed))
        assert torch.equal(before[:, :2], after[:, :2])
        assert (before[:, 2] - after[:, 2]).abs().max() > 1e-3

    def test_outside_of_training_targets_are_not_read_and_no_coin_is_drawn(self, monkeypatch):
        monkeypatch.setattr(baselines.HimNet.model, "truth_mask", lambda *_: pytest.fail("a coin was drawn"))
        model, (inputs, past, targets, _) = build().eval(), windows()
        alone = model(inputs, past)
        assert torch.equal(model(inputs, past, targets=torch.full_like(targets, math.nan)), alone)
        assert torch.equal(model.train()(inputs, past), alone)


class TestCalendar:
    def test_it_goes_on_over_midnight_and_the_end_of_the_week(self):
        _, past, _, future = windows()
        torch.testing.assert_close(continued(past, H, DAY, 7), future, rtol=0, atol=1e-12)
        torch.testing.assert_close(future[1, 0], torch.zeros(2, dtype=torch.float64))

    def test_it_is_made_where_none_is_given(self):
        model, (inputs, past, _, future) = build(), windows()
        torch.testing.assert_close(model(inputs, past), model(inputs, past, targets_timestamps=future))

    def test_the_calendar_of_a_horizon_is_seen_from_there_on(self):
        model, (inputs, past, _, future) = build(), windows()
        changed = future.clone()
        changed[:, 1, 0] += 0.3
        before, after = (model(inputs, past, targets_timestamps=given) for given in (future, changed))
        assert torch.equal(before[:, 0], after[:, 0])
        assert ((before[:, 1:] - after[:, 1:]).abs().amax((0, 2)) > 1e-4).all()


@pytest.mark.parametrize("series", list(PARAMETERS))
@pytest.mark.parametrize("recipe", ["basicts", "authors"])
def test_parameters_are_as_many_as_published(series, recipe):
    with torch.device("meta"):
        model = HimNet(ENTRY.build_config(num_features=SENSORS[series], **ENTRY.recipes[series][recipe].params))
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[series]
    assert sum(t.numel() for t in model.state_dict().values()) == PARAMETERS[series]


@pytest.mark.parametrize(
    ("series", "loss", "weight_decay", "milestones", "decay_steps"),
    [
        ("PEMS-BAY", "masked_mae", 1e-4, (25, 35), 6000),
        ("PEMS03", "masked_huber", 3e-4, (30, 50), 4000),
        ("PEMS04", "masked_huber", 1e-4, (30, 50), 4000),
        ("PEMS07", "masked_huber", 1e-4, (40, 60), 6000),
        ("PEMS08", "masked_huber", 0, (40, 60, 80), 6000),
    ],
)
def test_recipes_are_the_published_ones(series, loss, weight_decay, milestones, decay_steps):
    assert list(ENTRY.recipes[series]) == ["basicts", "authors"]
    for name, published in ENTRY.recipes[series].items():
        recipe = published.recipe
        assert recipe.loss == (loss if name == "basicts" else loss.replace("masked_huber", "huber"))
        assert (recipe.lr, recipe.eps, recipe.weight_decay, recipe.milestones) == (1e-3, 1e-3, weight_decay, milestones)
        assert (recipe.batch_size, recipe.num_epochs, recipe.patience, recipe.clip_grad_norm) == (16, 200, 20, 5)
        assert published.params.get("tf_decay_steps", HimNetConfig().tf_decay_steps) == decay_steps


def test_pools_are_drawn_as_the_authors_draw_them():
    torch.manual_seed(0)
    model = HimNet(HimNetConfig(num_features=200))
    parameters = dict(model.named_parameters())
    variances = {
        "node_embedding": 2 / (200 + 14),
        "sensor_encoder.layers.0.gates.weight": 2 / (192 * (14 + 2 * 99)),
        "decoder.0.candidate.bias": 2 / (10 + 96),
    }
    for name, variance in variances.items():
        assert parameters[name].std().item() == pytest.approx(math.sqrt(variance), rel=0.05)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, 0) for name in ("num_features", "num_time_in_day", "num_day_in_week", "num_layers", "tf_decay_steps")),
        *((name, 0) for name in ("node_embedding_size", "tid_hidden_size", "st_embedding_size")),
        *(("hidden_size", 1.5), ("cheb_k", -1), ("diw_hidden_size", "2")),
    ],
)
def test_a_size_that_cannot_be_is_refused_by_its_name(name, value):
    with pytest.raises(ValueError, match=f"^{name} has to be a positive whole number, got {value!r}$"):
        HimNet(HimNetConfig(**{**SMALL, name: value}))
