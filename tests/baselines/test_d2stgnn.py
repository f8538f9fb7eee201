"""D2STGNN against the model written out once more: one window, step by step, with dense localised matrices."""

import math

import numpy as np
import pytest
import torch

from baselines.D2STGNN import D2STGNN, ENTRY, D2STGNNConfig
from baselines.D2STGNN.config import RECIPES
from baselines.D2STGNN.decomposition import ResidualDecomposition
from baselines.D2STGNN.localized import LocalizedConvolution, transition_powers
from baselines.D2STGNN.recurrence import GRU
from ealinformer.data.prior import ArrayPrior, BlankPrior

L, H, N, D, HEADS, LAYERS, KT, KS, GAP = 8, 7, 6, 8, 2, 3, 3, 2, 2
SIZES = {
    "input_len": L,
    "output_len": H,
    "num_features": N,
    "num_time_in_day": 24,
    "hidden_size": D,
    "node_hidden_size": 5,
    "time_hidden_size": 3,
    "gate_hidden_size": 7,
    "forecast_hidden_size": 10,
    "output_hidden_size": 9,
    "num_layers": LAYERS,
    "n_heads": HEADS,
    "k_s": KS,
    "k_t": KT,
    "gap": GAP,
}
# Sensor 5 has no edge, 4 none that goes out, 0 a loop; the walk 0 -> 1 -> 0 ends where it began.
ROADS = np.zeros((N, N), np.float32)
for i, j, weight in [(0, 0, 1), (0, 1, 0.5), (1, 0, 0.25), (1, 2, 1), (2, 3, 1), (3, 1, 0.5), (3, 4, 0.125), (0, 4, 1)]:
    ROADS[i, j] = weight


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def build(roads=ROADS, **options):
    """A model in evaluation mode, in float64, no weight of which is near its initial value."""
    torch.manual_seed(0)
    model = D2STGNN(D2STGNNConfig(**{**SIZES, **options}), ArrayPrior(len(roads), roads)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) / math.sqrt(max(parameter.shape[-1], 4)))
        model.dynamic_graph.norm.running_mean.normal_()
        model.dynamic_graph.norm.running_var.uniform_(0.5, 2)
    return model


def windows(batch, sensors=N, length=L):
    g = torch.Generator().manual_seed(1)
    step = torch.arange(batch)[:, None] * 37 + torch.arange(length)
    clock, day = step % 24 / 24, step // 24 % 7 / 7
    return torch.randn(batch, length, sensors, generator=g), torch.stack([clock, day], dim=-1)


