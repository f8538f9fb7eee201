"""What all tests need of the process they run in."""

import os
import signal

import numba
import pytest
import torch

# What tslearn compiles runs for milliseconds here and takes half a minute to compile, so that it is left as Python.
# Processes that tests start compile it, as users' do, without optimisation in half the time.
numba.config.DISABLE_JIT = True
os.environ.setdefault("NUMBA_OPT", "0")

# Files of minutes. A worker takes one file after the other, and the last to be taken should not be the longest.
LONGEST_FIRST = ("test_ranks.py", "test_compare.py", "test_stock_basicts.py", "test_conformance.py", "test_groups.py")

# A shell that starts the tests in the background has them ignore SIGINT, and so would every process they start; the
# tests of Ctrl-C are of the usual disposition.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, the others in their order."""
    places = {name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


def pytest_runtest_setup() -> None:
    """One thread for every test, whatever the one before left: on small arrays threads wait longer than they work."""
    torch.set_num_threads(1)
