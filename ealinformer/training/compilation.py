"""torch.compile of a run's model: in place, for whole batches, and one line where it cannot be."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn

from ealinformer.errors import InputError

_CUDA_GRAPHS = ("reduce-overhead", "max-autotune")


def compile_in_place(model: nn.Module, mode: str) -> None:
    """Have calls of `model` run compiled, for each size of a batch by itself; names and weights stay as they are.

    Sizes are fixed, as CUDA graphs need them; sizes that are met once an epoch are better run `uncompiled`.
    """
    if mode != "off":
        model.compile(mode=mode, dynamic=False)


def check_parts(mode: str, micro_batch_size: int | None, *, cuda: bool) -> None:
    """Raises InputError where CUDA graphs would write over the gradients that the parts of a batch add up."""
    if cuda and mode in _CUDA_GRAPHS and micro_batch_size is not None:
        raise InputError(
            f"compile={mode} with micro_batch_size={micro_batch_size}: its CUDA graphs write over gradients that are "
            "being added up: compile=default is expected"
        )


def uncompiled(when: bool = True) -> AbstractContextManager[None]:
    """Within the block compiled modules run as they were written, where `when` is true."""
    return torch.compiler.set_stance("force_eager") if when else nullcontext()


def check_compiler(mode: str, device: str) -> None:
    """Compile a sum, as torch itself says best whether it can: some seconds, unless `mode` is off.

    Raises:
        InputError: torch lacks a compiler, or Triton.
    """
    if mode != "off":
        with explaining_compiler(mode):
            torch.compile(_sum)(torch.ones(2, device=device))


@contextmanager
def explaining_compiler(mode: str) -> Iterator[None]:
    """Make one line of what torch's compiler says when it fails."""
    try:
        yield
    except RuntimeError as error:
        if mode == "off" or not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        said = " ".join(str(error).split("\n\n")[0].split())
        raise InputError(f"compile={mode}: torch cannot compile here: {said}; compile=off does without") from error


def _sum(numbers: Tensor) -> Tensor:
    return (numbers * 2).sum()
