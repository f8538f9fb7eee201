"""What the kernels refuse, in one line each, on every machine."""

import subprocess
import sys

import pytest
import torch

from ealinformer.attention.kernels import entropy_equal_kernel, kernel_reason

NARROW, WIDE = torch.zeros(1, 2, 5, 8), torch.zeros(1, 2, 5, 65)


@pytest.mark.parametrize(
    ("tensors", "options", "words"),
    [
        ((NARROW, NARROW, NARROW), {"causal": True}, "no causal form"),
        ((NARROW, NARROW, NARROW), {"key_padding_mask": torch.zeros(5, dtype=torch.bool)}, "no key_padding_mask"),
        ((NARROW, NARROW, NARROW), {"entropy": "skewed"}, "taylor, second_order, gaussian, got 'skewed'"),
        ((NARROW.double(),) * 3, {}, "got torch.float64"),
        ((WIDE, WIDE, NARROW), {}, "up to 64 channels, got C = 65, Cv = 8"),
        ((NARROW, NARROW, WIDE), {}, "up to 64 channels, got C = 8, Cv = 65"),
        ((NARROW[:, :, :0], NARROW, NARROW), {}, "no empty tensors"),
    ],
)
def test_the_reason_is_one_line_and_names_what_came(tensors, options, words):
    reason = kernel_reason(*tensors, **options)
    assert words in reason
    assert "\n" not in reason


def test_a_call_that_the_kernels_cannot_take_is_refused_with_the_reason():
    with pytest.raises(ValueError, match="take float32, bfloat16 and float16"):
        entropy_equal_kernel(*(NARROW.double(),) * 3)
    with pytest.raises(ValueError, match="are expected, got q"):
        entropy_equal_kernel(NARROW, WIDE, NARROW)


def test_the_attention_imports_without_triton():
    code = (
        "import sys; sys.modules['triton'] = None\n"  # as if it were not installed
        "import torch, ealinformer.attention\n"
        "from ealinformer.attention.kernels import kernel_reason\n"
        "print(kernel_reason(*torch.zeros(3, 1, 5, 8)))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == "the kernels need triton, which is not installed\n"
