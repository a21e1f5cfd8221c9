"""The bricks that every message is built of, and the message itself; each brick keeps within Slack's limits by construction.

Limits: docs.slack.dev/reference/block-kit (header 150, section text 3,000, button text 75 and value 2,000, url 3,000, 50 blocks,
10 context elements). All blocks of one message together may have about 13,000 characters; Slack documents no number and answers
`msg_blocks_too_long` (github.com/slackapi/bolt-js/issues/2509). The contents here are clipped to stay below 9,000.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import quote

from slack_sdk.models.blocks import (
    ActionsBlock,
    Block,
    ButtonElement,
    ContextBlock,
    DividerBlock,
    HeaderBlock,
    MarkdownTextObject,
    PlainTextObject,
    SectionBlock,
)

from activities.messages.foreign import clipped, escaped, paragraph, size, without_emoji
from activities.messages.terminal import lines_of
from domain.incident import EscalationKind

HEADER_LIMIT = 150
SECTION_LIMIT = 3_000
CONTEXT_LIMIT = 2_000
FALLBACK_LIMIT = 2_500
"""Of the text beside the blocks before it is escaped, which adds half at most; chat.update refuses more than 4,000 characters."""

VIEW_LABEL = "🔍 View in InfraSage"
VIEW_ACTION = "view_incident"


@dataclass(frozen=True)
class SlackMessage:
    """What is handed to Slack: the blocks, and the text that notifications and screen readers take instead of them."""

    text: str
    """mrkdwn, escaped, never empty."""
    blocks: list[dict[str, Any]]


@dataclass(frozen=True)
class Surroundings:
    """What a message may refer to: where the console is, and what clicks are good for."""

    console_url: str
    """`INFRASAGE_URL`."""
    interactive: bool
    """Whether clicks reach us: only with the bot. A webhook's messages have no buttons but links."""
    offers: frozenset[EscalationKind] = frozenset()
    """The escalations that are configured."""


def message(blocks: Iterable[Block]) -> SlackMessage:
    """Put a message together; its text says the same as its blocks, without rules and buttons."""
    built = [cast("dict[str, Any]", block.to_dict()) for block in blocks]
    told = [line for block in built if block["type"] not in ("divider", "actions") for line in lines_of(block)]
    return SlackMessage(text=_fallback("\n".join(told)), blocks=built)


def header(text: str) -> HeaderBlock:
    return HeaderBlock(text=PlainTextObject(text=clipped(without_emoji(text), HEADER_LIMIT), emoji=True))


def divider() -> DividerBlock:
    return DividerBlock()


def label(text: str) -> SectionBlock:
    """A bold line of our own words; foreign text has no place in it."""
    return SectionBlock(text=MarkdownTextObject(text=f"*{text}*", verbatim=True))


def prose(text: str) -> SectionBlock:
    """Foreign text as it is. The text must be clean, and within the limit of a section."""
    return SectionBlock(text=PlainTextObject(text=text, emoji=False))


def marked(mark: str, text: str) -> SectionBlock:
    """Foreign text after an emoji of ours."""
    return SectionBlock(text=PlainTextObject(text=clipped(without_emoji(f"{mark} {text}"), SECTION_LIMIT), emoji=True))


def lines(texts: Sequence[str]) -> list[SectionBlock]:
    """Lines of foreign text, in as few sections as hold them, always drawn in full."""
    packed: list[str] = []
    for text in texts:
        text = clipped(text, SECTION_LIMIT)
        if packed and size(packed[-1]) + size(text) < SECTION_LIMIT:
            packed[-1] += "\n" + text
        else:
            packed.append(text)
    return [SectionBlock(text=PlainTextObject(text=text, emoji=False), expand=True) for text in packed]


def footnote(text: str) -> ContextBlock:
    """A small line below the rest; its emoji are drawn, foreign ones are not."""
    return ContextBlock(elements=[PlainTextObject(text=clipped(without_emoji(text), CONTEXT_LIMIT), emoji=True)])


def markup(text: str) -> ContextBlock:
    """A small line of our own mrkdwn; what is foreign in it must be `escaped` and bounded."""
    return ContextBlock(elements=[MarkdownTextObject(text=text, verbatim=True)])


def buttons(*elements: ButtonElement) -> ActionsBlock:
    return ActionsBlock(elements=list(elements))


def button(text: str, action_id: str, value: str, style: str | None = None) -> ButtonElement:
    return ButtonElement(text=PlainTextObject(text=text, emoji=True), action_id=action_id, value=value, style=style)


def view_button(console_url: str, incident_id: str) -> ButtonElement:
    """The link to the incident's page. Slack reports the click as well (`view_incident`); it needs no answer but 200."""
    return ButtonElement(
        text=PlainTextObject(text=VIEW_LABEL, emoji=True), action_id=VIEW_ACTION, url=incident_url(console_url, incident_id)
    )


def incident_url(console_url: str, incident_id: str) -> str:
    """`INFRASAGE_URL/incidents/<id>`; the slashes in the id of a run started by hand stay slashes."""
    return f"{console_url.rstrip('/')}/incidents/{quote(incident_id, safe='/:')}"


def _fallback(text: str) -> str:
    return escaped(paragraph(text, FALLBACK_LIMIT) or "InfraSage")
