"""Clicks: each is translated into one signal, and Slack gets its 200 only after Temporal has stored it.

Nothing is judged here but the form. Whether the request is still open, who may decide it and whether it was decided already is the
run's to say, which then answers the person itself.
"""

import re
from typing import cast

from slack_bolt import BoltResponse
from slack_bolt.async_app import AsyncAck, AsyncApp, AsyncBoltContext

from activities.messages.alert import PAGE_ACTION, TICKET_ACTION
from activities.messages.approval import APPROVE_ACTION, REJECT_ACTION, decode_ref
from activities.messages.parts import VIEW_ACTION
from api.metrics import Metrics
from api.slack.guard import SignedRequest
from api.slack.payloads import Click
from api.slack.private import PrivateAnswers
from api.temporal import NotRunning, TemporalAccess, TemporalUnavailable
from domain.approval import Choice, Decision
from domain.base import Durable
from domain.incident import EscalateRequest, EscalationKind

CLICK = "infrasage_click"
SIGNED = "infrasage_signed_request"
"""Keys of bolt's context, set by `api.slack.edge`."""

SIGNAL_SECONDS = 1.7
"""From the arrival of a click until Temporal must have stored it; below the `SIGNAL_BUDGET` that the gates wait for."""

_KNOWN = (APPROVE_ACTION, REJECT_ACTION, VIEW_ACTION, TICKET_ACTION, PAGE_ACTION)


class Clicks:
    """The listeners. Each does its signal first and acknowledges afterwards."""

    def __init__(self, temporal: TemporalAccess, private: PrivateAnswers, metrics: Metrics) -> None:
        self._temporal = temporal
        self._private = private
        self._metrics = metrics

    def register(self, app: AsyncApp) -> None:
        app.action(APPROVE_ACTION)(self.approve)
        app.action(REJECT_ACTION)(self.reject)
        app.action(TICKET_ACTION)(self.create_ticket)
        app.action(PAGE_ACTION)(self.page_on_call)
        app.action(VIEW_ACTION)(self.view_incident)
        app.action(re.compile(".*", re.DOTALL))(self.unknown)  # the last resort: bolt answers 404 to what nobody takes

    async def approve(self, ack: AsyncAck, context: AsyncBoltContext) -> BoltResponse:
        return await self._decide(Choice.APPROVE, ack, context)

    async def reject(self, ack: AsyncAck, context: AsyncBoltContext) -> BoltResponse:
        return await self._decide(Choice.REJECT, ack, context)

    async def create_ticket(self, ack: AsyncAck, context: AsyncBoltContext) -> BoltResponse:
        return await self._escalate(EscalationKind.TICKET, ack, context)

    async def page_on_call(self, ack: AsyncAck, context: AsyncBoltContext) -> BoltResponse:
        return await self._escalate(EscalationKind.PAGE, ack, context)

    async def view_incident(self, ack: AsyncAck, context: AsyncBoltContext) -> BoltResponse:
        """The button is a link, which Slack has opened already; Slack still wants its 200."""
        self._count(_click(context), "answered")
        return await ack()

    async def unknown(self, ack: AsyncAck, context: AsyncBoltContext) -> BoltResponse:
        return await self._answered("That button is not one that InfraSage knows: nothing was done.", ack, context)

    async def _decide(self, choice: Choice, ack: AsyncAck, context: AsyncBoltContext) -> BoltResponse:
        click = _click(context)
        try:
            workflow_id, ref = decode_ref(click.action.value)
        except ValueError:
            return await self._answered("That button carries no approval request: nothing was decided.", ack, context)
        decision = Decision(
            choice=choice, ref=ref, by=click.user.actor(), received_at=_signed(context).received_at, reply_to=click.reply_to
        )
        over = "That run has ended: your answer changed nothing."
        return await self._signal(workflow_id, "decide", decision, over, ack, context)

    async def _escalate(self, kind: EscalationKind, ack: AsyncAck, context: AsyncBoltContext) -> BoltResponse:
        click = _click(context)
        if not click.action.value:
            return await self._answered("That button names no incident: nothing was sent.", ack, context)
        request = EscalateRequest(
            kind=kind, by=click.user.actor(), received_at=_signed(context).received_at, reply_to=click.reply_to
        )
        over = "That incident is over, or unknown: nothing was sent."
        return await self._signal(click.action.value, "escalate", request, over, ack, context)

    async def _signal(
        self, workflow_id: str, name: str, argument: Durable, over: str, ack: AsyncAck, context: AsyncBoltContext
    ) -> BoltResponse:
        """Signal, then acknowledge. 503 when Temporal did not take it: Slack then marks the click as failed, and so do we."""
        try:
            seconds = _signed(context).left_of(SIGNAL_SECONDS)
            await self._temporal.signal(workflow_id, name, argument, seconds=seconds)
        except NotRunning:
            return await self._answered(over, ack, context)
        except TemporalUnavailable:
            click = _click(context)
            self._count(click, "unavailable")
            await self._private.tell(_not_stored(workflow_id, click.action.action_id), click.response_url, click.reply_to)
            return BoltResponse(status=503, body="")
        self._count(_click(context), "signalled")
        return await ack()

    async def _answered(self, text: str, ack: AsyncAck, context: AsyncBoltContext) -> BoltResponse:
        click = _click(context)
        self._count(click, "answered")
        await self._private.tell(text, click.response_url, click.reply_to)
        return await ack()

    def _count(self, click: Click, outcome: str) -> None:
        action = click.action.action_id
        self._metrics.clicks.labels(action if action in _KNOWN else "unknown", outcome).inc()


def _not_stored(workflow_id: str, action: str) -> str:
    """What the person reads when Temporal did not answer in time; the click may have arrived nevertheless."""
    incident_id = workflow_id if workflow_id.startswith("manual/") else workflow_id.partition("/")[0]
    commands = {APPROVE_ACTION: f"infrasage approve {incident_id}", REJECT_ACTION: f"infrasage reject {incident_id} --reason …"}
    otherwise = f", or use the command line: {commands[action]}" if action in commands else ""
    return f"Your click could not be stored, InfraSage's workflow service did not answer: click again in a moment{otherwise}."


def _click(context: AsyncBoltContext) -> Click:
    return cast("Click", context[CLICK])


def _signed(context: AsyncBoltContext) -> SignedRequest:
    return cast("SignedRequest", context[SIGNED])
