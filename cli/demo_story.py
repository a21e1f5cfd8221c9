"""The story that `make demo` plays and checks: from the anomaly over the approval to the memory of it."""

import asyncio
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from rich.rule import Rule
from rich.text import Text

from activities.messages.terminal import to_text
from cli import showing
from cli.api_client import Api, attempt, incident_path
from cli.demo_slack import CHANNEL, DemoSlack, Posted
from cli.operate import decide
from cli.output import Failure, foreign, say
from cli.simulated_cluster import SimulatedCluster
from cli.stack import Stack
from domain.approval import ApprovalStatus
from domain.incident import IncidentStatus, RunStatus

SAMPLE = Path(__file__).resolve().parent.parent / "samples" / "anomaly.json"

NAMESPACE, SERVICE = "production", "payment-api"
REPLICAS_BEFORE, REPLICAS_AFTER = 3, 5

RESOLUTION = "Scaled from 3 to 5 pods. Memory leak in v2.3.1 DB pool — upgrading to v2.3.2."

DETECTED_BEFORE = timedelta(minutes=12)
"""How old the first anomaly is when it is posted: what incident memory then calls the time to resolve."""

SIMILAR_ID, SIMILAR_SCORE = "anom-9c21", 0.66
"""Of the second anomaly: high, but below the 0.7 that starts the runbook."""

PART_SECONDS = 30.0
"""Longest time for one part of the story; each takes about 1 s."""

AUDITED = (
    "anomaly.recorded",
    "alert.sent",
    "runbook.started",
    "step.succeeded",
    "approval.requested",
    "approval.approved",
    "step.succeeded",
    "step.succeeded",
    "runbook.finished",
    "incident.resolved",
)
"""What the audit log has to say of the first incident, in this order."""

Json = dict[str, Any]
_Answer = TypeVar("_Answer")


