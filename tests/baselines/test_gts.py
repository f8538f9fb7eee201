"""GTS: the learned graph against slow versions of its parts, the links it draws, and what it is trained for."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from baselines.GTS import ENTRY, GTS, GTSConfig
from baselines.GTS.config import RECIPES
from baselines.GTS.features import nearest_neighbours, node_features
from baselines.GTS.graph import GraphLearner, looped_walk, sample_links
from baselines.layers.diffusion import diffusion_powers
from ealinformer.data.prior import ArrayPrior, BlankPrior
from ealinformer.models.windows import with_time_of_day

T, L, H, N, B = 60, 5, 4, 8, 3
SMALL = {"input_len": L, "output_len": H, "num_features": N, "hidden_size": 7, "embedding_size": 5, "knn_k": 3}
NUM_SENSORS = {"PEMS-BAY": 325, "PEMS03": 358, "PEMS04": 307, "PEMS07": 883, "PEMS08": 170}
PARAMETERS = {  # readings of the training part, and what it makes
    "PEMS-BAY": (36_481, 58_662_099),
    "PEMS03": (15_724, 25_252_691),
    "PEMS04": (10_195, 16_406_291),
    "PEMS07": (16_934, 27_163_539),
    "PEMS08": (10_713, 17_235_091),
}


def training_part(seed=0):
    return np.random.default_rng(seed).gamma(2.0, 50.0, (T, N)).astype(np.float32)


def small_model(readings=None, **options):
    torch.manual_seed(0)
    config = GTSConfig(**{**SMALL, **options})
    series = training_part() if readings is None else readings
    return GTS(config, ArrayPrior(config.num_features, series=series)).double()


def windows(num_features=N):
    """Inputs `[B, L, N]`, timestamps `[B, L, 2]` and targets `[B, H, N]`, float64."""
    g = torch.Generator().manual_seed(1)
    inputs, targets = (torch.randn(B, steps, num_features, generator=g, dtype=torch.float64) for steps in (L, H))
    return inputs, torch.rand(B, L, 2, generator=g, dtype=torch.float64), targets


class TestFeatures:
    def test_all_readings_together_have_mean_0_and_deviation_1(self):
        readings = training_part()
        features = node_features(readings)
        assert features.shape == (N, T)
        assert features.mean(dtype=np.float64) == pytest.approx(0, abs=1e-6)
        assert features.std(dtype=np.float64) == pytest.approx(1, abs=1e-6)
        np.testing.assert_allclose(np.corrcoef(features.ravel(), readings.T.ravel())[0, 1], 1, atol=1e-6)

    def test_what_is_missing_counts_as_the_mean(self):
        readings = training_part()
        readings[3, 2] = np.nan
        features, without = node_features(readings), np.delete(readings.T.ravel(), 2 * T + 3).astype(np.float64)
        assert features[2, 3] == 0
        assert features[0, 0] == pytest.approx((readings[0, 0] - without.mean()) / without.std(), rel=1e-5)

    @pytest.mark.parametrize("value", [0.0, 70.0, np.nan])
    def test_a_constant_series_is_zero(self, value):
        assert not node_features(np.full((T, N), value, np.float32)).any()

    @pytest.mark.parametrize("count", [1, 3, N - 1])
    def test_neighbours_are_those_of_the_largest_cosine(self, count):
        features = node_features(training_part())
        graph = nearest_neighbours(features, count)
        for i in range(N):
            cosines = {
                j: features[i] @ features[j] / np.sqrt((features[i] @ features[i]) * (features[j] @ features[j]))
                for j in range(N)
                if j != i
            }
            assert set(np.flatnonzero(graph[i])) == set(sorted(cosines, key=cosines.get)[-count:])
        assert set(np.unique(graph)) <= {0, 1}

    @pytest.mark.parametrize("num_sensors", [1, 2, 5])
    def test_there_are_no_more_neighbours_than_other_sensors(self, num_sensors):
        graph = nearest_neighbours(np.zeros((num_sensors, T), np.float32), 30)
        assert np.array_equal(graph, 1 - np.eye(num_sensors))


@pytest.mark.parametrize("training", [True, False])
def test_the_log_odds_are_those_of_every_pair_taken_by_itself(training):
    torch.manual_seed(0)
    learner = GraphLearner(torch.randn(N, T), 5).double().train(training)
    ours = learner()
    embedded = learner.series
    for convolution, norm in ((learner.conv1, learner.norm1), (learner.conv2, learner.norm2)):
        embedded = norm(F.relu(convolution(embedded)))
    embedded = learner.norm3(F.relu(learner.embedding(embedded.reshape(N, -1))))
    pick = torch.eye(N, dtype=torch.float64)
    senders, receivers = pick.repeat_interleave(N, 0), pick.repeat(N, 1)  # one-hot, [N * N, N]
    pairs = torch.cat([senders @ embedded, receivers @ embedded], dim=1)
    probabilities = learner.link(F.relu(learner.pair(pairs))).softmax(-1)[:, 0].view(N, N)
    if not training:
        torch.testing.assert_close(ours.sigmoid(), probabilities)
        return
    # A second pass in training has the same batch statistics.
    torch.testing.assert_close(learner().sigmoid(), probabilities)


class TestLinks:
    log_odds = torch.tensor([-40.0, -2.0, 0.0, 1.0, 40.0], dtype=torch.float64)

    def test_they_are_0_or_1_and_as_frequent_as_their_probability(self):
        torch.manual_seed(0)
        draws = 20_000
        links = sample_links(self.log_odds.expand(draws, -1), 0.5)
        assert set(links.unique().tolist()) == {0.0, 1.0}
        expected = self.log_odds.sigmoid()
        deviation = (expected * (1 - expected) / draws).sqrt()
        assert ((links.mean(0) - expected).abs() <= 4 * deviation + 1e-12).all()

    @pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
    def test_gradients_are_those_of_a_gumbel_softmax(self, temperature):
        """The same in distribution as torch's, of both logits: compared by their mean over many draws."""
        draws = 100_000
        ours = torch.tensor(0.7, dtype=torch.float64).expand(draws).clone().requires_grad_()
        logits = torch.tensor([1.2, 0.5], dtype=torch.float64).expand(draws, 2).clone().requires_grad_()
        torch.manual_seed(0)
        sample_links(ours, temperature).sum().backward()
        F.gumbel_softmax(logits, temperature, hard=True)[:, 0].sum().backward()
        theirs = logits.grad[:, 0]
        torch.testing.assert_close(logits.grad[:, 1], -theirs)
        deviation = (theirs.std() * math.sqrt(2 / draws)).item()
        assert ours.grad.mean().item() == pytest.approx(theirs.mean().item(), abs=4 * deviation)
        assert ours.grad.std().item() == pytest.approx(theirs.std().item(), rel=0.05)

    @pytest.mark.parametrize("temperature", [1e-3, 1e-6, 1e-30])
    def test_as_the_temperature_falls_the_soft_sample_becomes_the_hard_one(self, temperature):
        """Links stay where the noise puts them, and the gradient of almost all of them vanishes."""
        log_odds = torch.randn(2000, dtype=torch.float64, requires_grad=True)
        torch.manual_seed(4)
        links = sample_links(log_odds, temperature)
        torch.manual_seed(4)
        torch.testing.assert_close(links, sample_links(log_odds.detach(), 0.5), rtol=0, atol=0)
        links.sum().backward()
        assert log_odds.grad.isfinite().all()
        assert (log_odds.grad > 1e-6).float().mean() < 30 * max(temperature, 1e-4)

    def test_noise_without_a_bound_is_finite_in_the_gradient(self, monkeypatch):
        monkeypatch.setattr(torch, "rand_like", torch.zeros_like)
        log_odds = torch.zeros(3, requires_grad=True)
        links = sample_links(log_odds, 0.5)
        links.sum().backward()
        assert links.tolist() == log_odds.grad.tolist() == [0, 0, 0]


