"""The world as workflow tests see it: every activity of the orchestrator, recorded, with outcomes the test chooses."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import uuid4

from temporalio import activity
from temporalio.client import Client, WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from activities.errors import OrchestratorError, to_application_error
from domain.anomaly import Anomaly, Severity
from domain.approval import ApprovalRef, Choice, Decision, ReplyTo
from domain.audit import AuditEvent, RecordBatch, RunbookExecution
from domain.base import Actor, Source
from domain.expressions import names_of
from domain.incident import (
    IncidentInput,
    IncidentView,
    RememberRequest,
    ResolveRequest,
    RunbookInput,
    RunbookResult,
    RunbookView,
    RunStatus,
    SlackMode,
    StepRequest,
    Triage,
    TriageRequest,
    UndoRequest,
    Verdict,
)
from domain.narration import Alert, Delivered, Delivery, DeliveryReport, Post, PostedMessage, Telling
from domain.paging import PageResolve
from domain.plan import StepPlan, StepResult, Undo
from domain.runbook import Runbook, load_runbook
from workflows.connection import orchestrator_worker
from workflows.incident import IncidentWorkflow
from workflows.runbook import RunbookWorkflow

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


def hasty(*, minutes: float) -> Runbook:
    """The seed's story with a short patience."""
    steps = [step.model_copy(update={"approval_timeout_minutes": minutes}) for step in scale_runbook().steps]
    return scale_runbook().model_copy(update={"steps": tuple(steps)})


@dataclass
class World:
    """What happened, and what shall happen. Behaviours are plain functions; raising an OrchestratorError fails the attempt."""

    runbooks: tuple[Runbook, ...] = ()
    slack: SlackMode = SlackMode.BOT
    verdict: Verdict = field(default_factory=lambda: Verdict(alert=True))
    triage_overrides: dict[str, Any] = field(default_factory=dict)
    replicas: int = 3
    events: list[AuditEvent] = field(default_factory=list)
    executions: list[RunbookExecution] = field(default_factory=list)
    remembered: list[RememberRequest] = field(default_factory=list)
    tellings: list[Telling] = field(default_factory=list)
    pages_resolved: list[str] = field(default_factory=list)
    executed: list[int] = field(default_factory=list)
    undone: list[int] = field(default_factory=list)
    attempts: int = 0
    on_execute: Callable[[StepRequest], StepResult | None] = lambda request: None
    on_undo: Callable[[UndoRequest], None] = lambda request: None
    on_deliver: Callable[[Delivery], None] = lambda delivery: None
    on_append: Callable[[RecordBatch], None] = lambda batch: None
    refusal: str | None = None
    """What Slack says of every alert, if it refuses them."""
    execute_delay: timedelta = timedelta(0)
    _posts: int = 0

    @property
    def activities(self) -> list[Callable[..., Any]]:
        return [self.triage, self.append, self.remember, self.deliver, self.plan, self.execute, self.undo, self.resolve_page]

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

    @activity.defn(name="page.resolve")
    async def resolve_page(self, request: PageResolve) -> None:
        self.pages_resolved.append(request.incident_id)

    @activity.defn(name="slack.deliver")
    async def deliver(self, delivery: Delivery) -> DeliveryReport:
        self._try(lambda: self.on_deliver(delivery))
        outcomes: list[Delivered] = []
        for telling in delivery.tellings:
            self.tellings.append(telling)
            posted = None
            if self.refusal and isinstance(telling, Post) and isinstance(telling.message, Alert):
                outcomes.append(Delivered(error=self.refusal))
                continue
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
        deadline = asyncio.get_running_loop().time() + self.execute_delay.total_seconds()
        while asyncio.get_running_loop().time() < deadline:
            activity.heartbeat()
            await asyncio.sleep(0.1)
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


class Stage:
    """One test's worker on a task queue of its own, and the handles to what it plays."""

    def __init__(self, client: Client, *, environment: WorkflowEnvironment | None = None, **worker_options: Any) -> None:
        self.client = client
        self.world = World()
        self._environment = environment
        self.queue = f"stage-{uuid4().hex[:8]}"
        self._options = worker_options
        self._worker: Worker | None = None
        self._started: list[WorkflowHandle[Any, Any]] = []

    async def __aenter__(self) -> "Stage":
        await self.start_worker()
        return self

    async def __aexit__(self, *_: object) -> None:
        # A workflow that waits for a worker which is gone would keep the time-skipping server's clock still for later tests.
        for handle in self._started:
            with contextlib.suppress(RPCError):
                await handle.terminate("the test is over")
        await self.stop_worker()

    async def start_worker(self) -> None:
        worker = orchestrator_worker(
            self.client,
            self.world.activities,
            task_queue=self.queue,
            graceful_shutdown_timeout=timedelta(0),
            **self._options,
        )
        await worker.__aenter__()
        self._worker = worker

    async def stop_worker(self) -> None:
        if self._worker is not None:
            worker, self._worker = self._worker, None
            await worker.__aexit__(None, None, None)

    @property
    def skips_time(self) -> bool:
        return self._environment is not None

    async def now(self) -> datetime:
        """The server's time, which runs ahead where time is skipped."""
        return await self._environment.get_current_time() if self._environment else datetime.now(UTC)

    async def pass_time(self, duration: timedelta) -> None:
        """Let the server's clock run ahead; the worker must be up."""
        assert self._environment is not None
        await self._environment.sleep(duration)

    async def incident(self, **overrides: Any) -> "IncidentOnStage":
        anomaly = an_anomaly(f"anom-{uuid4().hex[:8]}", **overrides)
        handle = await self.client.start_workflow(
            IncidentWorkflow.run, IncidentInput(anomaly=anomaly), id=anomaly.anomaly_id, task_queue=self.queue
        )
        self._started.append(handle)
        self._started += [self.client.get_workflow_handle(f"{handle.id}/{book.name}") for book in self.world.runbooks]
        return IncidentOnStage(self, handle)

    async def run(self, runbook: Runbook | None = None, **overrides: Any) -> "RunOnStage":
        name = f"anom-{uuid4().hex[:8]}"
        values: dict[str, Any] = {
            "incident_id": name,
            "runbook": runbook or scale_runbook(),
            "service_id": "payment-api",
            "environment": "production",
            "names": names_of(an_anomaly(name), Severity.CRITICAL),
            "slack": self.world.slack,
            "thread": PostedMessage(channel="C0OPS", ts="0.1"),
        }
        handle = await self.client.start_workflow(
            RunbookWorkflow.run,
            RunbookInput(**{**values, **overrides}),
            id=f"{name}/{(runbook or scale_runbook()).name}",
            task_queue=self.queue,
        )
        self._started.append(handle)
        return RunOnStage(self, handle)


