"""The readers that are Python all through, damaged by atheris, which keeps what reaches new lines; Linux alone.

    pip install atheris
    python -m tests.fuzz.coverage_guided --target "graph .pkl" --seconds 60

It stops at the first finding and leaves the file in the current folder. Nothing else needs atheris.
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ealinformer.cli import ArgumentParser, run
from ealinformer.errors import InputError

PURE_PYTHON = (
    "graph .pkl",
    "edges by number",
    "edges by id",
    "sensor ids",
    "prepared meta.json",
    "run run.json",
    "--set",
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and let atheris take over; it ends the process itself."""
    parser = ArgumentParser(prog="python -m tests.fuzz.coverage_guided", description=__doc__)
    parser.add_argument("--target", choices=PURE_PYTHON, default=PURE_PYTHON[0], help=f"({PURE_PYTHON[0]})")
    parser.add_argument("--seconds", type=int, default=60, metavar="S", help="(60)")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="of the mutants, above 0 (1)")
    given = parser.parse_args(arguments)
    try:
        import atheris
    except ImportError:
        raise InputError("atheris is not installed: pip install atheris (Linux, Python 3.11 to 3.13)") from None
    with atheris.instrument_imports(include=["ealinformer", "pickle", "json", "csv"]):
        from tests.fuzz.readers import BY_NAME
    from tests.fuzz.worker import fault

    target = BY_NAME[given.target]
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(target.seeds(folder)):
        (corpus / str(number)).write_bytes(seed)
    path = folder / target.file

    def once(data: bytes) -> None:
        path.write_bytes(data)
        try:
            target.read(path)
        except InputError as error:
            wrong = fault(str(error), path)
            if wrong:
                raise RuntimeError(f"{wrong}: {str(error)[:300]!r}") from error

    options = (
        f"-max_total_time={given.seconds}",
        f"-seed={given.seed}",
        "-max_len=65536",
        "-rss_limit_mb=2048",
        "-timeout=10",
    )
    atheris.Setup([sys.argv[0], *options, str(corpus)], once)
    atheris.Fuzz()


if __name__ == "__main__":
    run(main)
