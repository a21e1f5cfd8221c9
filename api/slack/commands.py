"""`/infrasage …`: answered to the person alone, in the answer to Slack's own request, and always within its 3 s.

What changes something is acknowledged only after Temporal has stored the signal. What cannot be done is one sentence that says what
to do instead; that sentence is the command's answer, so it goes out as 200, and never claims that something happened.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import cast

from slack_bolt import BoltResponse
from slack_bolt.async_app import AsyncAck, AsyncApp, AsyncBoltContext

from activities.messages.answers import IncidentLine, help_answer, incidents_answer, sentence, status_answer
from activities.messages.parts import SlackMessage
from api import acting, reading
from api.acting import Asked, SeveralOpen, Target
from api.inputs import NAME, REASON, RESOLUTION, checked
from api.manual_runs import start_by_hand
from api.problems import Problem
from api.runbooks import prepared
from api.services import Services
from api.slack.command_line import CommandLine, parse
from api.slack.guard import SignedRequest
from api.slack.interactions import SIGNED
from api.slack.payloads import Command
from api.temporal import NoWorker, TemporalUnavailable
from domain.anomaly import Severity
from domain.approval import Choice
from domain.incident import IncidentStatus, RunbookView

COMMAND = "infrasage_command"
"""Key of bolt's context, set by `api.slack.edge`."""

COMMAND_SECONDS = 2.4
"""For everything a command asks, so that the answer is there within Slack's 3 s."""

LIST_LIMIT = 100

Verb = Callable[[CommandLine, Command, Asked], Awaitable[SlackMessage]]


