"""STWave: slow and fast parts of a window go separate ways, and meet in the forecast."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.STWave.calendar import CalendarEmbedding
from baselines.STWave.config import STWaveConfig, check_config
from baselines.STWave.fusion import AdaptiveFusion
from baselines.STWave.graphs import alike_days, eigenpairs, nearest_sensors
from baselines.STWave.spatial import SampledAttention, num_neighbours
from baselines.STWave.temporal import CausalAttention, CausalConvolution
from baselines.STWave.wavelets import LowPass
from ealinformer.data.prior import SensorPrior, open_prior
from ealinformer.models.windows import check_windows


class ReadingEmbedding(nn.Module):
    """Two linear maps with a ReLU between, of a reading by itself."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.reading = nn.Linear(1, width)
        self.hidden = nn.Linear(width, width)

    def forward(self, readings: Tensor) -> Tensor:
        """`[B, L, N]` -> `[B, L, N, D]`."""
        return self.hidden(F.relu(self.reading(readings.unsqueeze(-1))))


class Layer(nn.Module):
    """One step of both branches, along time and then along sensors (arXiv 2112.02740, section IV-B).

    Before attention along sensors each gets its spectral position: the eigenvectors of the graph, scaled by their
    eigenvalues, which are trained from what they are on the graph.
    """

    def __init__(self, config: STWaveConfig, eigenvalues: Tensor, depth: int) -> None:
        super().__init__()
        self.eigenvalues = nn.Parameter(eigenvalues.clone())  # [graphs, D]
        self.temporal_low = CausalAttention(config)
        self.temporal_high = CausalConvolution(config, dilation=config.kernel_size**depth)
        self.spatial_low, self.spatial_high = SampledAttention(config), SampledAttention(config)

    def forward(
        self, low: Tensor, high: Tensor, past: Tensor, eigenvectors: Tensor, neighbours: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Both branches `[B, L, N, D]`, the calendar `[B, L, 1, D]`, eigenvectors `[graphs, N, D]` -> both branches."""
        low = low + past
        low, high = self.temporal_low(low, low), self.temporal_high(high)
        position = (eigenvectors * self.eigenvalues.unsqueeze(1)).sum(dim=0)
        low = low + self.spatial_low(low + position, neighbours)
        high = high + self.spatial_high(high + position, neighbours)
        return low, high


class Graphs(NamedTuple):
    """What is known of the sensors."""

    eigenvalues: Tensor  # [graphs, D]
    eigenvectors: Tensor  # [graphs, N, D]
    neighbours: Tensor  # [N, 1 + k]


class STWave(nn.Module):
    """Forecasts `[B, L, N]` -> `[B, H, N]` in time N log N.

    In training it forecasts the slow part of the targets as well, for a second loss (arXiv 2112.02740, section IV-D).

    Raises:
        ValueError: a size or a name in the config cannot be.
    """

    eigenvectors: Tensor
    neighbours: Tensor

    def __init__(self, config: STWaveConfig, prior: SensorPrior | None = None) -> None:
        super().__init__()
        check_config(config)
        prior = prior or open_prior(config.data_dir, config.graph, config.num_features)
        self.input_len, self.num_features = config.input_len, config.num_features
        graphs = _graphs(config, prior)
        self.register_buffer("eigenvectors", graphs.eigenvectors, persistent=False)
        self.register_buffer("neighbours", graphs.neighbours, persistent=False)
        self.slow_inputs = LowPass(config.input_len, config)
        self.slow_targets = LowPass(config.output_len, config)
        self.calendar = CalendarEmbedding(config)
        self.embed_low, self.embed_high = ReadingEmbedding(config.hidden_size), ReadingEmbedding(config.hidden_size)
        self.layers = nn.ModuleList(Layer(config, graphs.eigenvalues, depth) for depth in range(config.num_layers))
        self.fusion = AdaptiveFusion(config)

    def forward(
        self,
        inputs: Tensor,
        inputs_timestamps: Tensor,
        targets: Tensor | None = None,
        targets_timestamps: Tensor | None = None,
    ) -> Tensor | dict[str, Tensor]:
        """z-scored readings `[B, L, N]` and calendars `[B, L, 2]`, `[B, H, 2]` -> z-scored forecast `[B, H, N]`.

        In training, given targets `[B, H, N]`, a dict with the forecast, that of the targets' slow part, and that part.
        """
        check_windows(inputs, inputs_timestamps, self.input_len, self.num_features)
        past, future = self.calendar(inputs_timestamps, targets_timestamps)
        slow = self.slow_inputs(inputs)
        low, high = self.embed_low(slow), self.embed_high(inputs - slow)
        for layer in self.layers:
            low, high = layer(low, high, past, self.eigenvectors, self.neighbours)
        if not self.training or targets is None:
            return self.fusion(low, high, future, with_low=False)[0]
        prediction, prediction_low = self.fusion(low, high, future, with_low=True)
        second = {"auxiliary_prediction": prediction_low, "auxiliary_targets": self.slow_targets(targets)}
        return {"prediction": prediction, **second}


def _graphs(config: STWaveConfig, prior: SensorPrior) -> Graphs:
    N, D = config.num_features, config.hidden_size
    count = num_neighbours(config)
    near = prior.derived("stwave-neighbours", (N, 1 + count), lambda: nearest_sensors(prior.adjacency(), count))
    pairs = [prior.derived("stwave-eigenpairs", (1 + N, D), lambda: eigenpairs(prior.adjacency(), D))]
    if config.dtw_graph:
        steps = config.num_time_in_day
        days = prior.derived(
            "stwave-day-eigenpairs",
            (1 + N, D),
            lambda: eigenpairs(alike_days(prior, steps), D),
            steps_per_day=steps,
        )
        pairs.append(days)
    dtype = torch.get_default_dtype()
    spectra = torch.stack([torch.as_tensor(array, dtype=dtype) for array in pairs])
    return Graphs(spectra[:, 0], spectra[:, 1:], torch.as_tensor(near, dtype=torch.long))
