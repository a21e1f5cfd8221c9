"""Foreign text on its way to Slack: rid of what deceives the eye, cut to what Slack takes, and never markup.

Two kinds of Slack text exist. `plain_text` shows what it is given, so foreign text stands there unchanged but for `clean`.
mrkdwn (and the `text` beside the blocks, which notifications show) interprets, so it goes through `escaped`.
"""

import re
import unicodedata
from collections.abc import Callable

ELLIPSIS = "…"
REPLACEMENT = "\ufffd"
"""Stands for a character that was taken out, so that a reader sees that something was there."""
LINE_BREAK = " ⏎ "
"""Stands for a line break in a text of one line: a value can then not pretend to be the next labelled line."""
WORD_JOINER = "\u2060"
"""Invisible and of no width; between two characters it breaks what Slack would read as one token."""

MARKS_PER_CHARACTER = 4
"""Combining marks kept after one character; more of them paint over the lines above and below."""

_JOINERS = frozenset("\u200c\u200d")
"""Zero-width (non-)joiner: needed by Persian, Indic scripts and most emoji, and harmless to the reading order."""
_DECEIVING = frozenset({"Cc", "Cf", "Cs"})
"""Control, format (all bidi controls, tags, zero-width characters) and surrogate characters."""
_LINE_BREAKS = re.compile(r"\r\n|[\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029]")
_EMOJI_OPENING = re.compile(r":(?=[^\s:/]{1,100}:)(?!\d\d:)")
"""The first colon of `:name:`; two digits between colons are a time of day, and what holds a slash is a URL with a port."""
_MARKUP = str.maketrans({"*": "∗", "~": "∼", "`": "ˋ"})
"""Look-alikes: mrkdwn has no escape for its own formatting characters."""
_UNDERSCORE_AT_EDGE = re.compile(r"(?<![^\W_])_|_(?![^\W_])")
"""An underscore that could open or close italics; one inside a word, as in `cpu_usage`, cannot."""


def clean(text: str) -> str:
    """Return `text` without what deceives the eye; line breaks become `\\n`, everything invisible becomes U+FFFD."""
    kept: list[str] = []
    marks = 0
    for character in _LINE_BREAKS.sub("\n", text).replace("\t", " "):
        category = unicodedata.category(character)
        marks = marks + 1 if category in ("Mn", "Me") else 0
        if marks > MARKS_PER_CHARACTER:
            continue
        hidden = category in _DECEIVING and character != "\n" and character not in _JOINERS
        kept.append(REPLACEMENT if hidden else character)
    return "".join(kept).strip()


def paragraph(text: str, limit: int) -> str:
    """Return `text` cleaned and of at most `limit` Slack characters; its line breaks stay, at most one empty line in a row."""
    return _fitted(text, limit, lambda part: re.sub(r"\n(?:[ ]*\n)+", "\n\n", clean(part)))


def one_line(text: str, limit: int) -> str:
    """Return `text` cleaned, on one line and of at most `limit` Slack characters."""
    return _fitted(text, limit, lambda part: re.sub(r"\s*\n\s*", LINE_BREAK, clean(part)))


def size(text: str) -> int:
    """Return the length of `text` in Slack characters, counted so that no way of counting finds more.

    UTF-16 units, with `&`, `<` and `>` as the entities that Slack stores them as: Slack's limits do not say what a character is.
    """
    units = len(text.encode("utf-16-le", "surrogatepass")) // 2
    return units + 4 * text.count("&") + 3 * (text.count("<") + text.count(">"))


def clipped(text: str, limit: int) -> str:
    """Return `text` cut to `limit` Slack characters, the last one an ellipsis where something was cut."""
    if size(text) <= limit:
        return text
    used, kept = size(ELLIPSIS), 0
    for character in text:
        used += size(character)
        if used > limit:
            break
        kept += 1
    return text[:kept].rstrip() + ELLIPSIS


def without_emoji(text: str) -> str:
    """Return `text` such that no `:name:` in it is drawn as an emoji; it looks the same."""
    return _EMOJI_OPENING.sub(":" + WORD_JOINER, text)


def escaped(text: str) -> str:
    """Return `text` for mrkdwn: no mention, no link, no emoji, no formatting. It must be clean already."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"(?m)^(?=[ ]*&gt;)", WORD_JOINER, text)  # at the start of a line it would quote the line
    return _UNDERSCORE_AT_EDGE.sub("ˍ", without_emoji(text).translate(_MARKUP))


def _fitted(text: str, limit: int, tidied: Callable[[str], str]) -> str:
    head = text[: 2 * limit]  # cleaning 8,000 characters to show 200 would be most of the work
    shown = tidied(head)
    return clipped(shown + ELLIPSIS if len(head) < len(text) and size(shown) <= limit else shown, limit)
