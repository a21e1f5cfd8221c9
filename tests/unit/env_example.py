"""`.env.example` as data: its variables with default and comment, in their order."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / ".env.example"

_VARIABLE = re.compile(r"#(?P<name>[A-Z][A-Z0-9_]*)=(?P<value>.*)")
_SECTION = re.compile(r"# --- .+ ---")


@dataclass(frozen=True)
class Variable:
    name: str
    default: str
    """As it stands in the file, without quotes; empty where there is none."""
    comment: str


def read(text: str) -> list[Variable]:
    """Read the file. Raises: ValueError for a line that is neither comment, section, variable nor empty, naming it."""
    found: list[Variable] = []
    comments: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if variable := _VARIABLE.fullmatch(line):
            if len(comments) != 1:
                raise ValueError(f"line {number}: {variable['name']} needs one line of comment, not {len(comments)}")
            found.append(Variable(variable["name"], _unquoted(variable["value"]), comments[0]))
            comments = []
        elif not line or _SECTION.fullmatch(line):
            comments = []
        elif line.startswith("# "):
            comments.append(line[2:])
        else:
            raise ValueError(f"line {number} is not commented out: the file shows defaults and sets nothing")
    return found


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] == "'" else value