@dataclass
class DemoStory:
    """The story, on a stage that is set."""

    stack: Stack
    api: Api
    cluster: SimulatedCluster
    slack: DemoSlack
    parts: int = 0
    printed: dict[str, str] = field(default_factory=dict[str, str])
    """What was shown of each reply in the thread."""

    async def play(self, *, yes: bool) -> None:
        """Part by part; `yes` approves without asking. Raises: Failure when a part did not happen."""
        say(Text("InfraSage, the whole story", style="bold"))
        say(f"API {self.stack.url} · Temporal UI {self.stack.temporal_ui}")
        say(f"Slack and the cluster are simulated; {SERVICE} has {REPLICAS_BEFORE} replicas.")
        first: Json = json.loads(SAMPLE.read_text())
        incident_id = first["anomaly_id"]
        await self._alerted(first)
        await self._approved(incident_id, yes=yes)
        await self._scaled(incident_id)
        await self._resolved(incident_id)
        await self._remembered(first)
        await self._audited(incident_id)

    # --- the parts ----------------------------------------------------------------------------------------------

    async def _alerted(self, anomaly: Json) -> None:
        self._part(f"An anomaly arrives; {CHANNEL} shows the alert")
        await self._posted({**anomaly, "timestamp": _timestamp(datetime.now(UTC) - DETECTED_BEFORE)})
        text = await self._alert(0)
        _require(text.startswith(f"🚨 Anomaly Detected — {SERVICE}"), "the alert does not name the service")

    async def _approved(self, incident_id: str, *, yes: bool) -> None:
        self._part("Its runbook starts by itself, and stops where a human has to agree; the thread shows")
        await self._until(incident_id, lambda seen: any(showing.open_approvals(seen)), "no approval was asked for")
        card = await self._replied("⚡ Runbook Approval Required")
        self._show_thread()
        _require(f"Step 2/3: Scale deployment to {REPLICAS_AFTER} replicas" in card, "the card does not say what it is for")
        _require(f"replicas {REPLICAS_BEFORE} → {REPLICAS_AFTER}" in card, "the card does not say what will change")
        _require(self.cluster.replicas(NAMESPACE, SERVICE) == REPLICAS_BEFORE, "the cluster was changed before anybody approved")
        answer = "approve" if yes else await self._asked(incident_id)
        if answer == "reject":
            await self._call(lambda: decide(self.api, incident_id, "reject", "rejected in the demo"))
            raise Failure(f"You rejected it, so {SERVICE} keeps its {REPLICAS_BEFORE} replicas, and the story ends here.")
        if answer == "approve":
            self._command(f"infrasage approve {incident_id}")
            await self._call(lambda: decide(self.api, incident_id, "approve"))

    async def _scaled(self, incident_id: str) -> None:
        self._part("The step runs; the thread tells the outcome")
        story = await self._until(incident_id, lambda seen: seen["runbooks"][0]["finished_at"], "the runbook did not end")
        run = story["runbooks"][0]
        await self._replied(f"Runbook {run['name']} {run['status']}")
        self._show_thread()
        say(showing.runbook(run))
        _require(run["status"] == RunStatus.SUCCEEDED, f"the runbook {run['status']}: {run['summary']}")
        writes = [(write.before, write.after) for write in self.cluster.writes]
        _require(writes == [(REPLICAS_BEFORE, REPLICAS_AFTER)], f"the cluster saw the writes {writes}")
        _require(self.cluster.replicas(NAMESPACE, SERVICE) == REPLICAS_AFTER, "the cluster was not scaled")
        _passed(f"The cluster itself says: {SERVICE} went {REPLICAS_BEFORE} → {REPLICAS_AFTER} replicas, by one write.")

    async def _resolved(self, incident_id: str) -> None:
        self._part("Somebody resolves the incident; incident memory learns how")
        self._command(f'infrasage resolve {incident_id} "{RESOLUTION}"')
        await self._call(lambda: self.api.post(incident_path(incident_id, "resolve"), {"text": RESOLUTION}))
        story = await self._until(incident_id, lambda seen: seen["resolution"], "the incident was not resolved")
        _require(story["status"] == IncidentStatus.RESOLVED, f"the incident is {story['status']}")
        await self._replied("Resolved by")
        self._show_thread()
        await self._waited(lambda: self._is_closed(incident_id), "the resolved incident did not close")

    async def _remembered(self, first: Json) -> None:
        self._part("A similar anomaly arrives; the alert knows what helped last time")
        again = {**first, "anomaly_id": SIMILAR_ID, "anomaly_score": SIMILAR_SCORE, "metric_value": 71.0}
        await self._posted({**again, "timestamp": _timestamp(datetime.now(UTC))})
        text = " ".join((await self._alert(1)).split())
        start = text.find("Historical Match: Similar incident on")
        _require(start >= 0, "the alert has no Historical Match")
        _require("by scaling from 3 to 5 pods" in text[start:], "the Historical Match does not say what helped")

    async def _audited(self, incident_id: str) -> None:
        self._part("The audit log of the first incident")
        self._command(f"infrasage audit {incident_id}")
        rows = (await self._call(lambda: self.api.get("/api/v1/audit", incident=incident_id)))["rows"]
        say(showing.audit_of_one(rows))
        actions = tuple(row["action"] for row in rows)
        _require(actions == AUDITED, f"the audit log says {', '.join(actions)}")
        approved = next(row for row in rows if row["action"] == "approval.approved")
        _require(approved["actor"].startswith("key:"), "the audit log does not say who approved")

    # --- what the parts are made of -----------------------------------------------------------------------------

    async def _posted(self, anomaly: Json) -> None:
        answer = await self._call(lambda: self.api.post("/api/v1/anomalies", anomaly))
        _require(answer["created"], "the anomaly did not start an incident")

    async def _alert(self, number: int) -> str:
        """Print the alert of that number, counted from 0, as the channel has it. Returns: its text."""
        await self._waited(lambda: _now(len(self.slack.alerts()) > number), "Slack did not get the alert")
        text = _text_of(self.slack.alerts()[number])
        say(showing.boxed(text, "red", CHANNEL))
        return text

    async def _replied(self, words: str) -> str:
        """Wait for a reply to the first alert that contains `words`. Returns: its text."""
        alert = self.slack.alerts()[0]

        def replies() -> list[str]:
            return [text for text in map(_text_of, self.slack.thread(alert)) if words in text]

        await self._waited(lambda: _now(bool(replies())), f"the thread does not say “{words}”")
        return replies()[0]

    def _show_thread(self) -> None:
        """Print the replies that are new, or have changed, since they were printed."""
        for reply in self.slack.thread(self.slack.alerts()[0]):
            text = _text_of(reply)
            if self.printed.get(reply.ts) != text:
                self.printed[reply.ts] = text
                say(showing.boxed(text, "yellow" if "Approval Required" in text else "bright_black"))

    async def _asked(self, incident_id: str) -> str:
        """What the reader answers here, or `elsewhere` once it was decided in another way. Raises: Failure."""
        say(Text.assemble(("Approve this step? ", "bold"), "a = approve, r = reject"))
        unlimited = float("inf")
        decided = asyncio.create_task(
            self._until(incident_id, lambda seen: not any(showing.open_approvals(seen)), "", seconds=unlimited)
        )
        try:
            while True:
                line = asyncio.create_task(_read_line())
                await asyncio.wait({line, decided}, return_when=asyncio.FIRST_COMPLETED)
                if decided.done():
                    line.cancel()
                    return _elsewhere(decided.result())
                match (await line).strip().lower():
                    case "a" | "approve" | "y" | "yes":
                        return "approve"
                    case "r" | "reject" | "n" | "no":
                        return "reject"
                    case _:
                        say("Please answer a or r.")
        finally:
            decided.cancel()

    async def _is_closed(self, incident_id: str) -> bool:
        """Whether the incident's workflow has ended: its memory is written then."""
        listed = await self._call(lambda: self.api.get("/api/v1/incidents", status=IncidentStatus.RESOLVED.value))
        return any(item["incident_id"] == incident_id and item["closed_at"] for item in listed["incidents"])

    async def _until(self, incident_id: str, holds: Callable[[Json], Any], otherwise: str, seconds: float = PART_SECONDS) -> Json:
        """The incident, once `holds`. Raises: Failure with `otherwise`."""
        seen: list[Json] = []

        async def holds_now() -> bool:
            story = await self._call(lambda: attempt(lambda: self.api.get(incident_path(incident_id))))
            seen[:] = [story] if story is not None else []
            return bool(story is not None and holds(story))

        await self._waited(holds_now, otherwise, seconds)
        return seen[0]

    async def _waited(self, holds: Callable[[], Any], otherwise: str, seconds: float = PART_SECONDS) -> None:
        deadline = time.monotonic() + seconds
        while not await holds():
            _require(time.monotonic() < deadline, otherwise)
            await asyncio.sleep(0.1)

    async def _call(self, request: Callable[[], _Answer]) -> _Answer:
        """In a thread, because the API that answers is in this very process."""
        return await asyncio.to_thread(request)

    def _part(self, what: str) -> None:
        self.parts += 1
        say()
        say(Rule(Text(f"{self.parts}  {what}", style="bold cyan"), align="left", style="bright_black"))

    def _command(self, line: str) -> None:
        say(Text(f"$ {line}", style="bold"))


