"""dtype: what is rounded in training and scoring, what stays whole, and that one run leaves nothing to the next."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from basicts.configs import BasicTSForecastingConfig
from basicts.runners import BasicTSRunner
from basicts.runners.callback import BasicTSCallback
from easytorch.device import get_device_type, set_device_type
from easytorch.utils.env import set_tf32_mode
from torch import Tensor, nn
from torch.optim import SGD

from ealinformer.errors import InputError
from ealinformer.training.checkpoints.checkpoint import load_checkpoint
from ealinformer.training.host import host_config
from ealinformer.training.jobs import Job
from ealinformer.training.launcher import evaluate, train
from ealinformer.training.precision import check_dtype, matmul_precision, stored_dtype
from ealinformer.training.runner import ForecastingRunner

NewJob = Callable[..., Job]
SETTINGS = ("num_epochs=2", "model.dropout=0.1")


def flags() -> tuple[bool, bool]:
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


class Dtypes(BasicTSCallback):
    """Notes what the loss is computed from, and what the model gave."""

    def __init__(self) -> None:
        self.seen: set[tuple[str, str, torch.dtype]] = set()

    def on_compute_loss(self, runner: ForecastingRunner, forward_return: dict[str, Any], **kwargs: Any) -> None:
        assert not torch.is_autocast_enabled("cpu")
        for name in ("prediction", "targets", "inputs"):
            self.seen.add((str(runner.status), name, forward_return[name].dtype))

    def on_optimizer_step(self, runner: ForecastingRunner) -> None:
        self.seen |= {("gradient", "", p.grad.dtype) for p in runner.model.parameters() if p.grad is not None}


@pytest.fixture
def build(new_job: NewJob, tmp_path: Path) -> Callable[..., ForecastingRunner]:
    def make(*settings: str, callback: BasicTSCallback | None = None) -> ForecastingRunner:
        folder = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        job = new_job(folder, *settings)
        folder.mkdir()
        config = host_config(job.run, job.entry, data_dir=job.data_dir, folder=folder, gpus=None)
        config.callbacks = [*config.callbacks, *([callback] if callback else [])]
        return ForecastingRunner(config, job.run)

    return make


# bfloat16


def test_bf16_rounds_in_the_model_alone(build) -> None:
    dtypes, given = Dtypes(), set()
    runner = build("dtype=bf16", *SETTINGS, callback=dtypes)
    runner.model.register_forward_hook(lambda module, inputs, output: given.add((module.training, output.dtype)))
    runner.train()
    runner.evaluate("test")
    assert given == {(True, torch.bfloat16), (False, torch.bfloat16)}
    assert {dtype for _, _, dtype in dtypes.seen} == {torch.float32}
    assert {status for status, _, _ in dtypes.seen} >= {"gradient"}
    assert len({status for status, name, _ in dtypes.seen if name}) == 3  # training, validation, test
    state = load_checkpoint(runner.folder / "last.pt")[1]
    moments = [t for one in state["training"]["optimizer"]["state"].values() for t in one.values()]
    assert {tensor.dtype for tensor in [*state["model"].values(), *moments]} == {torch.float32}


def test_bf16_follows_float32_and_is_not_it(build) -> None:
    rows = {}
    for dtype in ("float32", "bf16"):
        runner = build(f"dtype={dtype}", "num_epochs=2", "model.dropout=0.0")
        runner.train()
        rows[dtype] = runner.history.rows[-1]
    for name in ("train_loss", "val_loss", "val_RMSE"):
        assert rows["bf16"][name] == pytest.approx(rows["float32"][name], rel=0.02)
        assert rows["bf16"][name] != rows["float32"][name]


def test_a_bf16_run_that_was_killed_ends_with_the_same_bits_and_is_scored_the_same_again(
    new_job: NewJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = new_job(tmp_path / "straight", "dtype=bf16", *SETTINGS)
    metrics = train(straight)
    job = dataclasses.replace(new_job(tmp_path / "run", "dtype=bf16", *SETTINGS), checkpoint_minutes=0)
    step = ForecastingRunner._train_step

    class Killed(BaseException):
        pass

    def dying(self: ForecastingRunner, data: dict[str, Tensor]) -> None:
        if self.step == 9:
            raise Killed
        step(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(ForecastingRunner, "_train_step", dying)
        with pytest.raises(Killed):
            train(job)
    assert train(job)["horizons"] == metrics["horizons"]
    one, other = (load_checkpoint(each.folder / "last.pt")[1]["model"] for each in (job, straight))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert evaluate(job, job.folder / "best.pt", "test")["horizons"] == metrics["horizons"]
    in_float32 = evaluate(job, job.folder / "best.pt", "test", dtype="float32")["average"]
    assert in_float32 != metrics["average"]
    assert in_float32 == pytest.approx(metrics["average"], rel=0.01)


def test_bf16_without_instructions_for_it_is_a_warning_in_the_log(
    new_job: NewJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warning = "dtype=bf16: there are no bfloat16 instructions here, which makes it slower than float32"
    for capabilities, said in (({"avx512_bf16": True, "amx_bf16": False}, None), ({"avx512_bf16": False}, warning)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=capabilities: found, raising=False)
        assert check_dtype("bf16", cuda=False) == said
        assert check_dtype("float32", cuda=False) is None
    train(new_job(tmp_path / "run", "dtype=bf16", "max_steps=1"))
    assert f"warning: {warning}\n" in (tmp_path / "run" / "train.log").read_text()
    monkeypatch.delattr(torch.cpu, "get_capabilities")  # torch before 2.10
    assert check_dtype("bf16", cuda=False) is None


# TF32


def test_tf32_is_set_while_training_and_scoring_and_put_back(build, monkeypatch: pytest.MonkeyPatch) -> None:
    """The flags are there without a GPU, on which alone they matter."""
    seen: list[tuple[bool, bool]] = []
    forward = ForecastingRunner._forward

    def note(self: ForecastingRunner, *arguments: Any) -> dict[str, Any]:
        seen.append(flags())
        return forward(self, *arguments)

    monkeypatch.setattr(ForecastingRunner, "_forward", note)
    before = flags()
    for dtype, expected in (("tf32", True), ("float32", False)):
        seen.clear()
        runner = build("max_steps=1")
        runner.run = runner.run.model_copy(update={"dtype": dtype})
        runner.train()
        steps = len(seen)
        runner.evaluate("test")
        assert len(seen) > steps > 1
        assert set(seen) == {(expected, expected)}
        assert flags() == before


@pytest.mark.parametrize("around", ["tf32", "float32"])
def test_tf32_is_put_back_after_an_error(around: str) -> None:
    def fail() -> None:
        with matmul_precision("tf32"):
            assert flags() == (True, True)
            raise ZeroDivisionError

    with matmul_precision(around):
        with pytest.raises(ZeroDivisionError):
            fail()
        assert flags() == (around == "tf32",) * 2


def test_tf32_without_a_device_that_has_it_is_refused(
    new_job: NewJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=r"^dtype=tf32: only CUDA devices have TF32, .*dtype=float32 is expected$"):
        new_job(tmp_path / "run", "dtype=tf32")
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla V100")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 0))
    with pytest.raises(InputError, match=r"^dtype=tf32: Tesla V100 has no TF32: dtype=float32 is expected$"):
        check_dtype("tf32", cuda=True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 0))
    assert check_dtype("tf32", cuda=True) is None


@pytest.mark.parametrize("dtype", ["float32", "tf32", "bf16", "float64"])
def test_weights_are_float64_or_float32(dtype: str) -> None:
    assert stored_dtype(dtype) == (torch.float64 if dtype == "float64" else torch.float32)


# What the host does


@dataclasses.dataclass
class Sizes:
    input_len: int = 4
    output_len: int = 3


class Level(nn.Module):
    """Notes in which state it is when it is asked."""

    def __init__(self, config: Sizes) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.zeros(()))
        self.shape = (config.output_len, 5)
        self.seen: list[tuple[bool, bool]] = []
        self.rounds = False

    def forward(self, inputs: Tensor) -> Tensor:
        self.seen.append((self.training, self.rounds))
        return self.level.expand(len(inputs), *self.shape)


@pytest.mark.filterwarnings("ignore:CUDA is not available")
def test_the_host_scales_losses_in_bf16_and_scores_without_rounding(
    new_job: NewJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its autocast and its scaler are CUDA's; ones that only take notes stand in for them."""
    job = new_job(tmp_path / "run")
    sizes = {"dataset_name": "TINY", "input_len": 4, "output_len": 3}
    scaled: list[bool] = []
    monkeypatch.setattr(
        torch.amp,
        "GradScaler",
        lambda enabled, make=torch.amp.GradScaler: scaled.append(enabled) or make(enabled=False),
    )
    config = BasicTSForecastingConfig(
        model=Level,
        model_config=Sizes(),
        dataset_params={"data_file_path": str(job.data_dir), **sizes},
        **sizes,
        null_val=0.0,
        scaler=None,
        rescale=False,
        loss="MAE",
        metrics=["MAE"],
        optimizer=SGD,
        optimizer_params={"lr": 0.1},
        num_epochs=2,
        train_batch_size=80,
        eval_after_train=False,
        ckpt_save_dir=str(tmp_path / "host"),
        model_dtype="bfloat16",
        gpus="0",
    )
    runner = BasicTSRunner(config)
    assert scaled == [True]

    class Autocast:
        def __enter__(self) -> None:
            runner.model.rounds = True

        def __exit__(self, *error: object) -> None:
            runner.model.rounds = False

    runner.amp_ctx = Autocast()
    runner.train()
    assert set(runner.model.seen) == {(True, True), (False, False)}


def test_the_host_says_that_it_sets_tf32_and_does_not() -> None:
    before, device = flags(), get_device_type()
    set_device_type("gpu")
    try:
        with matmul_precision("float32"):
            set_tf32_mode(True)
            assert flags() == (False, False)
    finally:
        set_device_type(device)
    assert flags() == before
