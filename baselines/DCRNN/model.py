"""DCRNN: random walks on the road graph inside of a recurrent encoder and decoder."""

import torch
from torch import Tensor, nn

from baselines.DCRNN.config import DCRNNConfig
from baselines.DCRNN.seq2seq import DiffusionSeq2Seq
from baselines.layers.diffusion import diffusion_powers
from ealinformer.data.prior import SensorPrior, open_prior
from ealinformer.graphs.transitions import double_transition
from ealinformer.models.config import check_positive
from ealinformer.models.windows import check_windows, with_time_of_day


class DCRNN(nn.Module):
    """Forecasts `[B, L, N]` -> `[B, H, N]`; L + H steps, each of which moves the states along the graph.

    Raises:
        ValueError: a size in the config cannot be, or there is no prior.
        InputError: the graph cannot be read.
    """

    powers: Tensor

    def __init__(self, config: DCRNNConfig, prior: SensorPrior | None = None) -> None:
        super().__init__()
        check_positive(config, "input_len", "output_len", "num_features")
        check_positive(config, "hidden_size", "num_layers", "max_diffusion_step", "cl_decay_steps")
        prior = prior or open_prior(config.data_dir, config.graph, config.num_features)
        self.input_len, self.num_features = config.input_len, config.num_features

        walks = [torch.as_tensor(w, dtype=torch.get_default_dtype()) for w in double_transition(prior.adjacency())]
        self.register_buffer("powers", diffusion_powers(walks, config.max_diffusion_step), persistent=False)
        self.seq2seq = DiffusionSeq2Seq(
            config.hidden_size,
            config.num_layers,
            1 + len(walks) * config.max_diffusion_step,
            config.output_len,
            config.cl_decay_steps,
        )

    def forward(
        self, inputs: Tensor, inputs_timestamps: Tensor, targets: Tensor | None = None, step: int | Tensor = 1
    ) -> Tensor:
        """Readings `[B, L, N]`, their time of day and day of week `[B, L, 2]` in [0, 1) -> `[B, H, N]`; all z-scored.

        `targets` `[B, H, N]` are read by the decoder in training alone, less and less as `step` grows.

        Raises:
            ValueError: L or N are not those of the config, or the timestamps are not those of the inputs.
        """
        check_windows(inputs, inputs_timestamps, self.input_len, self.num_features)
        channels = with_time_of_day(inputs, inputs_timestamps)
        return self.seq2seq(channels, self.powers, targets if self.training else None, step)
