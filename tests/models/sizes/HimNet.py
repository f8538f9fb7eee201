"""HimNet in small, for the tests of all models."""

SMALL = {
    "hidden_size": 12,
    "node_embedding_size": 4,
    "tid_hidden_size": 3,
    "diw_hidden_size": 2,
    "st_embedding_size": 3,
    "tf_decay_steps": 20,
}
WITHOUT_GRADIENT = ()
DETERMINISTIC_EVAL = True
EQUIVARIANT = True


def FITS(input_len, output_len, num_features):  # noqa: N802
    """Every window."""
    return True
