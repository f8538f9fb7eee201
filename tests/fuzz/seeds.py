"""Whole files to be damaged, made on the spot by what writes them in earnest, and small."""

import io
import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import torch
from scipy import sparse

from ealinformer.data.graphs import read_graph, save_graph
from ealinformer.data.prepare import prepare
from ealinformer.data.spec import SeriesSpec
from ealinformer.training.checkpoints.checkpoint import BEST, PREVIOUS, save_checkpoint
from ealinformer.training.config import BASICTS_RECIPE, Experiment, Recipe
from ealinformer.training.random_state import random_state
from ealinformer.training.resolve import resolve
from ealinformer.training.runs.folder import CONFIG, HISTORY, METRICS, STATUS, write_json
from ealinformer.training.runs.history import History
from tests.fuzz.containers import pickled
from tests.fuzz.mutate import npy_bytes

NUM_SENSORS, NUM_STEPS = 5, 130
IDS = ["400001", "s2", "773", "x-4", "9"]
SPEC = SeriesSpec(
    name="TOWN",
    num_sensors=NUM_SENSORS,
    interval_minutes=5,
    start=datetime(2018, 1, 1),
    raw_file="town.csv",
    graph_file="town-graph.csv",
    ids_file="town-ids.txt",
)
EXPERIMENT = Experiment(series=SPEC, model_params={"num_layers": 1}, recipes={"short": Recipe(num_epochs=2)}, seed=1)


def values() -> np.ndarray:
    """Readings `[T, N]`, float32, some of them missing."""
    rng = np.random.default_rng(5)
    flow = np.round(rng.gamma(4, 50, (NUM_STEPS, NUM_SENSORS)), 1).astype(np.float32)
    flow[rng.random(flow.shape) < 0.05] = 0
    return flow


def frame() -> pd.DataFrame:
    """The same as a frame with times and ids."""
    times = pd.date_range(SPEC.start, periods=NUM_STEPS, freq="5min", name="time")
    return pd.DataFrame(values(), index=times, columns=IDS)


def adjacency() -> np.ndarray:
    """Closeness `[N, N]` of a ring of sensors, float32."""
    matrix = np.eye(NUM_SENSORS, dtype=np.float32)
    for sensor in range(NUM_SENSORS):
        matrix[sensor, (sensor + 1) % NUM_SENSORS] = 0.25 + sensor / 8
    return matrix


def saved(save: Callable[[io.BytesIO], object]) -> bytes:
    """What `save` writes into a file."""
    file = io.BytesIO()
    save(file)
    return file.getvalue()


def series_npz(_: Path) -> list[bytes]:
    """Compressed and not, with channels and without."""
    cube = np.stack([values(), values() * 2], axis=-1)
    return [
        saved(lambda file: np.savez_compressed(file, data=values())),
        saved(lambda file: np.savez(file, data=cube, other=np.arange(3))),
    ]


def series_npy(_: Path) -> list[bytes]:
    """In both orders."""
    return [npy_bytes(values()), npy_bytes(np.asfortranarray(values().astype(np.float64)))]


def series_csv(_: Path) -> list[bytes]:
    """With times in front."""
    return [frame().to_csv().encode()]


def series_parquet(_: Path) -> list[bytes]:
    """With the times as index and as column."""
    return [saved(frame().to_parquet), saved(lambda file: frame().reset_index().to_parquet(file, compression="gzip"))]


def series_hdf5(_: Path) -> list[bytes]:
    """In pandas' "fixed" layout, in the file format of older and of newer libraries."""
    return [saved(lambda file, version=version: _hdf5(file, version)) for version in ("earliest", "latest")]


def _hdf5(file: io.BytesIO, version: str) -> None:
    with h5py.File(file, "w", libver=version) as root:
        group = root.create_group("speed")
        group.attrs["pandas_type"] = np.bytes_(b"frame")
        group.attrs["nblocks"] = 1
        names = np.array([name.encode() for name in IDS])
        group.create_dataset("axis0", data=names).attrs["kind"] = np.bytes_(b"string")
        index = group.create_dataset("axis1", data=frame().index.as_unit("ns").asi8)
        index.attrs["kind"] = np.bytes_(b"datetime64")
        group.create_dataset("block0_items", data=names)
        group.create_dataset("block0_values", data=values(), compression="gzip").attrs["transposed"] = np.uint8(1)


