"""The rows of a run's epochs, on disk after every epoch."""

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from ealinformer.errors import InputError
from ealinformer.files import write_text


class History:
    """One row per epoch, written whole to a CSV file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, float]] = []

    def add(self, row: dict[str, float]) -> None:
        """Append a row and write the file; InputError where it cannot be written."""
        self.rows.append(row)
        self._write()

    def restore(self, rows: Iterable[dict[str, float]]) -> None:
        """Take over the rows of a checkpoint in place of what is in the file; rows may lack columns of others."""
        self.rows = [dict(row) for row in rows]
        if self.rows:
            self._write()
        else:
            self.path.unlink(missing_ok=True)  # as it is before the first epoch ends

    def _write(self) -> None:
        columns = list(dict.fromkeys(key for row in self.rows for key in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(self.path, text.getvalue())


def read_history(path: Path) -> list[dict[str, float]]:
    """The rows of a history file; an empty cell is left out of its row.

    Raises:
        InputError: the file is not there or not a history.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = csv.reader(file, strict=True)
            columns = next(lines, [])
            # A line that was cut short, or one that is too long, belongs to no history.
            cells = (zip(columns, line, strict=True) for line in lines if line)
            return [{name: float(text) for name, text in row if text} for row in cells]
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as the history of a run: {error}") from error
