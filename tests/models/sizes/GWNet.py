"""Graph WaveNet as the common checks build it."""

SMALL = {
    "hidden_size": 8,
    "skip_size": 12,
    "end_size": 16,
    "num_blocks": 2,
    "num_layers": 3,
    "node_embedding_size": 4,
    "dropout": 0.0,
}
WITHOUT_GRADIENT = (
    "spatial_layers.*.mix.bias",  # BatchNorm takes a common shift away
    "unused_*",
)
DETERMINISTIC_EVAL = True
EQUIVARIANT = True


def FITS(input_len: int, output_len: int, num_features: int) -> bool:  # noqa: N802
    """Two blocks of dilations 1, 2, 4 reach 15 steps."""
    return input_len <= 15
