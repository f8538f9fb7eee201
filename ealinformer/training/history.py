"""The rows of a run's epochs, on disk after every epoch."""

import csv
import io
from pathlib import Path

from ealinformer.errors import InputError
from ealinformer.files import write_text


class History:
    """One row per epoch, written whole to a CSV file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, float]] = []

    def add(self, row: dict[str, float]) -> None:
        """Append a row and write the file."""
        self.rows.append(row)
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(self.rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(self.path, text.getvalue())


def read_history(path: Path) -> list[dict[str, float]]:
    """The rows of a history file.

    Raises:
        InputError: the file is not there or not a history.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path} cannot be read as the history of a run: {error}") from error
