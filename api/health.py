"""`/healthz`, `/readyz` and `/metrics`: for probes and scrapers, without a key; they show no name and no id."""

from fastapi import APIRouter, Response

from api.metrics import CONTENT_TYPE
from api.problems import unavailable
from api.services import Needed

router = APIRouter()


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """200 as long as the process answers at all."""
    return {"status": "ok"}


@router.get("/readyz")
async def readyz(needed: Needed) -> dict[str, str]:
    """200 when Temporal answers within 2 s, else 503: then nothing that is posted here could be kept."""
    if not await needed.temporal.is_ready():
        raise unavailable("Temporal does not answer.")
    return {"status": "ready"}


@router.get("/metrics")
async def metrics(needed: Needed) -> Response:
    """Prometheus text."""
    return Response(needed.metrics.text(), media_type=CONTENT_TYPE)
