"""experiments/compare.py: rows are what the runs measured, nothing is trained twice, one failure stops no other run."""

import json
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

from baselines import MODELS
from ealinformer.training import load_config
from ealinformer.training.resolve import resolve

ROOT = Path(__file__).resolve().parents[2]
TWO = ("--models", "ELinFormer,STAEformer", "--epochs", "1")
SIMULATED = """
from ealinformer.training import Experiment, Recipe, SeriesSpec

CONFIG = Experiment(
    series=SeriesSpec(
        name="SMALL", raw_file="SMALL.npz", num_sensors=6, interval_minutes=5, start="2024-01-01", simulated=True
    ),
    model_params={
        "input_hidden_size": 4, "tid_hidden_size": 4, "diw_hidden_size": 4, "adaptive_hidden_size": 4,
        "intermediate_size": 8, "n_heads": 2, "num_layers": 1,
    },
    recipes={"short": Recipe(loss="masked_mae", batch_size=256, eval_batch_size=512, num_epochs=3)},
)
"""


@pytest.fixture(scope="module")
def compare(call, town):
    """`compare(folder, ...)`: the command line on the town, each run with one thread."""

    def in_folder(folder: Path, *options: object):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("OMP_NUM_THREADS", "1")
            return call("compare", *town.arguments, "--output-dir", folder, *options)

    return in_folder


@pytest.fixture(scope="module")
def compared(compare, tmp_path_factory: pytest.TempPathFactory):
    """Folder of two models after an epoch each, and what the command line said."""
    folder = tmp_path_factory.mktemp("compared") / "out"
    done = compare(folder, *TWO, "--row", folder.parent / "rows" / "row.json")
    assert done.status == 0, done.err
    return folder, done


@pytest.fixture
def again(compared, tmp_path: Path) -> Path:
    """A copy of that folder, to be changed."""
    return Path(shutil.copytree(compared[0], tmp_path / "out"))


def lines_of(table: str) -> dict[str, list[str]]:
    """The cells of a table by the first word of its lines."""
    lines = table.split("\n\n")[1].splitlines()[2:]
    return {line.split()[0]: line.split()[1:] for line in lines}


def test_the_table_holds_what_the_runs_measured(compared) -> None:
    folder, done = compared
    cells = lines_of(done.out)
    assert list(cells) == ["ELinFormer", "STAEformer"]
    for model in cells:
        metrics = json.loads((folder / model / "seed42" / "metrics.json").read_text())
        assert [cell.lstrip("*") for cell in cells[model][:3]] == [
            f"{metrics['average'][error]:.2f}" for error in ("MAE", "RMSE", "MAPE")
        ]
        assert cells[model][3:] == [
            f"{metrics['parameters']:,}",
            f"{metrics['seconds_per_epoch']:,.1f}",
            f"{metrics['peak_memory_mib']:,.0f}",
            "1",
            "short",
        ]
    assert done.out.startswith(
        "TOWN: test part, 87 windows, average over 4 horizons of 30 minutes; seed 42; at most 1 "
    )
    assert sorted(cell.count("*") for model in cells for cell in cells[model][:1]) == [1, 2]


def test_the_rows_have_a_birth_certificate_and_the_table_and_figure_stand_beside(compared) -> None:
    folder, done = compared
    content = json.loads((folder / "comparison.json").read_text())
    assert (content["dataset"], content["simulated"], content["failures"]) == ("TOWN", False, [])
    assert {"machine", "versions", "commit", "command", "date"} <= content.keys()
    for row in content["rows"]:
        assert {"machine", "versions", "commit", "command", "date", "seed", "config", "history"} <= row.keys()
        assert "train.py" in row["command"]
        assert f"--model {row['model']}" in row["command"]
    assert (folder / "comparison.txt").read_text() == done.out
    assert (folder / "comparison.png").read_bytes().startswith(b"\x89PNG")
    rows = folder.parent / "rows"
    assert json.loads((rows / "row.json").read_text()) == content
    assert sorted(path.name for path in rows.iterdir()) == ["row.json", "row.png", "row.txt"]


