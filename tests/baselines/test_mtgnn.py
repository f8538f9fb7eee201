"""MTGNN against the paper's equations, written out with loops and dense matrices."""

import pytest
import torch

from baselines.MTGNN import ENTRY, MTGNN, MTGNNConfig
from baselines.MTGNN.graph import GraphLearner
from baselines.MTGNN.mix_hop import MixHop, propagation_matrix

N, H = 11, 5
KERNEL_SIZES = (2, 3, 6, 7)
SIZES = {
    "num_features": N,
    "output_len": H,
    "hidden_size": 8,
    "skip_size": 7,
    "end_size": 9,
    "node_embedding_size": 6,
    "num_neighbors": 3,
}
# N, then the parameters as published.
COUNTS = {
    "PEMS-BAY": (325, 573_484),
    "PEMS03": (358, 620_476),
    "PEMS04": (307, 547_852),
    "PEMS07": (883, 1_368_076),
    "PEMS08": (170, 352_764),
}


def model_and_windows(**options):
    """A model in float64, its norms not at their initial values, and two windows."""
    config = MTGNNConfig(**{"input_len": 12, "dropout": 0.0, **SIZES, **options})
    torch.manual_seed(0)
    model = MTGNN(config).double()
    with torch.no_grad():
        for layer in model.layers:
            layer.norm.weight.uniform_(0.5, 2)
            layer.norm.bias.normal_()
    clock = (torch.tensor([[10.0], [280.0]], dtype=torch.float64) + torch.arange(config.input_len)) % 288 / 288
    timestamps = torch.stack([clock, torch.zeros_like(clock)], dim=-1)
    return model, torch.randn(2, config.input_len, N, dtype=torch.float64), timestamps


def learner(*, num_sensors=N, width=6, num_neighbors=3, saturation=3.0, tie_noise=0.01, seed=0):
    torch.manual_seed(seed)
    return GraphLearner(num_sensors, width, num_neighbors, saturation, tie_noise).double()


def strengths(graph):
    """What the outer tanh is of, entry by entry, with the saturation."""
    m1 = torch.tanh(graph.saturation * (graph.source.weight @ graph.source_map.weight.T + graph.source_map.bias))
    m2 = torch.tanh(graph.saturation * (graph.target.weight @ graph.target_map.weight.T + graph.target_map.bias))
    size = range(len(m1))
    rows = [[graph.saturation * (m1[i] @ m2[j] - m2[i] @ m1[j]) for j in size] for i in size]
    return torch.stack([torch.stack(row) for row in rows])


def written_graph(graph):
    """The learned graph: of each row the k largest weights, by strength where tanh is 1 to rounding."""
    strength = strengths(graph)
    weights = strength.tanh().clamp(min=0)
    kept = torch.zeros_like(weights)
    for i in range(len(weights)):
        for j in strength[i].argsort(descending=True)[: graph.num_neighbors]:
            kept[i, j] = weights[i, j]
    return kept


def written_mix_hop(layer, x, graph, beta):
    """`[B, T, N, D]`: hops by the recursion, with (D + 1)^-1 (A + I) made row by row."""
    walk = torch.stack(
        [(graph[i] + torch.eye(len(graph), dtype=graph.dtype)[i]) / (1 + graph[i].sum()) for i in range(len(graph))]
    )
    hop, hops = x, [x]
    for _ in range(layer.depth):
        hop = beta * x + (1 - beta) * torch.einsum("ij,btjd->btid", walk, hop)
        hops.append(hop)
    return torch.cat(hops, dim=-1) @ layer.select.weight.T + layer.select.bias


