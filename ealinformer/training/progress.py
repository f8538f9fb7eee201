"""Progress of an epoch: a bar on a terminal, a plain line now and then elsewhere."""

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from easytorch.utils import is_master
from tqdm import tqdm

T = TypeVar("T")
SECONDS_BETWEEN_BAR_UPDATES = 1.0
SECONDS_BETWEEN_LINES = 30.0


def track(
    batches: Iterable[T],
    total: int,
    title: str,
    logger: logging.Logger,
    loss: Callable[[], float] | None = None,
    *,
    done: int = 0,
) -> Iterator[T]:
    """Yield the batches and show step, rate, time left and `loss()`; `done` of the `total` were there before.

    `loss` is read at most once a second: reading it waits for the device.
    """
    if not is_master():
        yield from batches  # one process of a distributed run speaks for all
    elif sys.stderr is not None and sys.stderr.isatty():
        yield from _with_bar(batches, total, title, loss, done)
    else:
        yield from _with_lines(batches, total, title, logger, loss, done)


def duration(seconds: float) -> str:
    """`1:02:03` or `2:03`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _with_bar(batches: Iterable[T], total: int, title: str, loss: Callable[[], float] | None, done: int) -> Iterator[T]:
    last = 0.0
    with tqdm(batches, total=total, initial=done, desc=title, unit="step", leave=False, dynamic_ncols=True) as bar:
        for batch in bar:
            yield batch
            now = time.monotonic()
            if loss is not None and now - last > SECONDS_BETWEEN_BAR_UPDATES:
                bar.set_postfix_str(f"loss {loss():.3f}", refresh=False)
                last = now


def _with_lines(
    batches: Iterable[T], total: int, title: str, logger: logging.Logger, loss: Callable[[], float] | None, done: int
) -> Iterator[T]:
    start = last = time.monotonic()
    for step, batch in enumerate(batches, start=done + 1):
        yield batch
        now = time.monotonic()
        if now - last > SECONDS_BETWEEN_LINES:
            rate = (step - done) / (now - start)
            shown_loss = f"  loss {loss():.3f}" if loss is not None else ""
            left = duration((total - step) / rate)
            logger.info(f"{title}  step {step}/{total}{shown_loss}  {rate:.2f} step/s  {left} left in the epoch")
            last = now
