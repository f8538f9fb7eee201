"""PDFormer against an explicit model of the paper's formulas, and what it is told of its sensors."""

import math
from itertools import product

import numpy as np
import pytest
import torch

from baselines.PDFormer import ENTRY, PDFormer, PDFormerConfig
from baselines.PDFormer.config import RECIPES
from baselines.PDFormer.delay import DelayAwareKeys, Patterns, recent_readings
from baselines.PDFormer.drop_path import DropPath, linear_rates
from baselines.PDFormer.geographic_attention import geographic_attention
from baselines.PDFormer.neighbours import near_sensors, similar_sensors
from baselines.PDFormer.patterns import traffic_patterns
from baselines.PDFormer.semantic_attention import semantic_attention
from ealinformer.data.prior import ArrayPrior, BlankPrior, FolderPrior
from ealinformer.graphs.paths import hop_distances

SMALL = {
    "hidden_size": 8,
    "intermediate_size": 12,
    "skip_size": 10,
    "num_layers": 2,
    "geographic_heads": 2,
    "semantic_heads": 1,
    "temporal_heads": 1,
    "far_hops": 2,
    "num_similar": 2,
    "num_eigenvectors": 3,
    "num_patterns": 3,
    "pattern_days": 1,
    "num_time_in_day": 24,
    "drop_path": 0.0,
}


def line_graph(sensors):
    """Sensor i is linked with i + 1, one way."""
    return np.eye(sensors, k=1, dtype=np.float32)


def prior_of(sensors, *, adjacency=None, days=4, seed=0):
    """Hourly flow of days that differ by sensor, on a line unless told otherwise."""
    rng = np.random.default_rng(seed)
    step = np.arange(days * 24)
    shift = rng.uniform(0, 6, sensors)
    flow = 200 + 150 * np.sin(2 * np.pi * (step[:, None] + shift) / 24) + rng.normal(0, 10, (len(step), sensors))
    calendar = np.stack([step % 24 / 24, step // 24 % 7 / 7], axis=1)
    weights = line_graph(sensors) if adjacency is None else adjacency
    return ArrayPrior(sensors, weights, flow.astype(np.float32), calendar.astype(np.float32))


def build(sensors=5, *, seed=0, prior=None, input_len=4, output_len=3, **options):
    """A small model in float64 and evaluation mode, none of its parameters at its initial value."""
    sizes = {"num_features": sensors, "input_len": input_len, "output_len": output_len}
    torch.set_default_dtype(torch.float64)  # buffers too
    try:
        model = PDFormer(PDFormerConfig(**{**SMALL, **sizes, **options}), prior or prior_of(sensors)).eval()
    finally:
        torch.set_default_dtype(torch.float32)
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=g, dtype=torch.float64) / 2)
    return model


