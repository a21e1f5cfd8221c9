"""What the tests of steps share: requests, an activity context with an attempt number, and an adder-up of failures."""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import pytest
from pydantic import TypeAdapter
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.clients.web import WebClient, system_trust
from activities.secrets import Secrets
from activities.steps import StepActivities, build_step_types
from activities.steps.http import WebPort
from activities.steps.kubernetes import ClusterPort
from activities.steps.slack import MessagePort
from domain.expressions import Scalar
from domain.incident import StepRequest, UndoRequest
from domain.narration import PostedMessage
from domain.plan import StepPlan, StepResult, Undo
from domain.runbook import Step

WORKFLOW_ID = "anom-7f3d/scale-out-payment-api"
NAMES: Mapping[str, Scalar] = {
    "anomaly_id": "anom-7f3d",
    "service_id": "payment-api",
    "environment": "production",
    "anomaly_score": 0.93,
    "root_cause": "CPU saturation from DB connection pool exhaustion.",
    "metric_value": None,
}
QUICK = timedelta(milliseconds=10)
TRUST = system_trust()  # once: it reads every authority of the system
LOOPBACK_WEB = WebClient([], allow_loopback=True, tls=TRUST)

_Answer = TypeVar("_Answer")


def a_step(**keys: Any) -> Step:
    return TypeAdapter[Step](Step).validate_python(keys)


def a_scale(**keys: Any) -> Step:
    defaults = {"type": "kubernetes", "action": "scale", "namespace": "production", "deployment": "payment-api", "replicas": 5}
    return a_step(**{**defaults, **keys})


def a_request(
    step: Step,
    *,
    names: Mapping[str, Scalar] = NAMES,
    number: int = 2,
    workflow_id: str = WORKFLOW_ID,
    thread: PostedMessage | None = None,
    plan: StepPlan | None = None,
    approved_digest: str | None = None,
) -> StepRequest:
    return StepRequest(
        workflow_id=workflow_id,
        incident_id="anom-7f3d",
        runbook="scale-out-payment-api",
        number=number,
        step=step,
        names=dict(names),
        fixed_at=datetime(2026, 4, 10, 12, 0, 5, tzinfo=UTC),
        thread=thread,
        plan=plan,
        approved_digest=approved_digest,
    )


def an_undo_request(step: Step, undo: Undo) -> UndoRequest:
    return UndoRequest(
        workflow_id=WORKFLOW_ID,
        incident_id="anom-7f3d",
        runbook="scale-out-payment-api",
        number=2,
        step=step,
        undo=undo,
        names=dict(NAMES),
    )


def with_plan(request: StepRequest, plan: StepPlan, *, approved: bool = False) -> StepRequest:
    return request.model_copy(update={"plan": plan, "approved_digest": plan.digest if approved else None})


def step_activities(
    *,
    slack: MessagePort | None = None,
    web: WebPort | None = None,
    cluster: ClusterPort | None = None,
    secrets: Secrets | None = None,
) -> StepActivities:
    known = secrets or Secrets({})
    types = build_step_types(slack=slack, web=web or LOOPBACK_WEB, cluster=cluster, secrets=known)
    return StepActivities(types, known, heartbeat_interval=QUICK)


class Attempt:
    """One attempt of an activity; `heartbeats` is what it said meanwhile."""

    def __init__(self, number: int = 1) -> None:
        self.heartbeats: list[tuple[Any, ...]] = []
        self.environment = ActivityEnvironment()
        self.environment.info = dataclasses.replace(self.environment.info, attempt=number)
        self.environment.on_heartbeat = lambda *details: self.heartbeats.append(details)

    async def run(self, activity: Callable[[Any], Awaitable[_Answer]], argument: Any) -> _Answer:
        return await self.environment.run(activity, argument)


async def attempt(activity: Callable[[Any], Awaitable[_Answer]], argument: Any, *, number: int = 1) -> _Answer:
    return await Attempt(number).run(activity, argument)


async def failure_of(work: Awaitable[object]) -> ApplicationError:
    """The ApplicationError that `work` ends with; nothing else will do."""
    with pytest.raises(ApplicationError) as caught:
        await work
    return caught.value


async def run_step(activities: StepActivities, request: StepRequest) -> StepResult:
    """Plan, approve and execute, as a workflow does with a step that asks."""
    plan = await attempt(activities.plan, request)
    return await attempt(activities.execute, with_plan(request, plan, approved=True))


async def eventually(holds: Callable[[], bool], *, seconds: float = 10) -> None:
    """Poll until `holds`; AssertionError at the deadline."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not holds():
        assert loop.time() < deadline, "it did not come to pass in time"
        await asyncio.sleep(0.005)
