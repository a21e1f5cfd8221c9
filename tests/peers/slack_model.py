"""What the Slack peer keeps, and how it can be told to misbehave."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.peers.slack_blocks import texts_in


@dataclass(frozen=True)
class Throttle:
    """HTTP 429 with Retry-After in seconds."""

    retry_after: int | str | None = 1


@dataclass(frozen=True)
class Status:
    """An HTTP status with a body that is not Slack's."""

    status: int = 500
    body: str = "<html>upstream trouble</html>"
    content_type: str = "text/html"


@dataclass(frozen=True)
class Refuse:
    """`ok: false` with a code; for the webhook HTTP 400 with the code."""

    code: str
    more: Mapping[str, str] = field(default_factory=dict)
    status: int = 200


@dataclass(frozen=True)
class Hang:
    """No answer until the peer is closed."""


@dataclass(frozen=True)
class Drop:
    """The connection is closed without an answer."""


Behaviour = Throttle | Status | Refuse | Hang | Drop


@dataclass
class PeerMessage:
    """A message as the channel shows it now."""

    channel: str
    ts: str
    text: str
    blocks: list[dict[str, Any]]
    thread_ts: str | None = None
    by_webhook: bool = False
    request: Mapping[str, Any] = field(default_factory=dict)
    """The last request that wrote it, whole."""
    edits: int = 0
    reactions: set[str] = field(default_factory=set)

    @property
    def shown(self) -> str:
        """Every text in its blocks, one a line, button labels included."""
        return "\n".join(texts_in(self.blocks))

    def button(self, action_id: str) -> dict[str, Any]:
        """The button with that action. Raises LookupError when there is none."""
        for block in self.blocks:
            for element in block.get("elements", ()):
                if element.get("action_id") == action_id:
                    return element
        raise LookupError(f"no button {action_id} in {self.shown!r}")

    @property
    def action_ids(self) -> list[str]:
        elements = [element for block in self.blocks if block["type"] == "actions" for element in block["elements"]]
        return [element["action_id"] for element in elements]


@dataclass(frozen=True)
class Ephemeral:
    """What one person alone was shown."""

    channel: str
    user: str
    text: str
    blocks: list[dict[str, Any]]


@dataclass
class Channel:
    id: str
    name: str
    archived: bool = False
    private: bool = False
    bot_is_member: bool = True
    messages: dict[str, PeerMessage] = field(default_factory=dict)


class Refusal(Exception):
    """`ok: false`, with what else the answer carries."""

    def __init__(self, code: str, more: Mapping[str, str] | None = None) -> None:
        super().__init__(code)
        self.code = code
        self.more = more or {}