class Commands:
    """The listener of the slash command, and its verbs."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._verbs: dict[str, Verb] = {
            "resolve": self._resolve,
            "status": self._status,
            "incidents": self._incidents,
            "approve": self._approve,
            "reject": self._reject,
            "halt": self._halt,
            "run": self._run,
        }

    def register(self, app: AsyncApp) -> None:
        app.command(re.compile("^/"))(self.answer)  # whatever name the workspace gave it

    async def answer(self, ack: AsyncAck, context: AsyncBoltContext) -> BoltResponse:
        command = cast("Command", context[COMMAND])
        line = parse(command.text)
        signed = cast("SignedRequest", context[SIGNED])
        asked = Asked(by=command.actor(), received_at=signed.received_at, reply_to=command.reply_to)
        message, outcome = await self._told(line, command, asked, signed.left_of(COMMAND_SECONDS))
        verb = line.verb if line.verb in self._verbs else "help"
        self._services.metrics.clicks.labels(f"command_{verb}", outcome).inc()
        return await ack(text=message.text, blocks=message.blocks, response_type="ephemeral")

    async def _told(self, line: CommandLine, command: Command, asked: Asked, seconds: float) -> tuple[SlackMessage, str]:
        """The answer, whatever happens to Temporal, and the outcome for the metrics."""
        verb = self._verbs.get(line.verb)
        if verb is None:
            return self._help(line, command), "answered"
        try:
            async with asyncio.timeout(seconds):
                return await verb(line, command, asked), "answered"
        except NoWorker:
            return sentence("No worker of InfraSage answered in time: nothing was changed. Try again in a moment."), "unavailable"
        except (TemporalUnavailable, TimeoutError):
            return sentence(_no_answer(line)), "unavailable"
        except SeveralOpen:
            return sentence(f"{line.subject} has several open requests: use the buttons on their cards in the thread."), "answered"
        except Problem as problem:
            return sentence(problem.detail), "answered"

    def _help(self, line: CommandLine, command: Command) -> SlackMessage:
        if line.verb in ("", "help"):
            return help_answer(command.command)
        return sentence(f"“{line.verb}” is not a command here: type {command.command} help to see what there is.")

    # --- verbs --------------------------------------------------------------------------------------------------

    async def _resolve(self, line: CommandLine, command: Command, asked: Asked) -> SlackMessage:
        if not line.subject or not line.rest:
            return sentence(f"Say which incident, and what helped: {command.command} resolve <incident id> “what helped”.")
        text = checked(RESOLUTION, "The text of the resolution", line.rest)
        await acting.resolve(self._services.temporal, line.subject, text, asked)
        return sentence(f"Your resolution of {line.subject} is stored, and is remembered for the next similar incident.")

    async def _status(self, line: CommandLine, command: Command, asked: Asked) -> SlackMessage:
        if not line.subject:
            return sentence(f"Say which incident: {command.command} status <incident id>.")
        story = await reading.look(self._services.temporal, line.subject)
        if story.incident is None:
            return sentence("\n".join(_run_in_words(run) for run in story.runs))
        return status_answer(story.incident, story.runs, self._services.surroundings.console_url)

    async def _incidents(self, line: CommandLine, command: Command, asked: Asked) -> SlackMessage:
        found = await asyncio.gather(
            *(
                reading.list_incidents(self._services.temporal, status=status, service_id=None, limit=LIST_LIMIT)
                for status in (IncidentStatus.OPEN, IncidentStatus.SUPPRESSED)
            )
        )
        newest = sorted((item for items in found for item in items), key=lambda item: item.opened_at, reverse=True)
        return incidents_answer(
            [
                IncidentLine(
                    incident_id=item.incident_id,
                    status=item.status.value,
                    service_id=item.service_id or "",
                    severity=Severity(item.severity) if item.severity in set(Severity) else None,
                    opened_at=item.opened_at,
                )
                for item in newest
            ]
        )

    async def _approve(self, line: CommandLine, command: Command, asked: Asked) -> SlackMessage:
        if not line.subject:
            return sentence(f"Say which incident: {command.command} approve <incident id> [note].")
        return await self._decide(Choice.APPROVE, line, asked)

    async def _reject(self, line: CommandLine, command: Command, asked: Asked) -> SlackMessage:
        if not line.subject or not line.rest:
            return sentence(f"Say which incident, and why: {command.command} reject <incident id> <reason>.")
        return await self._decide(Choice.REJECT, line, asked)

    async def _decide(self, choice: Choice, line: CommandLine, asked: Asked) -> SlackMessage:
        temporal = self._services.temporal
        reason = checked(REASON, "The reason", line.rest)
        run, step = await acting.decide(temporal, line.subject, choice, reason, Target(), asked)
        answer = "approval" if choice is Choice.APPROVE else "rejection"
        return sentence(f"Your {answer} of {run.name} step {step.index} ({step.summary}) is stored; its card shows the outcome.")

    async def _halt(self, line: CommandLine, command: Command, asked: Asked) -> SlackMessage:
        if not line.subject:
            return sentence(f"Say which incident: {command.command} halt <incident id>.")
        reason = checked(REASON, "The reason", line.rest)
        halted = await acting.halt(self._services.temporal, line.subject, reason, None, asked)
        return sentence(f"Asked to stop before the next step: {', '.join(halted)}.")

    async def _run(self, line: CommandLine, command: Command, asked: Asked) -> SlackMessage:
        if not line.subject or not line.rest:
            return sentence(f"Say which runbook, and on which service: {command.command} run <runbook> <service>.")
        service_id = checked(NAME, "The service", line.rest)
        runbook, inputs, library = await prepared(self._services, line.subject, {})
        workflow_id = await start_by_hand(
            self._services.temporal,
            runbook,
            service_id=service_id,
            environment=None,
            inputs=inputs,
            library=library,
            dry_run=False,
            by=asked.by,
            slack=self._services.settings.slack_mode,
        )
        return sentence(f"Started {workflow_id} on {service_id}.")


def _no_answer(line: CommandLine) -> str:
    """Temporal may have stored it nevertheless, so the sentence does not claim that it has not."""
    silent = "InfraSage's workflow service did not answer in time"
    if line.verb == "run":
        return f"{silent}: look whether the run has started (infrasage incidents) before you try again."
    if line.verb in ("status", "incidents"):
        return f"{silent}: try again in a moment."
    return (
        f"{silent}, so your request may not be stored: try again in a moment (asking twice does no harm), "
        f"or use the command line: infrasage {line.verb} {line.subject}."
    )


def _run_in_words(run: RunbookView) -> str:
    now = next((step for step in run.steps if step.status.value in ("awaiting_approval", "running", "unknown")), None)
    doing = f": step {now.index}, {now.summary}, {now.status.value.replace('_', ' ')}" if now else ""
    return f"{run.workflow_id} on {run.service_id} — {run.status.value.replace('_', ' ')}{doing}. {run.summary}".strip()
