"""What the routes work with, carried in `app.state`: clients and settings, no state beyond them."""

from dataclasses import dataclass
from typing import Annotated, Protocol

from fastapi import Depends, Request

from activities.messages.parts import Surroundings
from api.metrics import Metrics
from api.temporal import TemporalAccess
from domain.audit import AuditEvent
from domain.runbook import Runbook
from domain.settings import Settings


class AuditReader(Protocol):
    """Where audit rows are read. Raises activities.errors.OrchestratorError when ClickHouse does not answer."""

    async def audit_rows(self, incident_id: str | None, limit: int) -> list[AuditEvent]: ...


class RunbookSource(Protocol):
    """Where runbook definitions are read, anew each time. Blocking: it reads files."""

    def load(self) -> tuple[tuple[Runbook, ...], tuple[str, ...]]:
        """Returns: the runbooks, and one sentence for each file that does not load."""
        ...


@dataclass(frozen=True)
class Services:
    settings: Settings
    temporal: TemporalAccess
    records: AuditReader
    runbooks: RunbookSource
    surroundings: Surroundings
    metrics: Metrics


async def services(request: Request) -> Services:
    """The services of the app that answers."""
    return request.app.state.services


Needed = Annotated[Services, Depends(services)]
