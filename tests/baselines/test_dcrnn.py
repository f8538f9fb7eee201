"""DCRNN against its equations, written out window by window, and its decoder's use of the truth."""

import numpy as np
import pytest
import torch

from baselines.DCRNN import DCRNN, ENTRY, DCRNNConfig
from baselines.DCRNN.config import RECIPES
from ealinformer.data.prior import ArrayPrior, BlankPrior

L, H, N, B, D, K = 5, 4, 6, 3, 7, 2
NUM_SENSORS = {"PEMS-BAY": 325, "PEMS03": 358, "PEMS04": 307, "PEMS07": 883, "PEMS08": 170}
SMALL = {"input_len": L, "output_len": H, "num_features": N, "hidden_size": D, "cl_decay_steps": 20}
LATE = 10**6  # a step at which the truth is not drawn any more


def directed_weights():
    g = np.random.default_rng(0)
    return (g.random((N, N)) * (g.random((N, N)) < 0.5)).astype(np.float32)


def small_model(prior=None, **options):
    torch.manual_seed(0)
    model = DCRNN(DCRNNConfig(**{**SMALL, **options}), prior or ArrayPrior(N, directed_weights())).double()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    return model


def windows():
    """Inputs `[B, L, N]`, timestamps `[B, L, 2]` and targets `[B, H, N]`, float64."""
    g = torch.Generator().manual_seed(1)
    inputs, targets = (torch.randn(B, steps, N, generator=g, dtype=torch.float64) for steps in (L, H))
    return inputs, torch.rand(B, L, 2, generator=g, dtype=torch.float64), targets


def written_out(model, weights, inputs, clock, truth=None):
    """The paper's forecast `[H, N]` of one window; `truth` `[H, N]` is what the decoder reads where it is given."""
    p = {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}
    forward, backward = weights / weights.sum(1, keepdims=True), weights.T / weights.T.sum(1, keepdims=True)
    powers = [np.eye(N)]
    powers += [np.linalg.matrix_power(walk, k) for walk in (forward, backward) for k in range(1, K + 1)]

    def convolved(signal, weight):
        width = signal.shape[1]
        return sum(power @ signal @ weight[m * width : (m + 1) * width] for m, power in enumerate(powers))

    def cell(name, x, h):
        added = convolved(x, p[f"{name}.input_weight"]) + p[f"{name}.bias"]
        gates = 1 / (1 + np.exp(-added[:, : 2 * D] - convolved(h, p[f"{name}.gate_weight"])))
        reset, update = gates[:, :D], gates[:, D:]
        candidate = np.tanh(added[:, 2 * D :] + convolved(reset * h, p[f"{name}.candidate_weight"]))
        return update * h + (1 - update) * candidate

    states = [np.zeros((N, D)) for _ in range(2)]
    for t in range(L):
        x = np.stack([inputs[t], np.full(N, clock[t])], axis=1)
        for layer in range(2):
            states[layer] = x = cell(f"seq2seq.encoder.cells.{layer}", x, states[layer])
    forecasts, reading = [], np.zeros(N)
    for t in range(H):
        x = reading[:, None]
        for layer in range(2):
            states[layer] = x = cell(f"seq2seq.decoder.cells.{layer}", x, states[layer])
        forecasts.append(x @ p["seq2seq.output_proj.weight"][0] + p["seq2seq.output_proj.bias"])
        reading = forecasts[-1] if truth is None else truth[t]
    return np.stack(forecasts)


@pytest.mark.parametrize("teacher", [False, True])
def test_the_forecast_is_that_of_the_equations(teacher):
    model, weights = small_model(cl_decay_steps=2000), directed_weights().astype(np.float64)
    inputs, timestamps, targets = windows()
    ours = model.train(teacher)(inputs, timestamps, targets, step=1).detach()
    expected = [
        written_out(model, weights, *(part[b].numpy() for part in (inputs, timestamps[..., 0])), truth)
        for b, truth in enumerate(targets.numpy() if teacher else [None] * B)
    ]
    assert np.std(expected) > 0.1
    np.testing.assert_allclose(ours, np.stack(expected), rtol=0, atol=1e-6)  # the walks are kept in float32


