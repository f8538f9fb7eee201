"""Which devices a run takes."""

import os
import re

import torch
from easytorch.device import set_device_type

from ealinformer.errors import InputError
from ealinformer.training.distributed.ranks import Ranks


def select_devices(gpus: str | None, ranks: Ranks | None = None) -> int:
    """Make the devices of `--gpus` ("0", "0,1", or None for the CPU) the ones this process sees; returns how many.

    One of several ranks on a machine takes the one that is its own, by its local rank. Has to come before the first
    use of CUDA in the process.

    Raises:
        InputError: the argument is no list of numbers, or there are no such devices, or not one for each rank.
    """
    if gpus is None:
        set_device_type("cpu")
        return 0
    if not re.fullmatch(r"\d+(,\d+)*", gpus) or len(set(gpus.split(","))) != len(gpus.split(",")):
        raise InputError(f"--gpus {gpus}: different device numbers such as 0 or 0,1 are expected")
    wanted = len(gpus.split(","))
    if ranks is not None and wanted != ranks.local_world_size:
        raise InputError(
            f"--gpus {gpus}: {wanted} devices for {ranks.local_world_size} processes on this machine, one for each is "
            "expected"
        )
    os.environ["CUDA_VISIBLE_DEVICES"] = gpus
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if found == 0:
        raise InputError(
            f"--gpus {gpus}: no such CUDA device (torch {torch.__version__}); leave --gpus out to run on the CPU"
        )
    if found != wanted:
        raise InputError(f"--gpus {gpus}: {wanted} CUDA devices are asked for, {found} of them found")
    set_device_type("gpu")
    if ranks is not None:
        torch.cuda.set_device(ranks.local_rank)
    return wanted
