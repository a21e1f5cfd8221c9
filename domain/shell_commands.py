"""Which commands a host allows, whether a step's command is one of them, and the line that is sent.

An allowed command is a whole command, or one with parameters `{name:regex}`: `systemctl restart {unit:[a-z][a-z0-9-]{0,40}}`.

- A whole command is compared as one text and sent as it stands, shell syntax included: its author allowed exactly that text.
- One with parameters is words alone. The step's command is split into words first and filled in word by word, so a value can
  neither add a word nor become syntax; the line is written anew from the words, each quoted for a POSIX shell.
- A parameter stands outside quotes, one in a word, never in the first word; `\\{name:` is none. Its regex has to match the whole
  value. Braces within it are balanced; one that stands for itself is `\\{` or `\\}`.
- A word that begins with a parameter may begin with `-` only if the regex itself begins with `-`: `{level:-[1-9]}`, `{n:-?[0-9]+}`.
  `{name:.*}` therefore takes `web-1` and never `-rf`.
"""

import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from domain import expressions
from domain.expressions import Scalar

LINE_LIMIT_BYTES = 100_000
"""Linux hands no argument above 128 KiB to a program (MAX_ARG_STRLEN, execve(2)), and the far shell gets the line as one."""

ALLOWED_SHOWN_CHARACTERS = 600
"""How much of the list a refusal repeats."""

_PARAMETER = re.compile(r"(?<!\\)\{([a-z_][a-z0-9_]{0,39}):")
_SYNTAX = frozenset("$`;|&<>()*?[{}\n\r\0")
"""What a shell would act on outside of quotes."""
_SYNTAX_AT_START = frozenset("~#")
_ESCAPED_IN_DOUBLE_QUOTES = frozenset('$`"\\')
_PLAIN_VALUE = re.compile(r"[A-Za-z0-9_@%+=:,./-]+")
"""Of characters that mean themselves to every shell, wherever they stand."""


class NotAllowed(ValueError):
    """The command is not on the host's list; the text completes "the command …"."""


class _BadWords(ValueError):
    """The text is not words alone; the reason completes a sentence about it."""


@dataclass(frozen=True)
class Parameter:
    """A place in an allowed command that takes every value its regex matches as a whole."""

    name: str
    regex: re.Pattern[str]

    def takes(self, value: str, *, begins_word: bool) -> bool:
        if begins_word and value.startswith("-") and not self.regex.pattern.startswith("-"):
            return False
        return self.regex.fullmatch(value) is not None


_Piece = str | Parameter


@dataclass(frozen=True)
class _WordPattern:
    """A word of an allowed command: `before`, and where it has a parameter, that and `after`."""

    before: str
    parameter: Parameter | None = None
    after: str = ""

    def matches(self, word: str) -> bool:
        if self.parameter is None:
            return word == self.before
        if len(word) < len(self.before) + len(self.after):
            return False
        if not (word.startswith(self.before) and word.endswith(self.after)):
            return False
        value = word[len(self.before) : len(word) - len(self.after)]
        return self.parameter.takes(value, begins_word=not self.before)


@dataclass(frozen=True)
class AllowedCommand:
    """One entry of `allowed_commands`."""

    text: str
    pattern: tuple[_WordPattern, ...] | None
    """None for a whole command."""

    def matches(self, words: Sequence[str]) -> bool:
        """Whether `words` are this command with its parameters filled in; never for a whole command."""
        if self.pattern is None or len(words) != len(self.pattern):
            return False
        return all(expected.matches(word) for expected, word in zip(self.pattern, words, strict=True))


def parse_allowed(text: str) -> AllowedCommand:
    """Read one entry of the list. Raises: ValueError whose text completes "allowed_commands[0] …"."""
    if not _PARAMETER.search(text):
        return AllowedCommand(text, None)
    pattern = tuple(_word_pattern(word) for word in _split(text, _parameter_at))
    names = [word.parameter.name for word in pattern if word.parameter]
    for name in names:
        if names.count(name) > 1:
            raise _BadWords(f"has two parameters named '{name}'")
    if pattern[0].parameter is not None:
        raise _BadWords("may not have a parameter in its first word: which program runs is fixed")
    if "=" in pattern[0].before:
        raise _BadWords("may not begin with a variable (NAME=value) beside parameters: begin with the program, such as env")
    return AllowedCommand(text, pattern)


def command_line(command: str, names: Mapping[str, Scalar], allowed: Sequence[AllowedCommand]) -> str:
    """The line to send for a step's `command`, its `{{ name }}` filled in.

    Raises: NotAllowed, naming what is allowed; ExpressionError as `expressions.render`.
    """
    filled = expressions.render(command, names)
    if _fills_plainly(command, names) and any(entry.pattern is None and entry.text == filled for entry in allowed):
        return filled
    try:
        words = _words(command, names)
    except _BadWords as error:
        raise NotAllowed(f"is not allowed word for word, and {error}; {_listed(allowed)}") from None
    if not any(entry.matches(words) for entry in allowed):
        raise NotAllowed(f"is not allowed; {_listed(allowed)}")
    return _checked_line(" ".join(quoted(word) for word in words))


def quoted(word: str) -> str:
    """Write a word so that every POSIX shell, and zsh, reads exactly that word."""
    written = shlex.quote(word)
    # zsh takes a bare word that begins with = for the path of a program (zshexpn, "= expansion").
    return f"'{word}'" if written == word and word.startswith("=") else written