def test_progress_says_which_of_how_many_and_the_time_left(compared) -> None:
    begun = [line for line in compared[1].err.splitlines() if line.startswith("--- ")]
    assert begun[0] == "--- 1 of 2: ELinFormer, seed 42"
    assert begun[1].startswith("--- 2 of 2: STAEformer, seed 42; about 0:")
    assert begun[1].endswith(" left")
    # What the runs themselves say is passed on.
    assert compared[1].err.count("on TOWN: 5 sensors") >= 2


def test_a_finished_comparison_is_printed_again_and_not_trained_again(compare, compared, again: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in again.glob("*/*/*")}
    done = compare(again, *TWO)
    assert (done.status, done.out) == (0, compared[1].out)
    assert done.err.count("the run has finished, there is nothing to do") == 2
    assert " left" not in done.err
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_other_models_and_seeds_join_those_that_are_there(compare, again: Path) -> None:
    done = compare(again, "--models", "ELinFormer", "--epochs", 1, "--seeds", "42,7")
    assert done.status == 0, done.err
    assert done.err.count("the run has finished") == 1
    scores = [
        json.loads((again / "ELinFormer" / seed / "metrics.json").read_text())["average"]["MAE"]
        for seed in ("seed42", "seed7")
    ]
    assert scores[0] != scores[1]
    assert lines_of(done.out)["ELinFormer"][:2] == [f"{sum(scores) / 2:.2f}", "±"]
    assert "seed 42, 7" in done.out


def test_a_model_that_refuses_a_setting_is_a_line_and_the_others_go_on(compare, compared, again: Path) -> None:
    done = compare(again, *TWO, "--set", "STAEformer:model.n_heads=3")
    assert done.status == 1
    cells = lines_of(done.out)
    assert cells["ELinFormer"][0] == lines_of(compared[1].out)["ELinFormer"][0].lstrip("*")
    assert " ".join(cells["STAEformer"]).endswith("n_heads has to divide the width 16, got 3")
    failures = json.loads((again / "comparison.json").read_text())["failures"]
    assert [(one["model"], one["seed"]) for one in failures] == [("STAEformer", 42)]


def test_a_model_that_fails_in_its_process_is_a_line_that_says_why(compare, again: Path) -> None:
    shutil.rmtree(again / "ELinFormer" / "seed42")
    (again / "ELinFormer" / "seed42").mkdir()
    (again / "ELinFormer" / "seed42" / "notes.txt").write_text("keep")
    done = compare(again, *TWO)
    assert done.status == 1
    (failure,) = json.loads((again / "comparison.json").read_text())["failures"]
    assert failure["reason"].endswith("seed42 already holds files; name another one with --output-dir")
    assert "ELinFormer, seed 42, has no result: output folder" in done.err
    assert lines_of(done.out)["STAEformer"][0] != "-"


def test_a_finished_run_of_another_config_is_not_taken_for_this_one(compare, again: Path) -> None:
    done = compare(again, *TWO, "--set", "ELinFormer:lr=0.001")
    assert done.status == 1
    (failure,) = json.loads((again / "comparison.json").read_text())["failures"]
    assert "the run has finished, with another config: recipe.lr 0.005 -> 0.001" in failure["reason"]


def test_rows_of_something_else_are_not_overwritten(compare, again: Path, tmp_path: Path) -> None:
    row = tmp_path / "row.json"
    row.write_text("{}")
    done = compare(again, *TWO, "--row", row)
    assert (done.status, row.read_text()) == (2, "{}")
    assert f"--row {row}: there already, and no row of this comparison" in done.err
    shutil.copy(again / "comparison.json", row)
    assert compare(again, *TWO, "--row", row).status == 0


