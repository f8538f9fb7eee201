"""What a file in configs/ says: a series, windows, a model, and the recipes to train it with."""

import runpy
import traceback
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError, model_validator

from ealinformer.data.spec import SeriesSpec, Source
from ealinformer.errors import InputError, suggestion
from ealinformer.recipe import Curriculum, PositiveInt, Recipe, Strict

Seed = Annotated[int, Field(ge=0, lt=2**32)]  # what numpy takes
MAX_SHOWN = 80  # characters of a value in a message


# What BasicTS 0.5.8 configures for STAEformer on every series.
BASICTS_RECIPE = Recipe(
    loss="masked_mae", weight_decay=3e-4, milestones=(20, 25), num_epochs=100, patience=None, select_by="MAE"
)


class Experiment(Strict):
    """One file of configs/. The first recipe is the default; `--recipe basicts` is there for every series."""

    series: SeriesSpec
    model: str = "ELinFormer"
    input_len: PositiveInt = 12
    output_len: PositiveInt = 12
    model_params: dict[str, Any] = Field(default_factory=dict)  # fields of the model's config class
    recipes: dict[str, Recipe] = Field(default_factory=lambda: {"authors": Recipe()})
    seed: Seed = 42

    @model_validator(mode="before")
    @classmethod
    def _add_basicts_recipe(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("recipes", {}), dict):
            given = values.get("recipes") or {"authors": Recipe()}
            return {**values, "recipes": {**given, "basicts": given.get("basicts", BASICTS_RECIPE)}}
        return values


class RunConfig(Strict):
    """An experiment with every choice made: what one run does, and what its folder records."""

    series: SeriesSpec
    model: str
    input_len: PositiveInt
    output_len: PositiveInt
    model_params: dict[str, Any]
    recipe_name: str
    recipe: Recipe
    seed: Seed
    max_steps: PositiveInt | None = None
    dtype: Literal["float32", "tf32", "bf16", "float64"] = "float32"  # see precision.py
    compile: Literal["off", "default", "reduce-overhead", "max-autotune"] = "off"  # modes of torch.compile
    windows: Literal["auto", "device", "host"] = "auto"  # where the series lies that batches are gathered from
    graph: str = "road"  # of models that take one: road, correlation, knn, none or a file; see data/prior.py
    deterministic: bool = False  # on a GPU: kernels that give the same bits every time, where there are any


_SCHEMAS: dict[str, type[BaseModel]] = {
    c.__name__: c for c in (Recipe, Curriculum, Experiment, RunConfig, SeriesSpec, Source)
}


def load_config(path: Path) -> Experiment:
    """Run a config file and return its `CONFIG`.

    Raises:
        InputError: the file is not there, does not run, or says something that cannot be.
    """
    if path.is_dir():
        raise InputError(f"config {path} is a folder, expected a file such as configs/PEMS08.py")
    if not path.is_file():
        known = sorted(p.name for p in path.parent.glob("*.py")) if path.parent.is_dir() else []
        hint = f"; {path.parent} has {', '.join(known)}" if known else ""
        raise InputError(f"config {path} is not there{suggestion(path.name, known)}{hint}")
    try:
        config = runpy.run_path(str(path)).get("CONFIG")
    except ValidationError as error:
        raise InputError(f"{path}: {describe(error)}") from error
    except InputError:
        raise
    except SyntaxError as error:
        where = f", line {error.lineno}" if error.lineno else ""
        raise InputError(f"{path}{where}: {error.msg}") from error
    except SystemExit as error:
        raise InputError(f"{path} ends the program (exit {error.code}), expected CONFIG = Experiment(...)") from error
    except Exception as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        where = f", line {lines[-1]}" if lines else ""
        said = " ".join(str(error).split())
        raise InputError(f"{path}{where}: {type(error).__name__}: {said}") from error
    if not isinstance(config, Experiment):
        found = "nothing of that name" if config is None else f"a {type(config).__name__}"
        raise InputError(f"{path} has to set CONFIG to an Experiment, found {found}")
    return config


def describe(error: ValidationError) -> str:
    """The first complaint of pydantic as one line: key, what was found, what was expected."""
    complaints = error.errors()
    # A mistyped key is also a missing one, and the suggestion says more.
    first = next((one for one in complaints if one["type"] == "extra_forbidden"), complaints[0])
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        schema = _nested_schema(error.title, first["loc"][:-1])
        fields = list(schema.model_fields) if schema else []
        return f"unknown key {key!r} of {error.title}{suggestion(str(first['loc'][-1]), fields)}"
    if first["type"] == "missing":
        return f"{error.title} needs the key {key!r}"
    message = first["msg"].removeprefix("Value error, ")
    return f"{key} of {error.title}: {message[:1].lower()}{message[1:]}, got {_short(first['input'])}"


def _short(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python writes out no whole number of more than 4,300 digits
        return "a very large number"
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def _nested_schema(title: str, location: tuple[int | str, ...]) -> type[BaseModel] | None:
    """The schema in which a key at `location` below the schema `title` would have to stand."""
    if not location:
        return _SCHEMAS.get(title)
    sources = dict.fromkeys(("raw_source", "graph_source", "ids_source"), Source)
    schemas: dict[str, type[BaseModel]] = {"series": SeriesSpec, "recipes": Recipe, "recipe": Recipe}
    below: dict[str, type[BaseModel]] = {**schemas, "curriculum": Curriculum, **sources}
    return next((below[str(part)] for part in reversed(location) if part in below), None)
