"""Model classes with another attention: their names, and how other processes get at them."""

import inspect
import json
import pickle
import subprocess
import sys

import pytest
import torch
from basicts.configs import BasicTSForecastingConfig
from basicts.models.iTransformer import iTransformerConfig, iTransformerForForecasting
from torch import nn

from ealinformer.dropin import DropInAttention, with_attention

CONFIG = iTransformerConfig(input_len=12, output_len=12, num_features=5, hidden_size=16, n_heads=2)


def forecasting_config(model: type) -> BasicTSForecastingConfig:
    return BasicTSForecastingConfig(
        model=model, model_config=CONFIG, dataset_name="made_up", input_len=12, output_len=12, use_timestamps=True
    )


def test_is_the_model_with_its_attention_replaced():
    variant = with_attention(iTransformerForForecasting, "entropy_equal", entropy="gaussian", eps=0.5)
    model = variant(CONFIG)
    assert isinstance(model, iTransformerForForecasting)
    attention = model.backbone.encoder.layers[0].self_attn
    assert isinstance(attention, DropInAttention)
    assert attention.attention_options == {"entropy": "gaussian", "eps": 0.5}
    assert model(torch.randn(2, 12, 5)).shape == (2, 12, 5)


def test_the_name_says_attention_and_options():
    assert with_attention(iTransformerForForecasting).__name__ == "iTransformerForForecasting_entropy_equal"
    variant = with_attention(iTransformerForForecasting, "entropy_equal", eps=1e-3, entropy="gaussian")
    assert variant.__name__ == "iTransformerForForecasting_entropy_equal_entropy=gaussian_eps=0.001"
    folder = forecasting_config(variant).ckpt_save_dir
    assert folder == f"checkpoints/{variant.__name__}/made_up_100_12_12"


def test_the_same_call_gives_the_same_class_and_another_call_another():
    made = with_attention(iTransformerForForecasting, "performer", seed=1)
    assert with_attention(iTransformerForForecasting, "performer", seed=1) is made
    others = [("performer", {"seed": 2}), ("performer", {"seed": True}), ("performer", {}), ("entropy_equal", {})]
    assert all(with_attention(iTransformerForForecasting, name, **options) is not made for name, options in others)


def test_basicts_tells_the_runs_apart():
    models = [
        iTransformerForForecasting,
        with_attention(iTransformerForForecasting, "softmax"),
        with_attention(iTransformerForForecasting, "entropy_equal"),
        with_attention(iTransformerForForecasting, "entropy_equal", entropy="gaussian"),
    ]
    assert len({forecasting_config(model).md5 for model in models}) == len(models)


def test_basicts_sees_the_signature_of_the_model():
    variant = with_attention(iTransformerForForecasting)
    assert inspect.signature(variant.forward) == inspect.signature(iTransformerForForecasting.forward)
    assert inspect.signature(variant) == inspect.signature(iTransformerForForecasting)


def test_a_config_that_was_saved_is_read_back_after_the_same_call(tmp_path):
    variant = with_attention(iTransformerForForecasting, "entropy_equal", eps=0.25)
    file = tmp_path / "cfg.json"
    file.write_text(str(forecasting_config(variant)))
    assert BasicTSForecastingConfig.from_json(file).model is variant
    file.write_text(
        json.dumps({**json.loads(file.read_text()), "model": {"name": "M_x", "module": variant.__module__}})
    )
    with pytest.raises(AttributeError, match=r"M_x has not been made yet: call ealinformer\.dropin\.with_attention"):
        BasicTSForecastingConfig.from_json(file)


class Written(with_attention(iTransformerForForecasting, "softmax")):
    """A subclass that someone wrote."""


@pytest.mark.parametrize("made", [with_attention(iTransformerForForecasting, "elu"), Written])
def test_pickle_finds_the_class_again(made):
    assert pickle.loads(pickle.dumps(made)) is made


def test_another_process_can_unpickle_the_class(tmp_path):
    file = tmp_path / "config.pickle"
    variant = with_attention(iTransformerForForecasting, "performer", seed=4)
    file.write_bytes(pickle.dumps({"model": variant, "built": variant(CONFIG)}))
    script = "import pickle, sys; read = pickle.load(open(sys.argv[1], 'rb')); print(read['model'].__name__); "
    script += "print(type(read['built']) is read['model'])"
    process = subprocess.run([sys.executable, "-c", script, str(file)], capture_output=True, text=True, check=True)
    assert process.stdout.split() == [variant.__name__, "True"]


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((CONFIG,), {}, "model_class has to be a class of models, got"),
        ((nn.Linear(2, 2),), {}, "model_class has to be a class of models, got Linear"),
        ((iTransformerForForecasting,), {"where": "*.0.self_attn"}, "where becomes part of the name of the class"),
        ((iTransformerForForecasting,), {"where": str.islower}, "write a subclass that calls replace_attention"),
    ],
)
def test_refuses_what_is_no_model_and_what_has_no_name(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        with_attention(*arguments, **options)
