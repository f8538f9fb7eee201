"""What the README says is what the project does: its tables are results, its code runs, its config is accepted."""

import re
from pathlib import Path

import pytest

from ealinformer.training import load_config

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON_BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize(
    "result",
    [
        "results/demo/demo.txt",
        "results/PEMS08/table.txt",
        "results/train_step/PEMS07-cpu.txt",
        "results/demo_attentions/table.txt",
    ],
)
def test_tables_are_recorded_results(result):
    shown = re.search(rf"<!-- {result} -->\n```\n(.*?)```", README, flags=re.DOTALL)
    assert shown is not None
    assert shown[1] == (ROOT / result).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", sorted(ROOT.glob("docs/*.md")), ids=lambda page: page.name)
def test_tables_of_the_documentation_are_recorded_results_or_part_of_them(page):
    text = page.read_text(encoding="utf-8")
    for result, shown in re.findall(r"<!-- (results/\S+) -->\n```\n(.*?)```", text, flags=re.DOTALL):
        rest = iter((ROOT / result).read_text(encoding="utf-8").splitlines())
        assert all(line in rest for line in shown.splitlines()), result  # in their order, perhaps not all


@pytest.mark.parametrize("page", sorted(ROOT.glob("docs/*.md")), ids=lambda page: page.name)
def test_links_of_the_documentation_lead_somewhere(page):
    links = [link for link in re.findall(r"\]\(([^)#\s]+)\)", page.read_text(encoding="utf-8")) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_layer_in_ten_lines_runs():
    (code,) = (block for block in PYTHON_BLOCKS if "ealinformer.attention" in block)
    scope: dict[str, object] = {}
    exec(code, scope)
    assert scope["y"].shape == (8, 1000, 128)


def test_the_drop_in_runs():
    (code,) = (block for block in PYTHON_BLOCKS if "ealinformer.dropin" in block)
    scope: dict[str, object] = {}
    exec(code, scope)
    assert "entropy_equal" in repr(scope["model"])


def test_the_config_of_an_own_data_set_is_accepted_and_short(tmp_path):
    (code,) = (block for block in PYTHON_BLOCKS if "CONFIG" in block)
    assert len(code.splitlines()) < 20
    path = tmp_path / "MYCITY.py"
    path.write_text(code, encoding="utf-8")
    config = load_config(path)
    assert (config.series.name, config.series.num_sensors) == ("MYCITY", 42)
    assert list(config.recipes) == ["mine", "basicts"]


def test_links_to_files_lead_somewhere():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert len(links) > 5
    assert [link for link in links if not (ROOT / link).exists()] == []
