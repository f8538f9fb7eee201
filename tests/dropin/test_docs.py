"""docs/dropin.md: its examples run, and its table has every model that there is something to say about."""

import re
from pathlib import Path

import pytest
import torch
from basicts.launcher import BasicTSLauncher
from basicts.models.TimeXer import TimeXerConfig

from ealinformer.dropin import DropInAttention

PAGE = (Path(__file__).parents[2] / "docs" / "dropin.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)


def run(number: int) -> dict:
    names: dict = {"__name__": "example"}
    exec(EXAMPLES[number], names)
    return names


def test_a_model_that_has_been_built():
    names = run(0)
    assert names["names"] == ["backbone.encoder.layers.0.self_attn"]
    assert str(names["names"]).replace("'", '"') in EXAMPLES[0]
    assert names["model"](torch.randn(1, 12, 883)).shape == (1, 12, 883)


def test_the_launcher_gets_the_class(monkeypatch):
    launched = []
    monkeypatch.setattr(BasicTSLauncher, "launch_training", launched.append)
    run(1)
    (config,) = launched
    model = config.model(config.model_config)
    assert isinstance(model.backbone.encoder.layers[0].self_attn, DropInAttention)
    assert "checkpoints/iTransformerForForecasting_entropy_equal/" in config.ckpt_save_dir


def test_a_class_of_ones_own():
    model = run(2)["EntropyEqualTimeXer"](TimeXerConfig(input_len=32, output_len=12, num_features=5))
    (layer,) = model.encoder.layers
    assert isinstance(layer.cross_attn, DropInAttention)
    assert not isinstance(layer.self_attn, DropInAttention)


def test_a_module_alone():
    assert run(3)["attention"](torch.randn(2, 5, 64))[0].shape == (2, 5, 64)
    assert len(EXAMPLES) == 4


@pytest.mark.parametrize(
    "model",
    [
        *("iTransformer", "TimeXer", "Leddam", "PatchTST", "Informer", "Crossformer", "Timer", "DUET"),
        *("Autoformer", "NonstationaryTransformer", "StemGNN"),
    ],
)
def test_the_table_has_a_verdict_on(model):
    rows = [row.split("|") for row in PAGE.splitlines() if row.startswith(f"| {model}")]
    assert any("works" in row[4] or "refused" in row[4] for row in rows)
