"""STGCN against its equations written out step by step, its sizes, and what it refuses."""

import networkx as nx
import numpy as np
import pytest
import torch

from baselines.STGCN import ENTRY, STGCN, STGCNConfig
from ealinformer.data.prior import ArrayPrior, BlankPrior, FolderPrior
from ealinformer.graphs.laplacians import scaled_laplacian

PARAMETERS = {
    "PEMS-BAY": (325, 306_444),
    "PEMS03": (358, 323_340),
    "PEMS04": (307, 297_228),
    "PEMS07": (883, 592_140),
    "PEMS08": (170, 227_084),
}
UNUSED = 14_784
L, H, N = 12, 5, 7
ROADS = nx.to_numpy_array(nx.random_geometric_graph(N, 0.5, seed=2)).astype(np.float32)


def small(**params) -> STGCN:
    sizes = {"hidden_size": 6, "graph_hidden_size": 3, "output_hidden_size": 10, "dropout": 0.0}
    config = STGCNConfig(**{**sizes, "input_len": L, "output_len": H, "num_features": N, **params})
    torch.manual_seed(0)
    model = STGCN(config, ArrayPrior(N, weights=ROADS)).double().eval()
    model.support = torch.as_tensor(scaled_laplacian(ROADS))  # not rounded to float32
    return model


def windows(batch: int = 3, input_len: int = L) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(batch, input_len, N, generator=generator, dtype=torch.float64),
        torch.rand(batch, input_len, 2, generator=generator, dtype=torch.float64),
    )


@pytest.mark.parametrize("series", list(PARAMETERS))
def test_there_are_as_many_parameters_as_published(series: str) -> None:
    num_sensors, count = PARAMETERS[series]
    params = ENTRY.recipes[series]["basicts"].params
    model = STGCN(ENTRY.build_config(num_features=num_sensors, **params), BlankPrior(num_sensors))
    assert sum(p.numel() for p in model.parameters()) == count
    assert sum(p.numel() for name, p in model.named_parameters() if "unused" in name) == UNUSED
    assert sum(t.numel() for t in model.state_dict().values()) == count  # the Laplacian is not saved


def test_the_unused_maps_get_no_gradient_and_all_else_does() -> None:
    model = STGCN(STGCNConfig(num_features=N, dropout=0.0), ArrayPrior(N, weights=ROADS)).double()
    model(*windows()).square().sum().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None]
    assert without
    assert all("unused_projection" in name for name in without)
    assert sum(p.numel() for p in model.parameters() if p.grad is None) == UNUSED
    assert all(p.grad.abs().max() > 0 for p in model.parameters() if p.grad is not None)