def test_the_walks_are_kept_in_the_default_dtype_and_in_no_checkpoint():
    torch.set_default_dtype(torch.float64)
    try:
        model = DCRNN(DCRNNConfig(**SMALL), ArrayPrior(N, directed_weights()))
    finally:
        torch.set_default_dtype(torch.float32)
    weights = directed_weights().astype(np.float64)
    assert model.powers.dtype == torch.float64
    np.testing.assert_allclose(model.powers[:N], weights / weights.sum(1, keepdims=True), rtol=0, atol=1e-15)
    assert set(model.state_dict()) == {name for name, _ in model.named_parameters()}


class TestTheTruth:
    """Early in training the decoder reads the readings before its own, late and in evaluation its own forecasts."""

    def test_it_is_not_looked_at_in_evaluation(self):
        model, (inputs, timestamps, targets) = small_model().eval(), windows()
        torch.testing.assert_close(model(inputs, timestamps, targets * float("nan"), 1), model(inputs, timestamps))

    def test_it_is_not_looked_at_late_in_training(self):
        model, (inputs, timestamps, targets) = small_model().train(), windows()
        late = model(inputs, timestamps, targets * float("nan"), LATE)
        torch.testing.assert_close(late, model.eval()(inputs, timestamps))
        late.sum().backward()
        assert all(parameter.grad.isfinite().all() for parameter in model.parameters())

    def test_without_targets_training_forecasts_as_evaluation_does(self):
        model, (inputs, timestamps, _) = small_model().train(), windows()
        torch.testing.assert_close(model(inputs, timestamps), model.eval()(inputs, timestamps))

    @pytest.mark.parametrize("horizon", range(H))
    def test_a_forecast_sees_the_truth_before_it_and_none_after(self, horizon):
        model, (inputs, timestamps, targets) = small_model(cl_decay_steps=2000).train(), windows()
        changed = targets.clone()
        changed[:, horizon] += 1
        moved = (model(inputs, timestamps, changed, 1) - model(inputs, timestamps, targets, 1)).abs().amax((0, 2))
        assert moved[: horizon + 1].eq(0).all()
        assert moved[horizon + 1 :].gt(1e-6).all()

    def test_the_seed_fixes_when_it_is_read(self):
        model, (inputs, timestamps, targets) = small_model().train(), windows()
        forecasts = []
        for seed in (5, 5, 6, 7, 8):
            torch.manual_seed(seed)
            forecasts.append(model(inputs, timestamps, targets, 60))
        assert torch.equal(forecasts[0], forecasts[1])
        assert any(not torch.equal(forecasts[0], other) for other in forecasts[2:])


@pytest.mark.parametrize("name", NUM_SENSORS)
def test_it_has_the_published_number_of_parameters(name):
    published = RECIPES[name]["basicts"]
    config = ENTRY.build_config(num_features=NUM_SENSORS[name], **published.params)
    with torch.device("meta"):
        model = DCRNN(config, BlankPrior(config.num_features))
    assert sum(parameter.numel() for parameter in model.parameters()) == 372_353


@pytest.mark.parametrize("name", ["output_len", "hidden_size", "num_layers", "max_diffusion_step", "cl_decay_steps"])
@pytest.mark.parametrize("value", [0, 1.5])
def test_a_size_that_cannot_be_is_named(name, value):
    with pytest.raises(ValueError, match=f"{name} has to be a positive whole number, got {value}"):
        small_model(**{name: value})


def test_a_series_without_a_folder_is_refused():
    with pytest.raises(ValueError, match="data_dir"):
        DCRNN(DCRNNConfig(**SMALL))
