"""What control groups leave to a process, read from folders as Linux shows them."""

from pathlib import Path

import pytest

from ealinformer.measure.cgroups import cgroup_available_bytes

VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
VERSION_2 = ("memory.max", "memory.current", "inactive_file")


def group(folder: Path, names: tuple[str, str, str], limit: int | str, used: int, cache: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 3\n{names[2]} {cache}\n")


def available(root: Path, membership: str) -> int | None:
    (root / "membership").write_text(membership)
    return cgroup_available_bytes(root / "membership", root / "mount")


@pytest.mark.parametrize(
    ("membership", "below", "names"),
    [("0::/jobs/7\n", "", VERSION_2), ("9:cpu,cpuacct:/\n4:memory:/jobs/7\n", "memory", VERSION_1)],
)
def test_the_tightest_group_counts_and_a_cache_gives_way(
    tmp_path: Path, membership: str, below: str, names: tuple[str, str, str]
) -> None:
    top = tmp_path / "mount" / below
    group(top / "jobs" / "7", names, limit=1000, used=400, cache=100)
    assert available(tmp_path, membership) == 700
    group(top / "jobs", names, limit=2000, used=1800, cache=50)
    assert available(tmp_path, membership) == 250
    group(top / "jobs", names, limit=2000, used=2500, cache=0)
    assert available(tmp_path, membership) == 0


def test_a_container_sees_its_own_group_as_the_outermost(tmp_path: Path) -> None:
    group(tmp_path / "mount", VERSION_2, limit=500, used=100, cache=0)
    assert available(tmp_path, "0::/docker/abc\n") == 400


def test_no_limit_is_none(tmp_path: Path) -> None:
    group(tmp_path / "mount" / "jobs", VERSION_2, limit="max", used=100, cache=0)
    assert available(tmp_path, "0::/jobs\n") is None
    assert available(tmp_path, "") is None
    assert cgroup_available_bytes(tmp_path / "absent", tmp_path) is None


def test_files_of_another_form_are_no_limit(tmp_path: Path) -> None:
    group(tmp_path / "mount", VERSION_2, limit="plenty", used=1, cache=0)
    assert available(tmp_path, "0::/\nnonsense\n") is None
