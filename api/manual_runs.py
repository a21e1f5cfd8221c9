"""Starting a runbook by hand: a run of its own, `manual/<runbook>/<n>`, with the next free number."""

from collections.abc import Mapping

from temporalio.common import SearchAttributePair

from api.problems import unavailable
from api.temporal import INTAKE_SECONDS, RUN, TemporalAccess, within
from api.visibility import quoted, service_attribute
from domain.base import Actor
from domain.expressions import Scalar
from domain.incident import RunbookInput, RunStatus, SlackMode
from domain.runbook import Runbook
from workflows import search
from workflows.ids import manual_workflow_id

NUMBERS_TRIED = 100
"""Each start that finds its number taken costs about 5 ms: this many people at once may start the same runbook."""


async def start_by_hand(
    temporal: TemporalAccess,
    runbook: Runbook,
    *,
    service_id: str,
    environment: str | None,
    inputs: Mapping[str, Scalar],
    library: dict[str, Runbook],
    dry_run: bool,
    by: Actor,
    slack: SlackMode,
) -> str:
    """Start a run with bound `inputs`, and with the `library` of what it calls.

    Returns: the workflow id, once Temporal has the run.

    Raises TemporalUnavailable after 5 s in all, Problem 422 for a name that is too long.
    Not idempotent: asking again may start a second run, so it is never retried here.
    """
    names: dict[str, Scalar] = {**inputs, "service_id": service_id, "environment": environment}
    attributes = [
        service_attribute(service_id),
        SearchAttributePair(search.RUNBOOK, runbook.name),
        SearchAttributePair(search.STATUS, RunStatus.RUNNING.value),
    ]
    async with within(INTAKE_SECONDS):
        # Counting is only a guess (it lags, and Temporal forgets old runs); the start itself tells whether the number is free.
        prefix = manual_workflow_id(runbook.name, 0).removesuffix("0")
        first = 1 + await temporal.count(f"WorkflowId STARTS_WITH {quoted(prefix)}")
        for number in range(first, first + NUMBERS_TRIED):
            workflow_id = manual_workflow_id(runbook.name, number)
            run = RunbookInput(
                incident_id=workflow_id,
                runbook=runbook,
                service_id=service_id,
                environment=environment,
                names=names,
                library=library,
                started_by=by,
                slack=slack,
                dry_run=dry_run,
            )
            summary = f"{runbook.name} on {service_id}, by {by.name}"
            if await temporal.start(RUN, run, workflow_id=workflow_id, attributes=attributes, summary=summary):
                return workflow_id
    raise unavailable(f"{NUMBERS_TRIED} other runs of {runbook.name} were being started at the same time: try again.")