class TestWalk:
    def test_a_row_is_its_links_and_itself(self):
        links = torch.tensor([[0.0, 1, 1], [0, 0, 0], [1, 0, 0]])
        torch.testing.assert_close(looped_walk(links), torch.tensor([[1 / 3] * 3, [0, 1, 0], [0.5, 0, 0.5]]))

    def test_links_to_itself_change_nothing(self):
        links = torch.rand(N, N)
        torch.testing.assert_close(looped_walk(links), looped_walk(links + torch.eye(N)))
        torch.testing.assert_close(looped_walk(links).sum(1), torch.ones(N))


class TestForecast:
    def test_in_evaluation_it_runs_along_the_link_probabilities(self):
        model, (inputs, timestamps, targets) = small_model().eval(), windows()
        with torch.no_grad():
            probability = model.graph_learner().sigmoid().numpy()
            np.fill_diagonal(probability, 1)
            walk = torch.as_tensor(probability / probability.sum(1, keepdims=True))
            powers = torch.cat([torch.linalg.matrix_power(walk, k) for k in (1, 2, 3)])
            expected = model.seq2seq(with_time_of_day(inputs, timestamps), powers, None, 1)
            torch.testing.assert_close(model(inputs, timestamps, targets * float("nan")), expected)
            assert torch.equal(model(inputs, timestamps), model(inputs, timestamps))

    def test_in_training_it_runs_along_links_that_are_drawn(self):
        model, (inputs, timestamps, _) = small_model().train(), windows()
        torch.manual_seed(7)
        forecast = model(inputs, timestamps)["prediction"]
        torch.manual_seed(7)
        links = sample_links(model.graph_learner(), 0.5)
        assert set(links.unique().tolist()) == {0.0, 1.0}
        powers = diffusion_powers([looped_walk(links)], 3)
        torch.testing.assert_close(forecast, model.seq2seq(with_time_of_day(inputs, timestamps), powers, None, 1))
        assert not torch.equal(forecast, model(inputs, timestamps)["prediction"])

    def test_the_truth_is_read_in_training_alone(self):
        model, (inputs, timestamps, targets) = small_model().train(), windows()
        forecasts = []
        for part in (targets, targets + 1):
            torch.manual_seed(7)
            forecasts.append(model(inputs, timestamps, part, 1)["prediction"])
        assert torch.equal(forecasts[0][:, 0], forecasts[1][:, 0])
        assert not torch.equal(forecasts[0][:, 1], forecasts[1][:, 1])
        model.eval()
        assert torch.equal(model(inputs, timestamps, targets), model(inputs, timestamps, targets + 1))

    def test_gradients_of_the_forecast_reach_the_graph(self):
        model, (inputs, timestamps, _) = small_model(graph_loss_weight=0.0).train(), windows()
        model(inputs, timestamps).square().sum().backward()
        assert all(parameter.grad.abs().max() > 1e-9 for parameter in model.graph_learner.parameters())

    @pytest.mark.parametrize("training", [True, False])
    def test_a_single_sensor_has_a_forecast(self, training):
        model = small_model(training_part()[:, :1], num_features=1).train(training)
        result = model(*windows(1)[:2])
        prediction = result["prediction"] if training else result
        prediction.sum().backward()
        assert prediction.isfinite().all()
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


