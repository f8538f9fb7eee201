"""Values from a command line or a config file make a run, or are refused in one line."""

import math
from datetime import datetime
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ealinformer.data.spec import SeriesSpec
from ealinformer.errors import InputError
from ealinformer.training.config import Experiment, Recipe, RunConfig, describe
from ealinformer.training.resolve import RUN_KEYS, resolve
from tests.fuzz.seeds import EXPERIMENT
from tests.fuzz.worker import LONGEST_LINE

KEYS = (*Recipe.model_fields, *RUN_KEYS, "model.entropy", "model.x", "model.", "series", "series.name")
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.binary(max_size=5)
HUGE = st.sampled_from([10**400, -(10**400), 2**31, 2**63, 2**64, 1e308, 5e-324])
NESTED = st.recursive(
    PLAIN | HUGE,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=5), inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
    ),
    max_leaves=12,
)
LITERALS = (
    NESTED.map(repr)
    | st.text(max_size=60)
    | st.sampled_from(["1" * 5000, "0x" + "f" * 5000, "[" * 3000, "-" * 9000 + "1", "1e999", "{[]: 1}", "1+" * 3000])
)  # fmt: skip


def check_one_line(error: InputError) -> None:
    assert str(error).isprintable()
    assert len(str(error)) <= LONGEST_LINE


@settings(max_examples=300, deadline=2000)
@given(words=st.lists(st.tuples(st.sampled_from(KEYS), LITERALS).map("=".join), min_size=1, max_size=4))
@example(words=["seed=0x" + "f" * 5000])
@example(words=["model.x={1, 2}"])
@example(words=["model.x='\\ud800'"])
@example(words=["model.x=" + "[" * 90 + "]" * 90])
def test_known_keys_with_any_value_make_a_run_or_are_refused(words: list[str]) -> None:
    try:
        run = resolve(EXPERIMENT, settings=words)
    except InputError as error:
        check_one_line(error)
    else:
        assert RunConfig.model_validate_json(run.model_dump_json()).recipe == run.recipe


@settings(max_examples=200, deadline=2000)
@given(word=st.text(max_size=100) | st.tuples(st.text(max_size=20), LITERALS).map("=".join))
@example(word="a\nb=1")
@example(word="\x1b[2J=1")
@example(word="a" * 100_000)
def test_any_words_make_a_run_or_are_refused(word: str) -> None:
    try:
        assert isinstance(resolve(EXPERIMENT, settings=[word]), RunConfig)
    except InputError as error:
        check_one_line(error)


@settings(max_examples=300, deadline=2000)
@given(
    schema=st.sampled_from([Recipe, SeriesSpec, Experiment]),
    data=st.data(),
)
def test_any_values_of_a_config_are_taken_or_described_in_one_line(schema: type[Any], data: st.DataObject) -> None:
    whole: dict[str, Any] = {
        Recipe: {},
        SeriesSpec: EXPERIMENT.series.model_dump(),
        Experiment: {"series": EXPERIMENT.series},
    }[schema]
    keys = st.sampled_from([*schema.model_fields, "batchsize"]) | st.text(max_size=10)
    values = NESTED | st.datetimes() | st.just(datetime(2018, 1, 1)) | st.just(math.nan)
    changed = data.draw(st.dictionaries(keys, values, min_size=1, max_size=3))
    try:
        made = schema(**{**whole, **changed})
    except ValidationError as error:
        check_one_line(InputError(describe(error)))
    else:
        assert isinstance(made, schema)