def written_out(model, inputs, timestamps, *, dilations, beta=0.05):
    """The forecast as the paper has it, `[B, T, N, D]` throughout."""
    x = torch.stack([inputs, timestamps[..., :1].expand_as(inputs)], dim=-1)
    missing = 1 + 6 * sum(dilations) - x.shape[1]
    if missing > 0:
        x = torch.cat([x.new_zeros(2, missing, N, 2), x], dim=1)

    def over_all_steps(linear, y):
        """A convolution over as many steps as there are: `[B, T, N, D]` -> `[B, N, .]`."""
        taps = linear.weight.unflatten(1, (y.shape[1], y.shape[3]))
        return torch.einsum("btnd,otd->bno", y, taps) + linear.bias

    graph = written_graph(model.graph)
    skip = over_all_steps(model.first_skip, x)
    x = x @ model.start.weight.T + model.start.bias
    for layer, dilation in zip(model.layers, dilations, strict=True):
        parts = {"filters": [], "gates": []}
        for kind, values in parts.items():
            for kernel, size in zip(getattr(layer.temporal, kind), KERNEL_SIZES, strict=True):
                steps = [
                    sum(x[:, t - dilation * back] @ kernel.weight[:, :, 0, size - 1 - back].T for back in range(size))
                    for t in range(6 * dilation, x.shape[1])
                ]
                values.append(torch.stack(steps, dim=1) + kernel.bias)
        gated = torch.cat(parts["filters"], dim=-1).tanh() * torch.cat(parts["gates"], dim=-1).sigmoid()
        skip = skip + over_all_steps(layer.skip, gated)
        mixed = written_mix_hop(layer.outgoing, gated, graph, beta) + written_mix_hop(
            layer.incoming, gated, graph.T, beta
        )
        y = mixed + x[:, 6 * dilation :]
        mean, var = y.mean((1, 2, 3), keepdim=True), y.var((1, 2, 3), unbiased=False, keepdim=True)
        x = (y - mean) / (var + 1e-5).sqrt() * layer.norm.weight.transpose(0, 1) + layer.norm.bias.transpose(0, 1)
    skip = skip + over_all_steps(model.last_skip, x)
    hidden = skip.clamp(min=0) @ model.hidden.weight.T + model.hidden.bias
    return (hidden.clamp(min=0) @ model.output.weight.T + model.output.bias).transpose(1, 2)


@pytest.mark.parametrize(
    ("options", "dilations"),
    [
        ({}, [1, 1, 1]),
        ({"input_len": 1}, [1, 1, 1]),
        ({"input_len": 19}, [1, 1, 1]),
        ({"input_len": 24}, [1, 1, 1]),
        ({"num_layers": 2, "dilation_growth": 2}, [1, 2]),
        ({"propagation_depth": 3, "retain_ratio": 0.4}, [1, 1, 1]),
        ({"num_layers": 1, "propagation_depth": 1}, [1]),
    ],
)
def test_the_forecast_is_the_papers(options, dilations):
    model, inputs, timestamps = model_and_windows(**options)
    expected = written_out(model, inputs, timestamps, dilations=dilations, beta=options.get("retain_ratio", 0.05))
    torch.testing.assert_close(model.eval()(inputs, timestamps), expected)
    assert expected.std(0).min() > 1e-4, "a forecast that no window moves proves nothing"


def test_the_graph_is_one_directed_and_keeps_the_k_largest_weights_of_a_row():
    for saturation in (0.1, 3.0):
        graph = learner(saturation=saturation).eval()
        weights = graph()
        torch.testing.assert_close(weights, written_graph(graph))
        assert not (weights * weights.T).any()
        assert not weights.diagonal().any()
        assert weights.gt(0).sum(1).max() == 3
        positive = strengths(graph).gt(0).sum(1).clamp(max=3)
        assert torch.equal(weights.gt(0).sum(1), positive)


def test_a_graph_of_all_edges_has_one_direction_of_every_pair():
    weights = learner(num_neighbors=20, saturation=0.1).eval()()
    one_way = weights.gt(0).int()
    assert torch.equal(one_way + one_way.T, 1 - torch.eye(N, dtype=torch.int32))


def test_evaluation_ranks_edges_where_tanh_has_no_more_order():
    graph = learner(num_sensors=40, width=30).float().eval()
    strength = strengths(graph)
    full = strength.tanh().eq(1)
    assert full.sum(1).gt(3).float().mean() > 0.9, "rows with more weights of 1 than are kept"
    weights = graph()
    for i in range(40):
        assert weights[i].nonzero().flatten().tolist() == sorted(strength[i].topk(3).indices.tolist())
    assert torch.equal(weights, graph())


def test_training_draws_among_edges_that_the_noise_cannot_tell_apart():
    graph = learner(num_sensors=40, width=30).float()
    weights = strengths(graph).tanh().clamp(min=0)
    with torch.no_grad():
        drawn = [graph() for _ in range(20)]
    assert any(not torch.equal(drawn[0], other) for other in drawn)
    third = weights.topk(3).values[:, -1:]
    for found in drawn:
        assert found.gt(0).sum(1).le(3).all()
        assert (found[found > 0] >= (third - 0.01).expand_as(found)[found > 0]).all()
    torch.manual_seed(4)
    first = graph()
    torch.manual_seed(4)
    assert torch.equal(first, graph())


def test_without_noise_training_and_evaluation_have_the_same_graph():
    graph = learner(tie_noise=0.0, saturation=0.1)
    assert torch.equal(graph.train()(), graph.eval()())


