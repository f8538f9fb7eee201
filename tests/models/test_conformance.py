"""What every model of the catalogues has to do. A model that is added there is tested here without a new line."""

import importlib.util
import inspect
from dataclasses import fields
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import baselines
import ealinformer.models
from ealinformer.attention import ATTENTIONS
from ealinformer.data.prior import ArrayPrior, BlankPrior

CATALOGUE = {**ealinformer.models.MODELS, **baselines.MODELS}

# Options to test besides a model's defaults.
VARIANTS = {
    "ELinFormer": [
        {"entropy": "gaussian"},
        {"layers": "plain"},
        {"recompute": True},
        *({"attention": name} for name in ATTENTIONS if name not in ("entropy_equal", "sdpa")),
    ],
    "STAEformer": [{"attention": "softmax"}, {"layers": "plain"}],
}
# What sizes/NAME.py may say of a model: a config that runs in milliseconds, parameters without a gradient (patterns),
# windows that its architecture takes, how it is overfitted, and whether permuted sensors give a permuted forecast.
DEFAULTS = {
    "SMALL": {},
    "WITHOUT_GRADIENT": (),
    "FITS": lambda input_len, output_len, num_features: True,
    "LR": 1e-2,
    "STEPS": 150,
    "DETERMINISTIC_EVAL": True,
    "EQUIVARIANT": True,
}
# Widths that run quickly, for models of the shared backbone; no width is N, the number of sensors used below.
SMALL = {
    "input_hidden_size": 4,
    "tid_hidden_size": 4,
    "diw_hidden_size": 4,
    "adaptive_hidden_size": 8,
    "intermediate_size": 16,
    "n_heads": 2,
    "num_layers": 2,
    "dropout": 0.0,
}
L, H, N = 6, 3, 23  # heads have 10 channels, all together 20

NUM_SENSORS = {"PEMS-BAY": 325, "PEMS03": 358, "PEMS04": 307, "PEMS07": 883, "PEMS08": 170}
_STAEFORMER = {
    "PEMS-BAY": 1_372_260,
    "PEMS03": 1_403_940,
    "PEMS04": 1_354_980,
    "PEMS07": 1_907_940,
    "PEMS08": 1_223_460,
}
# Entropy-equal attention has no parameters of its own, so ELinFormer has STAEformer's.
PUBLISHED_PARAMETERS = {"STAEformer": _STAEFORMER, "ELinFormer": _STAEFORMER}

# Parameters whose gradient is 0 by construction. A bias of the keys moves all keys alike, and neither softmax nor
# entropy-equal attention sees a common shift; features and learned mixtures of keys do. Without attention there is no
# use for queries and keys.
WITHOUT_GRADIENT = ("*k_proj.bias",)
WITHOUT_GRADIENT_BY_ATTENTION = {
    "elu": (),
    "performer": (),
    "linformer": (),
    "identity": ("*q_proj.weight", "*q_proj.bias", "*k_proj.weight", "*k_proj.bias"),
}


