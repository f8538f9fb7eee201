"""STWave's parts against slow, explicit versions; the whole against what the paper and the reference say of it."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from baselines.STWave import ENTRY, STWave, STWaveConfig
from baselines.STWave.calendar import CalendarEmbedding
from baselines.STWave.fusion import AdaptiveFusion
from baselines.STWave.graphs import alike_days, eigenpairs, nearest_sensors
from baselines.STWave.spatial import SampledAttention
from baselines.STWave.temporal import CausalAttention, CausalConvolution
from baselines.STWave.wavelets import LowPass, low_pass_matrix
from ealinformer.data.prior import ArrayPrior, BlankPrior

pywt = pytest.importorskip("pywt")

L, H, N, D = 12, 12, 11, 8
SMALL = {"num_features": N, "hidden_size": D, "num_time_in_day": 24, "wave_type": "sym2", "wave_levels": 1}
AUTHORS = {"n_heads": 2, "query_score": "neighbours", "spatial_norm_affine": True}
FORMS = [{}, {"log_samples": 2}, {"n_heads": 2}, {"query_score": "neighbours"}, AUTHORS]


@pytest.fixture(autouse=True)
def _float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def plain_distances(monkeypatch):
    """Distances without warping: compiling that takes half a minute, and tests/graphs has its tests."""
    monkeypatch.setattr(
        "baselines.STWave.graphs.dtw_distances", lambda days: np.abs(days[:, None] - days[None]).sum(axis=-1)
    )


def random_graph(num_sensors=N, seed=0):
    """A ring with weights and some one-way roads across, no two of one length."""
    rng = np.random.default_rng(seed)
    edges = (rng.random((num_sensors, num_sensors)) < 0.1) | np.roll(np.eye(num_sensors, dtype=bool), 1, axis=1)
    weights = edges * rng.uniform(0.2, 1, edges.shape)
    np.fill_diagonal(weights, 0)
    return weights


def build(*, seed=0, adjacency=None, **changes):
    config = STWaveConfig(**{**SMALL, **changes})
    graph = random_graph(config.num_features) if adjacency is None else adjacency
    torch.manual_seed(seed)
    return STWave(config, ArrayPrior(config.num_features, graph))


def part(module, *arguments, seed=0, **changes):
    """A part of the model, with parameters that are all random."""
    torch.manual_seed(seed)
    built = module(STWaveConfig(**{**SMALL, **changes}), *arguments)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return built


def normal(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def windows(batch=3, num_sensors=N, first_step=20):
    """Inputs, their calendar, targets and their calendar; the first window runs over midnight."""
    step = first_step + 41 * torch.arange(batch)[:, None] + torch.arange(L + H)
    calendar = torch.stack([step % 24 / 24, step // 24 % 7 / 7], dim=-1)
    series = normal(batch, L + H, num_sensors)
    return series[:, :L], calendar[:, :L], series[:, L:], calendar[:, L:]


class TestWaveletSplit:
    @pytest.mark.parametrize("wave", ["db1", "sym2", "coif1", "db4"])
    @pytest.mark.parametrize("levels", [1, 2])
    @pytest.mark.parametrize("length", [12, 24, 11, 7, 2, 1])
    @pytest.mark.filterwarnings("ignore:Level value of:UserWarning")
    def test_a_product_with_the_matrix_is_the_transform_of_pywavelets(self, wave, levels, length):
        series = normal(2, length, 3).numpy()
        approximation, *details = pywt.wavedec(series, wave, level=levels, axis=1)
        slow = pywt.waverec([approximation, *(0 * d for d in details)], wave, axis=1)[:, :length]
        fast = pywt.waverec([0 * approximation, *details], wave, axis=1)[:, :length]
        config = STWaveConfig(**{**SMALL, "wave_type": wave, "wave_levels": levels})
        got = LowPass(length, config)(torch.as_tensor(series)).numpy()
        np.testing.assert_allclose(got, slow, atol=1e-12)
        np.testing.assert_allclose(series - got, fast, atol=1e-12)

    def test_haar_takes_the_mean_of_pairs(self):
        expected = np.kron(np.eye(6), np.full((2, 2), 0.5))
        np.testing.assert_allclose(low_pass_matrix(12, "db1", 1), expected, atol=1e-12)

    @pytest.mark.parametrize(("wave", "levels"), [("coif1", 2), ("sym2", 1), ("db1", 1)])
    def test_the_split_of_z_scores_is_that_of_readings(self, wave, levels):
        readings = normal(12, 5).numpy() * 90 + 200
        matrix = low_pass_matrix(12, wave, levels)
        np.testing.assert_allclose(matrix @ ((readings - 128) / 91), (matrix @ readings - 128) / 91, atol=1e-9)
        assert np.abs(matrix @ readings - readings).max() > 10


class TestGraphs:
    @pytest.mark.parametrize("count", [1, 4, N, N + 3])
    def test_eigenpairs_are_the_largest_of_the_laplacian_with_loops(self, count):
        graph = random_graph()
        linked = np.maximum(graph, graph.T) + np.eye(N)
        degrees = linked.sum(axis=1)
        laplacian = np.eye(N) - linked / np.sqrt(np.outer(degrees, degrees))
        expected = sorted(np.linalg.eigvals(laplacian).real, reverse=True)
        pairs = eigenpairs(graph, count)
        values, vectors = pairs[0], pairs[1:]
        assert pairs.shape == (1 + N, count)
        found = min(count, N)
        np.testing.assert_allclose(values[:found], expected[:found], atol=1e-12)
        np.testing.assert_allclose(laplacian @ vectors, vectors * values, atol=1e-12)
        np.testing.assert_allclose(vectors[:, :found].T @ vectors[:, :found], np.eye(found), atol=1e-12)
        assert not pairs[:, found:].any()

    def test_eigenvectors_go_with_the_sensors_sign_included(self):
        graph, order = random_graph(), np.random.default_rng(1).permutation(N)
        np.testing.assert_allclose(eigenpairs(graph[np.ix_(order, order)], 6)[1:], eigenpairs(graph, 6)[1:][order])

    def test_the_sign_of_a_vector_whose_largest_entries_are_equal_is_that_of_the_first(self):
        line = np.diag(np.ones(9), 1)  # symmetric about its middle, so every second vector changes sign there
        vectors = eigenpairs(line, 10)[1:].T
        equal = [np.flatnonzero(np.abs(v) > np.abs(v).max() - 1e-9) for v in vectors]
        assert all(len(entries) > 1 for entries in equal)
        assert sum(v[entries].min() < 0 for v, entries in zip(vectors, equal, strict=True)) == 5
        assert all(v[entries[0]] > 0 for v, entries in zip(vectors, equal, strict=True))

    def test_neighbours_are_the_nearest_by_shortest_path(self):
        graph = random_graph(seed=4)
        both = np.maximum(graph, graph.T)
        length = np.where(both > 0, 1 / np.where(both > 0, both, 1), np.inf)
        np.fill_diagonal(length, 0)
        for via in range(N):
            length = np.minimum(length, length[:, via, None] + length[None, via])
        found = nearest_sensors(graph, 4)
        assert found.shape == (N, 5)
        for sensor in range(N):
            assert list(found[sensor]) == sorted(range(N), key=lambda other, s=sensor: length[s, other])[:5]

    def test_a_sensor_stands_in_for_those_it_cannot_reach(self):
        graph = np.zeros((5, 5))
        graph[0, 1] = graph[2, 1] = 1
        expected = [[0, 1, 2], [1, 0, 2], [2, 1, 0], [3, 3, 3], [4, 4, 4]]
        assert nearest_sensors(graph, 2).tolist() == expected

    def test_the_graph_of_alike_days_links_sensors_of_a_kind(self, plain_distances):
        hours = np.arange(24 * 5)
        shapes = np.stack([np.sin(2 * np.pi * hours / 24), 0.5 * np.cos(4 * np.pi * hours / 24)], axis=1)
        series = 100 + 50 * np.repeat(shapes, 4, axis=1) + np.random.default_rng(0).normal(size=(120, 8))
        calendar = np.stack([hours % 24 / 24, hours // 24 / 7], axis=1)
        graph = alike_days(ArrayPrior(8, series=series, calendar=calendar), 24)
        assert graph.sum() == 8 * 3  # log2 8 = 3 others each
        assert not graph[:4, 4:].any()
        np.testing.assert_array_equal(graph, graph.T)

    @pytest.mark.parametrize(("num_sensors", "edges"), [(1, 0), (2, 2), (5, 12), (11, 38)])
    def test_it_has_n_log_n_edges(self, num_sensors, edges, plain_distances):
        series = np.random.default_rng(0).normal(100, 20, size=(48, num_sensors))
        calendar = np.stack([np.arange(48) % 24 / 24, np.arange(48) // 24 / 7], axis=1)
        assert alike_days(ArrayPrior(num_sensors, series=series, calendar=calendar), 24).sum() == edges


def slow_sampled_attention(layer, x, near):
    """One head, query and sensor after the other, with keys and values of all sensors."""
    N, D = x.shape[2:]
    C = D // layer.n_heads
    outputs = []
    for window in x.flatten(0, 1):
        q, k, v = (window @ p.weight.T + p.bias for p in (layer.q_proj, layer.k_proj, layer.v_proj))
        heads = []
        for channels in torch.arange(D).split(C):
            queries, keys, values = q[:, channels], k[:, channels], v[:, channels]
            scores = []
            for sensor in range(N):
                if layer.by_feature:
                    products = queries[sensor] * keys[near[sensor]].mean(dim=0)
                else:
                    products = keys[near[sensor]] @ queries[sensor]
                scores.append((products @ layer.score.weight[0] + layer.score.bias).item())
            chosen = sorted(range(N), key=lambda sensor, s=scores: -s[sensor])[: layer.num_queries]
            weights = {asked: torch.softmax(keys @ queries[asked] / math.sqrt(C), dim=0) for asked in chosen}
            rows = []
            for sensor in range(N):
                best = sensor if sensor in chosen else max(chosen, key=lambda a, s=sensor, w=weights: w[a][s].item())
                rows.append(weights[best] @ values)
            heads.append(torch.stack(rows))
        attended = torch.cat(heads, dim=-1) @ layer.out_proj.weight.T + layer.out_proj.bias
        normed = F.layer_norm(attended, (D,), layer.norm.weight, layer.norm.bias)
        ff = layer.feed_forward
        hidden = F.relu(normed @ ff.hidden.weight.T + ff.hidden.bias)
        outputs.append(F.layer_norm(normed + hidden @ ff.out.weight.T + ff.out.bias, (D,)))
    return torch.stack(outputs).view(x.shape)


class TestSampledAttention:
    @pytest.mark.parametrize("changes", FORMS, ids=str)
    def test_it_is_attention_of_the_chosen_queries_copied_to_the_others(self, changes):
        layer = part(SampledAttention, **changes)
        count = 6 if "log_samples" in changes else 3
        assert layer.num_queries == count
        near = torch.as_tensor(nearest_sensors(random_graph(), count))
        x, sought = normal(2, 3, N, D).requires_grad_(), normal(2, 3, N, D, seed=2)
        results = []
        for function in (layer, lambda *given: slow_sampled_attention(layer, *given)):
            layer.zero_grad()
            x.grad = None
            out = function(x, near)
            (out * sought).sum().backward()
            gradients = {name: p.grad for name, p in layer.named_parameters() if p.grad is not None}
            results.append((out.detach(), x.grad, gradients))
        (out, x_grad, gradients), (expected, expected_x_grad, expected_gradients) = results
        torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(x_grad, expected_x_grad, rtol=1e-9, atol=1e-10)
        assert expected_gradients.pop("k_proj.bias").abs().max() < 1e-12
        assert gradients.keys() == expected_gradients.keys()
        assert not any(name.startswith("score") for name in gradients)
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, expected_gradients[name], rtol=1e-9, atol=1e-10)

    def test_no_more_rows_than_queries_differ(self):
        layer = part(SampledAttention)
        out = layer(normal(1, 1, N, D), torch.as_tensor(nearest_sensors(random_graph(), 3)))
        assert len(out[0, 0].unique(dim=0)) <= layer.num_queries

    @pytest.mark.parametrize(("num_sensors", "queries"), [(1, 1), (2, 1), (3, 1), (8, 3), (170, 7), (325, 8), (883, 9)])
    def test_queries_grow_with_the_logarithm(self, num_sensors, queries):
        assert SampledAttention(STWaveConfig(num_features=num_sensors)).num_queries == queries

    def test_the_bias_of_the_keys_counts_in_the_choice(self):
        layer = part(SampledAttention)
        x, near = normal(2, 3, N, D), torch.as_tensor(nearest_sensors(random_graph(), 3))
        before = layer(x, near)
        with torch.no_grad():
            layer.k_proj.bias.add_(3 * normal(D, seed=5))
        assert (layer(x, near) - before).abs().max() > 1e-3


class TestAlongTime:
    @pytest.mark.parametrize("n_heads", [1, 2])
    def test_causal_attention_against_its_sums(self, n_heads):
        layer = part(CausalAttention, n_heads=n_heads)
        x, context = normal(2, L, N, D), normal(2, L, N, D, seed=2)
        q, k, v = layer.q_proj(x), layer.k_proj(context), layer.v_proj(context)
        mixed = torch.zeros_like(x)
        for t in range(L):
            for channels in torch.arange(D).split(D // n_heads):
                scores = [(q[:, t, :, channels] * k[:, s, :, channels]).sum(-1) for s in range(t + 1)]
                weights = torch.stack(scores).div(math.sqrt(D // n_heads)).softmax(dim=0)
                mixed[:, t, :, channels] = sum(weights[s].unsqueeze(-1) * v[:, s, :, channels] for s in range(t + 1))
        normed = F.layer_norm(x + layer.out_proj(mixed), (D,))
        ff = layer.feed_forward
        expected = F.layer_norm(normed + ff.out(F.relu(ff.hidden(normed))), (D,))
        torch.testing.assert_close(layer(x, context), expected)

    @pytest.mark.parametrize(("kernel_size", "dilation"), [(2, 1), (2, 2), (3, 2), (1, 1), (2, 30)])
    def test_the_convolution_against_torch(self, kernel_size, dilation):
        layer = part(CausalConvolution, dilation, kernel_size=kernel_size).eval()
        x = normal(2, L, N, D)
        weight = layer.taps.weight.unflatten(1, (kernel_size, D)).transpose(1, 2)  # [D, D, kernel_size]
        rows = F.pad(x.permute(0, 2, 3, 1).flatten(0, 1), ((kernel_size - 1) * dilation, 0))
        expected = F.conv1d(rows, weight, layer.taps.bias, dilation=dilation).relu()
        torch.testing.assert_close(layer(x), expected.unflatten(0, (2, N)).permute(0, 3, 1, 2))

    @pytest.mark.parametrize("step", [0, 5, L - 1])
    def test_no_step_sees_a_later_one(self, step):
        attention, convolution = part(CausalAttention), part(CausalConvolution, 2).eval()
        x = normal(1, L, N, D)
        changed = x.clone()
        changed[:, step] += 1
        for layer in (convolution, lambda y: attention(y, y), lambda y: attention(x, y)):
            difference = (layer(changed) - layer(x)).abs().amax(dim=(0, 2, 3))
            assert not difference[:step].any()
            assert difference[step] > 1e-4

    def test_fusion_asks_the_fast_branch_for_the_steps_so_far(self):
        fusion = part(AdaptiveFusion)
        low, future = normal(1, L, N, D), normal(1, H, 1, D, seed=3)
        with torch.no_grad():  # a step ahead of the fast branch is a step of the input
            fusion.ahead_high.steps.weight.copy_(torch.eye(H, L))
        high = normal(1, L, N, D, seed=2)
        changed = high.clone()
        changed[:, 7] += 1
        (one, low_one), (other, low_other) = (fusion(low, y, future, with_low=True) for y in (high, changed))
        assert torch.equal(one[:, :7], other[:, :7])
        assert (one[:, 7] - other[:, 7]).abs().min() > 1e-6
        assert torch.equal(low_one, low_other)


class TestCalendar:
    def test_it_is_one_hot_vectors_through_two_maps(self):
        embedding = part(CalendarEmbedding)
        _, past, _, future = windows()
        step = torch.cat([past, future], dim=1)
        one_hot = torch.cat([F.one_hot((step[..., i] * n).round().long(), n) for i, n in ((0, 24), (1, 7))], dim=-1)
        expected = embedding.hidden(F.relu(embedding.slots(one_hot.double())))
        for got, wanted in zip(embedding(past, future), (expected[:, :L], expected[:, L:]), strict=True):
            torch.testing.assert_close(got, wanted.unsqueeze(2))

    @pytest.mark.parametrize("first_step", [0, 5, 23, 6 * 24 + 3])  # the last one ends in the next week
    def test_it_goes_on_where_the_future_is_not_told(self, first_step):
        embedding = part(CalendarEmbedding)
        _, past, _, future = windows(first_step=first_step)
        assert torch.equal(embedding(past, None)[1], embedding(past, future)[1])


class TestModel:
    @pytest.mark.parametrize("changes", [{}, AUTHORS], ids=["basicts", "authors"])
    def test_the_second_forecast_is_of_the_slow_part_of_the_targets(self, changes):
        model = build(**changes, dropout=0.0)
        inputs, past, targets, future = windows()
        expected = model.eval()(inputs, past, targets_timestamps=future)
        found = model.train()(inputs, past, targets, future)
        torch.testing.assert_close(found["prediction"], expected)
        approximation, detail = pywt.wavedec(targets.numpy(), "sym2", level=1, axis=1)
        slow = pywt.waverec([approximation, 0 * detail], "sym2", axis=1)
        np.testing.assert_allclose(found["auxiliary_targets"].numpy(), slow, atol=1e-12)
        found["auxiliary_prediction"].sum().backward()
        fast = [p.grad for name, p in model.named_parameters() if "high" in name]
        assert fast
        assert all(gradient is None for gradient in fast)

    def test_targets_never_reach_the_forecast(self):
        model = build(dropout=0.0)
        inputs, past, targets, future = windows()
        expected = model.eval()(inputs, past, None, future)
        assert torch.equal(model(inputs, past, torch.full_like(targets, float("nan")), future), expected)
        model.train()
        assert torch.equal(model(inputs, past, None, future), expected)
        one, other = (model(inputs, past, given, future) for given in (targets, 5 + targets))
        assert torch.equal(one["prediction"], other["prediction"])
        assert torch.equal(one["auxiliary_prediction"], other["auxiliary_prediction"])

    @pytest.mark.parametrize("changes", [{}, AUTHORS], ids=["basicts", "authors"])
    def test_trained_eigenvalues_move_the_forecast_of_every_layer(self, changes):
        model = build(**changes).eval()
        inputs, past, _, _ = windows()
        expected = model(inputs, past)
        for layer in model.layers:
            torch.testing.assert_close(layer.eigenvalues[0].detach(), torch.as_tensor(eigenpairs(random_graph(), D)[0]))
            kept = layer.eigenvalues.detach().clone()
            with torch.no_grad():
                layer.eigenvalues.mul_(-3)
                assert (model(inputs, past) - expected).abs().max() > 1e-4
                layer.eigenvalues.copy_(kept)

    def test_the_convolutions_reach_back_further_layer_by_layer(self):
        assert [layer.temporal_high.dilation for layer in build(num_layers=3).layers] == [1, 2, 4]

    @pytest.mark.parametrize("num_sensors", [1, 2, 3, 20])
    def test_a_graph_without_edges_is_enough(self, num_sensors):
        model = build(num_features=num_sensors, adjacency=np.zeros((num_sensors, num_sensors)))
        inputs, past, targets, future = windows(num_sensors=num_sensors)
        found = model(inputs, past, targets, future)
        sum(value.square().sum() for value in found.values()).backward()
        assert found["prediction"].isfinite().all()
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())

    def test_the_day_graph_adds_its_own_eigenpairs(self, plain_distances):
        hours = np.arange(24 * 4)
        series = 100 + np.random.default_rng(0).normal(scale=20, size=(96, N))
        calendar = np.stack([hours % 24 / 24, hours // 24 / 7], axis=1)
        prior = ArrayPrior(N, random_graph(), series, calendar)
        model = STWave(STWaveConfig(**SMALL, **AUTHORS, dtw_graph=True), prior)
        expected = eigenpairs(alike_days(prior, 24), D)
        np.testing.assert_allclose(model.eigenvectors[1].numpy(), expected[1:])
        assert model.layers[0].eigenvalues.shape == (2, D)
        assert torch.equal(model.eigenvectors[0], build().eigenvectors[0])


SENSORS = {"PEMS-BAY": 325, "PEMS03": 358, "PEMS04": 307, "PEMS07": 883, "PEMS08": 170}
OF_THE_AUTHORS_CODE = {"PEMS03": 882_558, "PEMS04": 882_558, "PEMS07": 882_562, "PEMS08": 882_554}
NEVER_USED_BY_IT = 12 * 12 + 12  # a map from input to output steps


class TestParameters:
    @staticmethod
    def built(dataset, recipe):
        published = ENTRY.recipes[dataset][recipe]
        sensors = SENSORS[dataset]
        with torch.device("meta"):
            return STWave(ENTRY.build_config(num_features=sensors, **published.params), BlankPrior(sensors))

    @pytest.mark.parametrize("dataset", list(SENSORS))
    def test_as_basicts_has_it(self, dataset):
        model = self.built(dataset, "basicts")
        parameters = dict(model.named_parameters())
        assert sum(p.numel() for p in parameters.values()) == 881_598
        assert sum(p.numel() for name, p in parameters.items() if ".score." in name) == 516
        assert model.state_dict().keys() == parameters.keys()

    @pytest.mark.parametrize("dataset", list(OF_THE_AUTHORS_CODE))
    def test_as_the_authors_have_it(self, dataset):
        count = sum(p.numel() for p in self.built(dataset, "authors").parameters())
        assert count == OF_THE_AUTHORS_CODE[dataset] - NEVER_USED_BY_IT

    def test_fewer_sensors_than_channels_have_as_many(self):
        model = STWave(STWaveConfig(num_features=40), BlankPrior(40))
        assert sum(p.numel() for p in model.parameters()) == 881_598


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"wave_type": "haarlem"}, "wave_type .* 'haarlem'"),
        ({"wave_type": "morl"}, "wave_type .* 'morl'"),
        ({"wave_levels": 0}, "wave_levels .* 0"),
        ({"n_heads": 3}, "n_heads has to divide hidden_size 8, got 3"),
        ({"query_score": "keys"}, "query_score .* features, neighbours, got 'keys'"),
        ({"dtw_graph": "yes"}, "dtw_graph .* 'yes'"),
        ({"dropout": 1.0}, "dropout .* 1.0"),
        ({"log_samples": 0.5}, "log_samples .* 0.5"),
        ({"kernel_size": 0}, "kernel_size .* 0"),
        ({"num_features": 0}, "num_features .* 0"),
    ],
)
def test_a_config_that_cannot_be_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        STWave(STWaveConfig(**{**SMALL, **changes}), BlankPrior(max(1, changes.get("num_features", N))))


def test_recipes_build_what_they_say():
    for dataset, recipes in ENTRY.recipes.items():
        for name, published in recipes.items():
            STWave(ENTRY.build_config(num_features=5, **published.params), BlankPrior(5))
            assert published.recipe.select_by == "MAE", (dataset, name)
