"""Parts that several published models are built of, one topic a file."""
