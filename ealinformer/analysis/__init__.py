"""Studies of a trained model and of its attention: how near, how robust."""
