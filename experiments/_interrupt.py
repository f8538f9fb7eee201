"""Imported first: Ctrl-C while the libraries are still being imported, which takes seconds, is one line too.

The process ends in the handler. Raised there, KeyboardInterrupt would come out of the middle of an import, which may
catch it or make another error of it; and nothing has been begun that would have to be put in order.
"""

import os
import signal
import sys
from pathlib import Path
from types import FrameType


def _leave(number: int, frame: FrameType | None) -> None:
    os.write(2, b"interrupted\n")
    os._exit(128 + number)


# Until `ealinformer.cli.run` takes over. Not where a script is imported by something else, or where Ctrl-C is ignored.
_is_script = Path(sys.argv[0]).resolve().parent == Path(__file__).resolve().parent
if _is_script and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _leave)
