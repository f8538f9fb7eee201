"""A small PDFormer for tests/models/test_conformance.py."""

SMALL = {
    "num_minute_in_day": 24,  # so that the windows of the tests look up every row
    "hidden_size": 32,
    "intermediate_size": 64,
    "skip_size": 64,
    "num_layers": 2,
    "geographic_heads": 2,
    "semantic_heads": 1,
    "temporal_heads": 1,
    "far_hops": 2,
    "num_similar": 3,
    "num_eigenvectors": 3,
    "num_patterns": 3,
    "pattern_days": 1,
    "dropout": 0.0,
    "drop_path": 0.0,
}
# Both move all keys, or all scores of a window, alike.
WITHOUT_GRADIENT = ("blocks.*.attention.delay.k_proj.bias", "blocks.*.attention.delay.v_proj.bias")
DETERMINISTIC_EVAL = True
EQUIVARIANT = True


def FITS(input_len: int, output_len: int, num_features: int) -> bool:  # noqa: N802
    """Which windows the architecture takes: all of them."""
    return True
