"""Graph WaveNet against the paper's equations, written out with dense powers and loops."""

import numpy as np
import pytest
import torch

from baselines.GWNet import ENTRY, GWNet, GWNetConfig
from baselines.GWNet.diffusion import DiffusionConvolution
from ealinformer.data.prior import ArrayPrior, BlankPrior

N, H = 9, 5
SIZES = {"num_features": N, "output_len": H, "hidden_size": 6, "skip_size": 7, "end_size": 8, "node_embedding_size": 4}
# N, then the parameters as published.
COUNTS = {
    "PEMS-BAY": (325, 311_760),
    "PEMS03": (358, 312_420),
    "PEMS04": (307, 311_400),
    "PEMS07": (883, 322_920),
    "PEMS08": (170, 308_660),
}


def road_graph(*, both_ways=False):
    """A directed graph with weights, one sensor without edges out and one without edges in; or every edge both ways."""
    rng = np.random.default_rng(0)
    weights = rng.random((N, N)) * (rng.random((N, N)) < 0.4)
    weights[3, :] = weights[:, 5] = 0
    if both_ways:
        return ((weights + weights.T) > 0).astype(np.float32)
    return weights.astype(np.float32)


def model_and_windows(*, both_ways=False, **options):
    """A model, its norms not at their initial values, and two windows, in float64."""
    config = GWNetConfig(**{"input_len": 12, "dropout": 0.0, **SIZES, **options})
    torch.manual_seed(0)
    model = GWNet(config, ArrayPrior(N, road_graph(both_ways=both_ways))).double()
    with torch.no_grad():
        for norm in model.norms:
            norm.running_mean.normal_(std=0.3)
            norm.running_var.uniform_(0.5, 2)
            norm.weight.uniform_(0.5, 2)
            norm.bias.normal_()
    start = torch.tensor([[10.0], [280.0]], dtype=torch.float64)
    clock = (start + torch.arange(config.input_len)) % 288 / 288
    timestamps = torch.stack([clock, torch.zeros_like(clock)], dim=-1)
    return model, torch.randn(2, config.input_len, N, dtype=torch.float64), timestamps


def walks(adjacency):
    """(D_out^-1 A, D_in^-1 A^T), sensor by sensor."""
    found = []
    for weights in (adjacency.astype(np.float64), adjacency.T.astype(np.float64)):
        walk = np.zeros((N, N))
        for i in range(N):
            if weights[i].sum() > 0:
                walk[i] = weights[i] / weights[i].sum()
        found.append(torch.as_tensor(walk))
    return found


def written_out(model, inputs, timestamps, *, dilations, kernel_size=2, order=2, both_ways=False, training=False):
    """The forecast as the paper has it: every step of every skip, powers of every graph, channels last throughout."""
    reach = (kernel_size - 1) * sum(dilations)
    x = torch.stack([inputs, timestamps[..., :1].expand_as(inputs)], dim=-1)  # [B, L, N, 2]
    x = torch.cat([x.new_zeros(2, reach + 1 - x.shape[1], N, 2), x], dim=1)
    x = x @ model.start.weight.T + model.start.bias
    scores = (model.source @ model.target.T).clamp(min=0).exp()
    graphs = [*walks(road_graph(both_ways=both_ways)), scores / scores.sum(1, keepdim=True)]
    skip = 0
    for i, dilation in enumerate(dilations):
        first = (kernel_size - 1) * dilation
        values = []
        for kernel in (model.temporal_layers[i].filters[0], model.temporal_layers[i].gates[0]):
            taps = kernel.weight[:, :, 0]
            steps = [
                sum(x[:, t - dilation * back] @ taps[:, :, kernel_size - 1 - back].T for back in range(kernel_size))
                for t in range(first, x.shape[1])
            ]
            values.append(torch.stack(steps, dim=1) + kernel.bias)
        gated = values[0].tanh() * values[1].sigmoid()
        skipped = gated @ model.skips[i].weight.T + model.skips[i].bias
        skip = skipped if i == 0 else skip[:, -skipped.shape[1] :] + skipped
        if i + 1 == len(dilations):
            break
        mix = model.spatial_layers[i].mix
        terms = [gated]
        for graph in graphs:
            terms += [
                torch.einsum("ij,btjd->btid", torch.linalg.matrix_power(graph, k), gated) for k in range(1, order + 1)
            ]
        y = torch.cat(terms, dim=-1) @ mix.weight.T + mix.bias + x[:, first:]
        norm = model.norms[i]
        mean, var = norm.running_mean, norm.running_var
        if training:
            mean, var = y.mean((0, 1, 2)), y.var((0, 1, 2), unbiased=False)
        x = (y - mean) / (var + 1e-5).sqrt() * norm.weight + norm.bias
    assert skip.shape[1] == 1
    hidden = skip[:, 0].clamp(min=0) @ model.hidden.weight.T + model.hidden.bias
    return (hidden.clamp(min=0) @ model.output.weight.T + model.output.bias).transpose(1, 2)