async def _now(value: bool) -> bool:
    return value


def _elsewhere(story: Json) -> str:
    """Raises: Failure unless the step was approved."""
    approvals = [step["approval"] for run in story["runbooks"] for step in run["steps"] if step["approval"]]
    status = approvals[0]["status"] if approvals else "gone"
    if status != ApprovalStatus.APPROVED:
        raise Failure(f"The request was {status}, so nothing is scaled, and the story ends here.")
    say(f"Approved by {approvals[0]['decided_by']} from elsewhere.")
    return "elsewhere"


async def _read_line() -> str:
    """One line of the terminal. Raises: Failure when the input has ended.

    In a thread of its own that nothing waits for: it cannot be woken from reading.
    """
    loop = asyncio.get_running_loop()
    line: asyncio.Future[str | None] = loop.create_future()

    def deliver(text: str | None) -> None:
        if not line.done():
            line.set_result(text)

    def read() -> None:
        try:
            text: str | None = input("> ")
        except EOFError:
            text = None
        loop.call_soon_threadsafe(deliver, text)

    threading.Thread(target=read, daemon=True).start()
    text = await line
    if text is None:
        raise Failure("Nobody is there to approve: run it in a terminal, or `make demo YES=1`.")
    return text


def _text_of(posted: Posted) -> str:
    return to_text(posted.blocks)


def _require(happened: object, otherwise: str) -> None:
    if not happened:
        raise Failure(f"The demo did not go as it should: {otherwise}.")


def _passed(what: str) -> None:
    say(Text("✔ ", style="green").append_text(foreign(what)))


def _timestamp(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
