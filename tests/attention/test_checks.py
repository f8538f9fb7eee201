"""What the attentions refuse, and what they say."""

import pytest
import torch

from ealinformer.attention import entropy_equal_attention
from ealinformer.attention.names import unknown_name

Q, K = (2, 3, 4), (2, 5, 4)
NO = torch.zeros(3, 2, 5, dtype=torch.bool)


@pytest.mark.parametrize(
    ("shapes", "options", "message"),
    [
        (((2, 3), (4, 5), (4, 5)), {}, r"q \[..., Nq, C\].* got q \(2, 3\), k \(4, 5\)"),
        (((2, 3), (4, 3), (5, 3)), {}, r"got .* v \(5, 3\)"),
        (((3,), (4, 3), (4, 3)), {}, r"got q \(3,\)"),
        (((2, 3), (0, 3), (0, 3)), {}, r"at least one key.*k \(0, 3\)"),
        (((2, 0), (4, 0), (4, 3)), {}, "at least one channel"),
        (((2, 3, 4), (3, 5, 4), (3, 5, 4)), {}, r"leading dimensions .* got q \(2, 3, 4\), k \(3, 5, 4\)"),
        ((Q, K, K), {"entropy": "gausian"}, "entropy is one of .*, got 'gausian' .did you mean 'gaussian'?"),
        ((Q, K, K), {"entropy": None}, "entropy is one of .*, got None"),
        ((Q, K, K), {"branch": "cubic"}, "branch is one of auto, linear, quadratic, kernel, got 'cubic'"),
        ((Q, K, K), {"eps": -1e-3}, "eps .* at least 0, got -0.001"),
        ((Q, K, K), {"eps": float("nan")}, "eps .* got nan"),
        ((Q, K, K), {"eps": "small"}, "eps .* got 'small'"),
        ((Q, K, K), {"scale": float("inf")}, "scale .* got inf"),
        ((Q, K, K), {"scale": True}, "scale .* got True"),
        ((Q, K, K), {"causal": True}, "as many queries as keys"),
        ((Q, K, K), {"key_padding_mask": torch.zeros(2, 5)}, "has to be bool.*got torch.float32"),
        (
            (Q, K, K),
            {"key_padding_mask": NO[:2, :, :3][:, 0]},
            r"to \(2, 5\) is expected, got \(2, 3\)",
        ),
        (
            (Q, K, K),
            {"key_padding_mask": NO[:, 0]},
            r"to \(2, 5\) is expected, got \(3, 5\)",
        ),
        ((Q, K, K), {"key_padding_mask": NO}, r"got \(3, 2, 5\)"),
    ],
)
def test_bad_arguments_are_named(shapes, options, message):
    with pytest.raises(ValueError, match=message):
        entropy_equal_attention(*(torch.zeros(s) for s in shapes), **options)


@pytest.mark.parametrize(
    "dtypes", [(torch.float32, torch.float64, torch.float64), (torch.int64,) * 3, (torch.complex64,) * 3]
)
def test_dtypes_that_do_not_fit_are_named(dtypes):
    with pytest.raises(ValueError, match=f"one floating-point dtype .* got {dtypes[0]}, {dtypes[1]}"):
        entropy_equal_attention(*(torch.zeros(3, 4, dtype=d) for d in dtypes))


def test_a_name_that_is_near_to_none_gets_no_suggestion():
    assert str(unknown_name("entropy", "xyz", ["taylor"])) == "entropy is one of taylor, got 'xyz'"
