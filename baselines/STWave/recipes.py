"""How STWave is trained on each series, and the sizes and wavelets that go with it."""

from typing import Any

from ealinformer.recipe import PublishedRecipe, Recipe, Recipes

_BASICTS = Recipe(
    loss="masked_mae",
    weight_decay=0.0,
    milestones=(65, 70, 75),
    batch_size=64,
    eval_batch_size=64,
    num_epochs=80,
    patience=None,
    select_by="MAE",
    clip_grad_norm=5.0,
)
_PLATEAU = {"schedule": "plateau", "plateau_epochs": 20, "min_lr": 2e-6}
_AUTHORS = _BASICTS.model_copy(update={**_PLATEAU, "num_epochs": 200})
_AUTHORS_FORM = {"n_heads": 8, "query_score": "neighbours", "spatial_norm_affine": True, "dtw_graph": True}


def _wave(wave_type: str, wave_levels: int = 1) -> dict[str, Any]:
    return {"wave_type": wave_type, "wave_levels": wave_levels}


def _basicts(params: dict[str, Any], **changes: Any) -> PublishedRecipe:
    return PublishedRecipe(_BASICTS.model_copy(update=changes), params, source="BasicTS 0.5.8")


def _authors(params: dict[str, Any], batch_size: int = 64) -> PublishedRecipe:
    recipe = _AUTHORS.model_copy(update={"batch_size": batch_size, "eval_batch_size": batch_size})
    return PublishedRecipe(recipe, {**_AUTHORS_FORM, **params}, source="LMissher/STWave")


RECIPES: Recipes = {
    "PEMS-BAY": {"basicts": _basicts(_wave("db1"), milestones=(9, 10), num_epochs=12)},
    "PEMS03": {
        "basicts": _basicts(_wave("sym2"), milestones=(30, 40, 45), num_epochs=50),
        "authors": _authors(_wave("sym2")),
    },
    "PEMS04": {"basicts": _basicts(_wave("sym2")), "authors": _authors(_wave("db1"))},
    "PEMS07": {
        "basicts": _basicts(_wave("sym2"), milestones=(100, 105), num_epochs=110, batch_size=16, eval_batch_size=16),
        "authors": _authors(_wave("db1"), batch_size=32),
    },
    "PEMS08": {
        # Its milestones come after its last epoch: so it was published, and the rate never falls.
        "basicts": _basicts(_wave("coif1", 2), milestones=(100, 105), num_epochs=100),
        "authors": _authors(_wave("coif1")),
    },
    "default": {"basicts": _basicts(_wave("sym2"))},
    "DEMO": {
        "demo": PublishedRecipe(
            _BASICTS.model_copy(update={"lr": 4e-3, "milestones": (1,), "batch_size": 16, "num_epochs": 2}),
            {"hidden_size": 32, **_wave("sym2")},
        )
    },
}
