"""Secrets of runbooks: what counts as `$NAME`, which values may stand for it, and how they are kept out of every text.

Resolution happens inside an activity, on the way out and nowhere else; whatever comes back is redacted before it is kept.

The rule: `$` followed by `[A-Z_][A-Z0-9_]*` refers to a secret, `$$` is one literal dollar, every other `$` stays as it is
("costs $5"). A text is read once: what a secret's value contains is never read again.
"""

import base64
import html
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from activities.errors import NotConfigured

SETTING = "RUNBOOK_SECRETS"

BASE64_CORE_CHARACTERS = 4
"""Shorter traces of a value in base64 are left: they would be found in every other word."""

_NAME = re.compile(r"[A-Z_][A-Z0-9_]*")
_TOKEN = re.compile(rf"\$(?:\$|(?P<name>{_NAME.pattern}))")
_URL = re.compile(r"https?://(?:[^@/?#]*@)?(?P<authority>(?P<host>\[[^\]/?#]+\]|[^/?#:]+)[^/?#]*)", re.IGNORECASE)
_LOOKS_LIKE_TOKEN = re.compile(r"\$(?=[$A-Z_])")


@dataclass(frozen=True)
class Reference:
    """A `$NAME` in a text."""

    name: str


Part = str | Reference
"""A piece of a text: literal, as it will be sent, or a reference."""


def parse(text: str) -> list[Part]:
    """Split a text at its references; `$$` has become a literal dollar. No part is empty."""
    parts: list[Part] = []
    end = 0
    for token in _TOKEN.finditer(text):
        parts.append(text[end : token.start()])
        parts.append(Reference(token["name"]) if token["name"] else "$")
        end = token.end()
    parts.append(text[end:])
    return [part for part in parts if part != ""]


def spell(parts: Sequence[Part]) -> str:
    """Write parts as one text that `parse` reads back as the same: a literal that looks like a reference gets `$$`.

    A literal that directly follows a reference may not begin with a character that would lengthen its name; the caller sees
    to that.
    """
    text, literal = "", ""
    for part in parts:
        if isinstance(part, str):
            literal += part
            continue
        text += _escaped(literal, before_reference=True) + f"${part.name}"
        literal = ""
    return text + _escaped(literal, before_reference=False)


def references(text: str) -> list[str]:
    """The names that a text refers to, in order, each once."""
    return list(dict.fromkeys(part.name for part in parse(text) if isinstance(part, Reference)))


class Secrets:
    """The values that runbooks may use. `repr` shows names only."""

    def __init__(self, allowed: Mapping[str, str]) -> None:
        """Take the allow-list: name → value, blank where the variable is not set.

        Raises: NotConfigured for a name that no `$NAME` can spell.
        """
        for name in allowed:
            if not _NAME.fullmatch(name):
                raise NotConfigured(
                    f"{SETTING} names '{name}': allowed are names of capital letters, digits and _, not beginning with a digit"
                )
        self._values = dict(allowed)
        self._traces = [(name, re.compile(f"(?=({_traces(value)}))", re.ASCII)) for name, value in allowed.items() if value.strip()]

    @classmethod
    def from_environment(cls, names: Iterable[str], environment: Mapping[str, str]) -> Self:
        """Take the variables of the allow-list out of `environment`; those that are missing are found out when referred to."""
        return cls({name: environment.get(name, "") for name in names})

    def __repr__(self) -> str:
        return f"Secrets({', '.join(self._values)})"

    def check(self, text: str) -> None:
        """Refuse references that `resolve` could not fill. Raises: NotConfigured naming the first."""
        for name in references(text):
            self._value(name)

    def resolve(self, text: str) -> str:
        """Put the values in place of the references, once. Raises: NotConfigured naming the `$NAME` that has none."""
        return "".join(part if isinstance(part, str) else self._value(part.name) for part in parse(text))

    def redact(self, text: str) -> str:
        """Put `$NAME` in place of every known value: plain, URL-encoded, escaped for JSON or HTML, or in base64.

        Of a value that is a URL, the host is known too: messages about a connection name it. Redact before shortening: half
        a secret is not recognised.
        """
        redacted, end = "", 0
        for start, stop, name in self._found(text):
            redacted += f"{text[end:start]}${name}"
            end = stop
        return redacted + text[end:]

    def _value(self, name: str) -> str:
        if name not in self._values:
            raise NotConfigured(f"${name} is not a secret that runbooks may use: {SETTING} does not name it")
        if not self._values[name].strip():
            raise NotConfigured(f"${name} has no value: {SETTING} names it, but the environment variable is not set or empty")
        return self._values[name]

    def _found(self, text: str) -> list[tuple[int, int, str]]:
        """Where values stand, in order; overlapping ones are one, under the name that begins first."""
        spans = [(*found.span(1), name) for name, pattern in self._traces for found in pattern.finditer(text)]
        merged: list[tuple[int, int, str]] = []
        for start, stop, name in sorted(spans, key=lambda span: (span[0], -span[1])):
            if merged and start < merged[-1][1]:
                first, last, kept = merged[-1]
                merged[-1] = (first, max(last, stop), kept)
            else:
                merged.append((start, stop, name))
        return merged


