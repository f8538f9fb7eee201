"""GTS: DCRNN's encoder and decoder on a graph that is learned with them."""

from numbers import Real

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.DCRNN.seq2seq import DiffusionSeq2Seq
from baselines.GTS.config import GTSConfig
from baselines.GTS.features import nearest_neighbours, node_features
from baselines.GTS.graph import GraphLearner, looped_walk, sample_links
from baselines.layers.diffusion import diffusion_powers
from ealinformer.data.prior import SensorPrior, open_prior
from ealinformer.models.config import check_positive
from ealinformer.models.windows import check_windows, with_time_of_day


class GTS(nn.Module):
    """Forecasts `[B, L, N]` -> `[B, H, N]`; every call embeds the whole training part anew.

    Raises:
        ValueError: a size in the config cannot be, the training part is too short, or there is no prior.
        InputError: the training part cannot be read.
    """

    neighbours: Tensor

    def __init__(self, config: GTSConfig, prior: SensorPrior | None = None) -> None:
        super().__init__()
        _check(config)
        prior = prior or open_prior(config.data_dir, config.graph, config.num_features)
        self.input_len, self.num_features = config.input_len, config.num_features
        self.max_diffusion_step, self.temperature = config.max_diffusion_step, config.temperature
        self.graph_loss_weight = config.graph_loss_weight

        features, dtype = node_features(prior.readings()), torch.get_default_dtype()
        self.graph_learner = GraphLearner(torch.as_tensor(features, dtype=dtype), config.embedding_size)
        if self.graph_loss_weight:
            neighbours = torch.as_tensor(nearest_neighbours(features, config.knn_k), dtype=dtype)
            self.register_buffer("neighbours", neighbours, persistent=False)
        self.seq2seq = DiffusionSeq2Seq(
            config.hidden_size,
            config.num_layers,
            1 + config.max_diffusion_step,
            config.output_len,
            config.cl_decay_steps,
        )

    def forward(
        self, inputs: Tensor, inputs_timestamps: Tensor, targets: Tensor | None = None, step: int | Tensor = 1
    ) -> Tensor | dict[str, Tensor]:
        """Readings `[B, L, N]`, their time of day and day of week `[B, L, 2]` in [0, 1) -> `[B, H, N]`; all z-scored.

        In training the links are drawn, the decoder reads `targets` `[B, H, N]` less and less as `step` grows, and the
        cross entropy of the link probabilities comes as "auxiliary_loss". Otherwise the probabilities are the weights
        of the graph, so that the same inputs have the same forecast.

        Raises:
            ValueError: L or N are not those of the config, or the timestamps are not those of the inputs.
        """
        check_windows(inputs, inputs_timestamps, self.input_len, self.num_features)
        log_odds = self.graph_learner()
        links = sample_links(log_odds, self.temperature) if self.training else torch.sigmoid(log_odds)
        powers = diffusion_powers([looped_walk(links)], self.max_diffusion_step)
        channels = with_time_of_day(inputs, inputs_timestamps)
        prediction = self.seq2seq(channels, powers, targets if self.training else None, step)
        if not (self.training and self.graph_loss_weight):
            return prediction
        cross_entropy = F.binary_cross_entropy_with_logits(log_odds, self.neighbours)
        return {"prediction": prediction, "auxiliary_loss": self.graph_loss_weight * cross_entropy}


def _check(config: GTSConfig) -> None:
    """Raises ValueError that names the first field that cannot be."""
    check_positive(config, "input_len", "output_len", "num_features", "hidden_size", "num_layers")
    check_positive(config, "max_diffusion_step", "embedding_size", "knn_k", "cl_decay_steps")
    if not _is_number(config.temperature) or not 0 < config.temperature < float("inf"):
        raise ValueError(f"temperature has to be a positive number, got {config.temperature!r}")
    if not _is_number(config.graph_loss_weight) or not 0 <= config.graph_loss_weight < float("inf"):
        raise ValueError(f"graph_loss_weight has to be 0 or a positive number, got {config.graph_loss_weight!r}")


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