def edges(_: Path) -> list[bytes]:
    """By number, with costs and without, with the line ends that are found."""
    with_costs = "from,to,cost\r\n" + "".join(f"{i},{(i + 1) % NUM_SENSORS},{i + 0.5}\r\n" for i in range(NUM_SENSORS))
    return [with_costs.encode(), b"from,to\n0,1\n1,2\n3,0\n"]


def edges_by_id(_: Path) -> list[bytes]:
    """By the ids of `IDS`."""
    return [b"from,to,distance\n" + f'400001,s2,1.5\n"773",x-4,2e3\n9,400001,{0.0}\n'.encode()]


def ids(_: Path) -> list[bytes]:
    """One a line, and all in one."""
    return ["\n".join(IDS).encode() + b"\n", ",".join(IDS).encode()]


def graph_npy(_: Path) -> list[bytes]:
    """A dense matrix."""
    return [npy_bytes(adjacency()), npy_bytes(adjacency() > 0)]


def graph_npz(folder: Path) -> list[bytes]:
    """A dense matrix, scipy's formats, and this project's own."""
    matrix = sparse.csr_matrix(adjacency())
    formats = [
        saved(lambda file, to=to: sparse.save_npz(file, matrix.asformat(to))) for to in ("csr", "csc", "coo", "bsr")
    ]
    return [saved(lambda file: np.savez(file, adjacency())), *formats, *saved_graph(folder)]


def saved_graph(folder: Path) -> list[bytes]:
    """What `save_graph` writes."""
    np.save(folder / "matrix.npy", adjacency())
    save_graph(read_graph(folder / "matrix.npy", NUM_SENSORS), folder / "saved.npz")
    return [(folder / "saved.npz").read_bytes()]


def graph_pkl(_: Path) -> list[bytes]:
    """The published triple and a matrix alone, in every kind of pickle."""
    triple = (IDS, {name: row for row, name in enumerate(IDS)}, adjacency())
    numbers = [np.arange(NUM_SENSORS), {row: np.int64(row) for row in range(NUM_SENSORS)}, adjacency()]
    return [*pickled(triple), *pickled(adjacency()), *pickled(numbers)]


def raw_town(folder: Path) -> list[bytes]:
    """The raw files of a town; the series is the one to be damaged."""
    (folder / "town-graph.csv").write_bytes(edges_by_id(folder)[0])
    (folder / "town-ids.txt").write_bytes(ids(folder)[0])
    return series_csv(folder)


def prepared_file(name: str) -> Callable[[Path], list[bytes]]:
    """A prepared folder, of which the file `name` is the one to be damaged."""

    def make(folder: Path) -> list[bytes]:
        raw = folder / "raw"
        raw.mkdir()
        (raw / "town.csv").write_bytes(raw_town(raw)[0])
        target = prepare(SPEC, raw, folder / "made", report=lambda line: None)
        for file in target.iterdir():
            file.rename(folder / file.name)
        return [(folder / name).read_bytes()]

    return make


def run_file(name: str) -> Callable[[Path], list[bytes]]:
    """The folder of a finished run, of which the file `name` is the one to be damaged."""

    def make(folder: Path) -> list[bytes]:
        scores = {"MAE": 15.25, "RMSE": 24.5, "MAPE": 9.75}
        run = resolve(EXPERIMENT)
        (folder / CONFIG).write_text(run.model_dump_json(indent=2))
        write_json(
            folder / STATUS, {"status": "finished", "started": "2026-01-01T00:00:00+00:00", "command": "train.py"}
        )
        metrics = {
            "model": run.model, "dataset": "TOWN", "split": "test", "windows": 3, "simulated": False, "average": scores,
            "horizons": {"1": scores, "2": scores}, "steps": 12, "stopped_by": "epochs", "best_epoch": 2,
        }  # fmt: skip
        write_json(folder / METRICS, metrics)
        history = History(folder / HISTORY)
        for epoch in (1.0, 2.0):
            history.add({"epoch": epoch, "train/loss": 9.5 / epoch, "val/loss": 10.0 / epoch})
        return [(folder / name).read_bytes()]

    return make


