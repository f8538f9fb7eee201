"""A trained model for others."""
