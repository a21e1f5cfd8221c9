"""`POST /api/v1/anomalies`: a detector reports; a 2xx means that Temporal has it."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response

from api.auth import may_ingest
from api.bodies import json_body
from api.intake import Intake, take_in
from api.problems import Problem
from api.services import Needed
from domain.anomaly import AnomalyReport
from workflows.ids import incident_workflow_id

router = APIRouter(dependencies=[Depends(may_ingest)])


@router.post("/api/v1/anomalies")
async def post_anomaly(
    report: Annotated[AnomalyReport, Depends(json_body(AnomalyReport))], needed: Needed, response: Response
) -> dict[str, Any]:
    """202 for a new anomaly, 200 for the same again, 409 for another under a known id, 503 when Temporal does not take it."""
    anomaly = report.to_anomaly()
    intake = await take_in(needed.temporal, anomaly, needed.settings.severity_bands)
    needed.metrics.anomalies.labels("api", intake.value).inc()
    if intake is Intake.CONFLICT:
        raise Problem(
            409, f"The id {anomaly.anomaly_id} belongs to an anomaly with other content: post this one under an id of its own."
        )
    created = intake is Intake.CREATED
    response.status_code = 202 if created else 200
    return {
        "anomaly_id": anomaly.anomaly_id,
        "workflow_id": incident_workflow_id(anomaly.anomaly_id),
        "created": created,
    }