def sizes_of(name):
    """What is said in sizes/NAME.py, else the defaults."""
    path = Path(__file__).parent / "sizes" / f"{name}.py"
    if not path.is_file():
        return SimpleNamespace(**{**DEFAULTS, "SMALL": SMALL, "WITHOUT_GRADIENT": WITHOUT_GRADIENT})
    spec = importlib.util.spec_from_file_location(f"sizes_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    unknown = {key for key in vars(module) if key.isupper()} - DEFAULTS.keys()
    assert not unknown, f"{path}: {unknown}"
    return SimpleNamespace(**{key: getattr(module, key, default) for key, default in DEFAULTS.items()})


SIZES = {name: sizes_of(name) for name in CATALOGUE}

every_model = pytest.mark.parametrize("name", list(CATALOGUE))
every_variant = pytest.mark.parametrize(
    ("name", "options"),
    [
        pytest.param(name, options, id="-".join([name, *map(str, options.values())]))
        for name in CATALOGUE
        for options in ({}, *VARIANTS.get(name, []))
    ],
)


def prior_of(num_features, *, steps_per_day=24, order=None):
    """A ring of sensors with some roads across, and a training part of a daily wave with some readings missing."""
    rng = np.random.default_rng(3)
    adjacency = (rng.random((num_features, num_features)) < 0.15).astype(np.float32)
    adjacency += np.roll(np.eye(num_features, dtype=np.float32), 1, axis=1)
    adjacency = np.minimum(adjacency, 1) * rng.uniform(0.2, 1, adjacency.shape).astype(np.float32)
    np.fill_diagonal(adjacency, 0)
    step = np.arange(8 * steps_per_day)
    phase = 2 * np.pi * step[:, None] / steps_per_day + np.linspace(0, 5, num_features)
    series = (200 + 100 * np.sin(phase) + rng.normal(scale=5, size=phase.shape)).astype(np.float32)
    series[rng.random(series.shape) < 0.02] = 0
    calendar = np.stack([step % steps_per_day / steps_per_day, step // steps_per_day % 7 / 7], axis=1)
    if order is not None:
        adjacency, series = adjacency[np.ix_(order, order)], series[:, order]
    return ArrayPrior(num_features, adjacency, series, calendar.astype(np.float32))


def build(
    name, options=None, *, seed=0, steps_per_day=24, input_len=L, output_len=H, num_features=N, order=None, blank=False
):
    """A small model in evaluation mode; `order` permutes what it knows of its sensors."""
    entry = CATALOGUE[name]
    known = {field.name for field in fields(entry.config)}
    small = {
        key: value for key, value in {**SIZES[name].SMALL, "num_time_in_day": steps_per_day}.items() if key in known
    }
    sizes = {"input_len": input_len, "output_len": output_len, "num_features": num_features}
    torch.manual_seed(seed)
    config = entry.build_config(**{**small, **(options or {}), **sizes})
    if not entry.takes_prior:
        return entry.model(config).eval()
    known = (
        BlankPrior(num_features, num_steps=100)
        if blank
        else prior_of(num_features, steps_per_day=steps_per_day, order=order)
    )
    return entry.model(config, known).eval()


def trained(model, inputs, timestamps, targets):
    """What a model returns in training, late enough that the targets teach nothing any more: a dictionary."""
    taught = {"targets": targets, "step": 10**6, "epoch": 10**3}
    taken = inspect.signature(model.forward).parameters
    found = model.train()(inputs, timestamps, **{key: value for key, value in taught.items() if key in taken})
    return found if isinstance(found, dict) else {"prediction": found}


def skip_unless_it_fits(name, input_len, output_len, num_features):
    if not SIZES[name].FITS(input_len, output_len, num_features):
        pytest.skip(f"{name} takes no windows of {input_len} and {output_len} steps at {num_features} sensors")


def windows(batch, *, input_len=L, num_features=N, steps_per_day=24, dtype=torch.float32):
    """Random z-scored readings `[B, L, N]` and timestamps `[B, L, 2]` of windows spread evenly over a week."""
    g = torch.Generator().manual_seed(1)
    inputs = torch.randn(batch, input_len, num_features, generator=g, dtype=dtype)
    week = 7 * steps_per_day
    step = (torch.arange(batch)[:, None] * (week // batch) + torch.arange(input_len)) % week
    clock = (step % steps_per_day).to(dtype) / steps_per_day
    day = (step // steps_per_day).to(dtype) / 7
    return inputs, torch.stack([clock, day], dim=-1)


@every_variant
@pytest.mark.parametrize(
    ("batch", "input_len", "output_len", "num_features", "steps_per_day"),
    [
        (2, 12, 12, 11, 288),
        (1, 12, 12, 3, 288),
        (3, 5, 7, 2, 96),
        (2, 7, 1, 40, 24),
        (2, 1, 12, 5, 288),
        (1, 12, 4, 1, 24),
    ],
)
def test_output_is_batch_by_horizon_by_sensors(
    name, options, batch, input_len, output_len, num_features, steps_per_day
):
    skip_unless_it_fits(name, input_len, output_len, num_features)
    sizes = {"input_len": input_len, "num_features": num_features, "steps_per_day": steps_per_day}
    model = build(name, options, output_len=output_len, **sizes)
    prediction = model(*windows(batch, **sizes))
    assert prediction.shape == (batch, output_len, num_features)
    assert prediction.dtype == torch.float32
    assert prediction.isfinite().all()


@every_variant
def test_gradients_reach_every_parameter(name, options):
    model = build(name, options, input_len=12, output_len=12).double()
    # 14 windows of 12 hours cover the week, so that every row of the time tables is looked up.
    inputs, timestamps = windows(14, input_len=12, dtype=torch.float64)
    found = trained(model, inputs, timestamps, torch.randn_like(inputs))
    loss = (found["prediction"] * torch.randn_like(found["prediction"])).sum() + found.get("auxiliary_loss", 0)
    if "auxiliary_prediction" in found:
        loss = loss + (found["auxiliary_prediction"] - found["auxiliary_targets"]).abs().sum()
    loss.backward()
    without_gradient = SIZES[name].WITHOUT_GRADIENT
    if options.get("attention") in WITHOUT_GRADIENT_BY_ATTENTION:
        without_gradient = WITHOUT_GRADIENT_BY_ATTENTION[options["attention"]]
    unused = set(without_gradient)
    for parameter_name, parameter in model.named_parameters():
        listed = {pattern for pattern in without_gradient if fnmatch(parameter_name, pattern)}
        unused -= listed
        if parameter.grad is None:
            assert listed, f"{parameter_name} takes no part in the forecast"
            continue
        assert parameter.grad.isfinite().all(), f"{parameter_name} has a gradient that is not finite"
        largest = parameter.grad.abs().max()
        if listed:
            assert largest < 1e-12, f"{parameter_name} is listed as a parameter without gradient"
        else:
            assert largest > 1e-9, f"the gradient of {parameter_name} is zero"
    assert not unused, f"no parameter is called {unused}"
    for module_name, module in model.named_modules():
        if isinstance(module, torch.nn.Embedding) and module.num_embeddings in (7, 24):
            assert module.weight.grad.abs().amax(-1).gt(0).all(), f"a row of {module_name} has no gradient"


@every_variant
def test_the_forecast_of_a_window_does_not_depend_on_the_others_of_its_batch(name, options):
    model = build(name, options).double()
    if not SIZES[name].DETERMINISTIC_EVAL:
        pytest.skip(f"{name} draws numbers when it forecasts, too")
    inputs, timestamps = windows(5, dtype=torch.float64)
    together = model(inputs, timestamps)
    for i in range(5):
        torch.testing.assert_close(model(inputs[i : i + 1], timestamps[i : i + 1])[0], together[i])
    poisoned = inputs.clone()
    poisoned[[0, 1, 3, 4]] = float("nan")
    torch.testing.assert_close(model(poisoned, timestamps)[2], together[2])


@every_variant
@pytest.mark.parametrize("value", [0.0, 1.0, -3.0, 1e4, -1e4, "random 1e4"])
def test_outputs_and_gradients_are_finite_on_extreme_inputs(name, options, value):
    model = build(name, options)
    inputs, timestamps = windows(4)
    inputs = inputs * 1e4 if value == "random 1e4" else torch.full_like(inputs, value)
    prediction = model(inputs, timestamps)
    assert prediction.isfinite().all()
    prediction.square().mean().backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)


@every_variant
def test_a_seed_fixes_the_weights_and_the_dropout(name, options):
    def run(seed):
        model = build(name, options, seed=seed).train()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.3
        inputs, timestamps = windows(3)
        return trained(model, inputs, timestamps, torch.ones(3, H, N))["prediction"], model.state_dict()

    (first, weights), (again, same_weights), (other, _) = run(5), run(5), run(6)
    assert all(torch.equal(weights[key], same_weights[key]) for key in weights)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@every_variant
def test_dropout_acts_in_training_only(name, options):
    if "dropout" not in {field.name for field in fields(CATALOGUE[name].config)}:
        pytest.skip(f"{name} has no dropout")
    without = build(name, options)
    model = build(name, {**options, "dropout": 0.5})
    (inputs, timestamps), targets = (batch := windows(3)), torch.ones(3, H, N)
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    first, second = (trained(model, inputs, timestamps, targets)["prediction"] for _ in range(2))
    assert not torch.equal(first, second)
    model.load_state_dict(weights)  # without the running statistics of these two
    model.eval()
    assert torch.equal(model(*batch), model(*batch))
    assert torch.equal(model(*batch), without(*batch))


@every_model
def test_compiled_it_is_one_graph_for_all_steps_of_training_and_follows_the_plain_one(name):
    plain, model, graphs = build(name), build(name), []
    # Whatever breaks a graph is an error; the graph that was found runs as it is.
    model.compile(backend=lambda graph, _: graphs.append(graph) or graph, fullgraph=True, dynamic=False)
    inputs, timestamps = windows(2)
    targets = torch.randn(2, H, N, generator=torch.Generator().manual_seed(5))
    taken = inspect.signature(plain.forward).parameters
    for step in (1, 2, 50):
        taught = {"targets": targets, "step": torch.tensor(step)}
        taught = {key: value for key, value in taught.items() if key in taken}
        found = []
        for each in (plain, model):
            torch.manual_seed(step)
            found.append(each.train()(inputs, timestamps, **taught))
        torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)
    assert len(graphs) == 1
    with torch.no_grad():
        torch.testing.assert_close(
            model.eval()(inputs, timestamps), plain.eval()(inputs, timestamps), rtol=1e-4, atol=1e-5
        )
    assert len(graphs) == 2


@every_variant
def test_saved_weights_give_the_same_forecast_in_a_new_model(name, options, tmp_path):
    model = build(name, options, seed=0)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    other = build(name, options, seed=1)
    batch = windows(3)
    assert not torch.equal(model(*batch), other(*batch))
    other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    assert torch.equal(model(*batch), other(*batch))


# The others' counts are in tests/baselines/, with what each of them has to know of its sensors.
@pytest.mark.parametrize("name", list(PUBLISHED_PARAMETERS))
@pytest.mark.parametrize("dataset", list(NUM_SENSORS))
def test_parameter_count_is_the_published_one(name, dataset):
    entry = CATALOGUE[name]
    with torch.device("meta"):
        model = entry.model(entry.build_config(num_features=NUM_SENSORS[dataset]))
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == PUBLISHED_PARAMETERS[name][dataset]
    assert sum(t.numel() for t in model.state_dict().values()) == PUBLISHED_PARAMETERS[name][dataset]


@every_variant
def test_overfits_32_windows(name, options):
    steps_per_day, sensors, length = 24, 5, 12
    step = torch.arange(32 + 2 * length)
    offset = torch.linspace(-1, 1, sensors)
    series = torch.sin(2 * torch.pi * step[:, None] / steps_per_day + 2 * offset) + offset
    starts = torch.arange(32)[:, None]
    past = starts + torch.arange(length)
    timestamps = torch.stack([past % steps_per_day / steps_per_day, past // steps_per_day % 7 / 7], dim=-1)
    inputs, targets = series[past], series[past + length]

    model = build(name, options, input_len=length, output_len=length, num_features=sensors)
    optimizer = torch.optim.Adam(model.parameters(), lr=SIZES[name].LR)
    losses = []
    while not losses or (losses[-1] > 0.1 * losses[0] and len(losses) < SIZES[name].STEPS):
        loss = (trained(model, inputs, timestamps, targets)["prediction"] - targets).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] <= 0.1 * losses[0]


@every_variant
@pytest.mark.parametrize(("input_len", "num_features"), [(L, N + 1), (L, N - 1), (L + 1, N), (L - 1, N), (N, L)])
def test_inputs_of_another_size_are_refused_by_both_shapes(name, options, input_len, num_features):
    model = build(name, options)
    inputs, timestamps = windows(2, input_len=input_len, num_features=num_features)
    with pytest.raises(ValueError, match=rf"{L}, {N}\].*\(2, {input_len}, {num_features}\)"):
        model(inputs, timestamps)


@every_variant
def test_permuting_the_sensors_permutes_the_forecast(name, options):
    if not SIZES[name].EQUIVARIANT:
        pytest.skip(f"{name} tells its sensors apart by more than weights and graph")
    model = build(name, options).double()
    inputs, timestamps = windows(3, dtype=torch.float64)
    expected = model(inputs, timestamps)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(2))
    other = build(name, options, order=order.numpy()).double()
    for key, tensor in model.named_parameters():
        # What belongs to a sensor has an axis of N entries; no other size of these models is N.
        for axis in (axis for axis, size in enumerate(tensor.shape) if size == N):
            tensor = tensor.index_select(axis, order)
        other.get_parameter(key).data.copy_(tensor)
    torch.testing.assert_close(other(inputs[..., order], timestamps), expected[..., order])
    assert (expected[..., order] - expected).abs().max() > 1e-3


@every_model
def test_a_model_is_built_of_a_blank_prior_and_without_memory(name):
    with torch.device("meta"):
        model = build(name, blank=True)
    assert all(parameter.is_meta for parameter in model.parameters())
    counted = sum(parameter.numel() for parameter in build(name, blank=True).parameters())
    assert sum(parameter.numel() for parameter in model.parameters()) == counted
