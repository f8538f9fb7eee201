"""Entropy-equal attention as Triton kernels: each pass reads its tensors once. Triton is imported at the first call."""

from ealinformer.attention.kernels.entropy_equal import entropy_equal_kernel, kernel_reason

__all__ = ["entropy_equal_kernel", "kernel_reason"]
