"""The folder of a run: what it says of itself, who may work in it, and many of them seen together."""
