"""Reading the text after `/infrasage`: verb, id, rest of the line. Pure; no shell syntax, so an apostrophe is an apostrophe."""

import html
import re

from domain.base import Durable

_QUOTES = (('"', '"'), ("'", "'"), ("“", "”"), ("‘", "’"))
"""Slack's editors turn straight quotes into curly ones."""

_ENTITY = re.compile(r"&(?:amp|lt|gt);")
"""What Slack makes of `&`, `<` and `>`, and of nothing else (docs.slack.dev/messaging/formatting-message-text)."""


class CommandLine(Durable):
    """`verb` is lower case and empty when nothing was typed."""

    verb: str
    subject: str
    rest: str


def parse(text: str) -> CommandLine:
    """Split at white space; only `rest` keeps its own, and loses one pair of quotes around it."""
    words = _ENTITY.sub(lambda found: html.unescape(found.group()), text).split(maxsplit=2)
    verb, subject, rest = (*words, "", "", "")[:3]
    return CommandLine(verb=verb.lower(), subject=subject, rest=unquoted(rest.strip()))


def unquoted(text: str) -> str:
    """`text` without the one matching pair of quotes around it, if there is one."""
    for opening, closing in _QUOTES:
        if len(text) >= 2 and text[0] == opening and text[-1] == closing:
            return text[1:-1].strip()
    return text
