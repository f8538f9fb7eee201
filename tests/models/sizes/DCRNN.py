"""A DCRNN that runs in milliseconds, and what is known of it."""

SMALL = {"hidden_size": 8, "num_layers": 2, "max_diffusion_step": 2, "cl_decay_steps": 20}
WITHOUT_GRADIENT = ()
DETERMINISTIC_EVAL = True
EQUIVARIANT = True


def FITS(input_len, output_len, num_features):  # noqa: N802
    """It takes every window."""
    return True
