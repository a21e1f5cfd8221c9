"""`/api/v1/runbooks`: the definitions as they are on disk now, and running one by hand; `/api/v1/runs`: all runs."""

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from pydantic import Field, StringConstraints

from api import reading
from api.auth import Operator, may_read
from api.bodies import json_body
from api.manual_runs import start_by_hand
from api.presenting import listed_run
from api.problems import Problem
from api.services import Needed, Services
from domain.base import Edge, Name
from domain.conditions import Scalar
from domain.incident import RunStatus
from domain.inputs import InputError, bind_inputs
from domain.library import LibraryError, library_of
from domain.runbook import Runbook

router = APIRouter(prefix="/api/v1")


class Run(Edge):
    """The body of a manual run."""

    service_id: Name
    environment: Name | None = None
    inputs: dict[str, str | int | float | bool] = Field(default_factory=dict[str, str | int | float | bool], max_length=50)
    dry_run: bool = False


@router.get("/runbooks", dependencies=[Depends(may_read)])
async def list_runbooks(needed: Needed) -> dict[str, Any]:
    """`{"runbooks": [...], "faults": [...]}`: the definitions, and one sentence for each file that does not load."""
    runbooks, faults = await asyncio.to_thread(needed.runbooks.load)
    return {"runbooks": [runbook.model_dump(mode="json") for runbook in runbooks], "faults": list(faults)}


@router.post("/runbooks/{name}/run", status_code=202)
async def run_runbook(
    name: Annotated[str, StringConstraints(max_length=100)],
    by: Operator,
    body: Annotated[Run, Depends(json_body(Run))],
    needed: Needed,
) -> dict[str, Any]:
    """202 `{"workflow_id"}` once Temporal has it; 404 when no such runbook loads."""
    runbook, inputs, library = await prepared(needed, name, body.inputs)
    workflow_id = await start_by_hand(
        needed.temporal,
        runbook,
        service_id=body.service_id,
        environment=body.environment,
        inputs=inputs,
        library=library,
        dry_run=body.dry_run,
        by=by,
        slack=needed.settings.slack_mode,
    )
    return {"workflow_id": workflow_id}


@router.get("/runs", dependencies=[Depends(may_read)])
async def list_runs(
    needed: Needed,
    status: RunStatus | None = None,
    runbook: Annotated[str | None, Query(min_length=1, max_length=200)] = None,
    service_id: Annotated[str | None, Query(min_length=1, max_length=200)] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> dict[str, Any]:
    """`{"runs": [...]}`, running ones first, those started by hand included: what a list of open approvals starts from."""
    found = await reading.list_runs(needed.temporal, status=status, runbook=runbook, service_id=service_id, limit=limit)
    return {"runs": [listed_run(item) for item in found]}


async def prepared(
    needed: Services, name: str, given: Mapping[str, Scalar]
) -> tuple[Runbook, dict[str, Scalar], dict[str, Runbook]]:
    """The definition of that name as it is now, its inputs bound, and what it calls.

    Raises Problem 404 that says what there is, 422 for inputs that do not fit or a called runbook that is not there.
    """
    runbooks, faults = await asyncio.to_thread(needed.runbooks.load)
    found = next((runbook for runbook in runbooks if runbook.name == name), None)
    if found is None:
        there = ", ".join(sorted(runbook.name for runbook in runbooks)[:20]) or "none"
        broken = f" {len(faults)} files do not load." if faults else ""
        raise Problem(404, f"There is no runbook {name}; there are: {there}.{broken}")
    try:
        return found, bind_inputs(found.inputs, given), library_of(found, runbooks)
    except (InputError, LibraryError) as error:
        raise Problem(422, f"{error}.") from error
