"""What Slack checks of a message, written from Slack's documentation and without a look at the code under test.

docs.slack.dev/reference/block-kit/blocks, …/block-elements/button-element, …/composition-objects/text-object. Only what a message
of this system may hold is known here; any other block or key counts as a fault.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

ALL_BLOCKS_CHARACTERS = 13_000
"""Measured by others, undocumented (github.com/slackapi/bolt-js/issues/2509): Slack then answers `msg_blocks_too_long`."""

DRAWN_EMOJI = re.compile(r":(?!\d\d:)[\w+'-]+:")
"""What Slack may draw as an emoji in mrkdwn, or in plain text with `emoji`; two digits are a time of day."""

_KEYS = {
    "header": {"type", "block_id", "text"},
    "divider": {"type", "block_id"},
    "section": {"type", "block_id", "text", "fields", "accessory", "expand"},
    "context": {"type", "block_id", "elements"},
    "actions": {"type", "block_id", "elements"},
    "image": {"type", "block_id", "image_url", "alt_text", "title"},
    "button": {"type", "text", "action_id", "url", "value", "style"},
    "plain_text": {"type", "text", "emoji"},
    "mrkdwn": {"type", "text", "verbatim"},
}


class Fault(Exception):
    """`code` is what Slack answers, the text says where and why."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code


def check_blocks(blocks: object) -> None:
    """Raise Fault for what Slack would refuse."""
    if not isinstance(blocks, list):
        raise Fault("invalid_blocks_format", "blocks are a list")
    _need(len(blocks) <= 50, f"{len(blocks)} blocks")
    for position, block in enumerate(blocks):
        _check_block(block, f"blocks[{position}]")
    ids = [block["block_id"] for block in blocks if "block_id" in block]
    _need(len(set(ids)) == len(ids), "two blocks have one block_id")
    total = sum(length(text) for text in texts_in(blocks))
    if total > ALL_BLOCKS_CHARACTERS:
        raise Fault("msg_blocks_too_long", f"{total} characters in all blocks")


def texts_in(value: object) -> list[str]:
    """Every text that is shown, and every value a button carries."""
    if isinstance(value, list):
        return [text for item in value for text in texts_in(item)]
    if not isinstance(value, Mapping):
        return []
    own = [value[key] for key in ("text", "value", "alt_text") if isinstance(value.get(key), str)]
    return own + [text for item in value.values() for text in texts_in(item)]


def length(text: str) -> int:
    """Characters, by the strictest reading: UTF-16 units of the text as Slack stores it, with entities for `&`, `<` and `>`."""
    stored = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return len(stored.encode("utf-16-le")) // 2


def _need(condition: bool, reason: str) -> None:
    if not condition:
        raise Fault("invalid_blocks", reason)


def _check_keys(thing: object, kinds: Sequence[str], where: str) -> str:
    _need(isinstance(thing, Mapping), f"{where} is not an object")
    assert isinstance(thing, Mapping)
    kind = thing.get("type")
    _need(kind in kinds, f"{where} has the type {kind!r}")
    unknown = set(thing) - _KEYS[kind]
    _need(not unknown, f"{where} has the unknown keys {sorted(unknown)}")
    return kind


def _check_block(block: Any, where: str) -> None:
    kind = _check_keys(block, ("header", "divider", "section", "context", "actions", "image"), where)
    _need(0 < len(block.get("block_id", "x")) <= 255, f"{where}.block_id")
    if kind == "header":
        _check_text(block.get("text"), f"{where}.text", 150, kinds=("plain_text",))
    elif kind == "section":
        _check_section(block, where)
    elif kind == "context":
        _need(1 <= len(block.get("elements", [])) <= 10, f"{where} has not 1 to 10 elements")
        for element in block["elements"]:
            _check_text(element, f"{where}.elements", 3_000)
    elif kind == "actions":
        _check_actions(block, where)
    elif kind == "image":
        _need(0 < len(block.get("image_url", "")) <= 3_000, f"{where}.image_url")
        _need(0 < len(block.get("alt_text", "")) <= 2_000, f"{where}.alt_text")


def _check_section(block: Any, where: str) -> None:
    _need("text" in block or "fields" in block, f"{where} has neither text nor fields")
    if "text" in block:
        _check_text(block["text"], f"{where}.text", 3_000)
    if "fields" in block:
        _need(1 <= len(block["fields"]) <= 10, f"{where} has not 1 to 10 fields")
        for item in block["fields"]:
            _check_text(item, f"{where}.fields", 2_000)
    if "accessory" in block:
        _check_button(block["accessory"], f"{where}.accessory")
    _need(isinstance(block.get("expand", True), bool), f"{where}.expand")


def _check_actions(block: Any, where: str) -> None:
    elements = block.get("elements", [])
    _need(1 <= len(elements) <= 25, f"{where} has not 1 to 25 elements")
    for element in elements:
        _check_button(element, f"{where}.elements")
    ids = [element["action_id"] for element in elements if "action_id" in element]
    _need(len(set(ids)) == len(ids), f"{where} has one action_id twice")


def _check_button(button: Any, where: str) -> None:
    _check_keys(button, ("button",), where)
    _check_text(button.get("text"), f"{where}.text", 75, kinds=("plain_text",))
    _need(0 < len(button.get("action_id", "x")) <= 255, f"{where}.action_id")
    if "value" in button:
        _need(isinstance(button["value"], str) and 0 < length(button["value"]) <= 2_000, f"{where}.value is not 1 to 2,000 long")
    if "url" in button:
        address = button["url"]
        _need(isinstance(address, str) and len(address) <= 3_000, f"{where}.url is too long")
        _need(re.fullmatch(r"https?://[!-~]+", address) is not None, f"{where}.url is no URL")
    _need(button.get("style", "primary") in ("primary", "danger"), f"{where}.style")


def _check_text(text: Any, where: str, limit: int, kinds: Sequence[str] = ("plain_text", "mrkdwn")) -> None:
    _check_keys(text, kinds, where)
    content = text.get("text")
    _need(isinstance(content, str) and bool(content.strip()), f"{where} is empty")
    _need(length(content) <= limit, f"{where} has {length(content)} characters, {limit} are allowed")
    _need(isinstance(text.get("emoji", True), bool) and isinstance(text.get("verbatim", True), bool), f"{where} has a wrong flag")
