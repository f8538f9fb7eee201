"""Other attentions on trained weights: which models take them, and that the weights do what their names say."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from baselines import MODELS as BASELINES
from ealinformer.analysis.attention_swaps import trained_attention, with_other_attention, with_other_eps
from ealinformer.data.spec import SeriesSpec
from ealinformer.models import MODELS, ModelEntry
from ealinformer.training import Recipe, RunConfig
from ealinformer.training.host import host_config
from ealinformer.training.jobs import Job

SIZES = {"input_hidden_size": 4, "tid_hidden_size": 4, "diw_hidden_size": 4, "adaptive_hidden_size": 4, "n_heads": 2}
SPEC = SeriesSpec(name="TINY", num_sensors=6, interval_minutes=30, start="2018-01-05", raw_file="TINY.npz")


def job(model: str, **attention) -> Job:
    run = RunConfig(
        series=SPEC,
        model=model,
        input_len=4,
        output_len=3,
        model_params={**SIZES, "num_layers": 1, "intermediate_size": 8, **attention},
        recipe_name="tiny",
        recipe=Recipe(),
        seed=1,
    )
    return Job(run, {**MODELS, **BASELINES}[model], Path("data"), Path("run"), None)


def build(of: Job) -> nn.Module:
    config = host_config(of.run, of.entry, data_dir=of.data_dir, folder=of.folder, gpus=None)
    return of.entry.model(config.model_config).eval()


@pytest.fixture
def forecast():
    """`forecast(job)`: what its model makes of one input, on weights that make attention matter."""
    generator = torch.Generator().manual_seed(4)
    template = build(job("STAEformer"))
    weights = {
        name: 0.5 * torch.randn(value.shape, generator=generator) for name, value in template.state_dict().items()
    }
    inputs, times = torch.randn(2, 4, 6, generator=generator), torch.rand(2, 4, 2, generator=generator)

    @torch.no_grad()
    def of(one: Job) -> torch.Tensor:
        model = build(one)
        model.load_state_dict(weights)
        return model(inputs, times)

    return of


def test_softmax_on_the_weights_of_elinformer_is_staeformer(forecast) -> None:
    ((_, own), (about, swapped)) = with_other_attention(job("ELinFormer", entropy="gaussian", eps=0.1), ["softmax"])
    assert about == {"attention": "softmax", "trained": False}
    torch.testing.assert_close(forecast(swapped), forecast(job("STAEformer", attention="softmax")))
    assert (forecast(own) - forecast(swapped)).abs().max() > 1e-3


@pytest.mark.parametrize("entropy", ["taylor", "second_order", "gaussian", "finite_size", "skewed", "exact"])
def test_estimators_on_the_weights_of_staeformer_are_elinformer(forecast, entropy: str) -> None:
    _, (about, swapped) = with_other_attention(job("STAEformer"), [entropy])
    assert about == {"attention": entropy, "trained": False}
    torch.testing.assert_close(forecast(swapped), forecast(job("ELinFormer", entropy=entropy)))
    assert (forecast(swapped) - forecast(job("STAEformer"))).abs().max() > 1e-3


def test_the_trained_attention_comes_first_once_and_is_the_very_job() -> None:
    own = job("ELinFormer", entropy="gaussian", eps=0.1)
    found = with_other_attention(own, ["softmax", "gaussian", "taylor", "taylor"])
    assert [about["attention"] for about, _ in found] == ["gaussian", "softmax", "taylor"]
    assert [about["trained"] for about, _ in found] == [True, False, False]
    assert found[0][1] is own
    assert found[2][1].run.model_params == {**own.run.model_params, "attention": "entropy_equal", "entropy": "taylor"}


def test_inline_attention_is_the_second_order_estimator(forecast) -> None:
    (about, own), (_, swapped) = with_other_attention(job("ELinFormer", attention="inline"), ["taylor"])
    assert about == {"attention": "second_order", "trained": True}
    torch.testing.assert_close(forecast(own), forecast(job("ELinFormer", entropy="second_order", eps=0.0)))
    assert trained_attention(swapped)["entropy"] == "taylor"


def test_eps_varies_with_the_trained_one_among_them(forecast) -> None:
    own = job("ELinFormer", entropy="gaussian", eps=0.1)
    found = with_other_eps(own, [3.0, 1e-8])
    assert [about for about, _ in found] == [
        {"eps": 1e-8, "trained": False},
        {"eps": 0.1, "trained": True},
        {"eps": 3.0, "trained": False},
    ]
    assert found[1][1] is own
    torch.testing.assert_close(forecast(found[2][1]), forecast(job("ELinFormer", entropy="gaussian", eps=3.0)))
    assert (forecast(found[2][1]) - forecast(own)).abs().max() > 1e-2


@pytest.mark.parametrize("attention", ["elu", "performer", "linformer", "identity"])
def test_attention_of_another_kind_has_nothing_to_swap_with(attention: str) -> None:
    other = job("ELinFormer", attention=attention)
    assert with_other_attention(other, ["softmax"]) == with_other_eps(other, [1.0]) == []


def test_softmax_has_no_eps_and_a_model_of_another_backbone_no_attention() -> None:
    assert with_other_eps(job("STAEformer"), [1.0]) == []
    foreign = replace(job("ELinFormer"), entry=ModelEntry(nn.Linear, MODELS["ELinFormer"].config))
    assert trained_attention(foreign) is None
    assert with_other_attention(foreign, ["softmax"]) == with_other_eps(foreign, [1.0]) == []


def test_nothing_asked_for_is_nothing_to_do() -> None:
    assert with_other_attention(job("ELinFormer"), []) == with_other_eps(job("ELinFormer"), []) == []