class TestCrossEntropy:
    def test_it_is_that_of_the_link_probabilities_with_the_neighbours(self):
        model, (inputs, timestamps, _) = small_model(graph_loss_weight=2.5).train(), windows()
        found = model(inputs, timestamps)["auxiliary_loss"]
        probability = model.graph_learner().sigmoid()
        graph = nearest_neighbours(node_features(training_part()), 3)
        expected = 0.0
        for i in range(N):
            for j in range(N):
                expected -= (probability[i, j] if graph[i, j] else 1 - probability[i, j]).log().item() / N**2
        assert found.item() == pytest.approx(2.5 * expected, rel=1e-6)

    def test_it_comes_in_training_alone_and_not_with_weight_0(self):
        inputs, timestamps, targets = windows()
        assert set(small_model().train()(inputs, timestamps, targets)) == {"prediction", "auxiliary_loss"}
        assert small_model().eval()(inputs, timestamps, targets).shape == (B, H, N)
        assert small_model(graph_loss_weight=0.0).train()(inputs, timestamps, targets).shape == (B, H, N)

    def test_it_makes_the_neighbours_likely(self):
        model, (inputs, timestamps, _) = small_model(input_len=1, output_len=1).train(), windows()
        optimizer = torch.optim.Adam(model.graph_learner.parameters(), 1e-2)
        for _ in range(400):
            optimizer.zero_grad()
            model(inputs[:, :1], timestamps[:, :1])["auxiliary_loss"].backward()
            optimizer.step()
        probability, graph = model.graph_learner().sigmoid(), model.neighbours.bool()
        assert probability[graph].min() > 0.5 > probability[~graph].max()


@pytest.mark.parametrize("name", PARAMETERS)
def test_it_has_the_published_number_of_parameters(name):
    readings, expected = PARAMETERS[name]
    config = ENTRY.build_config(num_features=NUM_SENSORS[name], **RECIPES[name]["basicts"].params)
    with torch.device("meta"):
        model = GTS(config, BlankPrior(config.num_features, num_steps=readings))
    assert sum(parameter.numel() for parameter in model.parameters()) == expected


def test_a_checkpoint_holds_neither_the_series_nor_the_neighbours():
    kept = set(small_model().state_dict())
    assert not [name for name in kept if "series" in name or "neighbours" in name]
    assert "graph_learner.norm2.running_mean" in kept


class TestRefused:
    @pytest.mark.parametrize("name", ["hidden_size", "num_layers", "max_diffusion_step", "embedding_size", "knn_k"])
    @pytest.mark.parametrize("value", [0, 1.5])
    def test_a_size_that_cannot_be_is_named(self, name, value):
        with pytest.raises(ValueError, match=f"{name} has to be a positive whole number, got {value}"):
            small_model(**{name: value})

    @pytest.mark.parametrize("value", [0, -1.0, math.inf, math.nan, "hot", True])
    def test_a_temperature_that_cannot_be(self, value):
        with pytest.raises(ValueError, match="temperature has to be a positive number"):
            small_model(temperature=value)

    @pytest.mark.parametrize("value", [-1.0, math.inf, math.nan, "light"])
    def test_a_weight_that_cannot_be(self, value):
        with pytest.raises(ValueError, match="graph_loss_weight has to be 0 or a positive number"):
            small_model(graph_loss_weight=value)

    def test_a_training_part_that_is_too_short(self):
        with pytest.raises(ValueError, match="19 readings or more, got 18"):
            small_model(training_part()[:18])

    def test_a_series_without_a_folder(self):
        with pytest.raises(ValueError, match="data_dir"):
            GTS(GTSConfig(**SMALL))