def test_table_py_reads_the_rows(call, compared) -> None:
    done = call("table", compared[0] / "comparison.json")
    assert done.status == 0, done.err
    assert [line.split()[0] for line in done.out.splitlines()[4:]] == ["ELinFormer", "STAEformer"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGINT")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_order_and_the_same_command_goes_on(
    start, compare, town, tmp_path: Path, number: signal.Signals
) -> None:
    folder = tmp_path / "out"
    options = ("--models", "ELinFormer", "--epochs", 40, "--set", "patience=None")
    process = start("compare", *town.arguments, "--output-dir", folder, *options)
    run = folder / "ELinFormer" / "seed42"
    deadline = time.monotonic() + 120
    while not (run / "last.pt").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)

    assert (process.returncode, out) == (128 + number, "")
    said = f"interrupted by {number.name}: the same command with --output-dir {folder} goes on from there"
    assert err.splitlines()[-1] == said
    assert json.loads((run / "run.json").read_text())["status"] == "interrupted"  # and nobody is at work on it
    assert not (run / "metrics.json").exists()
    if number == signal.SIGTERM:
        return  # one of them shows the rest
    done = compare(folder, *options)
    assert done.status == 0, done.err
    assert f"resumed from {run / 'last.pt'}: epoch " in done.err
    assert lines_of(done.out)["ELinFormer"][6] == "40"


def test_a_simulated_series_is_made_where_it_is_not_there_and_named_so(script, call, tmp_path: Path) -> None:
    script("compare")  # which imports demo
    config = tmp_path / "SMALL.py"
    config.write_text(SIMULATED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["demo"], "DAYS", 8)
        patch.setenv("OMP_NUM_THREADS", "1")
        where = ("--datasets-dir", tmp_path / "data", "--output-dir", tmp_path / "out")
        done = call("compare", "-c", config, *where, "--models", "ELinFormer", "--set", "max_steps=2")
    assert done.status == 0, done.err
    table = (tmp_path / "out" / "comparison.txt").read_text()
    assert done.out == table
    assert table.startswith("SMALL, SIMULATED series: test part")
    assert "INCOMPLETE: --max-steps 2" in table
    assert not (tmp_path / "out" / "comparison.png").exists()  # no epoch was whole


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--models", "ELinFormer,Elinformer"), "unknown model 'Elinformer' (did you mean 'ELinFormer'?); known: ELin"),
        (("--models", ""), "unknown model ''; known: ELinFormer"),
        (("--models", "ELinFormer,ELinFormer"), "--models ELinFormer,ELinFormer: one of them is there twice"),
        (("--seeds", "1,x"), "--seeds 1,x: whole numbers with commas are expected, such as 1,2,3"),
        (("--seeds", "1,1"), "--seeds 1,1: one of them is there twice"),
        (("--seeds", "-1"), "seed of RunConfig: input should be greater than or equal to 0, got -1"),
        (("--epochs", "0"), "num_epochs of Recipe: input should be greater than 0, got 0"),
        (("--set", "batchsize=3"), "unknown key 'batchsize' (did you mean 'batch_size'?)"),
        (("--gpus", "first"), "--gpus first: different device numbers such as 0 or 0,1 are expected"),
        (("--row", "row.txt"), "--row row.txt: a file that ends in .json is expected"),
        (("--datasets-dir", "nowhere"), "nowhere/TOWN is not prepared: run  python scripts/prepare_dataset.py TOWN"),
        (("--output-dir", "x" * 300), "cannot be made: File name too long"),
    ],
)
def test_bad_options_are_one_line_and_nothing_is_written(refused, town, options: tuple[str, ...], said: str) -> None:
    given = ("-c", town.config, "--datasets-dir", town.datasets, "--output-dir", "out", "--models", "ELinFormer")
    assert said in refused("compare", *given, *options)


def test_without_a_config_it_says_what_is_missing(refused) -> None:
    assert refused("compare").startswith("-c FILE is expected, the config of a series")


# Why a process ended


@pytest.mark.parametrize(
    ("status", "said", "reason"),
    [
        (2, ["epoch 1", "error: the disk is full", "more"], "the disk is full"),
        (1, ["Traceback (most recent call last):", "ValueError: a bug", ""], "ValueError: a bug"),
        (-9, ["epoch 1"], "ended by SIGKILL, as the system does when memory runs out"),
        (-11, [], "ended by SIGSEGV"),
        (3, [], "ended with status 3 and said nothing"),
    ],
)
def test_the_reason_is_what_the_process_said_last(script, status: int, said: list[str], reason: str) -> None:
    script("compare")
    assert sys.modules["_training"]._reason(status, said) == reason


# What is published


