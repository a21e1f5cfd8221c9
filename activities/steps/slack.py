"""The step type `slack`: a message in the incident's thread or in a channel of its own."""

import asyncio
from typing import Any, ClassVar, Protocol

from activities.errors import Unreachable, clip
from activities.steps.base import CHANGE_LIMIT_CHARACTERS, cannot_be_undone, plan_of, step_of
from domain import expressions
from domain.incident import StepRequest, UndoRequest
from domain.narration import Note, PostedMessage
from domain.plan import Fact, StepPlan, StepResult
from domain.runbook import SlackStep

SUMMARY_LIMIT_CHARACTERS = 200


class MessagePort(Protocol):
    """What this step type needs of Slack."""

    async def post(self, channel: str | None, message: Note, thread: PostedMessage | None) -> PostedMessage | None:
        """Post a note: as a reply if `thread` is given, else in `channel`, by default the configured one.

        Returns: the message, or None where the configured Slack does not say which it was (a webhook).
        """
        ...


class SlackSteps:
    """Inform; nothing depends on it. A repeated attempt may post twice: Slack takes no idempotency key."""

    type: ClassVar[str] = "slack"

    def __init__(self, slack: MessagePort | None) -> None:
        """Without `slack`, messages are kept in the timeline alone."""
        self._slack = slack

    def render(self, request: StepRequest) -> dict[str, Any]:
        step = step_of(request, SlackStep)
        return {"channel": step.channel, "message": expressions.render(step.message, request.names)}

    async def plan(self, request: StepRequest) -> StepPlan:
        rendered = self.render(request)
        return StepPlan(
            title=request.step.title,
            change=f"“{clip(rendered['message'], CHANGE_LIMIT_CHARACTERS)}”",
            facts=(Fact(label="Channel", value=rendered["channel"] or "the incident's thread"),),
            request=rendered,
        )

    async def execute(self, request: StepRequest) -> StepResult:
        step = step_of(request, SlackStep)
        planned = plan_of(request).request
        message = str(planned["message"])
        if self._slack is None:
            shown = clip(message, SUMMARY_LIMIT_CHARACTERS)
            return StepResult(summary=f"Message kept in the timeline, Slack is not configured: “{shown}”")
        thread = None if step.channel else request.thread
        try:
            async with asyncio.timeout(step.timeout_seconds):
                posted = await self._slack.post(step.channel, Note(text=message), thread)
        except TimeoutError:
            raise Unreachable(f"Slack did not take the message within {step.timeout_seconds:g} s") from None
        where = f"to {step.channel}" if step.channel else "in the thread" if thread else "to the channel of the alerts"
        outputs: dict[str, str | int | float | bool] = {"channel": posted.channel, "ts": posted.ts} if posted else {}
        return StepResult(summary=f"Message posted {where}", outputs=outputs)

    async def undo(self, request: UndoRequest) -> StepResult:
        raise cannot_be_undone(request)