@pytest.mark.parametrize(
    ("options", "dilations"),
    [
        ({}, [1, 2] * 4),
        ({"input_len": 13}, [1, 2] * 4),
        ({"input_len": 1}, [1, 2] * 4),
        ({"num_blocks": 2, "num_layers": 3}, [1, 2, 4, 1, 2, 4]),
        ({"num_blocks": 1, "num_layers": 1, "input_len": 2}, [1]),
        ({"num_blocks": 2, "kernel_size": 3, "diffusion_order": 3}, [1, 2, 1, 2]),
        ({"diffusion_order": 1}, [1, 2] * 4),
        ({"both_ways": True}, [1, 2] * 4),
    ],
)
@pytest.mark.parametrize("training", [False, True])
def test_the_forecast_is_the_papers(options, dilations, training):
    model, inputs, timestamps = model_and_windows(**options)
    sizes = {"kernel_size": options.get("kernel_size", 2), "order": options.get("diffusion_order", 2)}
    sizes["both_ways"] = options.get("both_ways", False)
    expected = written_out(model, inputs, timestamps, dilations=dilations, training=training, **sizes)
    torch.testing.assert_close(model.train(training)(inputs, timestamps), expected)


@pytest.mark.parametrize("order", [1, 2, 4])
def test_diffusion_is_a_sum_over_dense_powers_with_their_gradients(order):
    torch.manual_seed(0)
    layer = DiffusionConvolution(3, 4, order, copies=(1, 1)).double()
    x = torch.randn(2, 3, N, 6, dtype=torch.float64, requires_grad=True)
    graphs = [torch.randn(N, N, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    terms = [x] + [
        torch.einsum("ij,bcjt->bcit", torch.linalg.matrix_power(graph, k), x)
        for graph in graphs
        for k in range(1, order + 1)
    ]
    expected = torch.einsum("oc,bcnt->bont", layer.mix.weight, torch.cat(terms, dim=1)) + layer.mix.bias[:, None, None]
    found = layer(x, graphs)
    torch.testing.assert_close(found, expected)
    upstream = torch.randn_like(expected)
    leaves = [x, *graphs, *layer.parameters()]
    for slow, fast in zip(
        torch.autograd.grad(expected, leaves, upstream), torch.autograd.grad(found, leaves, upstream), strict=True
    ):
        torch.testing.assert_close(fast, slow)


def test_two_graphs_that_are_the_same_are_multiplied_once():
    torch.manual_seed(0)
    apart, once = (DiffusionConvolution(3, 4, 2, copies).double() for copies in ((1, 1, 1), (2, 1)))
    once.load_state_dict(apart.state_dict())
    x, road, learned = (torch.randn(size, dtype=torch.float64) for size in ((2, 3, N, 6), (N, N), (N, N)))
    upstream = torch.randn(2, 4, N, 6, dtype=torch.float64)
    for found, expected in zip(
        [y := once(x, [road, learned]), *torch.autograd.grad(y, once.parameters(), upstream)],
        [y := apart(x, [road, road, learned]), *torch.autograd.grad(y, apart.parameters(), upstream)],
        strict=True,
    ):
        torch.testing.assert_close(found, expected)


def test_a_road_with_all_edges_both_ways_has_one_transition_matrix_of_both_sets_of_weights():
    both_ways = GWNet(GWNetConfig(**SIZES), ArrayPrior(N, road_graph(both_ways=True)))
    directed = GWNet(GWNetConfig(**SIZES), ArrayPrior(N, road_graph()))
    assert (len(both_ways.transitions), len(directed.transitions)) == (1, 2)
    assert {k: v.shape for k, v in both_ways.state_dict().items()} == {
        k: v.shape for k, v in directed.state_dict().items()
    }


def test_without_a_road_the_learned_graph_alone_joins_the_sensors():
    torch.manual_seed(0)
    model = GWNet(GWNetConfig(**SIZES), BlankPrior(N)).double().eval()
    inputs = torch.randn(1, 12, N, dtype=torch.float64, requires_grad=True)
    timestamps = torch.zeros(1, 12, 2)
    assert not model.transitions.any()
    (reached,) = torch.autograd.grad(model(inputs, timestamps)[..., 0].sum(), inputs)
    assert reached[0].abs().amax(0).gt(0).all()
    with torch.no_grad():
        model.source.zero_()  # every weight is 1 / N, and gradients still pass to it
    (reached,) = torch.autograd.grad(model(inputs, timestamps)[..., 0].sum(), inputs)
    assert reached[0].abs().amax(0).gt(0).all()


def test_every_step_of_the_window_reaches_the_forecast_and_readings_of_one_window_reach_no_other():
    model, inputs, timestamps = model_and_windows()
    model.eval()
    inputs.requires_grad_()
    (reached,) = torch.autograd.grad(model(inputs, timestamps)[0].sum(), inputs)
    assert reached[0].abs().amax(-1).gt(0).all()
    assert not reached[1].any()


@pytest.mark.parametrize("dataset", list(COUNTS))
def test_parameters_are_the_published_ones(dataset):
    num_features, published = COUNTS[dataset]
    for name, recipe in ENTRY.recipes[dataset].items():
        with torch.device("meta"):
            config = ENTRY.build_config(num_features=num_features, **recipe.params)
            model = GWNet(config, BlankPrior(num_features))
        assert sum(p.numel() for p in model.parameters()) == published, name


def test_the_parameters_without_a_use_are_those_that_say_so():
    torch.manual_seed(0)
    model = GWNet(GWNetConfig(num_features=N), BlankPrior(N))
    model(torch.randn(2, 12, N), torch.zeros(2, 12, 2)).sum().backward()
    unused = {name: p.numel() for name, p in model.named_parameters() if p.grad is None}
    assert all(name.startswith("unused_") for name in unused)
    assert sum(unused.values()) == 15_712
    assert sum(p.numel() for name, p in model.named_parameters() if name.startswith("unused_")) == 15_712


def test_a_checkpoint_holds_no_graph():
    model, _, _ = model_and_windows()
    assert "transitions" not in model.state_dict()
    names = {name for name, _ in model.named_parameters()}
    assert all(
        ".running_" in name or name.endswith("num_batches_tracked") for name in model.state_dict().keys() - names
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_len": 14}, r"input_len has to be at most 13, as far as 4 blocks .* of 2 layers .* reach, got 14"),
        ({"num_features": 0}, "num_features has to be a positive whole number, got 0"),
        ({"hidden_size": 2.5}, "hidden_size has to be a positive whole number, got 2.5"),
        ({"diffusion_order": 0}, "diffusion_order has to be a positive whole number, got 0"),
        ({"dropout": 1.0}, r"dropout has to be in \[0, 1\), got 1.0"),
    ],
)
def test_sizes_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        GWNet(GWNetConfig(**{**SIZES, **options}), BlankPrior(N))


def test_a_model_without_a_folder_asks_for_one():
    with pytest.raises(ValueError, match="data_dir"):
        GWNet(GWNetConfig(**SIZES))


def test_recipes_are_the_published_ones():
    for name, steps in (("PEMS-BAY", (1, 50)), ("PEMS08", (1, 50, 100))):
        basicts, old = (ENTRY.recipes[name][kind].recipe for kind in ("basicts", "basicts-pre-0.4"))
        assert (basicts.lr, basicts.weight_decay, basicts.gamma, basicts.clip_grad_norm) == (0.002, 0.0001, 0.5, 5.0)
        assert (basicts.batch_size, basicts.milestones, basicts.num_epochs) == (16, (1, 50), 100)
        assert (old.batch_size, old.milestones) == (64, steps)
        assert next(iter(ENTRY.recipes[name])) == "basicts"
    authors = ENTRY.recipes["PEMS-BAY"]["authors"].recipe
    assert (authors.lr, authors.milestones, authors.batch_size, authors.clip_grad_norm) == (0.001, (), 64, 5.0)
    assert "authors" not in ENTRY.recipes["PEMS08"]
