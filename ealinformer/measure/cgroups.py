"""How much memory a container or a job of a cluster may still take: Linux's control groups."""

from pathlib import Path

_MEMBERSHIP = Path("/proc/self/cgroup")
_MOUNT = Path("/sys/fs/cgroup")
# Below the mount: limit, use, and what of the use is a cache of files that gives way.
_VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_VERSION_2 = ("memory.max", "memory.current", "inactive_file")


def cgroup_available_bytes(membership: Path = _MEMBERSHIP, mount: Path = _MOUNT) -> int | None:
    """What this process could take before a control group above it refuses; None where none has a limit."""
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    rooms: list[int] = []
    for line in lines:
        if line.count(":") < 2:
            continue
        _, controllers, group = line.split(":", 2)  # number, names, path
        if not controllers:
            rooms += _rooms(mount, group, _VERSION_2)
        elif "memory" in controllers.split(","):
            rooms += _rooms(mount / "memory", group, _VERSION_1)
    return min(rooms, default=None)


def _rooms(top: Path, group: str, names: tuple[str, str, str]) -> list[int]:
    """Room in a group and in each one around it. In a container the outer ones are not to be seen."""
    inner = top / group.lstrip("/")
    found = (_room(folder, *names) for folder in (inner, *inner.parents) if folder.is_relative_to(top))
    return [room for room in found if room is not None]


def _room(folder: Path, limit: str, used: str, cache: str) -> int | None:
    try:
        most, now = (folder / limit).read_text().strip(), int((folder / used).read_text())
        statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return None if most == "max" else max(0, int(most) - now + int(statistics.get(cache, 0)))
    except (OSError, ValueError):
        return None
