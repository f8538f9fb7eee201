"""`meta.json` from elsewhere: whatever is in it, one printable line of bounded length."""

import json
import time
from pathlib import Path

import pytest

from ealinformer.data.meta import read_meta
from ealinformer.data.prepare import prepare
from ealinformer.data.spec import SeriesSpec
from ealinformer.data.validate import check_ids
from ealinformer.errors import InputError

DEEP = "[" * 100_000


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (DEEP, "cannot be read as JSON"),
        ('{"format": ' + DEEP, "cannot be read as JSON"),
        (json.dumps({"format": "a" * 100_000}), "has format 'aaaa"),
        (json.dumps({"format": 1, "steps": {"a\n\x1b[2J" * 10_000: 1}}), "is damaged"),
    ],
    ids=["depth", "depth below a key", "a long format", "a long key"],
)
def test_odd_content_gets_one_short_line(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "meta.json").write_text(content)
    with pytest.raises(InputError, match=said) as caught:
        read_meta(tmp_path)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


def test_a_folder_with_a_meta_of_any_depth_is_not_taken_for_ours(tmp_path: Path) -> None:
    (tmp_path / "TOWN").mkdir()
    (tmp_path / "TOWN" / "meta.json").write_text(DEEP)
    spec = SeriesSpec(name="TOWN", num_sensors=1, interval_minutes=5, start="2018-01-01", raw_file="town.npz")
    with pytest.raises(InputError, match="was not written by this program"):
        prepare(spec, tmp_path, tmp_path)


def test_one_repeated_id_among_many_is_found_in_time(tmp_path: Path) -> None:
    start = time.process_time()
    with pytest.raises(InputError, match="names sensor 99999 twice"):
        check_ids([*map(str, range(100_000)), "99999"], None, 100_001, tmp_path)
    assert time.process_time() - start < 5
