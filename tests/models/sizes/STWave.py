"""STWave in the tests of all models."""

# Sizes of a model that runs in milliseconds.
SMALL = {"hidden_size": 16, "n_heads": 1, "num_layers": 2, "wave_type": "sym2", "wave_levels": 1, "dropout": 0.0}

# No gradient passes through the choice of queries, and a softmax does not see what it adds to all keys alike.
WITHOUT_GRADIENT = ("*.score.*", "*.k_proj.bias")


def FITS(input_len: int, output_len: int, num_features: int) -> bool:  # noqa: N802
    """Every window, as the wavelet transform goes on beyond its ends."""
    return True


DETERMINISTIC_EVAL = True
# Where no two sensors are equally near to a third, and no eigenvalue comes twice: on a graph with weights.
EQUIVARIANT = True
