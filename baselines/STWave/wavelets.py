"""The split of a window into a slow and a fast part by a wavelet transform (arXiv 2112.02740, section IV-A)."""

import warnings

import numpy as np
import torch
from torch import Tensor, nn

from baselines.STWave.config import STWaveConfig
from ealinformer.attention.precision import without_autocast


class LowPass(nn.Module):
    """The slow part of windows of `length` steps; the fast part is the rest.

    The transform is linear, so it is one matrix, and a window passes it on the device.

    Raises:
        ValueError: PyWavelets has no discrete wavelet of that name.
    """

    matrix: Tensor  # [length, length]

    def __init__(self, length: int, config: STWaveConfig) -> None:
        super().__init__()
        matrix = low_pass_matrix(length, config.wave_type, config.wave_levels)
        self.register_buffer("matrix", torch.as_tensor(matrix, dtype=torch.get_default_dtype()), persistent=False)

    def forward(self, windows: Tensor) -> Tensor:
        """`[B, length, N]` -> the same of their slow parts."""
        with without_autocast(windows):  # the fast part is a small difference
            return self.matrix @ windows


def low_pass_matrix(length: int, wave_type: str, wave_levels: int) -> np.ndarray:
    """What decomposing, leaving out all details and putting together again does to a window: `[length, length]`.

    Windows go on beyond their ends as mirror images, PyWavelets' default; rows sum to 1, so a z-score may come before
    or after it. Raises ValueError where PyWavelets has no discrete wavelet of that name.
    """
    import pywt  # of all models this one alone needs it

    if wave_type not in pywt.wavelist(kind="discrete"):
        raise ValueError(f"wave_type has to be a discrete wavelet of PyWavelets, such as sym2, got {wave_type!r}")
    with warnings.catch_warnings():
        # That the last levels are all boundary on so short a window is as published: coif1 twice on 12 steps.
        warnings.simplefilter("ignore", UserWarning)
        approximation, *details = pywt.wavedec(np.eye(length), wave_type, level=wave_levels)
    slow = pywt.waverec([approximation, *(np.zeros_like(detail) for detail in details)], wave_type)
    return slow[:, :length].T  # an odd length comes back with a step too many
