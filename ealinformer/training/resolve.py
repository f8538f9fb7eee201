"""From a config file and the words of a command line to one run."""

import ast
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from ealinformer.errors import InputError, suggestion
from ealinformer.models.catalogue import Catalogue, find_model
from ealinformer.recipe import DEFAULT, PublishedRecipe
from ealinformer.training.config import BASICTS_RECIPE, Experiment, Recipe, RunConfig, describe

RUN_KEYS = ("input_len", "output_len", "seed", "max_steps", "dtype", "compile", "windows", "graph", "deterministic")


def resolve(
    experiment: Experiment,
    *,
    model: str | None = None,
    recipe: str | None = None,
    settings: Sequence[str] = (),
    catalogue: Catalogue | None = None,
) -> RunConfig:
    """Choose the model and the recipe and apply `key=value` settings.

    A key is a field of `Recipe`, one of `RUN_KEYS`, or `model.<field>` of the model's config. With a `catalogue` a
    model that has recipes of its own takes those for the series, else its default ones.

    Raises:
        InputError: a model, recipe or key is not known, or a value cannot be.
    """
    model = experiment.model if model is None else model
    recipes = recipes_of(experiment, model, catalogue)
    recipe_name = next(iter(recipes)) if recipe is None else recipe
    if recipe_name not in recipes:
        known = list(recipes)
        whose = "" if model == experiment.model else f" of {model}"
        hint = suggestion(recipe_name, known)
        raise InputError(f"unknown recipe {recipe_name!r}{whose}{hint}; known: {', '.join(known)}")
    run: dict[str, Any] = {key: getattr(experiment, key) for key in ("series", "input_len", "output_len", "seed")}
    recipe_fields = recipes[recipe_name].recipe.model_dump()
    model_params = dict(recipes[recipe_name].params)
    for setting in settings:
        key, value = _parse(setting)
        if key.startswith("model."):
            model_params[key.removeprefix("model.")] = value
        elif key in Recipe.model_fields:
            recipe_fields[key] = value
        elif key in RUN_KEYS:
            run[key] = value
        else:
            hint = suggestion(key, [*Recipe.model_fields, *RUN_KEYS])
            raise InputError(f"--set {setting}: unknown key {key!r}{hint}; a field of the model is set as model.{key}")
    try:
        resolved = RunConfig(
            **run,
            model=model,
            model_params=model_params,
            recipe_name=recipe_name,
            recipe=Recipe(**recipe_fields),
        )
    except ValidationError as error:
        raise InputError(describe(error)) from error
    try:
        RunConfig.model_validate_json(resolved.model_dump_json())  # as checkpoints and the run's folder keep it
    except (PydanticSerializationError, ValueError) as error:
        said = str(error).splitlines()
        raise InputError(f"the run cannot be kept as JSON: {said[-2 if len(said) > 1 else 0].strip()}") from error
    return resolved


def recipes_of(experiment: Experiment, model: str, catalogue: Catalogue | None = None) -> dict[str, PublishedRecipe]:
    """The recipes that a model can be trained with on the series of a config file, the first of them the default.

    A model that has none of its own takes those of the file, and its sizes. The others take their own; the file's come
    first where it names that model and says more than every file does.

    Raises:
        InputError: the model is not known.
    """
    of_file = {name: PublishedRecipe(one, experiment.model_params) for name, one in experiment.recipes.items()}
    own = None if catalogue is None else find_model(model, catalogue).recipes
    if own is None:
        return of_file
    published = dict(own.get(experiment.series.name) or own[DEFAULT])
    if model != experiment.model:
        return published
    said = {name: one for name, one in of_file.items() if one.recipe not in (Recipe(), BASICTS_RECIPE)}
    sizes = experiment.model_params
    return said | {name: replace(one, params={**one.params, **sizes}) for name, one in published.items()}


def _parse(setting: str) -> tuple[str, Any]:
    key, separator, text = setting.partition("=")
    if not separator or not key:
        raise InputError(f"--set {setting}: key=value is expected")
    try:
        return key.strip(), ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return key.strip(), text
