"""The published models through the command lines: one flag, with graphs that are there, built or missing."""

import json
from pathlib import Path

import numpy as np
import pytest

import baselines
from ealinformer.models import MODELS

STGCN = ("--model", "STGCN", "--set", "input_len=12", "--set", "model.hidden_size=8", "--set", "batch_size=40")


def test_the_table_of_models_names_all_with_papers_recipes_parameters_and_published_errors(call) -> None:
    done = call("train", "-c", "configs/PEMS08.py", "--list-models")
    assert done.status in (0, None), done.err
    rows = {line.split()[0]: line for line in done.out.splitlines()[4:]}
    assert list(rows) == [*MODELS, *baselines.MODELS]
    assert rows["DCRNN"].split()[1:4] == ["ICLR,", "arXiv", "1707.01926"]
    assert rows["DCRNN"].endswith("372,353          15.23")
    assert rows["GTS"].endswith("17,235,091          16.92")
    assert rows["ELinFormer"].endswith("1,223,460          13.51")
    assert len({len(line) for line in rows.values()}) == 1


def test_a_graph_that_is_not_there_is_one_line_that_names_what_builds_one(refused, town) -> None:
    said = refused("train", *town.arguments, *STGCN)
    assert said.startswith(f"STGCN needs a graph: {town.datasets / 'TOWN'} was prepared without a road graph: --graph")
    assert "correlation, knn or none" in said


@pytest.mark.parametrize(
    ("graph", "said"),
    [
        (
            "corelation",
            "graph 'corelation' is none of road, correlation, knn, none, and no file (did you mean 'correla",
        ),
        ("roads.npy", "STGCN needs a graph: roads.npy"),
        ("large.npy", "large.npy: the adjacency has shape [7, 7]; expected [5, 5]"),
    ],
)
def test_a_graph_that_cannot_be_is_one_line(refused, town, tmp_path: Path, graph: str, said: str) -> None:
    np.save(tmp_path / "large.npy", np.ones((7, 7), np.float32))
    found = refused("train", *town.arguments, *STGCN, "--graph", graph)
    assert said in found


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--model", "STGCN", "--graph", "none"), "input_len"),  # 6 steps in, its convolutions take up 8
        (("--model", "ELinFormer", "--graph", "knn"), "--graph knn: ELinFormer takes no graph"),
        (("--model", "DCRN"), "unknown model 'DCRN' (did you mean 'DCRNN'?)"),
        (("--model", "DCRNN", "--recipe", "author"), "unknown recipe 'author' of DCRNN; known: basicts"),
        (("--model", "AGCRN", "--set", "model.num_layer=1"), "'model.num_layer' of AGCRN (did you mean 'num_layers'?)"),
        (("--model", "DCRNN", "--set", "model.graph=knn"), "model.graph cannot be set: --graph knn is expected"),
    ],
)
def test_what_a_model_cannot_take_is_one_line(refused, town, options: tuple[str, ...], said: str) -> None:
    assert said in refused("train", *town.arguments, *options)


def test_a_built_graph_is_trained_with_kept_and_scored_again(call, town, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    options = (*STGCN, "--graph", "knn", "--max-steps", "3", "--output-dir", folder)
    done = call("train", *town.arguments, *options)
    assert done.status == 0, done.err
    assert "recipe basicts" in done.err
    metrics = json.loads((folder / "metrics.json").read_text())
    again = call(
        "evaluate",
        *town.arguments,
        "--model",
        "STGCN",
        "--set",
        "input_len=12",
        "--checkpoint",
        folder / "best.pt",
        "--json",
    )
    assert again.status == 0, again.err
    assert json.loads(again.out)["average"] == metrics["average"]
    exported = call("export", folder, "--output-dir", tmp_path / "export", "--datasets-dir", town.datasets)
    assert exported.status == 0, exported.err
    assert "forecaster.pt2" in exported.out
    elsewhere = call("export", folder, "--output-dir", tmp_path / "other", "--datasets-dir", tmp_path)
    assert elsewhere.status == 2
    assert "train_data.npy" in elsewhere.err
    assert len(elsewhere.err.splitlines()) == 1


def test_a_checkpoint_of_another_model_is_one_line(call, refused, town, trained) -> None:
    said = refused("evaluate", *town.arguments, "--model", "AGCRN", "--checkpoint", trained.best)
    assert "ELinFormer" in said
    assert "AGCRN" in said
