"""experiments/demo.py from end to end, on a config much smaller than the demo's own."""

import json
import shutil
from pathlib import Path

import pytest

from ealinformer.training import load_config

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """
from ealinformer.training import Experiment, Recipe, SeriesSpec

CONFIG = Experiment(
    series=SeriesSpec(
        name="DEMO", raw_file="DEMO.npz", graph_file="DEMO.csv", num_sensors=6, interval_minutes=5,
        start="2024-01-01", simulated=True,
    ),
    model_params={
        "input_hidden_size": 4, "tid_hidden_size": 4, "diw_hidden_size": 4, "adaptive_hidden_size": 4,
        "intermediate_size": 8, "n_heads": 2, "num_layers": 1,
    },
    recipes={"demo": Recipe(loss="masked_mae", batch_size=256, eval_batch_size=512, num_epochs=3)},
)
"""
NAMES = ["last value", "weekly profile", "STAEformer", "ELinFormer"]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("demo") / "DEMO.py"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="module")
def demo(script, call, config: Path):
    """`demo(root)`: the demo in `root`, one epoch a model, with the small config and 8 days in place of its own."""

    def small(root: Path):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(script("demo"), "CONFIG", config)
            patch.setattr(script("demo"), "DAYS", 8)
            patch.setenv("OMP_NUM_THREADS", "1")
            return call("demo", "--epochs", 1, "--output-dir", root / "out", "--datasets-dir", root / "data")

    return small


@pytest.fixture(scope="module")
def shown(demo, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Folder and output of one demo."""
    root = tmp_path_factory.mktemp("shown")
    done = demo(root)
    assert done.status == 0, done.err
    return root, done.out


def test_its_own_config_is_the_simulated_one() -> None:
    assert load_config(ROOT / "configs" / "DEMO.py").series.simulated


def test_the_table_has_four_rows_with_numbers_and_says_simulated(shown) -> None:
    lines = shown[1].splitlines()
    title = next(number for number, line in enumerate(lines) if line.startswith("SIMULATED traffic, 6 sensors, 8 days"))
    rows = lines[title + 4 : title + 8]
    assert [line[: len("weekly profile")].strip() for line in rows] == NAMES
    for line in rows:
        mae, rmse, mape = (float(text) for text in line[len("weekly profile") :].split()[:3])
        assert 0 < mae < rmse
        assert mape > 0
    assert lines[title + 8] == ""


def test_the_rows_are_what_the_runs_measured(shown) -> None:
    root, out = shown
    for name in ("STAEformer", "ELinFormer"):
        metrics = json.loads((root / "out" / name / "metrics.json").read_text())
        assert (metrics["model"], metrics["epochs"], metrics["simulated"]) == (name, 1, True)
        row = next(line for line in out.splitlines() if line.startswith(name + " "))
        assert row.split()[1:4] == [f"{metrics['average'][score]:.2f}" for score in ("MAE", "RMSE", "MAPE")]


def test_three_pictures_that_it_names_are_there(shown) -> None:
    root, out = shown
    named = [Path(line.strip()) for line in out.splitlines() if line.strip().endswith(".png")]
    assert len(set(named)) == 3
    for path in named:
        assert path.is_relative_to(root / "out")
        assert path.read_bytes().startswith(b"\x89PNG\r\n")


def test_the_checkpoint_that_it_names_can_be_evaluated(shown, config: Path, call) -> None:
    root, out = shown
    line = next(line for line in out.splitlines() if "evaluate.py" in line)
    checkpoint = line.split("--checkpoint ")[1]
    done = call("evaluate", "-c", config, "--datasets-dir", root / "data", "--checkpoint", checkpoint)
    assert done.status == 0, done.err


def test_a_second_demo_in_the_same_folder_keeps_what_is_trained(shown, demo, capfd: pytest.CaptureFixture[str]) -> None:
    root, _ = shown
    runs = [root / "out" / model for model in ("ELinFormer", "STAEformer")]
    before = {path: path.stat().st_mtime_ns for run in runs for path in run.rglob("*") if path.is_file()}
    table = (root / "out" / "demo.txt").read_text()
    done = demo(root)
    assert (done.status, done.err) == (0, "")
    assert capfd.readouterr().err.splitlines() == [
        f"{run}: the run has finished, there is nothing to do" for run in runs
    ]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert (root / "out" / "demo.txt").read_text() == table


def test_from_another_folder_it_says_where_to_go(refused) -> None:
    message = refused("demo")
    assert message == "configs/DEMO.py is not here: run the demo from the top of the project"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--epochs", "0"), "num_epochs of Recipe: input should be greater than 0, got 0"),
        (("--epochs", "-1"), "num_epochs of Recipe: input should be greater than 0, got -1"),
        (("--epochs", "one"), "argument --epochs: invalid int value: 'one'"),
    ],
)
def test_bad_options_are_one_line(refused, tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    (tmp_path / "configs").mkdir()
    shutil.copy(ROOT / "configs" / "DEMO.py", tmp_path / "configs")
    assert said in refused("demo", *options)
