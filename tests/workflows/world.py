"""The world as workflow tests see it: every activity of the orchestrator, recorded, with outcomes the test chooses."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from temporalio import activity

from activities.errors import OrchestratorError, to_application_error
from domain.anomaly import Anomaly, Severity
from domain.approval import ApprovalRef, Choice, Decision, ReplyTo
from domain.audit import AuditEvent, RecordBatch, RunbookExecution
from domain.base import Actor, Source
from domain.incident import (
    RememberRequest,
    SlackMode,
    StepRequest,
    Triage,
    TriageRequest,
    UndoRequest,
    Verdict,
)
from domain.narration import Delivered, Delivery, DeliveryReport, Post, PostedMessage, Telling
from domain.plan import StepPlan, StepResult, Undo
from domain.runbook import Runbook, load_runbook

ADA = Actor(id="U0ADA", name="ada", source=Source.SLACK)
BOB = Actor(id="U0BOB", name="bob", source=Source.SLACK)


def an_anomaly(anomaly_id: str, **overrides: Any) -> Anomaly:
    values: dict[str, Any] = {
        "anomaly_id": anomaly_id,
        "service_id": "payment-api",
        "environment": "production",
        "metric_name": "cpu_usage_percent",
        "anomaly_score": 0.93,
        "timestamp": datetime(2026, 4, 10, 12, 0, 5, tzinfo=UTC),
    }
    return Anomaly(**{**values, **overrides})


def scale_runbook(**overrides: Any) -> Runbook:
    """The seed's story: a message, an approved scale, a closing message."""
    definition: dict[str, Any] = {
        "name": "scale-out-payment-api",
        "trigger": {"service_id": "payment-api"},
        "steps": [
            {"type": "slack", "message": "Scaling payment-api"},
            {
                "type": "kubernetes",
                "action": "scale",
                "namespace": "production",
                "deployment": "payment-api",
                "replicas": 5,
                "require_approval": True,
                "approval_timeout_minutes": 10,
            },
            {"type": "slack", "message": "payment-api scaled"},
        ],
        "rollback_on_failure": True,
    }
    return load_runbook({**definition, **overrides})


@dataclass
class World:
    """What happened, and what shall happen. Behaviours are plain functions; raising an OrchestratorError fails the attempt."""

    runbooks: tuple[Runbook, ...] = ()
    slack: SlackMode = SlackMode.BOT
    verdict: Verdict = Verdict(alert=True)
    triage_overrides: dict[str, Any] = field(default_factory=dict)
    replicas: int = 3
    events: list[AuditEvent] = field(default_factory=list)
    executions: list[RunbookExecution] = field(default_factory=list)
    remembered: list[RememberRequest] = field(default_factory=list)
    tellings: list[Telling] = field(default_factory=list)
    executed: list[int] = field(default_factory=list)
    undone: list[int] = field(default_factory=list)
    attempts: int = 0
    on_execute: Callable[[StepRequest], StepResult | None] = lambda request: None
    on_undo: Callable[[UndoRequest], None] = lambda request: None
    on_deliver: Callable[[Delivery], None] = lambda delivery: None
    on_append: Callable[[RecordBatch], None] = lambda batch: None
    _posts: int = 0

    @property
    def activities(self) -> list[Callable[..., Any]]:
        return [self.triage, self.append, self.remember, self.deliver, self.plan, self.execute, self.undo]

    @property
    def actions(self) -> list[str]:
        return [event.action.value for event in self.events]

    def said(self) -> list[str]:
        """Everything told to Slack as text, in order."""
        return [telling.model_dump_json() for telling in self.tellings]

    @activity.defn(name="incident.triage")
    async def triage(self, request: TriageRequest) -> Triage:
        values: dict[str, Any] = {
            "severity": Severity.CRITICAL,
            "verdict": self.verdict,
            "runbooks": self.runbooks,
            "slack": self.slack,
        }
        return Triage(**{**values, **self.triage_overrides})

    @activity.defn(name="records.append")
    async def append(self, batch: RecordBatch) -> None:
        self._try(lambda: self.on_append(batch))
        self.events += batch.audit
        self.executions += batch.executions

    @activity.defn(name="records.remember")
    async def remember(self, request: RememberRequest) -> None:
        self.remembered.append(request)

    @activity.defn(name="slack.deliver")
    async def deliver(self, delivery: Delivery) -> DeliveryReport:
        self._try(lambda: self.on_deliver(delivery))
        outcomes: list[Delivered] = []
        for telling in delivery.tellings:
            self.tellings.append(telling)
            posted = None
            if isinstance(telling, Post) and self.slack is SlackMode.BOT:
                self._posts += 1
                posted = PostedMessage(channel="C0OPS", ts=f"{self._posts}.0")
            outcomes.append(Delivered(posted=posted))
        return DeliveryReport(outcomes=tuple(outcomes))

    @activity.defn(name="step.plan")
    async def plan(self, request: StepRequest) -> StepPlan:
        return StepPlan(
            title=request.step.title,
            change=f"replicas {self.replicas} → 5",
            request={"number": request.number},
            observed={"replicas": self.replicas},
        )

    @activity.defn(name="step.execute")
    async def execute(self, request: StepRequest) -> StepResult:
        self.attempts += 1
        result = self._try(lambda: self.on_execute(request))
        self.executed.append(request.number)
        if result is not None:
            return result
        if request.step.type == "kubernetes":
            before, self.replicas = self.replicas, 5
            undo = Undo(title=f"Scale back to {before}", request={"to": before})
            return StepResult(summary=f"scaled from {before} to 5", undo=undo)
        return StepResult(summary=f"step {request.number} done")

    @activity.defn(name="step.undo")
    async def undo(self, request: UndoRequest) -> StepResult:
        self._try(lambda: self.on_undo(request))
        self.undone.append(request.number)
        return StepResult(summary=f"took back step {request.number}")

    @staticmethod
    def _try(behaviour: Callable[[], Any]) -> Any:
        try:
            return behaviour()
        except OrchestratorError as error:
            raise to_application_error(error) from None


def decision(choice: Choice, ref: ApprovalRef, *, by: Actor = ADA, at: datetime | None = None, reason: str = "") -> Decision:
    return Decision(
        choice=choice,
        ref=ref,
        by=by,
        received_at=at or datetime.now(UTC),
        reason=reason,
        reply_to=ReplyTo(channel="C0OPS", user=by.id),
    )


async def eventually(probe: Callable[[], Any], *, within: timedelta = timedelta(seconds=20)) -> Any:
    """Ask `probe` (sync or async) until it answers something true. Raises AssertionError when the time is over."""
    deadline = asyncio.get_running_loop().time() + within.total_seconds()
    while True:
        value = probe()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return value
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError("it did not become true in time")
        await asyncio.sleep(0.02)
