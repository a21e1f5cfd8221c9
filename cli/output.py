"""How the command speaks: results on stdout, everything else on stderr; one sentence for a failure, never a traceback."""

import contextlib
import json
import threading
from collections.abc import Generator, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console, RenderableType
from rich.status import Status
from rich.table import Table
from rich.text import Text

from activities.messages.foreign import clean

PIPED_WIDTH_COLUMNS = 160
"""What a table may take where no terminal says how wide it is: a pipe, a file, a pager."""

PATIENCE_SECONDS = 1.0
"""How long something may take without a word about it."""

COLOURS = {
    "open": "red",
    "suppressed": "yellow",
    "resolved": "green",
    "closed": "bright_black",
    "running": "cyan",
    "awaiting_approval": "bold yellow",
    "succeeded": "green",
    "failed": "red",
    "halted": "yellow",
    "rolled_back": "yellow",
    "unknown": "bold red",
    "pending": "bright_black",
    "skipped": "bright_black",
    "approved": "green",
    "rejected": "red",
    "expired": "yellow",
    "cancelled": "bright_black",
    "critical": "bold red",
    "high": "red",
    "medium": "yellow",
    "low": "bright_black",
}
"""Of the status words and severities, everywhere the same."""


class Failure(Exception):
    """What was asked cannot be done; the text is one sentence for the person, who also gets the exit code."""

    def __init__(self, sentence: str, *, exit_code: int = 1) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code


def _console(*, stderr: bool = False) -> Console:
    console = Console(stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=False)
    if not console.is_terminal:
        console.width = PIPED_WIDTH_COLUMNS
    return console


out = _console()
err = _console(stderr=True)


def say(text: RenderableType = "", style: str | None = None) -> None:
    """Print a result. A text is printed as it is, without markup, and lines are not broken."""
    out.print(text, style=style, soft_wrap=isinstance(text, str | Text))


def remark(text: str, style: str | None = None) -> None:
    """Print a line about the work on stderr, beside the result."""
    err.print(text, style=style, soft_wrap=True)


def warn(sentence: str) -> None:
    """A sentence that does not stop anything."""
    remark(f"Warning: {sentence}", style="yellow")


def complain(sentence: str) -> None:
    """The one sentence of a failure."""
    text = Text("Error: ", style="bold red").append(clean(sentence), style="default")
    err.print(text, soft_wrap=True)


def print_json(value: Any) -> None:
    """Machine output: one JSON document on stdout and nothing beside it."""
    print(json.dumps(value, indent=2, ensure_ascii=False), flush=True)


def word(status: str | None) -> Text:
    """A status word or severity in its colour, with spaces where the word has underscores."""
    text = status or "–"
    return Text(text.replace("_", " "), style=COLOURS.get(text, ""))


def foreign(text: object) -> Text:
    """Text of the world: no markup, no control characters. None is empty."""
    return Text("" if text is None else clean(str(text)))


def instant(text: str | None) -> str:
    """An RFC 3339 time as `2026-04-10 12:00:05`, in UTC; empty for None."""
    return f"{moment(text):%Y-%m-%d %H:%M:%S}" if text else ""


def moment(text: str) -> datetime:
    """Read a time of the API's."""
    return datetime.fromisoformat(text).astimezone(UTC)


def table(*columns: str | tuple[str, str], rows: Iterable[Sequence[str | Text]], title: str | None = None) -> Table:
    """A table without frame; a column is a heading, or a heading and `fixed` for what must not be broken (an id)."""
    made = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="bold bright_black")
    for column in columns:
        heading, kind = (column, "") if isinstance(column, str) else column
        made.add_column(heading, no_wrap=kind == "fixed", overflow="fold")
    for row in rows:
        made.add_row(*row)
    return made


@contextlib.contextmanager
def waiting(what: str) -> Generator[None]:
    """Say what is going on as soon as it takes more than a second: a spinner in a terminal, a line elsewhere."""
    status = Status(what, console=err)

    def speak() -> None:
        if err.is_terminal:
            status.start()
        else:
            remark(f"{what} …")

    timer = threading.Timer(PATIENCE_SECONDS, speak)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        status.stop()
