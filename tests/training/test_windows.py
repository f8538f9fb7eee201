"""Windows: the host's items whatever holds them, and memory that stays small whatever the size of the files."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from basicts.configs import BasicTSForecastingConfig
from basicts.data import BasicTSForecastingDataset
from basicts.runners.builder import Builder
from basicts.utils import BasicTSMode
from torch.utils.data import DataLoader

from ealinformer.data.mapped import mapping
from ealinformer.data.meta import SPLITS
from ealinformer.errors import InputError
from ealinformer.models import MODELS
from ealinformer.training import windows
from ealinformer.training.windows import WindowDataset, fits_in_memory

GIB = 1 << 30
SENSORS, STEPS = 3, {"train": 40, "val": 12, "test": 11}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(5)
    for split, steps in STEPS.items():
        np.save(tmp_path / f"{split}_data.npy", rng.normal(size=(steps, SENSORS)).astype(np.float32))
        np.save(tmp_path / f"{split}_timestamps.npy", rng.random((steps, 2), dtype=np.float32))
    return tmp_path


def opened(folder: Path, split: str = "train", *, memmap: bool | None = None, timestamps: bool = True) -> WindowDataset:
    return WindowDataset("TOWN", 4, 3, BasicTSMode(split), timestamps, data_file_path=str(folder), memmap=memmap)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("timestamps", [True, False])
@pytest.mark.parametrize("memmap", [True, False, None])
def test_items_are_those_of_the_host(folder: Path, split: str, timestamps: bool, memmap: bool | None) -> None:
    host = BasicTSForecastingDataset("TOWN", 4, 3, BasicTSMode(split), timestamps, data_file_path=str(folder))
    ours = opened(folder, split, memmap=memmap, timestamps=timestamps)

    assert len(ours) == len(host) == STEPS[split] - 6
    for index in range(len(host)):
        item, expected = ours[index], host[index]
        assert list(item) == list(expected)
        for name in expected:
            assert item[name].dtype == expected[name].dtype
            np.testing.assert_array_equal(item[name], expected[name])
    np.testing.assert_array_equal(ours.data, host.data)


def test_the_host_builds_it_from_its_config_and_batches_are_the_same(folder: Path) -> None:
    def batches(**settings: object) -> list[dict]:
        config = BasicTSForecastingConfig(
            model=MODELS["ELinFormer"].model,
            model_config=MODELS["ELinFormer"].build_config(
                input_len=4, output_len=3, num_features=SENSORS, num_time_in_day=48
            ),
            dataset_name="TOWN",
            dataset_params={"data_file_path": str(folder)},
            input_len=4,
            output_len=3,
            use_timestamps=True,
            **settings,
        )
        return list(DataLoader(Builder._build_dataset(config, BasicTSMode.TRAIN), batch_size=5))

    ours, host = batches(dataset_type=WindowDataset, memmap=True), batches(memmap=False)
    assert len(ours) == len(host) == 7
    for one, other in zip(ours, host, strict=True):
        assert one.keys() == other.keys()
        assert all(one[name].equal(other[name]) for name in other)


def test_what_fits_is_kept_in_memory_and_what_does_not_is_mapped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert opened(folder).storage == "in memory"
    size = sum((folder / f"train_{kind}.npy").stat().st_size for kind in ("data", "timestamps"))

    monkeypatch.setattr(windows, "available_bytes", lambda: 2 * size)
    assert opened(folder).storage == "in memory"
    monkeypatch.setattr(windows, "available_bytes", lambda: 2 * size - 2)
    assert opened(folder).storage == "on disk"
    assert opened(folder, memmap=False).storage == "in memory"


def test_memory_is_shared_by_the_processes_of_a_machine_and_limited_by_its_group(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(windows, "available_bytes", lambda: 16 * GIB)
    monkeypatch.setattr(windows, "cgroup_available_bytes", lambda: None)
    assert fits_in_memory(8 * GIB)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert fits_in_memory(2 * GIB)
    assert not fits_in_memory(2 * GIB + 1)
    monkeypatch.setattr(windows, "cgroup_available_bytes", lambda: 4 * GIB)
    assert not fits_in_memory(GIB)


def test_a_mapped_item_outlives_the_file_and_its_map(folder: Path) -> None:
    mapped = opened(folder, memmap=True)
    expected = opened(folder, memmap=False)[7]["inputs"].copy()
    item = mapped[7]
    assert all(mapping(part) is None for part in item.values())
    item["targets"][:] = -1
    np.testing.assert_array_equal(item["inputs"], expected)
    np.testing.assert_array_equal(mapped[8]["inputs"][:3], expected[1:])


@pytest.mark.parametrize("cut", [0, 200, 500])
def test_a_file_that_is_cut_off_while_it_is_read_is_one_line(folder: Path, cut: int) -> None:
    """A map would end the process by a signal."""
    on_disk = opened(folder, memmap=True)
    on_disk[0]
    path = folder / "train_data.npy"
    os.truncate(path, cut)
    with pytest.raises(InputError) as error:
        on_disk[len(on_disk) - 1]
    assert str(error.value) == f"{path} ends before row {STEPS['train']}, and did not when training began"


def test_a_file_that_is_gone_after_it_was_opened_is_read_on(folder: Path) -> None:
    on_disk = opened(folder, memmap=True)
    expected = on_disk[3]["inputs"]
    (folder / "train_data.npy").unlink()
    np.testing.assert_array_equal(on_disk[3]["inputs"], expected)


@pytest.mark.parametrize("memmap", [True, False])
@pytest.mark.parametrize("damage", ["gone", "empty", "cut"])
def test_a_file_that_is_gone_or_cut_before_it_is_opened_is_one_line(folder: Path, damage: str, memmap: bool) -> None:
    path = folder / "test_data.npy"
    if damage == "gone":
        path.unlink()
    else:
        os.truncate(path, 0 if damage == "empty" else 150)
    with pytest.raises(InputError, match=f"{folder}: the test part cannot be read any more: "):
        opened(folder, "test", memmap=memmap)


@pytest.mark.parametrize("memmap", [True, False])
def test_a_pickled_one_gives_the_same_items_and_a_mapped_one_does_not_carry_its_data(
    folder: Path, memmap: bool
) -> None:
    original = opened(folder, memmap=memmap)
    pickled = pickle.dumps(original)
    copy = pickle.loads(pickled)
    assert (original.data.tobytes() in pickled) is not memmap
    assert isinstance(copy.data, np.memmap) is memmap
    for name, part in original[9].items():
        np.testing.assert_array_equal(copy[9][name], part)


# Steps of a series of 2,000 sensors whose files are 12, 4 and 4 GB long, and take no room on the disk.
LARGE_SENSORS, LARGE_STEPS = 2000, {"train": 1_500_000, "val": 500_000, "test": 500_000}
READ_LARGE = """
import json, sys
from pathlib import Path
import numpy as np, torch
from torch.utils.data import DataLoader
from ealinformer.data.prepared import open_prepared
from ealinformer.measure import PeakMemory
from ealinformer.training.windows import WindowDataset, fits_in_memory

