"""The step type `slack`: a message in the incident's thread or in a channel of its own."""

import asyncio
from typing import Any, ClassVar, Protocol

from temporalio import activity

from activities.errors import OrchestratorError, PermanentError, Unreachable, clip
from activities.messages.parts import SlackMessage
from activities.messages.progress import note_message
from activities.steps.base import CHANGE_LIMIT_CHARACTERS, cannot_be_undone, plan_of, step_of
from domain import expressions
from domain.incident import StepRequest, UndoRequest
from domain.narration import Note, PostedMessage
from domain.plan import Fact, StepPlan, StepResult
from domain.runbook import SlackStep

SUMMARY_LIMIT_CHARACTERS = 200

ATTEMPTS = 2
"""After so many the step goes on without Slack, unless it names another `retry`. Few: a message must not hold up a remediation
for long."""


class MessagePort(Protocol):
    """What this step type needs of Slack; `activities.slack.SlackPort` is one."""

    async def post(self, channel: str | None, message: SlackMessage, thread: PostedMessage | None = None) -> PostedMessage | None:
        """Post in `channel`, or as a reply in `thread`, or where the alerts go.

        Returns: the message, None where Slack does not tell (a webhook). Raises: RateLimited, Unreachable, Refused.
        """
        ...


class SlackSteps:
    """Inform, and do not stand in the way: a message that Slack does not take is kept in the timeline, and says so.

    Were it a failure, a Slack that is down would roll back what the steps before it repaired. A runbook that wants just that
    says `on_failure`. A repeated attempt may post twice: Slack takes no idempotency key.
    """

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
        """Post the message.

        Raises: Unreachable, RateLimited before the last attempt; every failure where the step says `on_failure`.
        """
        step = step_of(request, SlackStep)
        message = str(plan_of(request).request["message"])
        if self._slack is None:
            return _kept(message, "Slack is not configured")
        thread = None if step.channel else request.thread
        try:
            posted = await self._post(self._slack, step, message, thread)
        except OrchestratorError as error:
            if step.on_failure is not None or _is_worth_another_attempt(error, step):
                raise
            return _kept(message, f"Slack did not take it ({error})")
        where = f"to {step.channel}" if step.channel else "in the thread" if thread else "to the channel of the alerts"
        identity: dict[str, str] = {"channel": posted.channel, "ts": posted.ts} if posted else {}
        return StepResult(summary=f"Message posted {where}", outputs={"posted": True, **identity})

    async def undo(self, request: UndoRequest) -> StepResult:
        raise cannot_be_undone(request)

    async def _post(self, slack: MessagePort, step: SlackStep, message: str, thread: PostedMessage | None) -> PostedMessage | None:
        try:
            async with asyncio.timeout(step.timeout_seconds):
                return await slack.post(step.channel, note_message(Note(text=message)), thread)
        except TimeoutError:
            raise Unreachable(f"no answer within {step.timeout_seconds:g} s") from None


def _is_worth_another_attempt(error: OrchestratorError, step: SlackStep) -> bool:
    attempts = step.retry.attempts if step.retry else ATTEMPTS
    return not isinstance(error, PermanentError) and activity.info().attempt < attempts


def _kept(message: str, reason: str) -> StepResult:
    return StepResult(
        summary=f"Message kept in the timeline, {reason}: “{clip(message, SUMMARY_LIMIT_CHARACTERS)}”",
        outputs={"posted": False},
    )
