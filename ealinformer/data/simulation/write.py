"""Simulated series as raw files, in the layout of the published PEMS files."""

from pathlib import Path

import numpy as np

from ealinformer.data.simulation.traffic import SimulatedTraffic
from ealinformer.errors import InputError
from ealinformer.files import replaced_whole, write_text


def write_raw(directory: Path, name: str, traffic: SimulatedTraffic) -> None:
    """Write `<directory>/<name>/<name>.npz` (`data`, float32 `[T, N, 1]`) and `<name>.csv` (`from,to,cost`, metres).

    Each file appears whole or not at all. Raises InputError when the directory cannot be written to.
    """
    folder = directory / name
    roads = traffic.adjacency.tocoo()
    lines = ["from,to,cost", *(f"{i},{j},{cost}" for i, j, cost in zip(roads.row, roads.col, roads.data, strict=True))]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {folder}: {error.strerror or error}") from error
    with replaced_whole(folder / f"{name}.npz") as temporary:
        np.savez_compressed(temporary, data=traffic.values[:, :, None])
    write_text(folder / f"{name}.csv", "\n".join(lines) + "\n")
