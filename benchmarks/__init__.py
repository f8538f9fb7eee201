"""Command lines that measure: time and memory of attentions and of whole models."""
