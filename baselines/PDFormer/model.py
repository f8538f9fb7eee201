"""PDFormer (arXiv 2301.07945): six blocks of geographic, semantic and temporal attention, all of them to the output."""

import numpy as np
import torch
from torch import Tensor, nn

from baselines.PDFormer.attention import Neighbours
from baselines.PDFormer.block import EncoderBlock
from baselines.PDFormer.config import PDFormerConfig, check_config
from baselines.PDFormer.delay import Patterns, recent_readings
from baselines.PDFormer.drop_path import linear_rates
from baselines.PDFormer.embedding import DataEmbedding
from baselines.PDFormer.output import OutputLayer
from baselines.PDFormer.sensors import SensorKnowledge, know_sensors
from ealinformer.data.prior import SensorPrior, open_prior
from ealinformer.models.windows import check_windows


class PDFormer(nn.Module):
    """Forecasts `[B, L, N]` -> `[B, H, N]`; time quadratic in the number of sensors N.

    Raises:
        ValueError: a size in the config cannot be, or nothing is known of the sensors.
    """

    near: Tensor
    similar: Tensor
    patterns: Tensor

    def __init__(self, config: PDFormerConfig, prior: SensorPrior | None = None) -> None:
        super().__init__()
        check_config(config)
        prior = prior or open_prior(config.data_dir, config.graph, config.num_features)
        known: SensorKnowledge = know_sensors(prior, config)
        self.input_len = config.input_len
        self.num_features = config.num_features
        self.pattern_len = config.pattern_len

        self.register_buffer("near", torch.as_tensor(known.near), persistent=False)
        self.register_buffer("similar", torch.as_tensor(known.similar), persistent=False)
        self.register_buffer("patterns", _real(known.patterns), persistent=False)
        self.embedding = DataEmbedding(config, _real(known.eigenvectors))
        self.pattern_embedding = nn.Linear(config.pattern_len, config.hidden_size)
        rates = linear_rates(config.drop_path, config.num_layers)
        self.blocks = nn.ModuleList(EncoderBlock(config, rate) for rate in rates)
        self.output = OutputLayer(config)

    def forward(self, inputs: Tensor, inputs_timestamps: Tensor) -> Tensor:
        """Z-scored readings `[B, L, N]` and `[B, L, 2]` time of day and day of week in [0, 1) -> `[B, H, N]`, z-scored.

        Raises:
            ValueError: L or N are not those of the config, or the timestamps are not those of the inputs.
        """
        check_windows(inputs, inputs_timestamps, self.input_len, self.num_features)
        embed = self.pattern_embedding
        patterns = Patterns(recent_readings(inputs, self.pattern_len), embed(self.patterns), embed.weight, embed.bias)
        neighbours = Neighbours(self.near, self.similar)
        x = self.embedding(inputs, inputs_timestamps)
        outputs = []
        for block in self.blocks:
            x = block(x, patterns, neighbours)
            outputs.append(x)
        return self.output(outputs)


def _real(array: np.ndarray) -> Tensor:
    return torch.as_tensor(array, dtype=torch.get_default_dtype())
