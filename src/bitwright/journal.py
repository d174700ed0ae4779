"""Where long work tells how it goes: a log file, TensorBoard scalars, lines and progress on a terminal.

`Journal()` is silent. Library code is handed a journal and never prints.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from .errors import StorageError

if TYPE_CHECKING:
    from rich.console import Console

PLAIN_INTERVAL = 15.0  # seconds between progress lines where there is no terminal to redraw


class Journal:
    """log: a text file that lines are appended to. events: a TensorBoard folder. console: where people look."""

    def __init__(
        self,
        log: Path | None = None,
        events: Path | None = None,
        console: Console | None = None,
        *,
        first_step: int = 0,
        seconds: float = 0.0,
    ) -> None:
        """first_step: TensorBoard forgets what it has from this step on, as a resumed run writes it again.

        seconds: of work that lie behind.
        """
        self.console = self._bars = console
        self._started = time.monotonic() - seconds
        self._writer: Any = None
        self._log: TextIO | None = None
        try:
            if log is not None:
                self._log = log.open("a", encoding="utf-8")
            if events is not None:
                from torch.utils.tensorboard import SummaryWriter

                self._writer = SummaryWriter(str(events), purge_step=first_step)
        except OSError as error:
            raise StorageError(f"cannot write to {error.filename}: {error.strerror}") from None

    @property
    def minutes(self) -> float:
        """Of work so far."""
        return (time.monotonic() - self._started) / 60

    def line(self, text: str, *, quiet: bool = False) -> None:
        """One or more lines of text; `quiet` ones go to the log only."""
        if self._log is not None:
            self._log.write(text + "\n")
            self._log.flush()
        if self.console is not None and not quiet:
            self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        if self._writer is not None:
            for tag, value in values.items():
                self._writer.add_scalar(tag, value, step)

    def muted(self) -> Journal:
        """A journal that shows progress on the same console, and nothing else."""
        journal = Journal()
        journal._bars = self._bars
        return journal

    @contextmanager
    def progress(self, title: str, total: int, done: int = 0) -> Iterator[Progress]:
        """A bar with rate and time left around work of `total` steps, `done` of which lie behind it."""
        progress = Progress(self._bars, title, total, done)
        try:
            yield progress
        finally:
            progress.close()

    def close(self) -> None:
        if self._log is not None:
            self._log.close()
            self._log = None
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Progress:
    """A live bar on a terminal; elsewhere a line now and then."""

    def __init__(self, console: Console | None, title: str, total: int, done: int) -> None:
        self.title, self.total, self.done = title, total, done
        self._console = console
        self._first, self._began = done, time.monotonic()
        self._told = self._began
        self._bar: Any = None
        if console is not None and console.is_terminal:
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
            )
            self._bar = Bar(*columns, console=console, transient=True)
            self._task = self._bar.add_task(title, total=total, completed=done, rate="", note="")
            self._bar.start()

    def advance(self, steps: int = 1, note: str = "") -> None:
        self.done += steps
        now = time.monotonic()
        rate = (self.done - self._first) / max(now - self._began, 1e-9)
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, rate=f"{rate:.1f}/s", note=note)
        elif self._console is not None and now - self._told >= PLAIN_INTERVAL:
            self._told = now
            left = (self.total - self.done) / rate
            text = (
                f"{self.title}  {self.done}/{self.total}  {rate:.1f}/s  {left / 60:.0f}:{left % 60:02.0f} left  {note}"
            )
            self._console.print(text.rstrip(), markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
