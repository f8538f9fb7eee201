"""STGCN in small, for tests/models/test_conformance.py."""

# 4 of the L steps are taken by the blocks.
SMALL = {
    "hidden_size": 8,
    "graph_hidden_size": 4,
    "output_hidden_size": 16,
    "num_layers": 2,
    "temporal_kernel_size": 2,
    "dropout": 0.0,
}
WITHOUT_GRADIENT = ("*.unused_projection.*",)
DETERMINISTIC_EVAL = True
EQUIVARIANT = True


def FITS(input_len: int, output_len: int, num_features: int) -> bool:  # noqa: N802
    """Which windows it takes."""
    return input_len > 4
