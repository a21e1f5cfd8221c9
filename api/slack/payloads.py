"""What Slack sends, read strictly in what is used and with the rest dropped: bolt gets bodies that cannot surprise it.

bolt's own parser takes every body that contains the word "payload" for an interaction, so `/infrasage resolve x "bad payload"`
would arrive empty; here the two routes know what they expect.
"""

import json
from typing import Annotated, Any, Literal, TypeVar, cast
from urllib.parse import parse_qsl

from pydantic import Field, StringConstraints, ValidationError

from api.bodies import depth
from api.problems import Problem, faults_of
from domain.approval import ReplyTo
from domain.base import Actor, Durable, Source

FIELDS_LIMIT = 50
"""Slack sends about 15."""

PAYLOAD_DEPTH = 64
"""A click carries the message it was made on; blocks nest about 12 deep."""

Identifier = Annotated[str, StringConstraints(pattern=r"^[!-~]{1,100}$")]
"""An id of Slack's: `U…`, `C…`, `T…`."""

Line = Annotated[str, Field(max_length=3_000)]

Read = TypeVar("Read", bound=Durable)


class Person(Durable):
    """Who clicked."""

    id: Identifier
    username: Line = ""
    name: Line = ""

    def actor(self) -> Actor:
        return Actor(id=self.id, name=(self.username or self.name or self.id)[:200], source=Source.SLACK)


class Place(Durable):
    id: Identifier


class Workspace(Durable):
    id: Identifier


class Action(Durable):
    """The button."""

    type: Line = "button"
    action_id: Annotated[str, Field(min_length=1, max_length=300)]
    block_id: Line = ""
    value: Line = ""


class Click(Durable):
    """A payload of type `block_actions` (docs.slack.dev/reference/interaction-payloads/block_actions-payload)."""

    type: Literal["block_actions"]
    user: Person
    team: Workspace | None = None
    channel: Place | None = None
    actions: Annotated[tuple[Action, ...], Field(min_length=1, max_length=1)]
    """Slack sends exactly one."""
    response_url: Line = ""
    trigger_id: Line = ""

    @property
    def action(self) -> Action:
        return self.actions[0]

    @property
    def reply_to(self) -> ReplyTo | None:
        return ReplyTo(channel=self.channel.id, user=self.user.id) if self.channel else None

    def for_bolt(self) -> dict[str, Any]:
        return self.model_dump(mode="json", exclude_none=True)


class Command(Durable):
    """A slash command (docs.slack.dev/interactivity/implementing-slash-commands)."""

    command: Annotated[str, StringConstraints(pattern=r"^/\S{1,80}$")]
    text: Annotated[str, Field(max_length=8_000)] = ""
    user_id: Identifier
    user_name: Line = ""
    channel_id: Identifier | None = None
    team_id: Identifier | None = None
    response_url: Line = ""
    trigger_id: Line = ""

    def actor(self) -> Actor:
        return Actor(id=self.user_id, name=(self.user_name or self.user_id)[:200], source=Source.SLACK)

    @property
    def reply_to(self) -> ReplyTo | None:
        return ReplyTo(channel=self.channel_id, user=self.user_id) if self.channel_id else None

    def for_bolt(self) -> dict[str, Any]:
        return self.model_dump(mode="json", exclude_none=True)


def read_click(body: bytes) -> Click:
    """The click in a signed form body. Raises Problem 400."""
    payload = _form(body).get("payload", "")
    if depth(payload.encode("utf-8", "replace")) > PAYLOAD_DEPTH:
        raise _malformed(f"the payload is nested more than {PAYLOAD_DEPTH} deep")
    try:
        content: object = json.loads(payload)
    except ValueError:
        raise _malformed("the form has no JSON object in the field payload") from None
    if not isinstance(content, dict):
        raise _malformed("the payload is not a JSON object")
    fields = cast("dict[str, Any]", content)
    if fields.get("type") != "block_actions":
        raise _malformed("only clicks on buttons (block_actions) are taken here")
    return _model(Click, fields)


def read_command(body: bytes) -> Command:
    """The slash command in a signed form body. Raises Problem 400."""
    return _model(Command, {name: value for name, value in _form(body).items() if value})


def _model(model: type[Read], content: object) -> Read:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        fault = faults_of(error.errors(include_input=False))[0]
        raise _malformed(f"{fault.path}: {fault.reason}") from None


def _form(body: bytes) -> dict[str, str]:
    try:
        pairs = parse_qsl(
            body.decode("utf-8"), keep_blank_values=True, encoding="utf-8", errors="strict", max_num_fields=FIELDS_LIMIT
        )
    except ValueError:  # UnicodeDecodeError is one
        raise _malformed("the body is not a form in UTF-8") from None
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise _malformed("a field of the form is given twice")
    return fields


def _malformed(reason: str) -> Problem:
    return Problem(400, f"This is not a request that Slack sends: {reason}.")