@pytest.mark.parametrize(("depth", "beta"), [(1, 0.05), (2, 0.05), (2, 0.0), (4, 0.5)])
def test_mix_hop_is_its_recursion_with_gradients(depth, beta):
    torch.manual_seed(0)
    layer = MixHop(4, depth, beta).double()
    x = torch.randn(2, 6, N, 4, dtype=torch.float64, requires_grad=True)
    graph = torch.rand(N, N, dtype=torch.float64, requires_grad=True)
    expected = written_mix_hop(layer, x, graph, beta)
    found = layer(x.transpose(1, 2), propagation_matrix(graph)).transpose(1, 2)
    torch.testing.assert_close(found, expected)
    upstream = torch.randn_like(expected)
    leaves = [x, graph, *layer.parameters()]
    for slow, fast in zip(
        torch.autograd.grad(expected, leaves, upstream), torch.autograd.grad(found, leaves, upstream), strict=True
    ):
        torch.testing.assert_close(fast, slow)


def test_hops_of_a_constant_signal_are_constant():
    """Rows of the propagation matrix sum to 1, also those of a sensor without edges."""
    walk = propagation_matrix(learner().eval()())
    torch.testing.assert_close(walk.sum(1), torch.ones(N, dtype=torch.float64))
    assert torch.equal(propagation_matrix(torch.zeros(N, N)), torch.eye(N))


def test_every_step_of_the_window_reaches_the_forecast_and_windows_are_apart():
    model, inputs, timestamps = model_and_windows(input_len=24)
    inputs.requires_grad_()
    (reached,) = torch.autograd.grad(model.eval()(inputs, timestamps)[0].sum(), inputs)
    assert reached[0].abs().amax(-1).gt(0).all()
    assert not reached[1].any()


def test_the_noise_is_what_lets_the_graph_be_learned_at_the_published_sizes():
    """In float32 the largest weights are 1 and have no gradient; among those that the noise puts in some have one."""
    for tie_noise, share in ((0.01, 1.0), (0.0, 0.0)):
        torch.manual_seed(0)
        model = MTGNN(MTGNNConfig(num_features=170, tie_noise=tie_noise)).train()
        model(torch.randn(2, 12, 170), torch.zeros(2, 12, 2)).square().mean().backward()
        rows = model.graph.source.weight.grad.abs().amax(1).gt(0).float().mean()
        assert abs(rows - share) < 0.1


@pytest.mark.parametrize("dataset", list(COUNTS))
def test_parameters_are_the_published_ones(dataset):
    num_features, published = COUNTS[dataset]
    for name, recipe in ENTRY.recipes[dataset].items():
        with torch.device("meta"):
            model = MTGNN(ENTRY.build_config(num_features=num_features, **recipe.params))
        assert sum(p.numel() for p in model.parameters()) == published, name


def test_the_parameters_without_a_use_are_those_that_say_so():
    torch.manual_seed(0)
    model = MTGNN(MTGNNConfig(num_features=N))
    model(torch.randn(2, 12, N), torch.zeros(2, 12, 2)).sum().backward()
    unused = {name: p.numel() for name, p in model.named_parameters() if p.grad is None}
    assert all(".unused_residual." in name for name in unused)
    assert sum(unused.values()) == 3_168


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_size": 10}, "hidden_size has to be a multiple of 4, got 10"),
        ({"num_features": 0}, "num_features has to be a positive whole number, got 0"),
        ({"num_neighbors": -1}, "num_neighbors has to be a positive whole number, got -1"),
        ({"retain_ratio": 1.5}, r"retain_ratio has to be in \[0, 1\), got 1.5"),
        ({"saturation": 0.0}, "saturation has to be positive, got 0.0"),
        ({"tie_noise": -0.1}, "tie_noise has to be 0 or positive, got -0.1"),
        ({"dropout": 1.0}, r"dropout has to be in \[0, 1\), got 1.0"),
    ],
)
def test_sizes_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        MTGNN(MTGNNConfig(**{**SIZES, **options}))


def test_recipes_are_the_published_ones():
    for name in COUNTS:
        basicts = ENTRY.recipes[name]["basicts"].recipe
        assert (basicts.lr, basicts.weight_decay, basicts.milestones, basicts.clip_grad_norm) == (
            0.001,
            0.0001,
            (),
            5.0,
        )
        assert (basicts.batch_size, basicts.num_epochs) == (64, 100)
        assert [basicts.curriculum.horizons(epoch, 1, 12) for epoch in (1, 3, 4, 33, 34, 100)] == [1, 1, 2, 11, 12, 12]
    authors = ENTRY.recipes["PEMS-BAY"]["authors"].recipe
    assert [authors.curriculum.horizons(1, step, 12) for step in (1, 2500, 2501, 27_501)] == [1, 1, 2, 12]