def visible(text: str) -> str:
    """Write control and invisible characters out (`\\x1b`, `\\u202e`), so that a reader sees all there is."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii") for character in text
    )


def _fills_plainly(command: str, names: Mapping[str, Scalar]) -> bool:
    """Whether no filled-in value could add a word or syntax to a command that is compared as one text."""
    values = (expressions.render(f"{{{{ {name} }}}}", names) for name in expressions.placeholders(command))
    return all(_PLAIN_VALUE.fullmatch(value) for value in values)


def _words(command: str, names: Mapping[str, Scalar]) -> list[str]:
    def filled_at(text: str, at: int, _quote: str) -> tuple[_Piece, int] | None:
        if not text.startswith("{{", at):
            return None
        end = text.index("}}", at + 2) + 2  # closed: the text was rendered before
        return expressions.render(text[at:end], names), end

    return ["".join(piece for piece in word if isinstance(piece, str)) for word in _split(command, filled_at)]


def _checked_line(line: str) -> str:
    if "\0" in line:
        raise NotAllowed("holds a NUL character, which no argument can")
    try:
        size_bytes = len(line.encode())
    except UnicodeEncodeError:
        raise NotAllowed("holds an unpaired surrogate, which UTF-8 cannot write") from None
    if size_bytes > LINE_LIMIT_BYTES:
        raise NotAllowed(f"has {size_bytes:,} bytes; allowed are {LINE_LIMIT_BYTES:,}")
    return line


def _listed(allowed: Iterable[AllowedCommand]) -> str:
    texts = ", ".join(f"`{entry.text}`" for entry in allowed)
    return "allowed are " + (texts if len(texts) <= ALLOWED_SHOWN_CHARACTERS else texts[: ALLOWED_SHOWN_CHARACTERS - 1] + "…")


# --- words --------------------------------------------------------------------------------------------------------

_Insertion = Callable[[str, int, str], tuple[_Piece, int] | None]
"""Asked at every place of a text, with the quote that is open there or "": a piece that stands there, and where it ends."""


def _split(text: str, insertion: _Insertion) -> list[list[_Piece]]:
    """Split into words as a POSIX shell does, without its expansions. Raises: _BadWords for what a shell would act on."""
    words: list[list[_Piece]] = []
    word: list[_Piece] | None = None  # between words
    quote, at = "", 0
    while at < len(text):
        character = text[at]
        if inserted := insertion(text, at, quote):
            piece, at = inserted
            word = word if word is not None else []
            word.append(piece)
            continue
        if not quote and character in " \t":
            words += [word] if word is not None else []
            word, at = None, at + 1
            continue
        if not quote and (character in _SYNTAX or (word is None and character in _SYNTAX_AT_START)):
            raise _BadWords(f"has {character!r} outside of quotes, which is shell syntax")
        word = word if word is not None else []
        literal, quote, at = _read(text, at, quote)
        word.append(literal)
    if quote:
        raise _BadWords(f"has a {quote} that is never closed")
    return [*words, word] if word is not None else words


def _read(text: str, at: int, quote: str) -> tuple[str, str, int]:
    """Read one character of a word. Returns: what it stands for, the quote that is open after it, and where it ends."""
    character = text[at]
    if character == quote:
        return "", "", at + 1
    if quote == "'":
        return character, quote, at + 1
    if character == "\\" and not quote:
        if at + 1 == len(text):
            raise _BadWords("ends in a backslash")
        return text[at + 1], quote, at + 2
    if quote == '"':
        if character == "\\" and text[at + 1 : at + 2] in _ESCAPED_IN_DOUBLE_QUOTES:
            return text[at + 1], quote, at + 2
        if character in "$`":
            raise _BadWords(f"has {character!r} in double quotes, which is shell syntax")
        return character, quote, at + 1
    if character in "'\"":
        return "", character, at + 1
    return character, quote, at + 1


def _parameter_at(text: str, at: int, quote: str) -> tuple[_Piece, int] | None:
    opening = _PARAMETER.match(text, at)
    if not opening:
        return None
    name = opening[1]
    if quote:
        raise _BadWords(f"has the parameter '{name}' in quotes; parameters stand outside of them")
    end = _closing_brace(text, opening.end())
    if end < 0:
        raise _BadWords(f"has the parameter '{name}', which no }} closes")
    regex = text[opening.end() : end]
    if not regex:
        raise _BadWords(f"has the parameter '{name}' without a regex")
    try:
        return Parameter(name, re.compile(regex)), end + 1
    except (re.error, OverflowError, RecursionError) as error:
        raise _BadWords(f"has the parameter '{name}', whose regex is not valid ({error})") from None


def _closing_brace(text: str, at: int) -> int:
    """Where the brace opened before `at` is closed; -1 if nowhere. Escaped braces do not count."""
    depth = 1
    while at < len(text):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if not depth:
            return at
        at += 2 if text[at] == "\\" else 1
    return -1


def _word_pattern(word: Sequence[_Piece]) -> _WordPattern:
    before, after = "", ""
    parameter: Parameter | None = None
    for piece in word:
        if isinstance(piece, Parameter):
            if parameter is not None:
                raise _BadWords(f"has the parameters '{parameter.name}' and '{piece.name}' in one word; one is allowed")
            parameter = piece
        elif parameter is None:
            before += piece
        else:
            after += piece
    return _WordPattern(before, parameter, after)
