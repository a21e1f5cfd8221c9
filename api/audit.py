"""`GET /api/v1/audit`: who did what, when, on which surface, oldest first."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query

from activities.errors import OrchestratorError
from api.auth import may_read
from api.problems import unavailable
from api.services import Needed

router = APIRouter(dependencies=[Depends(may_read)])


@router.get("/api/v1/audit")
async def audit(
    needed: Needed,
    incident: Annotated[str | None, Query(min_length=1, max_length=300)] = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1_000,
) -> dict[str, Any]:
    """`{"rows": [...]}`: of one incident, or of all. 503 when ClickHouse does not answer. Rows arrive there within seconds."""
    try:
        rows = await needed.records.audit_rows(incident, limit)
    except OrchestratorError as error:
        raise unavailable(f"The audit log cannot be read now: {error}") from None
    return {"rows": [row.model_dump(mode="json") for row in rows]}
