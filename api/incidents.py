"""`/api/v1/incidents`: list and show incidents, and act on them. `{id}` is an anomaly id, or the id of a run started by hand."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import Field, StringConstraints

from api import acting, reading
from api.acting import Asked, Target
from api.auth import Operator, may_read
from api.bodies import json_body
from api.inputs import Reason, ResolutionText
from api.presenting import listed_incident, presented
from api.services import Needed
from domain.approval import Choice
from domain.base import Edge, Name
from domain.incident import IncidentStatus

LIST_LIMIT = 500


class Resolve(Edge):
    text: ResolutionText


class Decide(Edge):
    decision: Literal["approve", "reject"]
    reason: Reason = ""
    runbook: Name | None = None
    step: Annotated[int, Field(ge=1, le=50)] | None = None
    """1-based."""
    digest: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None
    """Of the plan that was looked at (`approval.ref.digest`): given, the decision is about that plan or about nothing."""


class Halt(Edge):
    reason: Reason = ""
    runbook: Name | None = None


class Settle(Edge):
    choice: Literal["done", "retry", "halt"]
    runbook: Name | None = None
    step: Annotated[int, Field(ge=1, le=50)] | None = None


async def asked(by: Operator) -> Asked:
    """Who asks, and when: a decision counts by that, so routes name it before their body, whose arrival may take its time."""
    return Asked(by=by, received_at=datetime.now(UTC))


Wanted = Annotated[Asked, Depends(asked)]

router = APIRouter(prefix="/api/v1/incidents")


@router.get("", dependencies=[Depends(may_read)])
async def list_incidents(
    needed: Needed,
    status: IncidentStatus | None = None,
    service_id: Annotated[str | None, Query(min_length=1, max_length=200)] = None,
    limit: Annotated[int, Query(ge=1, le=LIST_LIMIT)] = 100,
) -> dict[str, Any]:
    """`{"incidents": [...]}`, open ones first, newest first. Follows a change within about a second."""
    found = await reading.list_incidents(needed.temporal, status=status, service_id=service_id, limit=limit)
    return {"incidents": [listed_incident(item) for item in found]}


@router.post("/{id:path}/resolve", status_code=202)
async def resolve(id: str, wanted: Wanted, body: Annotated[Resolve, Depends(json_body(Resolve))], needed: Needed) -> dict[str, Any]:
    """202 once Temporal has it; 404 unknown; 409 already resolved (by whom and when), or closed."""
    await acting.resolve(needed.temporal, id, body.text, wanted)
    return {"incident_id": id}


@router.post("/{id:path}/decision", status_code=202)
async def decide(id: str, wanted: Wanted, body: Annotated[Decide, Depends(json_body(Decide))], needed: Needed) -> dict[str, Any]:
    """202 once Temporal has it: the run judges it then. 404 unknown; 409 nothing open, several open, or planned anew meanwhile."""
    choice = Choice.APPROVE if body.decision == "approve" else Choice.REJECT
    target = Target(runbook=body.runbook, step=body.step, digest=body.digest)
    run, step = await acting.decide(needed.temporal, id, choice, body.reason, target, wanted)
    return {
        "incident_id": id,
        "workflow_id": run.workflow_id,
        "runbook": run.name,
        "step": step.index,
        "summary": step.summary,
        "decision": body.decision,
    }


@router.post("/{id:path}/acknowledge", status_code=202)
async def acknowledge(id: str, wanted: Wanted, needed: Needed) -> dict[str, Any]:
    """202 once Temporal has it; takes no body."""
    await acting.acknowledge(needed.temporal, id, wanted)
    return {"incident_id": id}


@router.post("/{id:path}/halt", status_code=202)
async def halt(
    id: str, wanted: Wanted, body: Annotated[Halt, Depends(json_body(Halt, optional=True))], needed: Needed
) -> dict[str, Any]:
    """Stop the incident's runs, or the one named, before their next step. 409 when none runs."""
    runbooks = await acting.halt(needed.temporal, id, body.reason, body.runbook, wanted)
    return {"incident_id": id, "runbooks": runbooks}


@router.post("/{id:path}/settle", status_code=202)
async def settle(id: str, wanted: Wanted, body: Annotated[Settle, Depends(json_body(Settle))], needed: Needed) -> dict[str, Any]:
    """Say how a step of unknown outcome stands: it was done, it is to be tried again, or the run is to halt."""
    target = Target(runbook=body.runbook, step=body.step)
    run, step = await acting.settle(needed.temporal, id, body.choice, target, wanted)
    return {
        "incident_id": id,
        "workflow_id": run.workflow_id,
        "runbook": run.name,
        "step": step.index,
        "choice": body.choice,
    }


@router.get("/{id:path}", dependencies=[Depends(may_read)])
async def show(id: str, needed: Needed) -> dict[str, Any]:
    """Everything about one incident. 404 unknown; 503 when no worker answers."""
    story = await reading.look(needed.temporal, id)
    return presented(story, needed.settings.severity_bands, needed.surroundings)
