"""`--faults full` for all cases, `--faults-seed N` for others, `--record-faults DIR` for a table of their counts."""

import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.bits import Bits, bits_of, unlike
from tests.faults.fault import Conditions
from tests.faults.processes import Ended, Zygote
from tests.faults.tally import Campaign, record, table
from tests.faults.town import Town, make_town

SEED = 2511
MANY, FEW = ("--checkpoint-minutes", "0"), ("--checkpoint-minutes", "1000")  # after every step, after every epoch
_CAMPAIGNS = pytest.StashKey[list[Campaign]]()

if sys.platform != "linux":
    collect_ignore_glob = ["test_*.py"]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("faults")
    group.addoption("--faults", choices=("quick", "full"), default="quick", help="how many faults tests/faults injects")
    group.addoption("--faults-seed", type=int, default=SEED, help="seed of their moments and mutations")
    group.addoption("--record-faults", type=Path, metavar="DIR", help="write faults.json and faults.txt there")


def _option(config: pytest.Config, name: str, default: object) -> object:
    # Where pytest collects all of tests/ it reads this file too late for its options.
    return config.getoption(name, default=None) or default


@pytest.fixture(scope="session")
def size(request: pytest.FixtureRequest) -> str:
    """ "quick" or "full"."""
    return str(_option(request.config, "--faults", "quick"))


@pytest.fixture(scope="session")
def campaign(request: pytest.FixtureRequest) -> Callable[[str], Campaign]:
    """`campaign("kill -9")`: a campaign of that name, whose counts stand in the table at the end."""

    def begin(name: str) -> Campaign:
        begun = Campaign(name, int(str(_option(request.config, "--faults-seed", SEED))))
        request.config.stash.setdefault(_CAMPAIGNS, []).append(begun)
        return begun

    return begin


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    campaigns = config.stash.get(_CAMPAIGNS, [])
    size = str(_option(config, "--faults", "quick"))
    if campaigns and size == "full":
        terminalreporter.write_line("")
        for begun in campaigns:
            for line in begun.cases if begun.name == "kill -9" else ():
                terminalreporter.write_line(f"{begun.name}, seed {begun.seed}, {line}")
        terminalreporter.write_line(f"\n{table(campaigns, size)}")
    folder = _option(config, "--record-faults", None)
    if campaigns and isinstance(folder, Path):
        record(folder, campaigns, size)


@pytest.fixture(scope="session")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    """The process that forks command lines."""
    zygote = Zygote(tmp_path_factory.mktemp("processes"))
    yield zygote
    zygote.close()


@pytest.fixture(scope="session")
def town(tmp_path_factory: pytest.TempPathFactory) -> Town:
    """The prepared town."""
    return make_town(tmp_path_factory.mktemp("town"))


@dataclass(frozen=True)
class Reference:
    """A run of the town that nothing interrupted, and what another one has to be like."""

    folder: Path
    bits: Bits
    seconds: float
    town: Town
    zygote: Zygote

    def end_of(self, folder: Path, *more: object) -> Ended:
        """Start the run in `folder` (again), and let it come to its end."""
        return self.zygote.run("train", *self.town.training(folder, *(more or FEW)))

    def run_under(self, conditions: Conditions, folder: Path, *more: object) -> Ended:
        """The same where something goes wrong."""
        return self.zygote.run("train", *self.town.training(folder, *(more or FEW)), conditions=conditions)

    def expect_same_bits(self, folder: Path, ended: Ended) -> None:
        """The run has come to its end, and to the same one."""
        assert ended.status == 0, f"started again it ended with {ended}"
        problem = unlike(folder, self.bits)
        assert problem is None, problem


@pytest.fixture(scope="session")
def reference(town: Town, zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """The town trained through, with a checkpoint an epoch."""
    folder = tmp_path_factory.mktemp("reference") / "run"
    ended = zygote.run("train", *town.training(folder, *FEW))
    assert ended.status == 0, ended.err
    return Reference(folder, bits_of(folder), ended.seconds, town, zygote)


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Path]:
    """A folder for a test that leaves much: it is removed at once."""
    yield tmp_path
    shutil.rmtree(tmp_path, ignore_errors=True)
