"""What is published: numbers typed from the sources, which number stands for a model, and damage told in one line."""

import json
import re
from pathlib import Path

import pytest

from ealinformer.errors import InputError
from ealinformer.report.published import CONFIDENCES, HEADLINE_SOURCE, KINDS, headline, published, read_published
from ealinformer.report.published_pages import beside_page, overview_page, sources_page

ROOT = Path(__file__).resolve().parents[2]
MODELS = (
    *("AGCRN", "DCRNN", "GTS", "D2STGNN", "HimNet", "STGCN", "MTGNN", "GWNet", "PDFormer", "STWave", "STAEformer"),
    "ELinFormer",
)
DATASETS = ("PEMS-BAY", "PEMS03", "PEMS04", "PEMS07", "PEMS08")


def entry(model: str, dataset: str, source: str, horizon: int | None = None):
    (found,) = [one for one in published(model, dataset) if (one.source, one.horizon) == (source, horizon)]
    return found


def test_the_twelve_models_of_table_3_are_there_and_no_other() -> None:
    collection = read_published()
    assert tuple(collection.results) == MODELS
    assert collection.datasets == DATASETS
    assert (published("Linformer", "PEMS08"), published("GWNet", "METR-LA")) == ((), ())


@pytest.mark.parametrize(
    ("model", "dataset", "source", "horizon", "errors"),
    [
        ("STAEformer", "PEMS08", "STAEformer paper", None, (13.46, 23.25, 8.88)),
        ("ELinFormer", "PEMS03", "arXiv 2511.03190 Table 2", None, (14.81, 24.86, 15.21)),
        ("GWNet", "PEMS04", "BasicTS+ Table 7", None, (18.80, 30.14, 13.19)),
        ("GWNet", "PEMS04", "BasicTS 2023", None, (18.53, 29.92, 12.89)),
        ("GWNet", "PEMS04", HEADLINE_SOURCE, None, (18.53, 29.92, None)),
        ("DCRNN", "PEMS-BAY", "DCRNN paper", 12, (2.07, 4.74, 4.9)),
        ("DCRNN", "PEMS-BAY", "DCRNN README", 12, (1.98, 4.62, 4.74)),
        ("HimNet", "PEMS-BAY", "HimNet slides", 3, (1.27, 2.68, 2.64)),
        ("STWave", "PEMS07", HEADLINE_SOURCE, None, (19.94, 33.88, None)),
        ("MTGNN", "PEMS07", "BasicTS+ Table 7", None, (21.01, 34.14, 8.92)),
    ],
)
def test_numbers_are_those_of_their_sources(model, dataset, source, horizon, errors) -> None:
    assert tuple(entry(model, dataset, source, horizon).errors.values()) == errors


def test_every_number_can_be() -> None:
    for model in MODELS:
        for dataset in DATASETS:
            for one in published(model, dataset):
                assert 0 < one.mae < one.rmse < 50
                assert one.mape is None or 0 < one.mape < 25
                assert one.horizon in (None, 1, 3, 6, 12)
                assert (one.kind in KINDS, one.confidence in CONFIDENCES) == (True, True)


def test_the_headline_is_that_of_table_3_with_the_mape_of_the_same_errors() -> None:
    found = headline("GWNet", "PEMS04")
    assert found is not None
    assert (found.mae, found.rmse, found.mape) == (18.53, 29.92, 12.89)
    assert (found.source, found.mape_source) == (HEADLINE_SOURCE, "BasicTS 2023")
    own = headline("ELinFormer", "PEMS08")
    assert own is not None
    assert (own.mae, own.mape, own.mape_source, own.kind) == (13.51, 8.90, "arXiv 2511.03190 Table 2", "paper")


def test_a_mape_of_other_errors_is_not_taken() -> None:
    # RARF's README has a MAPE of STWave on PEMS08, with another MAE.
    found = headline("STWave", "PEMS08")
    assert found is not None
    assert (found.mae, found.mape, found.mape_source) == (13.42, None, None)


