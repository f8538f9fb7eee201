"""From a config file and the words of a command line to one run."""

import ast
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from ealinformer.errors import InputError, suggestion
from ealinformer.training.config import Experiment, Recipe, RunConfig, describe

RUN_KEYS = ("input_len", "output_len", "seed", "max_steps", "dtype", "compile", "windows", "deterministic")


def resolve(
    experiment: Experiment,
    *,
    model: str | None = None,
    recipe: str | None = None,
    settings: Sequence[str] = (),
) -> RunConfig:
    """Choose the model and the recipe and apply `key=value` settings.

    A key is a field of `Recipe`, one of `RUN_KEYS`, or `model.<field>` of the model's config.

    Raises:
        InputError: a recipe or key is not known, or a value cannot be.
    """
    recipe_name = next(iter(experiment.recipes)) if recipe is None else recipe
    if recipe_name not in experiment.recipes:
        known = list(experiment.recipes)
        raise InputError(f"unknown recipe {recipe_name!r}{suggestion(recipe_name, known)}; known: {', '.join(known)}")
    run: dict[str, Any] = {key: getattr(experiment, key) for key in ("series", "input_len", "output_len", "seed")}
    recipe_fields = experiment.recipes[recipe_name].model_dump()
    model_params = dict(experiment.model_params)
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
            model=experiment.model if model is None else model,
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


def _parse(setting: str) -> tuple[str, Any]:
    key, separator, text = setting.partition("=")
    if not separator or not key:
        raise InputError(f"--set {setting}: key=value is expected")
    try:
        return key.strip(), ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return key.strip(), text
