"""D2STGNN as the conformance tests build it."""

SMALL = {
    "hidden_size": 8,
    "node_hidden_size": 5,
    "time_hidden_size": 4,
    "gate_hidden_size": 12,
    "forecast_hidden_size": 16,
    "output_hidden_size": 20,
    "num_layers": 2,
    "n_heads": 2,
    "k_t": 2,
    "gap": 2,
    "dropout": 0.0,
}
WITHOUT_GRADIENT = (
    "dynamic_graph.unused_time_slot.*",
    "layers.*.diffusion.convolution.unused_norm.*",
    "layers.1.inherent.unused_decomposition.*",
)


def FITS(input_len, output_len, num_features):  # noqa: N802
    """Each of the two layers takes a step off the input."""
    return input_len >= 3


DETERMINISTIC_EVAL = True
EQUIVARIANT = True
