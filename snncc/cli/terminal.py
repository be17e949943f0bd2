"""What commands print, and where: results to stdout; progress, warnings and errors to stderr."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from snncc.report.text import clean, to_json

PIPE_WIDTH = 160
"""Columns of tables that go to a file or another program."""

ProgressCallback = Callable[[int, int], None]


def _console(stream: IO[str]) -> Console:
    # Not every terminal speaks UTF-8: a question mark is better than a traceback.
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="replace")
    width = None if stream.isatty() or "COLUMNS" in os.environ else PIPE_WIDTH
    # Markup would swallow the brackets of shapes such as [N, 3].
    return Console(file=stream, width=width, markup=False, highlight=False, emoji=False)


@dataclass
class Terminal:
    """The user's terminal, and how much they want to read.

    Attributes:
        quiet: no progress and no summaries.
        verbose: more detail, and tracebacks of unforeseen errors.
        json: results as JSON.
        out: stdout.
        err: stderr.
    """

    quiet: bool = False
    verbose: bool = False
    json: bool = False
    out: Console = field(default_factory=lambda: _console(sys.stdout))
    err: Console = field(default_factory=lambda: _console(sys.stderr))

    def print(self, *items: RenderableType) -> None:
        """Print results."""
        for item in items:
            wrapped = isinstance(item, Table)
            if self.out.is_terminal:
                self.out.print(item, soft_wrap=not wrapped)
                continue
            # Tables are filled up with blanks, which are of no use in a file.
            with self.out.capture() as capture:
                self.out.print(item, soft_wrap=not wrapped)
            self.out.file.writelines(f"{line.rstrip()}\n" for line in capture.get().splitlines())

    def print_json(self, value: Any) -> None:
        """Print a result as JSON."""
        self.out.file.write(to_json(value) + "\n")

    def print_json_line(self, value: Any) -> None:
        """Print one of many results as JSON on a line of its own."""
        self.out.file.write(json.dumps(value) + "\n")

    def warn(self, messages: Iterable[str]) -> None:
        """Print warnings."""
        for message in messages:
            self.err.print(Text.assemble(("snncc: warning: ", "yellow"), clean(message)), soft_wrap=True)

    def error(self, message: str) -> None:
        """Print an error."""
        self.err.print(Text.assemble(("snncc: error: ", "bold red"), clean(message)), soft_wrap=True)

    def hint(self, message: str) -> None:
        """Print what helps after an error."""
        self.err.print(clean(message), soft_wrap=True)

    def traceback(self) -> None:
        """Print the traceback of the exception that is being handled."""
        self.err.print(clean(traceback.format_exc()), soft_wrap=True)

    @contextmanager
    def progress(self, label: str, *, remaining: bool = False) -> Iterator[ProgressCallback | None]:
        """Show a bar while a block runs; yields what reports finished and all steps, None where nothing is shown.

        With `remaining` it shows the time that is left instead of the time that has passed.
        """
        if self.quiet or self.json or not self.err.is_terminal:
            yield None
            return
        time = TimeRemainingColumn() if remaining else TimeElapsedColumn()
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), time)
        with Progress(*columns, console=self.err, transient=True) as bar:
            task = bar.add_task(label, total=None)

            def report(done: int, total: int) -> None:
                bar.update(task, completed=done, total=total)

            yield report