@pytest.fixture
def tracked(call, trained, tmp_path: Path) -> Path:
    """A folder of results with one row, as if the town were PEMS08."""
    folder = tmp_path / "results"
    assert call("record", trained.folder, folder / "town.json").status == 0
    row = json.loads((folder / "town.json").read_text())
    config = row["config"] | {"input_len": 12, "output_len": 12}
    (folder / "town.json").write_text(json.dumps(row | {"dataset": "PEMS08", "config": config}))
    return folder


def pems08(table: str) -> dict[str, list[str]]:
    """The cells of PEMS08's table."""
    return lines_of(table[table.index("PEMS08 (") :])


def test_ours_stand_beside_what_is_published(call, tracked: Path) -> None:
    done = call("compare", "--table", "--results", tracked)
    assert done.status == 0, done.err
    row = json.loads((tracked / "town.json").read_text())
    cells = pems08(done.out)
    assert cells["ELinFormer"][:3] == ["13.51", "23.37", "8.90"]
    assert f"{row['average']['MAE']:.2f}" in cells["ELinFormer"]
    assert f"{row['average']['MAE'] - 13.51:+.2f}" in cells["ELinFormer"]
    assert done.out.count("INCOMPLETE: --max-steps 12") == 1
    assert done.out.count(" (vehicles per 5 minutes), average") == 4


def test_a_run_that_left_its_recipe_says_where(call, tracked: Path) -> None:
    row = json.loads((tracked / "town.json").read_text())
    recipe = resolve(load_config(ROOT / "configs" / "PEMS08.py"), model="GWNet", catalogue=MODELS).recipe
    changed = recipe.model_dump(mode="json") | {"num_epochs": 5, "eval_batch_size": 7}
    row |= {"model": "GWNet", "recipe": "basicts", "config": row["config"] | {"recipe": changed}}
    (tracked / "town.json").write_text(json.dumps(row))
    done = call("compare", "--table", "--results", tracked)
    assert f"  basicts, num_epochs=5 (recipe: {recipe.num_epochs}), INCOMPLETE" in done.out


def test_the_same_run_is_not_counted_twice(call, tracked: Path) -> None:
    shutil.copy(tracked / "town.json", tracked / "copy.json")
    done = call("compare", "--table", "--results", tracked, "-c", ROOT / "configs" / "PEMS08.py")
    assert done.out.count("INCOMPLETE") == 1
    assert " 2 " not in " ".join(pems08(done.out)["ELinFormer"])


@pytest.mark.parametrize(
    "change",
    [{"simulated": True}, {"split": "val"}, {"config": {"input_len": 12, "output_len": 24, "model_params": {}}}],
)
def test_what_does_not_compare_is_left_out(call, tracked: Path, change: dict) -> None:
    row = json.loads((tracked / "town.json").read_text())
    (tracked / "town.json").write_text(json.dumps(row | change))
    done = call("compare", "--table", "--results", tracked)
    assert done.status == 0
    assert "INCOMPLETE" not in done.out


def test_the_recorded_overview_is_what_the_command_prints(call) -> None:
    assert call("compare", "--table", "overview").out == (ROOT / "results" / "published.txt").read_text()


def test_sources_are_those_of_the_models_asked_for(call) -> None:
    done = call("compare", "--table", "sources", "-c", ROOT / "configs" / "PEMS08.py", "--models", "GWNet")
    assert done.status == 0
    assert {line.split()[0] for line in done.out.split("\n\n")[1].splitlines()[2:]} == {"GWNet"}
    assert "[7] D2STGNN Table 3" in done.out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--table", "--seeds", "1"), "--seeds does not go with --table, which trains nothing"),
        (("--table", "--set", "lr=1"), "--set does not go with --table, which trains nothing"),
        (("--table", "everything"), "argument --table: invalid choice: 'everything'"),
        (("--table", "--models", "GWNett"), "nothing is published of 'GWNett' (did you mean 'GWNet'?), only of AGCRN"),
        (
            ("--table", "-c", str(ROOT / "configs" / "DEMO.py")),
            "nothing is published of DEMO, only of PEMS-BAY, PEMS03",
        ),
    ],
)
def test_bad_options_of_the_tables_are_one_line(refused, options: tuple[str, ...], said: str) -> None:
    assert said in refused("compare", *options)
