"""Entropy-equal linear attention and ELinFormer for traffic forecasting (arXiv 2511.03190), on BasicTS."""

__version__ = "0.1.0"