ViewModel = TypeVar("ViewModel", RunbookView, IncidentView)


async def _view(handle: WorkflowHandle[Any, Any], model: type[ViewModel]) -> ViewModel:
    """Query, and again when the time-skipping server lost the query to a task that was under way (it then waits 10 s)."""
    for _ in range(20):
        try:
            return await handle.query("view", result_type=model, rpc_timeout=timedelta(seconds=1))
        except RPCError as error:
            if error.status not in (RPCStatusCode.DEADLINE_EXCEEDED, RPCStatusCode.CANCELLED, RPCStatusCode.NOT_FOUND):
                raise
            await asyncio.sleep(0.05)
    raise AssertionError(f"{handle.id} does not answer")


@dataclass
class RunOnStage:
    stage: Stage
    handle: WorkflowHandle[Any, RunbookResult]

    async def view(self) -> RunbookView:
        return await _view(self.handle, RunbookView)

    async def when(self, status: RunStatus) -> RunbookView:
        """Wait until the run has that status."""
        found: list[RunbookView] = []

        async def reached() -> bool:
            found[:] = [await self.view()]
            return found[0].status is status

        await eventually(reached)
        return found[0]

    async def noted(self, action: str) -> None:
        """Wait until an audit row of that action is written."""
        await eventually(lambda: action in self.stage.world.actions)

    async def open_request(self, step: int = 2, round: int = 1) -> ApprovalRef:
        """Wait until the step asks for approval, in that round, and its clock runs."""
        if self.stage.skips_time:
            return await self._recorded_request(step, round)
        found: list[ApprovalRef] = []

        async def asked() -> bool:
            approval = (await self.view()).steps[step - 1].approval
            if approval is None or approval.ref.round != round or approval.deadline_at is None:
                return False
            found[:] = [approval.ref]
            return True

        await eventually(asked)
        return found[0]

    async def _recorded_request(self, step: int, round: int) -> ApprovalRef:
        """From the audit row, without a query: the time-skipping server may lose the task that a query meets (it waits 10 s)."""
        incident_id = self.handle.id.partition("/")[0]

        def asked() -> AuditEvent | None:
            for event in self.stage.world.events:
                wanted = ("approval.requested", incident_id, step, round)
                found = (event.action, event.incident_id, event.step, event.detail.get("round"))
                if found == wanted and self.handle.id.endswith(event.runbook):
                    return event
            return None

        event = await eventually(asked)
        return ApprovalRef(step=step, round=round, digest=event.detail["digest"])

    async def decide(self, choice: Choice, ref: ApprovalRef, **values: Any) -> None:
        values.setdefault("at", await self.stage.now())
        await self.handle.signal("decide", decision(choice, ref, **values))

    async def result(self) -> RunbookResult:
        """The end of the run. Time is skipped only for a run that the test started itself; a child needs `pass_time`."""
        return await asyncio.wait_for(self.handle.result(), 60)


@dataclass
class IncidentOnStage:
    stage: Stage
    handle: WorkflowHandle[Any, IncidentView]

    async def view(self) -> IncidentView:
        return await _view(self.handle, IncidentView)

    async def run(self, name: str = "scale-out-payment-api") -> RunOnStage:
        """Wait until the incident started that run."""

        handle = self.stage.client.get_workflow_handle(f"{self.handle.id}/{name}", result_type=RunbookResult)

        async def started() -> bool:
            try:
                return bool(await handle.describe())
            except RPCError as error:
                if error.status is not RPCStatusCode.NOT_FOUND:
                    raise
                return False

        await eventually(started)
        return RunOnStage(self.stage, handle)

    async def resolve(self, text: str = "Scaled from 3 to 5 pods", **values: Any) -> None:
        request = ResolveRequest(text=text, **{"by": ADA, "received_at": await self.stage.now(), **values})
        await self.handle.signal("resolve", request)

    async def result(self) -> IncidentView:
        return await asyncio.wait_for(self.handle.result(), 60)