def windows(batch=2, *, input_len=4, sensors=5, steps_per_day=24):
    g = torch.Generator().manual_seed(1)
    step = 5 * torch.arange(batch)[:, None] + 20 + torch.arange(input_len)
    clock = torch.stack([step % steps_per_day / steps_per_day, step // steps_per_day / 7], dim=-1)
    return torch.randn(batch, input_len, sensors, generator=g, dtype=torch.float64), clock


def explicit_forecast(model, config, inputs, clock):
    """One window `[L, N]` -> `[H, N]`, head by head, sensor by sensor, in the paper's terms."""
    w = model.state_dict()
    L, N = inputs.shape
    D, S = config["hidden_size"], config["pattern_len"]
    heads = config["geographic_heads"], config["semantic_heads"], config["temporal_heads"]
    C = D // sum(heads)

    def linear(name, x):
        return w[f"{name}.weight"] @ x + w[f"{name}.bias"]

    def norm(name, x):
        centred = x - x.mean()
        return centred / (centred.square().mean() + 1e-6).sqrt() * w[f"{name}.weight"] + w[f"{name}.bias"]

    def gelu(x):
        return x * (1 + torch.erf(x / math.sqrt(2))) / 2

    def softmax(scores):
        raised = torch.stack(scores).exp()
        return raised / raised.sum()

    def attend(query, keys, values):
        weights = softmax([query @ key / math.sqrt(C) for key in keys])
        return sum(weight * value for weight, value in zip(weights, values, strict=True))

    x = {}
    for t, n in product(range(L), range(N)):
        wave = torch.zeros(D, dtype=torch.float64)
        for i in range(D):
            angle = t / 10_000 ** ((i - i % 2) / D)
            wave[i] = math.cos(angle) if i % 2 else math.sin(angle)
        minute, day = round(float(clock[t, 0]) * 1440), round(float(clock[t, 1]) * 7)
        x[t, n] = (
            linear("embedding.value", inputs[t, n][None])
            + wave
            + w["embedding.minute_in_day.weight"][minute]
            + w["embedding.day_in_week.weight"][day]
            + linear("embedding.place", model.embedding.eigenvectors[n])
        )
    recent = {
        (t, n): torch.stack([inputs[s, n] if s >= 0 else torch.tensor(0.0) for s in range(t - S + 1, t + 1)]).double()
        for t, n in x
    }
    skipped = {key: torch.zeros(config["skip_size"], dtype=torch.float64) for key in x}
    for b in range(config["num_layers"]):
        block = f"blocks.{b}"
        rows = {key: linear(f"{block}.attention.qkv_proj", norm(f"{block}.attention_norm", x[key])) for key in x}
        parts, start = [], 0
        for count in heads:  # q, k, v of each kind, after one another
            kind = []
            for _ in range(3):
                kind.append({key: row[start : start + count * C] for key, row in rows.items()})
                start += count * C
            parts.append(kind)
        (geo_q, geo_k, geo_v), (sem_q, sem_k, sem_v), (t_q, t_k, t_v) = parts

        memory = [linear("pattern_embedding", pattern) for pattern in model.patterns]
        m = [linear(f"{block}.attention.delay.k_proj", p) for p in memory]
        c = [linear(f"{block}.attention.delay.v_proj", p) for p in memory]
        for key in x:
            u = linear(f"{block}.attention.delay.q_proj", linear("pattern_embedding", recent[key]))
            geo_k[key] = geo_k[key] + attend(u, m, c)

        mixed = {}
        for t, n in x:
            near = [(t, j) for j in range(N) if model.near[n, j]]
            similar = [(t, int(j)) for j in model.similar[n]]
            own = [(s, n) for s in range(L)]
            found = []
            for q, k, v, seen, count in (
                (geo_q, geo_k, geo_v, near, heads[0]),
                (sem_q, sem_k, sem_v, similar, heads[1]),
                (t_q, t_k, t_v, own, heads[2]),
            ):
                for head in (slice(h * C, (h + 1) * C) for h in range(count)):
                    found.append(attend(q[t, n][head], [k[s][head] for s in seen], [v[s][head] for s in seen]))
            mixed[t, n] = torch.cat(found)
        for key in x:
            x[key] = x[key] + linear(f"{block}.attention.out_proj", mixed[key])
            hidden = gelu(linear(f"{block}.feed_forward.0", norm(f"{block}.feed_forward_norm", x[key])))
            x[key] = x[key] + linear(f"{block}.feed_forward.3", hidden)
            skipped[key] = skipped[key] + linear(f"output.skips.{b}", x[key])

    forecast = torch.zeros(config["output_len"], N, dtype=torch.float64)
    for h, n in product(range(config["output_len"]), range(N)):
        ahead = w["output.horizon.bias"][h] + sum(
            w["output.horizon.weight"][h, t] * skipped[t, n].clamp(min=0) for t in range(L)
        )
        forecast[h, n] = linear("output.reading", ahead.clamp(min=0))[0]
    return forecast


@pytest.mark.parametrize(
    ("sensors", "input_len", "output_len", "options"),
    [
        (5, 4, 3, {}),
        (4, 2, 5, {"pattern_len": 3, "far_hops": 3}),
        (6, 5, 1, {"pattern_len": 2, "num_patterns": 5, "num_similar": 4, "num_layers": 1}),
        (3, 1, 2, {"geographic_heads": 1, "semantic_heads": 2, "num_similar": 7}),
        (1, 3, 2, {}),
    ],
)
def test_the_forecast_is_that_of_the_explicit_model(sensors, input_len, output_len, options):
    model = build(sensors, input_len=input_len, output_len=output_len, **options)
    config = {**vars(PDFormerConfig()), **SMALL, "input_len": input_len, "output_len": output_len, **options}
    inputs, clock = windows(2, input_len=input_len, sensors=sensors)
    forecast = model(inputs, clock)
    for i in range(2):
        expected = explicit_forecast(model, config, inputs[i], clock[i])
        torch.testing.assert_close(forecast[i], expected, rtol=1e-10, atol=1e-10)


# Neighbours


def test_near_sensors_are_those_of_fewer_hops():
    ring = np.eye(9, k=1) + np.eye(9, k=-8)  # sensor i to i + 1, and the last one to the first, one way
    ring[8, 0] = 1
    for far in (1, 2, 3, 7):
        visible = near_sensors(hop_distances(ring), far)
        for i, j in product(range(9), range(9)):
            assert visible[i, j] == (min((i - j) % 9, (j - i) % 9) < far)


def test_without_a_way_a_sensor_is_not_near():
    parts = np.zeros((4, 4))
    parts[0, 1] = parts[2, 3] = 1
    assert near_sensors(hop_distances(parts), 100).tolist() == np.kron(np.eye(2), np.ones((2, 2))).astype(bool).tolist()
    assert (near_sensors(np.full((3, 3), np.inf), 7) == np.eye(3, dtype=bool)).all()


@pytest.mark.parametrize("count", [1, 2, 5, 11, 20])
def test_similar_sensors_are_the_nearest_ones_and_the_sensor_itself(count):
    distances = np.random.default_rng(0).uniform(1, 2, (11, 11))
    np.fill_diagonal(distances, 0)
    similar = similar_sensors(distances, count)
    for i in range(11):
        assert similar[i].tolist() == sorted(range(11), key=lambda j: distances[i, j])[:count]
        assert similar[i, 0] == i


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_a_sensor_is_similar_to_itself_among_equals_and_without_a_distance(value):
    assert similar_sensors(np.full((4, 4), value), 2).tolist() == [[0, 1], [1, 0], [2, 0], [3, 0]]


def test_attention_to_similar_sensors_is_that_under_a_mask():
    g = torch.Generator().manual_seed(0)
    qkv = torch.randn(2, 3, 9, 18, generator=g, dtype=torch.float64, requires_grad=True)
    similar = torch.rand(9, 9, generator=g).argsort(dim=1)[:, :4]
    mask = torch.zeros(9, 9, dtype=torch.bool).scatter_(1, similar, True)
    q, k, v = qkv.chunk(3, dim=-1)
    expected = geographic_attention(q, k, v, mask, n_heads=2)
    found = semantic_attention(q, qkv[..., 6:], similar, n_heads=2)
    torch.testing.assert_close(found, expected)
    weights = torch.randn(found.shape, generator=g, dtype=torch.float64)
    gradients = [torch.autograd.grad((x * weights).sum(), qkv, retain_graph=True)[0] for x in (found, expected)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("num_layers", [1, 2])
def test_a_block_carries_readings_as_far_as_its_heads_see(num_layers):
    model = build(7, num_layers=num_layers, num_similar=1)  # a line; of similar sensors, itself alone
    inputs, clock = windows(1, sensors=7)
    moved = inputs.clone()
    moved[:, :, 3] += 1
    changed = (model(moved, clock) - model(inputs, clock)).abs().amax(dim=(0, 1)) > 1e-9
    assert changed.tolist() == [abs(n - 3) <= num_layers for n in range(7)]


def test_without_edges_sensors_with_similar_days_are_seen():
    model = build(6, prior=prior_of(6, adjacency=np.zeros((6, 6), np.float32)), num_layers=1)
    assert (model.near == torch.eye(6, dtype=torch.bool)).all()
    assert model.embedding.eigenvectors.abs().max() == 0
    inputs, clock = windows(1, sensors=6)
    moved = inputs.clone()
    moved[:, :, 2] += 1
    changed = (model(moved, clock) - model(inputs, clock)).abs().amax(dim=(0, 1)) > 1e-9
    assert changed.tolist() == (model.similar == 2).any(dim=1).tolist()


# Delay-aware keys


def test_recent_readings_end_at_their_step_and_start_with_zeros():
    recent = recent_readings(torch.arange(1.0, 9.0).view(1, 4, 2), 3)
    assert recent[0, :, 0].tolist() == [[0, 0, 1], [0, 1, 3], [1, 3, 5], [3, 5, 7]]
    assert recent[0, :, 1].tolist() == [[0, 0, 2], [0, 2, 4], [2, 4, 6], [4, 6, 8]]


def test_keys_take_up_the_patterns_that_the_last_steps_resemble():
    delay = DelayAwareKeys(hidden_size=2, width=2, scale=0.5)
    with torch.no_grad():
        for linear, weight, bias in (
            (delay.q_proj, [[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0]),
            (delay.k_proj, [[2.0, 0.0], [0.0, 2.0]], [0.0, 0.0]),
            (delay.v_proj, [[0.0, 1.0], [1.0, 0.0]], [0.0, 10.0]),
        ):
            linear.weight.copy_(torch.tensor(weight))
            linear.bias.copy_(torch.tensor(bias))
    # Embedded, the last steps (a, b, c) are (a + 1, c) and the patterns are (1, 0) and (0, 1): with keys of 2 and the
    # scale 1/2 their scores are a + 1 and c; the values are (0, 1) and (1, 0), and 10 more in the second place.
    embedding = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    bias = torch.tensor([1.0, 0.0])
    recent = torch.tensor([[0.0, 9.0, 1.0], [math.log(3) - 1, 9.0, 0.0]]).view(1, 2, 1, 3)
    found = delay(Patterns(recent, torch.eye(2), embedding, bias))
    torch.testing.assert_close(found.view(2, 2), torch.tensor([[0.5, 10.5], [0.25, 10.75]]))


# Traffic patterns


def test_patterns_are_the_shapes_of_a_series_that_has_few():
    rise, fall = np.arange(1.0, 4.0), np.arange(9.0, 0.0, -3.0)
    readings = np.stack([rise, fall, [5.0, 5.0, 5.0], [4.0, 0.0, 2.0], [1.0, np.nan, 2.0]], axis=1)
    up = math.sqrt(1.5)
    expected = np.resize([[-up, 0, up], [up, 0, -up]], (4, 3))
    found = traffic_patterns(readings, 4, 3)  # neither the constant one nor those with gaps
    assert np.sort(found, axis=0) == pytest.approx(np.sort(expected, axis=0), abs=1e-5)


@pytest.mark.parametrize("readings", [np.full((50, 3), 7.0), np.zeros((50, 3)), np.full((2, 3), [[1.0], [2.0]])])
def test_a_series_without_shapes_has_flat_patterns(readings):
    assert (traffic_patterns(readings, 4, 3) == np.zeros((4, 3))).all()


def test_k_shape_finds_shapes_that_the_windows_have():
    readings = prior_of(8, days=20).readings()
    found = traffic_patterns(readings, 6, 5)
    assert found.shape == (6, 5)
    assert found.mean(axis=1) == pytest.approx(np.zeros(6), abs=1e-5)
    assert found.std(axis=1) == pytest.approx(np.ones(6), abs=1e-5)
    assert (found == traffic_patterns(readings, 6, 5)).all()
    windows = np.lib.stride_tricks.sliding_window_view(readings, 5, axis=0).reshape(-1, 5)
    shapes = (windows - windows.mean(axis=1, keepdims=True)) / windows.std(axis=1, keepdims=True)
    alike = (shapes @ found.T / 5).max(axis=1)  # correlation with the best pattern
    at_random = np.random.default_rng(0).normal(size=(6, 5))
    at_random = (at_random - at_random.mean(axis=1, keepdims=True)) / at_random.std(axis=1, keepdims=True)
    assert alike.mean() > 0.8
    assert alike.mean() > (shapes @ at_random.T / 5).max(axis=1).mean() + 0.1


def test_patterns_are_those_of_the_first_days():
    prior = prior_of(4, days=6)
    later = prior.series.copy()
    later[3 * 24 :] = later[3 * 24 :, ::-1] ** 2
    other = ArrayPrior(4, prior.weights, later, prior.calendar)
    assert (build(4, prior=prior, pattern_days=3).patterns == build(4, prior=other, pattern_days=3).patterns).all()
    assert (build(4, prior=prior, pattern_days=4).patterns != build(4, prior=other, pattern_days=4).patterns).any()


def test_what_takes_long_is_computed_once(tmp_path, monkeypatch):
    prior = prior_of(5)
    np.save(tmp_path / "train_data.npy", prior.series)
    np.save(tmp_path / "train_timestamps.npy", prior.calendar)
    first = build(prior=FolderPrior(tmp_path, 5, graph="none"))

    def refuse(*_):
        raise AssertionError("computed again")

    for name in ("dtw_distances", "traffic_patterns", "hop_distances", "laplacian_eigenvectors"):
        monkeypatch.setattr(f"baselines.PDFormer.sensors.{name}", refuse)
    again = build(prior=FolderPrior(tmp_path, 5, graph="none"))
    for (name, buffer), (_, kept) in zip(first.named_buffers(), again.named_buffers(), strict=True):
        assert torch.equal(buffer, kept), name
    with pytest.raises(AssertionError, match="computed again"):
        build(prior=FolderPrior(tmp_path, 5, graph="none"), num_patterns=5)


# Embedding


@pytest.mark.parametrize("minutes", [1, 5, 15, 60])
def test_the_time_of_day_table_is_read_by_the_minute(minutes):
    model = build(3, input_len=12)
    inputs, _ = windows(1, input_len=12, sensors=3)
    step = 40 + torch.arange(12)
    per_day = 1440 // minutes
    clock = torch.stack([(step % per_day).float() / per_day, step // per_day / 7], dim=-1)[None]
    model(inputs, clock).sum().backward()
    looked_up = model.embedding.minute_in_day.weight.grad.abs().sum(dim=1).nonzero()[:, 0]
    assert looked_up.tolist() == sorted({int(k) * minutes % 1440 for k in step})


def test_a_window_may_be_longer_than_a_hundred_steps():
    model = build(2, input_len=150, output_len=2)
    assert model(*windows(1, input_len=150, sensors=2)).isfinite().all()
    assert len(model.embedding.positions.unique(dim=0)) == 150


def test_signs_of_eigenvectors_are_flipped_in_training_only():
    model = build(6, num_eigenvectors=2, far_hops=7)
    inputs, clock = windows(1, sensors=6)
    original = model.embedding.eigenvectors.clone()
    forecasts = []
    for signs in product((1.0, -1.0), repeat=2):
        model.embedding.eigenvectors.copy_(original * torch.tensor(signs))
        forecasts.append(model(inputs, clock))
    model.embedding.eigenvectors.copy_(original)
    assert all((a - b).abs().max() > 1e-6 for i, a in enumerate(forecasts) for b in forecasts[:i])
    assert torch.equal(model(inputs, clock), forecasts[0])

    model.train()
    torch.manual_seed(0)
    drawn = [model(inputs, clock) for _ in range(40)]
    matches = [[torch.allclose(a, b, atol=1e-12) for b in forecasts].index(True) for a in drawn]
    assert set(matches) == {0, 1, 2, 3}
    torch.manual_seed(0)
    assert all(torch.equal(model(inputs, clock), a) for a in drawn)


# Stochastic depth


def test_a_branch_is_left_out_of_whole_windows_and_its_mean_stays():
    branch = torch.rand(4000, 3, 2, 5) + 1
    torch.manual_seed(0)
    dropped = DropPath(0.3)(branch)
    kept = dropped.flatten(1).ne(0).all(dim=1)
    assert (kept | dropped.flatten(1).eq(0).all(dim=1)).all()
    torch.testing.assert_close(dropped[kept], branch[kept] / 0.7)
    assert kept.double().mean().item() == pytest.approx(0.7, abs=0.03)
    for still in (DropPath(0.3).eval(), DropPath(0.0)):
        assert still(branch) is branch


def test_later_blocks_are_left_out_more_often():
    assert linear_rates(0.3, 6) == pytest.approx([0, 0.06, 0.12, 0.18, 0.24, 0.3])
    assert linear_rates(0.3, 1) == [0]
    model = build(drop_path=0.4, num_layers=3)
    assert [block.drop_path.rate for block in model.blocks] == pytest.approx([0, 0.2, 0.4])


def test_stochastic_depth_acts_on_windows_of_a_batch_in_training():
    model = build(drop_path=0.5, num_layers=2).train()
    inputs, clock = windows(1)
    torch.manual_seed(0)
    forecast = model(inputs.expand(64, -1, -1), clock.expand(64, -1, -1))
    # Attention and feed-forward of the last block are left out or not: four kinds of windows.
    assert len(np.unique(forecast.detach().numpy().round(9).reshape(64, -1), axis=0)) == 4


# Sizes and recipes


@pytest.mark.parametrize(
    ("series", "sensors"), [("PEMS-BAY", 325), ("PEMS03", 358), ("PEMS04", 307), ("PEMS07", 883), ("PEMS08", 170)]
)
def test_parameters_are_as_many_as_published(series, sensors):
    recipe = next(iter(RECIPES.get(series, RECIPES["default"]).values()))
    with torch.device("meta"):
        model = PDFormer(ENTRY.build_config(num_features=sensors, **recipe.params), BlankPrior(sensors))
    assert sum(p.numel() for p in model.parameters()) == 531_165
    assert sum(t.numel() for t in model.state_dict().values()) == 531_165


def test_the_model_is_built_from_a_blank_prior():
    model = build(3, prior=BlankPrior(3))
    assert model(*windows(2, sensors=3)).isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_features": 0}, "num_features has to be a positive whole number, got 0"),
        ({"num_minute_in_day": 0}, "num_minute_in_day has to be"),
        ({"far_hops": 0}, "far_hops has to be"),
        ({"num_similar": 2.5}, "num_similar has to be a positive whole number, got 2.5"),
        ({"pattern_len": 0}, "pattern_len has to be"),
        ({"hidden_size": 60}, "hidden_size has to be a multiple of the 8 heads of all kinds, got 60"),
        ({"drop_path": 1.0}, "drop_path has to be in"),
        ({"dropout": -0.1}, "dropout has to be in"),
        ({"data_dir": ""}, "data_dir"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        PDFormer(PDFormerConfig(**{"num_features": 3, **options}))


@pytest.mark.parametrize(("series", "steps_per_epoch"), [("PEMS04", 637), ("PEMS07", 1058), ("PEMS08", 669)])
def test_the_authors_recipe(series, steps_per_epoch):
    recipe = RECIPES[series]["authors"].recipe
    assert (recipe.optimizer, recipe.lr, recipe.weight_decay, recipe.loss) == ("adamw", 1e-3, 0.05, "huber_2")
    assert (recipe.schedule, recipe.min_lr, recipe.warmup_epochs, recipe.warmup_lr) == ("cosine", 1e-4, 5, 1e-6)
    assert (recipe.batch_size, recipe.num_epochs, recipe.patience, recipe.clip_grad_norm) == (16, 200, 50, 5)
    assert recipe.micro_batch_size == (8 if series == "PEMS07" else None)
    full = {"PEMS04": 22.0, "PEMS07": 22.0, "PEMS08": 45.6}[series]  # epochs until all 12 horizons are seen
    assert recipe.curriculum.steps * 11 / steps_per_epoch == pytest.approx(full, abs=0.05)
    assert RECIPES[series]["authors"].params == {"pattern_days": 21 if series == "PEMS08" else 14}


def test_every_recipe_fits_the_config():
    for recipes in RECIPES.values():
        for published in recipes.values():
            ENTRY.build_config(num_features=3, **published.params)
            type(published.recipe).model_validate(published.recipe.model_dump())  # model_copy checks nothing