def _escaped(literal: str, *, before_reference: bool) -> str:
    escaped = _LOOKS_LIKE_TOKEN.sub("$$", literal)
    return escaped + "$" if before_reference and literal.endswith("$") else escaped


def _traces(value: str) -> str:
    """A pattern of every form in which a value is looked for. Forms may be mixed within one text, so each character is.

    Every repetition is possessive: the texts searched are foreign, and none may make the search slow.
    """
    shown = value.strip()
    traces = [_written_out(shown), *_base64_traces(shown.encode("utf-8", "surrogateescape"))]
    address = _URL.match(shown)
    if address:
        traces += [f"(?i:{_written_out(part)})" for part in (address["authority"], address["host"])]
    return "|".join(dict.fromkeys(traces))


def _written_out(text: str) -> str:
    return "".join(_forms_of(character) for character in re.findall(r"\\+|.", text, re.DOTALL))


def _forms_of(character: str) -> str:
    """The forms of one character, or of a run of backslashes, which each JSON text put into another doubles."""
    if character.isalnum() and character.isascii():
        return character
    in_url = "".join(f"%{byte:02x}" for byte in character.encode("utf-8", "surrogateescape"))
    if character.startswith("\\"):
        return rf"(?:\\++|(?i:{in_url}))"
    units = character.encode("utf-16-be", "surrogatepass").hex()
    by_number = "".join(rf"\\++u{units[at : at + 4]}" for at in range(0, len(units), 4))
    by_letter = json.dumps(character)[1:-1].removeprefix("\\")
    in_html = {html.escape(character), f"&#{ord(character)};", f"&#x{ord(character):x};"} - {character}
    forms = [in_url, by_number, *sorted(re.escape(form) for form in in_html)]
    if character in "\b\t\n\f\r":
        forms.append(rf"\\++{by_letter}")
    if character == " ":
        forms.append("[+]")
    return rf"(?:\\*+{re.escape(character)}|(?i:{'|'.join(forms)}))"


def _base64_traces(value: bytes) -> Iterable[str]:
    """Patterns of the value inside base64 text, at each of the three places where it can begin within a group of 3 bytes.

    The characters that the value decides alone are looked for; those that it shares with its neighbours go with them.
    """
    for offset in range(3):
        bits = 8 * (offset + len(value))
        first, last = (8 * offset + 5) // 6, bits // 6
        core = base64.b64encode(bytes(offset) + value)[first:last].decode()
        if len(core) < BASE64_CORE_CHARACTERS:
            continue
        either_alphabet = core.replace("+", "[+-]").replace("/", "[/_]")
        before = "[A-Za-z0-9+/_-]?" if offset else ""
        after = "[A-Za-z0-9+/_-]?" if bits % 6 else ""
        yield f"{before}{either_alphabet}{after}={{0,2}}"