class Slow:
    """The forecast of one window from the tensors of a model; a signal is `[L, N, D]`."""

    def __init__(self, model, roads=ROADS):
        self.w = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        self.roads = torch.as_tensor(roads, dtype=torch.float64)
        self.positions_in = len([layer for layer in model.layers if layer.inherent.positions is not None])

    def linear(self, name, x):
        y = x @ self.w[f"{name}.weight"].T
        return y + self.w[f"{name}.bias"] if f"{name}.bias" in self.w else y

    def forecast(self, inputs, timestamps):
        w = self.w
        clock = w["time_of_day.weight"][(timestamps[:, 0] * 24).round().long()]
        day = w["day_of_week.weight"][(timestamps[:, 1] * 7).round().long()]
        graphs = self.transitions(inputs, clock[-1], day[-1])
        signal = self.linear("embedding", inputs[..., None])
        total = 0
        for i in range(LAYERS):
            signal, diffused, inherent = self.layer(i, signal, graphs, clock, day)
            total = total + self.linear(f"head.branches.{2 * i}", diffused)
            total = total + self.linear(f"head.branches.{2 * i + 1}", inherent)
        out = self.linear("head.out", self.linear("head.hidden", total.relu()).relu())  # [states, N, gap]
        return torch.stack([out[h // GAP, :, h % GAP] for h in range(H)])

    def transitions(self, inputs, clock, day):
        w, graphs = self.w, []
        hidden = self.linear("dynamic_graph.widen", inputs.T).relu()
        deviation = (w["dynamic_graph.norm.running_var"] + 1e-5).sqrt()
        hidden = (hidden - w["dynamic_graph.norm.running_mean"]) / deviation
        hidden = hidden * w["dynamic_graph.norm.weight"] + w["dynamic_graph.norm.bias"]
        series = self.linear("dynamic_graph.narrow", hidden)
        for table, roads in (("source", self.roads), ("target", self.roads.T)):
            features = torch.stack([torch.cat([series[i], clock, day, w[table][i]]) for i in range(N)])
            query, key = (features @ part.T for part in w["dynamic_graph.query_key.weight"].chunk(2))
            graph = torch.softmax(query @ key.T / math.sqrt(D), dim=-1)
            for i in range(N):
                walk = roads[i] / roads[i].sum() if roads[i].sum() > 0 else torch.zeros(N)
                graph[i] = graph[i] * walk
                if graph[i].sum() > 0:
                    graph[i] = graph[i] / graph[i].sum()
            graphs.append(graph)
        return [*graphs, torch.softmax((w["target"] @ w["source"].T).relu(), dim=-1)]

    def layer(self, i, signal, graphs, clock, day):
        w, name = self.w, f"layers.{i}"
        gated = torch.empty_like(signal)
        offset = L - len(signal)
        for t in range(len(signal)):
            for n in range(N):
                features = torch.cat([clock[offset + t], day[offset + t], w["source"][n], w["target"][n]])
                hidden = self.linear(f"{name}.gate.hidden", features).relu()
                gated[t, n] = self.linear(f"{name}.gate.share", hidden).sigmoid() * signal[t, n]
        past = [*gated]
        hidden = [
            self.diffuse(f"{name}.diffusion.convolution", past[: t + 1], graphs) for t in range(KT - 1, len(past))
        ]
        states = [hidden[-1]]
        while len(states) * GAP < H:
            states.append(self.diffuse(f"{name}.diffusion.convolution", past + states, graphs))
        rest = self.decompose(f"{name}.diffusion.decomposition", signal[KT - 1 :], torch.stack(hidden))
        attended, inherent = self.inherent(f"{name}.inherent", rest, i < self.positions_in)
        last = i == LAYERS - 1
        following = None if last else self.decompose(f"{name}.inherent.decomposition", rest, attended)
        return following, torch.stack(states), inherent

    def diffuse(self, name, past, graphs):
        """Hidden state `[N, D]` of the last of the steps."""
        local = (torch.cat(past[-KT:], dim=-1) @ self.w[f"{name}.local.weight"].T).relu().view(N, KT, D)
        stacked = torch.cat([local[:, j] for j in range(KT)])  # [k_t N, D]
        parts = [local.mean(dim=1)]
        for graph in graphs:
            for k in range(1, KS + 1):
                power = torch.linalg.matrix_power(graph, k) * (1 - torch.eye(N))
                parts.append(torch.cat([power] * KT, dim=1) @ stacked)
        return self.linear(f"{name}.mix", torch.cat(parts, dim=-1))

    def decompose(self, name, signal, hidden):
        rest = signal - self.linear(f"{name}.backcast", hidden).relu()
        centred = rest - rest.mean(-1, keepdim=True)
        normed = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return normed * self.w[f"{name}.norm.weight"] + self.w[f"{name}.norm.bias"]

    def inherent(self, name, signal, positions):
        recurrent, hidden = [], torch.zeros(N, D)
        for x in signal:
            hidden = self.gru(f"{name}.gru", x, hidden)
            recurrent.append(hidden)
        attended = [self.attend(f"{name}.attention", recurrent, t, positions) for t in range(len(recurrent))]
        states = [attended[-1]]
        while len(states) * GAP < H:
            recurrent.append(self.gru(f"{name}.gru", states[-1], recurrent[-1]))
            states.append(self.attend(f"{name}.attention", recurrent, len(recurrent) - 1, positions))
        return torch.stack(attended), torch.stack(states)

    def gru(self, name, x, hidden):
        (xr, xz, xn), (hr, hz, hn) = (
            self.linear(f"{name}.from_{way}", v).chunk(3, dim=-1) for v, way in ((x, "input"), (hidden, "state"))
        )
        new, keep = torch.tanh(xn + (xr + hr).sigmoid() * hn), (xz + hz).sigmoid()
        return (1 - keep) * new + keep * hidden

    def attend(self, name, recurrent, t, positions):
        """What step t `[N, D]` sees of all steps that there are, sensor by sensor and head by head."""
        out = torch.empty(N, D)
        for n in range(N):
            rows = torch.stack([step[n] for step in recurrent])
            if positions:
                for p in range(len(rows)):
                    for c in range(D):
                        angle = p / 10000 ** (2 * (c // 2) / D)
                        rows[p, c] += math.sin(angle) if c % 2 == 0 else math.cos(angle)
            query, key, value = self.linear(f"{name}.query_key_value", rows).chunk(3, dim=-1)
            for c in range(0, D, D // HEADS):
                head = slice(c, c + D // HEADS)
                scores = (key[:, head] @ query[t, head] / math.sqrt(D // HEADS)).exp()
                out[n, head] = scores / scores.sum() @ value[:, head]
        return self.linear(f"{name}.out", out)


def test_the_gru_is_torchs():
    gru, expected = GRU(D), torch.nn.GRU(D, D, batch_first=True)
    with torch.no_grad():
        expected.weight_ih_l0.copy_(gru.from_input.weight)
        expected.bias_ih_l0.copy_(gru.from_input.bias)
        expected.weight_hh_l0.copy_(gru.from_state.weight)
        expected.bias_hh_l0.copy_(gru.from_state.bias)
    steps = torch.randn(3, 5, D)
    torch.testing.assert_close(gru(steps), expected(steps)[0])
    torch.testing.assert_close(gru(steps[:, 3:], gru(steps[:, :3])[:, -1]), gru(steps)[:, 3:])


@pytest.mark.parametrize("num_position_layers", [0, 1, LAYERS])
def test_the_forecast_is_that_of_the_model_written_out(num_position_layers):
    model = build(num_position_layers=num_position_layers)
    inputs, timestamps = windows(2)
    with torch.no_grad():
        forecast = model(inputs, timestamps)
        slow = Slow(model)
        expected = torch.stack([slow.forecast(*window) for window in zip(inputs, timestamps, strict=True)])
    torch.testing.assert_close(forecast, expected, rtol=1e-9, atol=1e-9)
    assert expected.std(dim=1).min() > 1e-3  # neither dead nor constant along the horizon


@pytest.mark.parametrize(("k_s", "k_t"), [(1, 1), (2, 3), (3, 2)])
def test_the_localised_convolution_is_that_of_dense_matrices(k_s, k_t):
    g = torch.Generator().manual_seed(3)
    graphs = [torch.softmax(torch.randn(batch, 4, 4, generator=g), dim=-1) for batch in (2, 2, 1)]
    convolution = LocalizedConvolution(5, k_t, 3 * k_s, dropout=0.0)
    signal = torch.randn(2, 4, 6, 5, generator=g)
    found = convolution(signal, transition_powers(graphs, k_s))
    assert found.shape == (2, 4, 6 - k_t + 1, 5)
    for b in range(2):
        for t in range(6 - k_t + 1):
            window = torch.cat([signal[b, :, t + j] for j in range(k_t)], dim=-1)
            local = (window @ convolution.local.weight.T).relu().view(4, k_t, 5)
            rows = torch.cat([local[:, j] for j in range(k_t)])
            parts = [local.mean(1)]
            for graph in graphs:
                power = torch.eye(4)
                for _ in range(k_s):
                    power = power @ graph[b % len(graph)]
                    localised = torch.cat([power - torch.diag(power.diagonal())] * k_t, dim=1)  # [N, k_t N]
                    parts.append(localised @ rows)
            expected = torch.cat(parts, dim=-1) @ convolution.mix.weight.T + convolution.mix.bias
            torch.testing.assert_close(found[b, :, t], expected)


def test_where_the_road_graph_has_no_edge_the_dynamic_graph_has_no_weight():
    model = build()
    inputs, timestamps = windows(3)
    embeddings = torch.stack([model.source, model.target])
    forward, backward = model.dynamic_graph(inputs, model._calendar(timestamps)[:, -1], embeddings).unbind(1)
    for graph, roads in ((forward, ROADS), (backward, ROADS.T)):
        edges = torch.as_tensor(roads > 0)
        assert (graph > 0).equal(edges.expand(3, N, N))
        torch.testing.assert_close(graph.sum(-1), edges.any(-1).double().expand(3, N))
    assert (forward[0] - forward[1]).abs().max() > 1e-3  # it changes with the window
    torch.testing.assert_close(forward[:, 2, 3], torch.ones(3))  # the only edge out of sensor 2


def test_a_row_whose_edges_all_have_vanishing_scores_keeps_its_weight():
    """softmax over all sensors, masked and brought back to 1, would be 0 / 0 here."""
    model = build().float()
    with torch.no_grad():
        model.dynamic_graph.query_key.weight.mul_(300)
    inputs, timestamps = (x.float() for x in windows(4))
    embeddings = torch.stack([model.source, model.target])
    graph = model.dynamic_graph(inputs, model._calendar(timestamps)[:, -1], embeddings)
    linked = torch.as_tensor(np.stack([ROADS, ROADS.T])).sum(-1).gt(0)
    torch.testing.assert_close(graph.sum(-1), linked.float().expand(4, 2, N))


def test_powers_are_those_of_the_whole_matrix_without_walks_that_end_where_they_began():
    loop = torch.tensor([[0.5, 0.5], [1.0, 0.0]])
    first, second, third = transition_powers([loop[None]], 3).unflatten(2, (3, 2)).unbind(2)
    torch.testing.assert_close(first, torch.tensor([[[0, 0.5], [1, 0]]]))
    torch.testing.assert_close(second, torch.tensor([[[0, 0.25], [0.5, 0]]]))  # 0 -> 0 -> 1 and 1 -> 0 -> 0
    torch.testing.assert_close(third, torch.tensor([[[0, 0.375], [0.75, 0]]]))


def test_the_residual_is_what_the_backcast_leaves_normed():
    decomposition = ResidualDecomposition(D)
    signal, hidden = torch.randn(2, 3, 5, D), torch.randn(2, 3, 4, D)
    explained = hidden @ decomposition.backcast.weight.T + decomposition.backcast.bias
    rest = signal[:, :, 1:] - explained.clamp_min(0)
    normed = (rest - rest.mean(-1, keepdim=True)) / (rest.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(decomposition(signal, hidden), normed)


@pytest.mark.parametrize("block", ["diffusion", "inherent"])
def test_a_longer_horizon_continues_the_states_of_a_shorter_one(block):
    """Each roll-out gives ceil(H / gap) states, and the first of them do not know how many follow."""
    short, long = build(output_len=GAP), build(output_len=5 * GAP - 1)
    long.load_state_dict(short.state_dict())
    inputs, timestamps = windows(2)
    states = []
    for model in (short, long):
        calls = []
        getattr(model.layers[0], block).register_forward_hook(lambda _, __, out, calls=calls: calls.append(out[1]))
        model(inputs, timestamps)
        states.append(calls[0])
    assert states[0].shape == (2, N, 1, D)
    assert states[1].shape == (2, N, 5, D)
    torch.testing.assert_close(states[1][:, :, :1], states[0])
    assert states[1].diff(dim=2).abs().amax(dim=(0, 1, 3)).min() > 1e-4


def test_positions_are_told_to_as_many_layers_as_asked_for():
    inputs, timestamps = windows(2)
    first, all_layers = build(num_position_layers=1), build(num_position_layers=LAYERS)
    assert [layer.inherent.positions is not None for layer in first.layers] == [True, False, False]
    assert (first(inputs, timestamps) - all_layers(inputs, timestamps)).abs().max() > 1e-3


@pytest.mark.parametrize(("sensors", "batch"), [(1, 1), (1, 2), (4, 1)])
def test_a_graph_without_edges_trains(sensors, batch):
    model = build(np.zeros((sensors, sensors), np.float32), num_features=sensors).train()
    model(*windows(batch, sensors)).square().sum().backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if "unused" not in name}
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients.values())
    assert all(buffer.isfinite().all() for buffer in model.dynamic_graph.norm.buffers())


def test_it_compiles_in_one_piece():
    model = build(num_layers=1, output_len=2 * GAP)
    inputs, timestamps = windows(2)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(inputs, timestamps), model(inputs, timestamps))


@pytest.mark.parametrize(
    ("dataset", "sensors", "parameters", "unused"),
    [
        ("PEMS-BAY", 325, 399_220, 1_856),
        ("PEMS03", 358, 400_012, 1_856),
        ("PEMS04", 307, 398_788, 1_856),
        ("PEMS07", 883, 405_482, 1_792),
        ("PEMS08", 170, 391_222, 1_792),
    ],
)
def test_parameters_and_those_without_gradient_are_as_many_as_published(dataset, sensors, parameters, unused):
    for published in RECIPES[dataset].values():
        config = ENTRY.build_config(**published.params, num_features=sensors)
        with torch.device("meta"):
            model = D2STGNN(config, BlankPrior(sensors))
        assert sum(p.numel() for p in model.parameters()) == parameters
        assert sum(p.numel() for name, p in model.named_parameters() if "unused" in name) == unused


def test_the_default_config_is_that_of_pems08():
    assert ENTRY.build_config(**RECIPES["PEMS08"]["basicts"].params) == D2STGNNConfig()


def test_unused_parameters_are_those_without_gradient():
    model = build().train()
    model(*windows(2)).sum().backward()
    without = {name for name, p in model.named_parameters() if p.grad is None}
    assert without == {name for name, _ in model.named_parameters() if "unused" in name}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_heads": 3}, "n_heads has to divide hidden_size 8, got 3"),
        ({"input_len": 6}, "input_len has to be 7 or more.*got 6"),
        ({"gap": 0}, "gap has to be a positive whole number, got 0"),
        ({"k_t": 1.5}, "k_t has to be a positive whole number, got 1.5"),
        ({"num_features": 0}, "num_features has to be a positive whole number, got 0"),
        ({"num_position_layers": 4}, "num_position_layers has to be a whole number from 0 to num_layers 3, got 4"),
        ({"num_position_layers": True}, "num_position_layers has to be a whole number.*got True"),
        ({"dropout": 1.0}, r"dropout has to be in \[0, 1\), got 1.0"),
    ],
)
def test_a_config_that_cannot_be_is_refused_by_its_field(options, message):
    with pytest.raises(ValueError, match=message):
        D2STGNN(D2STGNNConfig(**{**SIZES, **options}), BlankPrior(N))


def test_the_shortest_input_that_the_layers_take_is_taken():
    model = build(input_len=LAYERS * (KT - 1) + 1)
    assert model(*windows(2, length=LAYERS * (KT - 1) + 1)).isfinite().all()