folder, places = Path(sys.argv[1]), json.loads(sys.argv[2])
torch.set_num_threads(1)
memory = PeakMemory(cuda=False)
series = open_prepared(folder)
found, drawn, datasets = {}, 0, []
for split, rows in places.items():
    size = (folder / f"{split}_data.npy").stat().st_size
    memmap = None if not fits_in_memory(size) else True  # on a machine with so much memory, nobody wants it filled here
    dataset = WindowDataset("LARGE", 12, 12, split, True, data_file_path=str(folder), memmap=memmap)
    datasets.append(dataset)  # as a run keeps them
    # Windows that end with the rows that are marked, and others all over the file.
    ends = [row - 23 for row in rows]
    indices = ends + np.random.default_rng(0).integers(0, len(dataset), 700).tolist()
    batches = DataLoader(torch.utils.data.Subset(dataset, indices), batch_size=25)
    windows = [(batch["targets"][:, -1, :2].clone(), batch["inputs"].shape) for batch in batches]
    last = torch.cat([part for part, _ in windows])
    found[split] = last[: len(ends)].tolist()
    drawn += sum(shape[0] for _, shape in windows)
storages = [dataset.storage for dataset in datasets]
print(json.dumps({"found": found, "drawn": drawn, "growth": memory.mib(), "storages": storages}))
"""


def sparse_array(path: Path, steps: int, columns: int, marked: list[int]) -> None:
    """A float32 array of zeros that takes no room, but for 1 + row, -row at the begin of the rows marked."""
    header = {"descr": "<f4", "fortran_order": False, "shape": (steps, columns)}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        begin = file.tell()
        file.truncate(begin + steps * columns * 4)
        for row in marked:
            file.seek(begin + row * columns * 4)
            file.write(np.array([1 + row, -row], dtype=np.float32).tobytes())


def large_series(folder: Path, places: dict[str, list[int]]) -> None:
    for split, steps in LARGE_STEPS.items():
        sparse_array(folder / f"{split}_data.npy", steps, LARGE_SENSORS, places[split])
        sparse_array(folder / f"{split}_timestamps.npy", steps, 2, [])
    taken = sum(path.stat().st_blocks * 512 for path in folder.iterdir())
    if taken > GIB:
        pytest.skip("this file system has no sparse files")
    files = {path.name: {"sha256": "0" * 64, "size": path.stat().st_size} for path in folder.iterdir()}
    nothing = dict.fromkeys(("min", "max", "mean", "std", "train_mean", "train_std"), 0.0)
    meta = {
        "format": 1,
        "name": "LARGE",
        "target": "flow",
        "unit": "vehicles per interval",
        "num_sensors": LARGE_SENSORS,
        "num_steps": sum(LARGE_STEPS.values()),
        "interval_minutes": 5,
        "start": "2018-01-01T00:00:00",
        "day_of_week": "calendar",
        "allow_gaps": False,
        "simulated": True,
        "split": [0.6, 0.2, 0.2],
        "null_value": 0.0,
        "raw_file": "LARGE.npy",
        "channel": 0,
        "time_column": None,
        "graph_file": None,
        "ids_file": None,
        "steps": LARGE_STEPS,
        "statistics": {**nothing, "zeros": 0, "missing": 0, "distinct_sensors": 1},
        "source": {"file": "LARGE.npy", "sha256": "0" * 64, "size": 0, "is_published_file": False},
        "graph": None,
        "ids": None,
        "files": files,
        "regular_settings": {
            "null_val": 0.0,
            "train_val_test_ratio": [0.6, 0.2, 0.2],
            "rescale": True,
            "norm_each_channel": False,
        },
    }
    (folder / "meta.json").write_text(json.dumps(meta))


def test_20_gb_are_read_in_bounded_memory(tmp_path: Path) -> None:
    folder = tmp_path / "LARGE"
    folder.mkdir()
    places = {split: [23, steps // 3, steps // 2, steps - 1] for split, steps in LARGE_STEPS.items()}
    try:
        large_series(folder, places)
        assert sum(path.stat().st_size for path in folder.iterdir()) > 20e9
        command = [sys.executable, "-c", READ_LARGE, str(folder), json.dumps(places)]
        run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    finally:
        for path in folder.iterdir():
            path.unlink()
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout)
    assert result["found"] == {split: [[1 + row, -row] for row in rows] for split, rows in places.items()}
    assert result["storages"] == ["on disk"] * 3
    assert result["drawn"] == 3 * 704  # of 192 kB each: 390 MiB if their pages stayed
    assert result["growth"] < 200  # MiB
