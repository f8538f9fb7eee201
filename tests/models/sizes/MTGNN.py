"""MTGNN as the common checks build it."""

SMALL = {
    "hidden_size": 8,
    "skip_size": 12,
    "end_size": 16,
    "num_layers": 2,
    "node_embedding_size": 4,
    "num_neighbors": 10,
    "saturation": 0.5,  # so that no weight of the graph is 1 to rounding, where tanh has no gradient
    "dropout": 0.0,
}
WITHOUT_GRADIENT = ("layers.*.unused_residual.*",)
DETERMINISTIC_EVAL = True
EQUIVARIANT = True


def FITS(input_len: int, output_len: int, num_features: int) -> bool:  # noqa: N802
    """Short windows are padded, and long ones leave more steps to the last layer."""
    return True
