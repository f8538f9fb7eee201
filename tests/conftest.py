"""What all tests need of the process they run in."""

import os
import signal

import torch

# What tslearn compiles runs for milliseconds here; without optimisation it is compiled in half the time.
os.environ.setdefault("NUMBA_OPT", "0")

# A shell that starts the tests in the background has them ignore SIGINT, and so would every process they start; the
# tests of Ctrl-C are of the usual disposition.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_runtest_setup() -> None:
    """One thread for every test, whatever the one before left: on small arrays threads wait longer than they work."""
    torch.set_num_threads(1)
