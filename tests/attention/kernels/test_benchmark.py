"""benchmarks/kernels.py where it cannot measure."""

import pytest
import torch

from benchmarks import kernels
from ealinformer.errors import InputError


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_in_one_line():
    with pytest.raises(InputError, match="no CUDA device"):
        kernels.main([])
