"""Blocks as text: what a terminal, the README and a screen reader get instead of Slack's drawing."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from activities.messages.foreign import WORD_JOINER, clean

RULE = "─" * 32

_LINK = re.compile(r"<([^<>|]+)(?:\|([^<>|]*))?>")
_FORMATTING = re.compile(r"(?<!\w)([*_~`])(?=\S)(.+?)(?<=\S)\1(?!\w)")


def to_text(blocks: Sequence[Mapping[str, Any]]) -> str:
    """Render Block Kit as lines of plain text without any control character; print it with `markup=False` under rich.

    Raises ValueError for a block that has no rendering: leaving it out would show less than Slack does.
    """
    return "\n".join(line for block in blocks for line in lines_of(block))


def lines_of(block: Mapping[str, Any]) -> list[str]:
    """The lines of one block, at least one. Raises ValueError for a type without a rendering."""
    match block.get("type"):
        case "divider":
            return [RULE]
        case "header":
            return [_text_of(block["text"])]
        case "section":
            texts = [block["text"]] if "text" in block else []
            accessory = [_element(block["accessory"])] if "accessory" in block else []
            return [_text_of(text) for text in (*texts, *_items(block, "fields"))] + accessory
        case "context" | "actions":
            return [" ".join(_element(element) for element in _items(block, "elements"))]
        case "image":
            return [clean(str(block["alt_text"]))]
        case other:
            raise ValueError(
                f"a block of type {other!r} has no rendering as text; header, divider, section, context, actions and image have"
            )


def _items(block: Mapping[str, Any], key: str) -> Sequence[Mapping[str, Any]]:
    return cast("Sequence[Mapping[str, Any]]", block.get(key, ()))


def _element(element: Mapping[str, Any]) -> str:
    match element.get("type"):
        case "button":
            return f"[{_text_of(element['text'])}]"
        case "image":
            return clean(str(element["alt_text"]))
        case "plain_text" | "mrkdwn":
            return _text_of(element)
        case other:
            raise ValueError(f"an element of type {other!r} has no rendering as text")


def _text_of(text: Mapping[str, Any]) -> str:
    content = str(text["text"])
    if text.get("type") == "mrkdwn":
        content = _without_markup(content)
    return clean(content.replace(WORD_JOINER, ""))


def _without_markup(content: str) -> str:
    pieces: list[str] = []
    end = 0
    for link in _LINK.finditer(content):
        target, label = link.group(1), link.group(2)
        pieces.append(_FORMATTING.sub(r"\2", content[end : link.start()]))
        pieces.append(f"{label} ({target})" if label else target)
        end = link.end()
    pieces.append(_FORMATTING.sub(r"\2", content[end:]))
    # The three entities that Slack knows, `&amp;` last: `&amp;lt;` is the text `&lt;`.
    return "".join(pieces).replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