class Explicit:
    """The model one sensor, step and channel at a time, on the weights of a `STGCN`; no padding, no shortcuts."""

    def __init__(self, model: STGCN, support: np.ndarray) -> None:
        self.weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
        self.values, self.vectors = np.linalg.eigh(support)
        self.num_blocks = len(model.blocks)

    def aligned(self, x: np.ndarray, name: str, size: int) -> np.ndarray:
        if size < len(x):
            return self.weights[f"{name}.projection.weight"] @ x + self.weights[f"{name}.projection.bias"]
        return np.concatenate([x, np.zeros(size - len(x))])

    def gated(self, x: np.ndarray, name: str) -> np.ndarray:
        """`[T, N, C]` -> `[T - K + 1, N, C_out]`: (P + x) * sigmoid(Q)."""
        weight, bias = self.weights[f"{name}.convolution.weight"], self.weights[f"{name}.convolution.bias"]
        kernel, size = weight.shape[2], len(bias) // 2
        out = np.zeros((len(x) - kernel + 1, x.shape[1], size))
        for t in range(len(out)):
            for n in range(x.shape[1]):
                both = bias + sum(weight[:, :, k, 0] @ x[t + k, n] for k in range(kernel))
                residual = self.aligned(x[t + kernel - 1, n], f"{name}.align", size)
                out[t, n] = (both[:size] + residual) / (1 + np.exp(-both[size:]))
        return out

    def graph(self, x: np.ndarray, name: str) -> np.ndarray:
        """relu(x + sum over k of T_k(L) x W_k + b), by the eigenvalues of L."""
        weight, bias = self.weights[f"{name}.graph_convolution.weight"], self.weights[f"{name}.graph_convolution.bias"]
        size = len(bias)
        x = np.array([[self.aligned(x[t, n], f"{name}.align", size) for n in range(x.shape[1])] for t in range(len(x))])
        out = x + bias
        for k in range(len(weight)):
            response = np.cos(k * np.arccos(np.clip(self.values, -1, 1)))
            for t in range(len(x)):
                out[t] += self.vectors @ np.diag(response) @ self.vectors.T @ x[t] @ weight[k]
        return np.maximum(out, 0)

    def normed(self, x: np.ndarray, name: str) -> np.ndarray:
        """Over sensors and channels of each step."""
        steps = [(step - step.mean()) / np.sqrt(step.var() + 1e-5) for step in x]
        return np.array(steps) * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def forecast(self, window: np.ndarray) -> np.ndarray:
        x = window[:, :, None]
        for i in range(self.num_blocks):
            x = self.graph(self.gated(x, f"blocks.{i}.before"), f"blocks.{i}")
            x = self.normed(self.gated(x, f"blocks.{i}.after"), f"blocks.{i}.norm")
        x = self.normed(self.gated(x, "output_convolution"), "output_norm")
        assert len(x) == 1
        w = self.weights
        hidden = np.maximum(x[0] @ w["output_proj.0.weight"].T + w["output_proj.0.bias"], 0)
        return (hidden @ w["output_proj.2.weight"].T + w["output_proj.2.bias"]).T


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"num_layers": 1, "temporal_kernel_size": 2, "graph_kernel_size": 4},
        {"num_layers": 3, "temporal_kernel_size": 2, "graph_kernel_size": 1},
        {"graph_hidden_size": 9},  # widens within a block, so that the gated convolution after it narrows
        {"output_hidden_size": 4},
        {"temporal_kernel_size": 1},
    ],
)
def test_the_forecast_is_that_of_the_equations(params: dict) -> None:
    model = small(**params)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if "norm" in name:  # not the ones and zeros of a new model
                tensor += torch.randn(tensor.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        explicit = Explicit(model, scaled_laplacian(ROADS))
        inputs, timestamps = windows()
        found = model(inputs, timestamps).numpy()
    for window, forecast in zip(inputs.numpy(), found, strict=True):
        np.testing.assert_allclose(forecast, explicit.forecast(window), atol=1e-9)


def test_the_laplacian_has_its_spectrum_between_minus_1_and_1() -> None:
    values = torch.linalg.eigvalsh(small().support)
    assert values.max() == pytest.approx(1, abs=1e-6)
    assert values.min() >= -1 - 1e-6
    assert values.min() < -0.9  # a road graph has the eigenvalue 0 before it is scaled


def test_the_laplacian_has_the_default_precision() -> None:
    torch.set_default_dtype(torch.float64)
    try:
        model = STGCN(STGCNConfig(num_features=N), ArrayPrior(N, weights=ROADS))
    finally:
        torch.set_default_dtype(torch.float32)
    np.testing.assert_allclose(model.support.numpy(), scaled_laplacian(ROADS), rtol=1e-15)
    assert "support" not in model.state_dict()
    assert model(*windows(input_len=12)).dtype == torch.float64


def test_without_roads_a_change_at_one_sensor_stays_there_but_for_the_norm() -> None:
    """Sensors meet in the graph convolution and in the layer norm alone."""
    model = small()
    for norm in (*(block.norm for block in model.blocks), model.output_norm):
        norm.forward = lambda x: x
    inputs, timestamps = windows()
    changed = inputs.clone()
    changed[:, :, 0] += 1

    def reached() -> list[int]:
        difference = (model(changed, timestamps) - model(inputs, timestamps)).abs().amax((0, 1))
        return torch.nonzero(difference > 0).flatten().tolist()

    graph = nx.from_numpy_array(ROADS)
    within = nx.single_source_shortest_path_length(graph, 0, cutoff=4)  # two blocks of polynomials of degree 2
    assert reached() == sorted(within)
    model.support = torch.eye(N, dtype=torch.float64)
    assert reached() == [0]


def test_the_graph_comes_from_the_folder_of_the_config(tmp_path) -> None:
    np.save(tmp_path / "roads.npy", ROADS)
    sizes = {"num_features": N, "hidden_size": 4, "output_hidden_size": 4}
    model = STGCN(STGCNConfig(graph=str(tmp_path / "roads.npy"), **sizes))
    torch.testing.assert_close(model.support.double().numpy(), scaled_laplacian(ROADS), rtol=1e-6, atol=1e-6)
    blank = STGCN(STGCNConfig(data_dir=str(tmp_path), graph="none", **sizes))
    torch.testing.assert_close(blank.support, torch.eye(N))
    with pytest.raises(ValueError, match="data_dir"):
        STGCN(STGCNConfig(**sizes))
    with pytest.raises(ValueError, match="without a road graph"):
        STGCN(STGCNConfig(**sizes), FolderPrior(tmp_path, N))


def test_it_is_built_on_the_meta_device() -> None:
    with torch.device("meta"):
        model = STGCN(STGCNConfig(num_features=170), BlankPrior(170))
    assert all(p.is_meta for p in model.parameters())


def test_timestamps_do_not_matter() -> None:
    model, (inputs, timestamps) = small(), windows()
    assert torch.equal(model(inputs, timestamps), model(inputs, torch.zeros_like(timestamps)))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"input_len": 8}, "input_len has to be above 8, .*, got 8"),
        ({"input_len": 12, "num_layers": 3}, "input_len has to be above 12, which 3 blocks .*, got 12"),
        ({"input_len": 12, "temporal_kernel_size": 4}, "above 12, .* temporal_kernel_size 4 take, got 12"),
        ({"num_features": 0}, "num_features has to be a positive whole number, got 0"),
        ({"output_len": 0}, "output_len has to be a positive whole number, got 0"),
        ({"hidden_size": -1}, "hidden_size has to be a positive whole number, got -1"),
        ({"graph_hidden_size": 0}, "graph_hidden_size has to be a positive whole number, got 0"),
        ({"output_hidden_size": 1.5}, "output_hidden_size has to be a positive whole number, got 1.5"),
        ({"num_layers": 0}, "num_layers has to be a positive whole number, got 0"),
        ({"temporal_kernel_size": 0}, "temporal_kernel_size has to be a positive whole number, got 0"),
        ({"graph_kernel_size": 0}, "graph_kernel_size has to be a positive whole number, got 0"),
        ({"dropout": 1.0}, r"dropout has to be in \[0, 1\), got 1.0"),
    ],
)
def test_sizes_that_cannot_be_are_refused(params: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        STGCN(STGCNConfig(**{"num_features": N, **params}), BlankPrior(N))


def test_the_recipes_are_those_of_basicts() -> None:
    for series in ("PEMS-BAY", "PEMS03", "PEMS04", "PEMS07", "PEMS08", "default"):
        recipe = ENTRY.recipes[series]["basicts"].recipe
        assert next(iter(ENTRY.recipes[series])) == "basicts"
        assert (recipe.optimizer, recipe.lr, recipe.weight_decay, recipe.eps) == ("adam", 4e-4, 3e-4, 1e-8)
        assert (recipe.milestones, recipe.gamma, recipe.loss) == ((1, 50), 0.5, "masked_mae")
        assert (recipe.batch_size, recipe.eval_batch_size, recipe.num_epochs) == (16, 64, 100)
        assert (recipe.patience, recipe.select_by, recipe.clip_grad_norm) == (None, "MAE", None)
    for series in PARAMETERS:
        recipe = ENTRY.recipes[series]["basicts-pre-0.4"].recipe
        assert (recipe.lr, recipe.weight_decay, recipe.batch_size, recipe.clip_grad_norm) == (2e-3, 1e-4, 64, 5.0)
        assert recipe.milestones == ((1, 50) if series == "PEMS-BAY" else (1, 50, 100))
