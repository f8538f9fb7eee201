"""What all tests need of the process they run in."""

import signal

import torch

# On arrays as small as those of tests, threads wait for each other longer than they work.
torch.set_num_threads(1)

# A shell that starts the tests in the background has them ignore SIGINT, and so would every process they start; the
# tests of Ctrl-C are of the usual disposition.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