def rows(folder: Path) -> list[bytes]:
    """Rows of results as `experiments/table.py` reads them: of a run and of floors."""
    average = {"MAE": 15.25, "RMSE": 24.5, "MAPE": None}
    common = {"dataset": "TOWN", "split": "test", "windows": 3, "simulated": False, "average": average}
    of_run = {
        "model": "ELinFormer",
        "complete": False,
        "stopped_by": "patience",
        "steps": 9,
        "config": {"model_params": {}},
    }
    floors = [{**common, "forecast": "last value"}, {**common, "forecast": "mean"}]
    return [json.dumps(content).encode() for content in ({**common, **of_run}, {"rows": floors})]


def predictions(_: Path) -> list[bytes]:
    """What `save_predictions` writes."""
    windows = np.zeros((3, 2, NUM_SENSORS), np.float32)
    arrays = {
        "prediction": windows, "targets": windows + 1, "timestamps": np.zeros((3, 2, 2), np.float32),
        "times": np.zeros((3, 2), "datetime64[m]"), "sensor_ids": np.array(IDS), "null_value": np.float32(0),
    }  # fmt: skip
    return [saved(lambda file: np.savez_compressed(file, **arrays))]


def kept_scores(_: Path) -> list[bytes]:
    """Scores that an interrupted measurement left."""
    return [json.dumps({"belongs_to": {"split": "test"}, "scores": {"a": {"MAE": 1.5, "RMSE": 2.5}}}).encode()]


def settings(_: Path) -> list[bytes]:
    """Words behind `--set`, one a line."""
    recipe = [f"{key}={value!r}" for key, value in BASICTS_RECIPE.model_dump().items()]
    words = [
        *recipe,
        "input_len=24",
        "seed=0x10",
        "max_steps=None",
        "model.attention=elu",
        "model.entropy='a,b'",
        "lr=1e-3",
    ]
    return ["\n".join(words).encode(), b"model.x={'a': [1, (2.5, None)]}\nmilestones=[1, 2]"]


def config_values(_: Path) -> list[bytes]:
    """The fields of an experiment."""
    return [EXPERIMENT.model_dump_json().encode()]


def checkpoint(folder: Path) -> list[bytes]:
    """Weights alone, and all that training goes on from; the checkpoint before stays whole beside it."""
    run, weights = resolve(EXPERIMENT), {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.zeros(3)}
    state = {"model": weights, "epoch": 1, "step": 3, "scaler": {"mean": 1.5, "std": 2.0}, "metrics": {"val/loss": 3.5}}
    parameters = [torch.nn.Parameter(weight.clone()) for weight in weights.values()]
    optimizer = torch.optim.Adam(parameters)
    sum(parameter.sum() for parameter in parameters).backward()
    optimizer.step()
    training = {
        "epoch": 2, "steps_done": 1, "step": 5, "finished": False, "optimizer": optimizer.state_dict(),
        "lr_scheduler": torch.optim.lr_scheduler.MultiStepLR(optimizer, [1, 2]).state_dict(), "stopping_counter": 0,
        "best": {"epoch": 1, "step": 3, "scores": {"loss": 3.5}, "model": weights},
        "rng": [random_state(torch.device("cpu"))],
        "sums": {"loss": torch.zeros(1, 2)}, "seconds": 0.5, "skipped": 0, "history": [{"epoch": 1.0}],
        "stopped_by": "all epochs done", "code": {"torch": "2"}, "data": "0" * 64,
    }  # fmt: skip
    save_checkpoint(folder / PREVIOUS, run, {**state, "training": training})
    save_checkpoint(folder / BEST, run, state)
    return [(folder / name).read_bytes() for name in (PREVIOUS, BEST)]
