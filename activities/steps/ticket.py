"""The step type `ticket`: one ticket in Jira for an incident, however often it is asked for.

Jira knows no idempotency key, so the ticket carries a label by which it is found again. A create whose answer got lost is looked
for and never repeated. Its search lags behind by seconds, so after a lost attempt it is asked several times; only an attempt that
is known to have made nothing, because it left word of that in its last heartbeat, is followed by a create.
"""

import asyncio
from datetime import timedelta
from typing import Any, ClassVar, Protocol

from temporalio import activity

from activities.errors import InvalidStep, NotConfigured, OutcomeUnknown, TransientError, clip
from activities.steps.base import CHANGE_LIMIT_CHARACTERS, cannot_be_undone, plan_of, read_as, step_of
from activities.steps.heartbeat import say
from domain import expressions, tickets
from domain.incident import StepRequest, UndoRequest
from domain.plan import Fact, StepPlan, StepResult
from domain.runbook import TicketStep
from domain.tickets import Ticket, TicketDraft

SEARCH_PAUSES = tuple(timedelta(seconds=seconds) for seconds in (1, 2, 4, 8))
"""Before further looks for a ticket that may just have been made; new tickets are found after some seconds."""


def nothing_was_made(attempt: int) -> str:
    """Last heartbeat of an attempt that failed and certainly made no ticket; it names the attempt, so that no other goes by it."""
    return f"no ticket was made in attempt {attempt}"


class TicketPort(Protocol):
    """Where tickets are."""

    @property
    def project_key(self) -> str: ...

    async def find(self, label: str) -> Ticket | None:
        """The ticket with the label; one made some seconds ago may be missed. Raises: Unreachable, RateLimited, Refused."""
        ...

    async def create(self, draft: TicketDraft) -> Ticket:
        """Make one. Raises: Unreachable, RateLimited, Refused when none was made; OutcomeUnknown when that is not known."""
        ...


class TicketSteps:
    """Found before it is made, in every attempt."""

    type: ClassVar[str] = "ticket"

    def __init__(
        self, tracker: TicketPort | None, console_url: str, *, search_pauses: tuple[timedelta, ...] = SEARCH_PAUSES
    ) -> None:
        """`console_url`: INFRASAGE_URL, for the link in the ticket."""
        self._tracker = tracker
        self._console_url = console_url
        self._search_pauses = search_pauses

    def render(self, request: StepRequest) -> dict[str, Any]:
        return self._draft(request).model_dump(mode="json")

    async def plan(self, request: StepRequest) -> StepPlan:
        draft, tracker = self._draft(request), self._configured()
        return StepPlan(
            title="Create a Jira ticket",
            change=f"one ticket in the project {tracker.project_key}, unless the incident has one",
            facts=(Fact(label="Summary", value=clip(draft.summary, CHANGE_LIMIT_CHARACTERS)),),
            request=draft.model_dump(mode="json"),
        )

    async def execute(self, request: StepRequest) -> StepResult:
        """Find the ticket of the incident, or make it. Raises: OutcomeUnknown where one may be there that cannot be found."""
        step_of(request, TicketStep)
        draft = read_as(TicketDraft, plan_of(request).request, f"the plan of step {request.number}")
        tracker, info = self._configured(), activity.info()
        may_be_there = info.attempt > 1 and nothing_was_made(info.attempt - 1) not in info.heartbeat_details
        deadline = asyncio.get_running_loop().time() + request.step.timeout_seconds
        try:
            found = await (self._look_for(tracker, draft.label, deadline) if may_be_there else tracker.find(draft.label))
            if found is not None:
                return _result(found, "is there already", repeated=True)
            if may_be_there:
                raise OutcomeUnknown(
                    f"an earlier attempt to create a ticket was lost, and none with the label {draft.label} is found:"
                    " look in Jira before trying again"
                )
            return _result(await self._made(tracker, draft, deadline), "created", repeated=False)
        except TransientError:
            if not may_be_there:
                say(nothing_was_made(info.attempt))
            raise

    async def undo(self, request: UndoRequest) -> StepResult:
        raise cannot_be_undone(request)

    async def _made(self, tracker: TicketPort, draft: TicketDraft, deadline: float) -> Ticket:
        """Create it; if the answer is lost, find out what became of it."""
        try:
            return await tracker.create(draft)
        except OutcomeUnknown as error:
            lost = error
        try:
            found = await self._look_for(tracker, draft.label, deadline)
        except TransientError:
            found = None
        if found is None:
            raise OutcomeUnknown(f"{lost}; no ticket with the label {draft.label} is found yet: look in Jira before trying again")
        return found

    async def _look_for(self, tracker: TicketPort, label: str, deadline: float) -> Ticket | None:
        """Look for a ticket that may have been made some seconds ago; no pause ends after `deadline`, in the loop's time."""
        found = await tracker.find(label)
        for pause in self._search_pauses:
            if found is not None or asyncio.get_running_loop().time() + pause.total_seconds() > deadline:
                break
            await asyncio.sleep(pause.total_seconds())
            found = await tracker.find(label)
        return found

    def _draft(self, request: StepRequest) -> TicketDraft:
        step, anomaly = step_of(request, TicketStep), request.anomaly
        service = anomaly.service_id if anomaly else request.names.get("service_id")
        environment = anomaly.environment if anomaly else request.names.get("environment")
        if not isinstance(service, str) or not service:
            raise InvalidStep(f"step {request.number} cannot create a ticket: its run knows no service")
        return tickets.draft(
            incident_id=request.incident_id,
            service_id=service,
            environment=environment if isinstance(environment, str) else None,
            summary=None if step.summary is None else expressions.render(step.summary, request.names),
            description=None if step.description is None else expressions.render(step.description, request.names),
            anomaly=anomaly,
            console_url=self._console_url,
        )

    def _configured(self) -> TicketPort:
        if self._tracker is None:
            raise NotConfigured(
                "tickets are not configured: JIRA_URL, JIRA_USER, JIRA_API_TOKEN and JIRA_PROJECT_KEY have to be set"
            )
        return self._tracker


def _result(ticket: Ticket, what: str, *, repeated: bool) -> StepResult:
    return StepResult(
        summary=f"Ticket {ticket.key} {what}: {ticket.url}", outputs={"key": ticket.key, "url": ticket.url}, repeated=repeated
    )
