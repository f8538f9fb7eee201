"""From a config and the words of a command line to one run."""

from pathlib import Path

import pytest

from ealinformer.data.spec import SeriesSpec
from ealinformer.errors import InputError
from ealinformer.models import MODELS
from ealinformer.training import BASICTS_RECIPE, Experiment, Recipe
from ealinformer.training.jobs import prepare_job
from ealinformer.training.resolve import resolve

SERIES = SeriesSpec(name="TOWN", num_sensors=3, interval_minutes=5, start="2020-01-01", raw_file="town.npz")
OWN = Experiment(series=SERIES, model_params={"num_layers": 2}, recipes={"mine": Recipe(lr=0.5)}, seed=9)


def refused(*settings: str, **choices: str) -> str:
    with pytest.raises(InputError) as caught:
        resolve(OWN, settings=settings, **choices)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_without_a_word_it_is_the_first_recipe_and_the_configs_own_choices() -> None:
    run = resolve(OWN)
    assert (run.recipe_name, run.recipe) == ("mine", Recipe(lr=0.5))
    assert (run.model, run.model_params, run.seed) == ("ELinFormer", {"num_layers": 2}, 9)
    assert (run.input_len, run.output_len, run.max_steps, run.series) == (12, 12, None, SERIES)


def test_model_and_recipe_are_chosen_by_name() -> None:
    run = resolve(OWN, model="STAEformer", recipe="basicts")
    assert (run.model, run.recipe_name, run.recipe) == ("STAEformer", "basicts", BASICTS_RECIPE)


@pytest.mark.parametrize(
    ("setting", "key", "value"),
    [
        ("lr=0.002", "lr", 0.002),
        ("lr=2e-3", "lr", 0.002),
        ("batch_size=8", "batch_size", 8),
        ("milestones=(3, 4)", "milestones", (3, 4)),
        ("milestones=[3,4]", "milestones", (3, 4)),
        ("milestones=3,4", "milestones", (3, 4)),
        ("milestones=()", "milestones", ()),
        ("loss=masked_mae", "loss", "masked_mae"),
        ("loss='masked_mae'", "loss", "masked_mae"),
        ("patience=None", "patience", None),
        ("select_by=MAE", "select_by", "MAE"),
        ("clip_grad_norm=5", "clip_grad_norm", 5.0),
        ("micro_batch_size=4", "micro_batch_size", 4),
        ("optimizer=adafactor", "optimizer", "adafactor"),
        (" lr = 0.25", "lr", 0.25),
    ],
)
def test_recipe_keys(setting: str, key: str, value: object) -> None:
    recipe = resolve(OWN, settings=[setting]).recipe
    assert getattr(recipe, key) == value
    assert recipe.model_copy(update={key: getattr(OWN.recipes["mine"], key)}) == OWN.recipes["mine"]


@pytest.mark.parametrize(
    ("setting", "key", "value"),
    [
        ("input_len=24", "input_len", 24),
        ("output_len=3", "output_len", 3),
        ("seed=0", "seed", 0),
        ("max_steps=5", "max_steps", 5),
        ("dtype=bf16", "dtype", "bf16"),
        ("compile=reduce-overhead", "compile", "reduce-overhead"),
        ("windows=host", "windows", "host"),
    ],
)
def test_run_keys(setting: str, key: str, value: int) -> None:
    assert getattr(resolve(OWN, settings=[setting]), key) == value


def test_model_keys_are_added_to_those_of_the_config_and_leave_it_alone() -> None:
    run = resolve(OWN, settings=["model.entropy=gaussian", "model.num_layers=1", "model.eps=1e-4"])
    assert run.model_params == {"entropy": "gaussian", "num_layers": 1, "eps": 1e-4}
    assert OWN.model_params == {"num_layers": 2}


def test_the_last_of_two_settings_counts() -> None:
    assert resolve(OWN, settings=["lr=1", "lr=2"]).recipe.lr == 2


def test_a_value_may_hold_an_equals_sign() -> None:
    assert resolve(OWN, settings=["model.entropy=a=b"]).model_params["entropy"] == "a=b"


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("learning_rte=1", "--set learning_rte=1: unknown key 'learning_rte'"),
        ("batchsize=1", "unknown key 'batchsize' (did you mean 'batch_size'?)"),
        ("max_step=1", "unknown key 'max_step' (did you mean 'max_steps'?)"),
        ("entropy=gaussian", "a field of the model is set as model.entropy"),
        ("lr", "--set lr: key=value is expected"),
        ("=1", "--set =1: key=value is expected"),
        ("", "--set : key=value is expected"),
        ("lr=fast", "lr of Recipe: input should be a valid number, unable to parse string as a number, got 'fast'"),
        ("lr=", "lr of Recipe"),
        ("lr=0", "lr of Recipe: input should be greater than 0, got 0"),
        ("lr=nan", "lr of Recipe"),
        ("lr=1e999", "lr of Recipe: input should be a finite number"),
        ("lr={[]: 1}", "lr of Recipe"),
        ("batch_size=1.5", "batch_size of Recipe"),
        ("loss=mse", "loss of Recipe: input should be 'masked_mae', 'masked_huber', 'huber' or 'huber_2', got 'mse'"),
        ("max_steps=0", "max_steps of RunConfig: input should be greater than 0, got 0"),
        ("seed=-1", "seed of RunConfig: input should be greater than or equal to 0, got -1"),
        ("seed=4294967296", "seed of RunConfig: input should be less than 4294967296"),
        ("dtype=fp8", "dtype of RunConfig: input should be 'float32', 'tf32', 'bf16' or 'float64', got 'fp8'"),
        ("compile=on", "compile of RunConfig: input should be 'off', 'default', 'reduce-overhead' or 'max-autotune'"),
        ("windows=disk", "windows of RunConfig: input should be 'auto', 'device' or 'host', got 'disk'"),
        ("micro_batch_size=0", "micro_batch_size of Recipe: input should be greater than 0, got 0"),
        ("optimizer=sgd", "optimizer of Recipe: input should be 'adam', 'adamw' or 'adafactor', got 'sgd'"),
        ("input_len=0", "input_len of RunConfig: input should be greater than 0, got 0"),
    ],
)
def test_a_mistake_gets_one_line(setting: str, said: str) -> None:
    assert said in refused(setting)


def test_an_unknown_recipe_is_answered_with_the_nearest_and_all() -> None:
    assert refused(recipe="basict") == "unknown recipe 'basict' (did you mean 'basicts'?); known: mine, basicts"


def test_an_unknown_model_and_an_unknown_key_of_a_model(experiment, datasets_dir: Path, tmp_path: Path) -> None:
    for choice, said in (
        ({"model": "ELinformer"}, "unknown model 'ELinformer' (did you mean 'ELinFormer'?); known: ELinFormer"),
        (
            {"settings": ["model.num_layer=1"]},
            "unknown key 'model.num_layer' of ELinFormer (did you mean 'num_layers'?)",
        ),
        (
            {"settings": ["model.n_heads=3"]},
            "model ELinFormer cannot be built: n_heads has to divide the width 16, got 3",
        ),
        ({"settings": ["model.entropy=taylr"]}, "model ELinFormer cannot be built"),
        ({"settings": ["model.num_layers=two"]}, "num_layers has to be a positive whole number, got 'two'"),
        ({"settings": ["model.dropout=much"]}, "model ELinFormer cannot be built"),
    ):
        with pytest.raises(InputError) as caught:
            prepare_job(resolve(experiment, **choice), MODELS, datasets_dir=datasets_dir, folder=tmp_path / "run")
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "run").exists()