def test_where_table_3_is_silent_the_headline_is_another_average_or_nothing() -> None:
    rerun = headline("STWave", "PEMS-BAY")
    assert rerun is not None
    assert (rerun.mae, rerun.source, rerun.kind) == (1.60, "RARF README", "rerun")
    assert published("HimNet", "PEMS-BAY")
    assert headline("HimNet", "PEMS-BAY") is None
    assert headline("GWNet", "DEMO") is None


def test_the_best_kind_of_source_comes_first(tmp_path: Path) -> None:
    def one(kind: str, confidence: str, mae: float) -> dict:
        return {
            "horizon": None,
            "MAE": mae,
            "RMSE": 2.0,
            "MAPE": 3.0,
            "source": "s",
            "kind": kind,
            "confidence": confidence,
        }

    def chosen(*entries: dict) -> float:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.json"
        path.write_text(json.dumps({"sources": {"s": "x"}, "published": {"M": {"D": entries}}}))
        found = headline("M", "D", path)
        assert found is not None
        return found.mae

    assert chosen(one("rerun", "seen", 1.1), one("benchmark", "seen", 1.2), one("quoted", "seen", 1.3)) == 1.2
    assert chosen(one("benchmark", "seen", 1.1), one("paper", "second_hand", 1.2)) == 1.2
    assert chosen(one("paper", "second_hand", 1.1), one("paper", "seen", 1.2)) == 1.2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "cannot be read: No such file or directory"),
        ("{", "cannot be read: Expecting property name"),
        ("[]", "holds no published results: TypeError"),
        ('{"sources": {}}', "holds no published results: KeyError 'published'"),
        ('{"sources": [], "published": {}}', "holds no published results: AttributeError"),
        ('{"sources": {}, "published": {"M": {"D": [{"source": "nowhere"}]}}}', "KeyError 'kind'"),
    ],
)
def test_a_damaged_file_is_one_line(tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "published.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=re.escape(said)) as caught:
        read_published(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(("key", "word"), [("source", "nowhere"), ("kind", "rumour"), ("confidence", "recalled")])
def test_a_word_that_is_not_explained_is_refused(tmp_path: Path, key: str, word: str) -> None:
    one = {"horizon": None, "MAE": 1.0, "RMSE": 2.0, "MAPE": None, "source": "s", "kind": "paper", "confidence": "seen"}
    path = tmp_path / "published.json"
    path.write_text(json.dumps({"sources": {"s": "x"}, "published": {"M": {"D": [{**one, key: word}]}}}))
    with pytest.raises(InputError, match=f"'{word}' is none of"):
        read_published(path)


def test_what_the_documentation_says_of_table_3_is_so() -> None:
    def pairs(source: str) -> list[tuple[float, float]]:
        found = []
        for model in MODELS:
            for dataset in DATASETS:
                other = [one for one in published(model, dataset) if one.source == source]
                if other:
                    table3 = entry(model, dataset, HEADLINE_SOURCE)
                    found += [(table3.mae, other[0].mae), (table3.rmse, other[0].rmse)]
        return found

    newer, older = pairs("BasicTS+ Table 7"), pairs("BasicTS 2023")
    assert (len(newer), sum(one == two for one, two in newer)) == (70, 68)
    assert (len(older), sum(two < one for one, two in older)) == (70, 41)
    without = [
        (model, dataset)
        for model in MODELS[:-1]
        for dataset in DATASETS
        for one in published(model, dataset)
        if one.source == HEADLINE_SOURCE and not one.taken_from
    ]
    expected = [("HimNet", "PEMS03"), ("PDFormer", "PEMS-BAY"), ("PDFormer", "PEMS03"), ("STAEformer", "PEMS-BAY")]
    assert without == expected
    text = (ROOT / "docs" / "comparison.md").read_text(encoding="utf-8")
    assert "Of the 70 MAE and RMSE that it shares with BasicTS+ Table 7, 68 are equal" in text
    assert "lower than Table 3 in 41 of those 70" in text


# Pages


def row(model: str, seed: int, mae: float, **config) -> dict:
    settings = {"seed": seed, "model_params": {}, "recipe": {}, **config}
    return {
        "model": model,
        "seed": seed,
        "average": {"MAE": mae, "RMSE": mae + 10, "MAPE": 9.0},
        "epochs": 3,
        "complete": True,
        "stopped_by": "all epochs done",
        "recipe": "authors",
        "config": settings,
    }


def lines_of(page: str, model: str) -> list[str]:
    return [line for line in page.splitlines() if line.startswith(f"{model} ")]


def test_ours_stand_beside_the_published_ones_with_their_difference() -> None:
    rows = [row("STAEformer", 1, 13.5), row("STAEformer", 2, 13.7)]
    page = beside_page("PEMS08", rows, models=["STAEformer", "GWNet"], unit="vehicles")
    ours, nothing = lines_of(page, "STAEformer")[0].split(), lines_of(page, "GWNet")[0].split()
    assert ours[1:7] == ["13.46", "23.25", "8.88", "[1],", "MAPE", "[12]"]
    assert ours[7:10] == ["13.60", "±", "0.14"]
    assert ours[-4:] == ["+0.14", "authors,", "2", "seeds"]
    assert nothing[7:] == ["-", "-", "-", "-", "-"]
    assert "[12] STAEformer paper: STAEformer (CIKM 2023" in page


def test_other_settings_of_a_model_are_a_line_of_their_own() -> None:
    rows = [row("ELinFormer", 1, 13.6), row("ELinFormer", 1, 13.8, model_params={"entropy": "skewed"})]
    found = lines_of(beside_page("PEMS08", rows, models=["ELinFormer"], unit="vehicles"), "ELinFormer")
    assert [line.split("  ")[-1] for line in found] == ["authors", "authors, entropy=skewed"]
    assert ["13.60" in line for line in found] == [True, False]


def test_a_run_that_was_cut_short_says_so() -> None:
    cut = {**row("GWNet", 1, 20.0), "complete": False, "stopped_by": "--max-steps 9"}
    (line,) = lines_of(beside_page("PEMS08", [cut], models=["GWNet"], unit="vehicles"), "GWNet")
    assert line.endswith("authors, INCOMPLETE: --max-steps 9")


def test_a_model_without_an_average_says_why_it_has_none() -> None:
    page = beside_page("PEMS-BAY", [], models=["HimNet", "Linformer"], unit="mph")
    assert "single horizons alone" in lines_of(page, "HimNet")[0]
    assert "not published" in lines_of(page, "Linformer")[0]


def test_the_overview_marks_the_lowest_and_names_what_is_not_of_table_3() -> None:
    page = overview_page(DATASETS, models=MODELS)
    mae = page.split("\n\n")[1]
    assert [line.split()[0] for line in mae.splitlines()[2:]] == list(MODELS)
    cells = {line.split()[0]: line.split()[1:] for line in mae.splitlines()[2:]}
    assert cells["STWave"][4] == "**13.42"
    assert (cells["STAEformer"][2], cells["ELinFormer"][2]) == ("*18.22", "*18.22")
    assert cells["HimNet"][0] == "-"
    assert "but for STWave on PEMS-BAY [8]" in page


def test_all_sources_are_listed_with_their_kind() -> None:
    page = sources_page("PEMS-BAY", models=["DCRNN"], unit="mph")
    lines = lines_of(page, "DCRNN")
    assert len(lines) == len(published("DCRNN", "PEMS-BAY"))
    assert any(line.split()[1:5] == ["12", "2.07", "4.74", "4.90"] and "paper, second hand" in line for line in lines)
    assert any("the same as BasicTS+ Table 7 and BasicTS 2023" in line for line in lines)
