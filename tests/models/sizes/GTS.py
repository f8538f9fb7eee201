"""A GTS that runs in milliseconds, and what is known of it; its training part has 19 readings or more."""

SMALL = {
    "hidden_size": 16,
    "num_layers": 1,
    "max_diffusion_step": 2,
    "embedding_size": 8,
    "knn_k": 3,
    "cl_decay_steps": 20,
}
STEPS = 300  # its links are drawn anew at every step
WITHOUT_GRADIENT = ()
DETERMINISTIC_EVAL = True
EQUIVARIANT = True  # where the series of its prior change places, too


def FITS(input_len, output_len, num_features):  # noqa: N802
    """It takes every window."""
    return True
