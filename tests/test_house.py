"""The house of docs/architecture.md: imports go one way."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "ealinformer"


def imported(folder: Path) -> set[str]:
    """Top-level modules that the files below `folder` (or that file) import, and second-level ones of this package."""
    names: set[str] = set()
    for path in [folder] if folder.is_file() else folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: imports are absolute here"
                modules = [node.module or ""]
            else:
                continue
            for module in modules:
                parts = module.split(".")
                names.add(".".join(parts[:2]) if parts[0] == "ealinformer" else parts[0])
    return names


def test_the_attention_knows_torch_alone():
    standard = "collections contextlib dataclasses difflib functools inspect math numbers typing"
    assert imported(PACKAGE / "attention") <= {"torch", "triton", "ealinformer.attention", *standard.split()}


@pytest.mark.parametrize(
    ("folder", "not_above"),
    [
        ("models", {"training", "data", "measure", "report"}),
        ("data", {"training", "models", "attention", "measure", "report"}),
        ("graphs", {"training", "models", "attention", "measure", "report", "data"}),
        ("measure", {"training", "models", "attention", "data", "report"}),
        ("report", {"training", "models", "attention", "data", "measure"}),
        ("dropin", {"training", "models", "data", "measure", "report"}),
        *(
            (f"analysis/{name}.py", {"training", "models", "data", "measure", "report"})
            for name in ("attention", "attention_capture", "attention_tally", "closures")
        ),
    ],
)
def test_nothing_imports_what_stands_above_or_beside_it(folder, not_above):
    assert not imported(PACKAGE / folder) & {f"ealinformer.{name}" for name in not_above}


@pytest.mark.parametrize("top", ["dropin", "analysis"])
def test_nothing_is_built_on_what_stands_on_top(top):
    others = [path for path in PACKAGE.iterdir() if path.is_dir() and path.name != top]
    assert not any(f"ealinformer.{top}" in imported(path) for path in others)


def test_the_package_imports_nothing_that_is_around_it():
    assert not imported(PACKAGE) & {"baselines", "configs", "experiments", "scripts", "tests", "benchmarks"}


@pytest.mark.parametrize("folder", ["data", "graphs", "recipe.py"])
def test_what_prepares_and_describes_needs_no_torch(folder):
    assert "torch" not in imported(PACKAGE / folder)


def test_layers_know_no_model_that_is_built_of_them():
    folder = ROOT / "baselines" / "layers"
    sources = [path.read_text(encoding="utf-8") for path in folder.glob("*.py")]
    assert sources
    others = {path.name for path in folder.parent.iterdir() if path.is_dir()} - {"layers"}
    assert not [name for name in others for source in sources if f"baselines.{name}" in source]
