"""Every model of BasicTS that is built on its MultiHeadAttention: by hand, and under BasicTS's own launcher.

BasicTS keeps a device type and loggers for a whole process and renames it, so the trainings run in a process of their
own, which is this file as a program.
"""

import ast
import copy
import importlib
import inspect
import json
import math
import pkgutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import basicts.models
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ealinformer.dropin import DropInAttention, replace_attention, with_attention

STEPS = {"train": 160, "val": 80, "test": 80}
STEPS_PER_DAY, LENGTH, EPOCHS = 24, 24, 2


@dataclass(frozen=True)
class Case:
    """A model, how to make it small, and where its attention is."""

    package: str
    model: str
    config: str
    sites: tuple[str, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    num_features: int = 5

    @property
    def model_class(self) -> type[nn.Module]:
        return getattr(importlib.import_module(f"basicts.models.{self.package}"), self.model)

    def model_config(self) -> Any:
        sizes = {"input_len": LENGTH, "num_features": self.num_features, "hidden_size": 16, "intermediate_size": 32}
        rates = dict.fromkeys(("dropout", "attn_dropout", "fc_dropout"), 0.0)
        config_class = getattr(importlib.import_module(f"basicts.models.{self.package}"), self.config)
        known = inspect.signature(config_class).parameters
        settings = {key: value for key, value in (sizes | rates).items() if key in known}
        return config_class(output_len=LENGTH, n_heads=2, **settings, **self.settings)


def layers(name: str, count: int = 2) -> tuple[str, ...]:
    return tuple(name.format(i) for i in range(count))


TWO_STAGES = ("time_attention", "dim_sender", "dim_receiver")
CROSSFORMER_SITES = (
    *(f"encoder.encoder_layers.{i}.{stage}" for i in range(2) for stage in TWO_STAGES),
    *(
        f"decoder.decoder_layers.{i}.{site}"
        for i in range(3)
        for site in (*(f"self_attn.{stage}" for stage in TWO_STAGES), "cross_attn")
    ),
)
PATCHES: dict[str, Any] = {"patch_len": 6, "patch_stride": 3, "num_layers": 2}
CLASSES = {"num_classes": 3}
BACKBONE = layers("backbone.encoder.layers.{}.self_attn")

FORECASTERS = {
    "iTransformer": Case(
        "iTransformer", "iTransformerForForecasting", "iTransformerConfig", BACKBONE, {"num_layers": 2}
    ),
    "PatchTST": Case("PatchTST", "PatchTSTForForecasting", "PatchTSTConfig", BACKBONE, PATCHES),
    "Informer": Case(
        "Informer",
        "Informer",
        "InformerConfig",
        (
            *layers("encoder.encoder_layers.{}.self_attn"),
            "decoder.layers.0.self_attn",
            "decoder.layers.0.cross_attn",
        ),
        {"label_len": 12, "prob_attn": False, "use_timestamps": True, "timestamp_sizes": (STEPS_PER_DAY, 7)},
    ),
    "Crossformer": Case(
        "Crossformer", "Crossformer", "CrossformerConfig", CROSSFORMER_SITES, {"patch_len": 6, "factor": 3}
    ),
    "TimeXer": Case(
        "TimeXer",
        "TimeXer",
        "TimeXerConfig",
        tuple(f"encoder.layers.{i}.{site}" for i in range(2) for site in ("self_attn", "cross_attn")),
        {"patch_len": 6, "num_layers": 2},
    ),
    "Leddam": Case(
        "Leddam",
        "Leddam",
        "LeddamConfig",
        layers("channel_encoder.layers.{}.self_attn"),
        {"period": 4, "num_layers": 2},
    ),
    # Its mask fits one sensor a series only, and it gives as many steps as it takes.
    "Timer": Case(
        "Timer",
        "Timer",
        "TimerConfig",
        layers("decoder.layers.{}.self_attn"),
        {"patch_len": 6, "num_layers": 2},
        num_features=1,
    ),
}

CASES = FORECASTERS | {
    "iTransformer, classes": Case(
        "iTransformer", "iTransformerForClassification", "iTransformerConfig", BACKBONE, CLASSES | {"num_layers": 2}
    ),
    "iTransformer, gaps": Case(
        "iTransformer", "iTransformerForReconstruction", "iTransformerConfig", BACKBONE, {"num_layers": 2}
    ),
    "PatchTST, decomposed": Case(
        "PatchTST",
        "PatchTSTForForecasting",
        "PatchTSTConfig",
        (
            *layers("seasonal_backbone.encoder.layers.{}.self_attn"),
            *layers("trend_backbone.encoder.layers.{}.self_attn"),
        ),
        PATCHES | {"decomp": True, "moving_avg": 5},
    ),
    "PatchTST, classes": Case("PatchTST", "PatchTSTForClassification", "PatchTSTConfig", BACKBONE, PATCHES | CLASSES),
    "PatchTST, gaps": Case("PatchTST", "PatchTSTForReconstruction", "PatchTSTConfig", BACKBONE, PATCHES),
}


def build(case: Case) -> nn.Module:
    """The model, away from its initial weights: Leddam starts with heads to which its attention makes no difference."""
    torch.manual_seed(0)
    model = case.model_class(case.model_config())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return model


def with_gradients(case: Case, model: nn.Module) -> tuple[Tensor, dict[str, Tensor]]:
    """The prediction, and the gradients of a squared error."""
    generator = torch.Generator().manual_seed(1)
    shape = (3, LENGTH, case.num_features)
    batch = {"inputs": torch.randn(shape, generator=generator), "targets": torch.randn(shape, generator=generator)}
    batch |= {f"{part}_timestamps": torch.rand(3, LENGTH, 2, generator=generator) for part in ("inputs", "targets")}
    parameters = inspect.signature(model.forward).parameters.values()
    optional = case.settings.get("use_timestamps", False)
    prediction = model(**{p.name: batch[p.name] for p in parameters if optional or p.default is p.empty})
    model.zero_grad()
    (prediction - torch.randn(prediction.shape, generator=generator)).square().mean().backward()
    return prediction.detach(), {name: parameter.grad for name, parameter in model.named_parameters()}


def test_these_are_all_the_models_that_are_built_on_it():
    """DUET is the one that cannot work."""
    users = set()
    for package in pkgutil.iter_modules(basicts.models.__path__):
        for file in (Path(basicts.models.__path__[0]) / package.name).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "MultiHeadAttention":
                    users.add(package.name)
    assert users == {case.package for case in CASES.values()} | {"DUET"}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_with_softmax_nothing_changes(case):
    model = build(case)
    replaced = copy.deepcopy(model)
    assert replace_attention(replaced, "softmax") == list(case.sites)
    torch.testing.assert_close(with_gradients(case, replaced), with_gradients(case, model), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("entropy", ["taylor", "gaussian"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_entropy_equal_attention_trains_every_projection(case, entropy):
    model = build(case)
    before, _ = with_gradients(case, model)
    assert replace_attention(model, "entropy_equal", entropy=entropy) == list(case.sites)
    prediction, gradients = with_gradients(case, model)
    assert prediction.shape == before.shape
    assert prediction.isfinite().all()
    assert not torch.allclose(prediction, before, atol=1e-5)
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    for name in case.sites:
        assert isinstance(model.get_submodule(name), DropInAttention)
        for proj in ("q_proj", "k_proj", "v_proj", "out_proj"):
            assert gradients[f"{name}.{proj}.weight"].abs().max() > 0, f"{name}.{proj}"


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_weights_go_to_and_fro(case):
    model, variant = build(case), with_attention(case.model_class)(case.model_config())
    variant.load_state_dict(model.state_dict())
    build(case).load_state_dict(variant.state_dict())


def write_series(folder: Path, num_sensors: int) -> None:
    """Hourly flow with a daily wave, an offset per sensor and noise, in BasicTS's layout."""
    rng = np.random.default_rng(0)
    step = np.arange(sum(STEPS.values()))
    sensor = np.arange(num_sensors)
    flow = 200 + 30 * sensor + 100 * np.sin(2 * np.pi * step[:, None] / STEPS_PER_DAY + sensor)
    flow += rng.normal(scale=5, size=flow.shape)
    calendar = np.stack([step % STEPS_PER_DAY / STEPS_PER_DAY, step // STEPS_PER_DAY % 7 / 7], axis=1)
    folder.mkdir()
    first = 0
    for split, steps in STEPS.items():
        rows = slice(first, first + steps)
        np.save(folder / f"{split}_data.npy", flow[rows].astype(np.float32))
        np.save(folder / f"{split}_timestamps.npy", calendar[rows].astype(np.float32))
        first += steps


def train_all(folder: Path) -> None:
    """Train every forecaster under stock BasicTS in `folder`, and iTransformer also as it is and with softmax."""
    from basicts.configs import BasicTSForecastingConfig
    from basicts.launcher import BasicTSLauncher

    torch.set_num_threads(1)
    runs = {name: (case, with_attention(case.model_class, "entropy_equal")) for name, case in FORECASTERS.items()}
    case = FORECASTERS["iTransformer"]
    runs |= {"stock": (case, case.model_class), "softmax": (case, with_attention(case.model_class, "softmax"))}
    for name, (case, model_class) in runs.items():
        BasicTSLauncher.launch_training(
            BasicTSForecastingConfig(
                model=model_class,
                model_config=case.model_config(),
                dataset_name="made_up",
                dataset_params={"data_file_path": str(folder / f"{case.num_features} sensors")},
                input_len=LENGTH,
                output_len=LENGTH,
                use_timestamps=True,
                rescale=True,
                batch_size=16,
                lr=2e-3,
                num_epochs=EPOCHS,
                test_interval=EPOCHS + 1,
                gpus=None,
                ckpt_save_dir=str(folder / name),
            )
        )


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """The folder of the finished trainings."""
    folder = tmp_path_factory.mktemp("stock launcher")
    for num_sensors in {case.num_features for case in FORECASTERS.values()}:
        write_series(folder / f"{num_sensors} sensors", num_sensors)
    process = subprocess.run(
        [sys.executable, __file__, str(folder)], cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert process.returncode == 0, process.stderr[-3000:]
    return folder


def training_losses(folder: Path) -> list[float]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (run,) = folder.iterdir()
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    return [event.value for event in events.Scalars("train/loss")]


@pytest.mark.parametrize("name", FORECASTERS)
def test_trains_under_the_stock_launcher(trained, name):
    losses = training_losses(trained / name)
    assert len(losses) == EPOCHS
    assert losses[-1] < 0.95 * losses[0]
    (run,) = (trained / name).iterdir()
    metrics = json.loads((run / "test_metrics.json").read_text(encoding="utf-8"))["overall"]
    # Informer reads the future as its decoder's input, and outside of training BasicTS gives it memory as it comes.
    if name != "Informer":
        assert all(math.isfinite(value) for value in metrics.values())

    # What was trained loads into the model as BasicTS has it.
    case = FORECASTERS[name]
    (file,) = run.glob(f"{case.model}_entropy_equal_*{EPOCHS}.pt")
    build(case).load_state_dict(torch.load(file, weights_only=True)["model_state_dict"])


def test_with_softmax_the_launcher_reports_the_losses_of_the_stock_model(trained):
    assert training_losses(trained / "softmax") == pytest.approx(training_losses(trained / "stock"), rel=1e-5)
    assert training_losses(trained / "iTransformer") != pytest.approx(training_losses(trained / "stock"), rel=1e-3)


if __name__ == "__main__":
    train_all(Path(sys.argv[1]))
