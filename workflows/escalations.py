"""The ticket and on-call buttons: each works once for an incident, and is answered in the thread with what came of it."""

import asyncio

from temporalio import workflow
from temporalio.exceptions import ActivityError

from domain import expressions
from domain.anomaly import Anomaly
from domain.audit import AuditAction
from domain.incident import EscalateRequest, EscalationKind, StepRequest, Triage
from domain.narration import Tone
from domain.paging import PageResolve
from domain.plan import StepResult
from domain.runbook import PageStep, Runbook, TicketStep
from workflows import presets
from workflows.failures import failure_of
from workflows.narrator import Narrator
from workflows.scribe import Scribe

BUTTON_STEP = 0
"""The step number of a button: with the incident's id the key of its effect. Runbooks count from 1."""


class Escalations:
    """What was escalated of one incident. The buttons run the same step types as runbooks do."""

    def __init__(self, anomaly: Anomaly, scribe: Scribe, narrator: Narrator) -> None:
        self._anomaly = anomaly
        self._scribe = scribe
        self._narrator = narrator
        self._results: dict[EscalationKind, str] = {}
        """What came of each; the words `is on its way` until it is known."""
        self._tasks: set[asyncio.Task[None]] = set()

    def press(self, request: EscalateRequest, triage: Triage | None) -> None:
        """Begin, unless it was pressed before, or is not configured: then the person is told so alone."""
        kind = request.kind
        if triage is None or kind not in triage.offers:
            self._narrator.answer(request.reply_to, f"{_NAMES[kind]} is not configured here: nothing was sent.")
        elif kind in self._results:
            self._narrator.answer(request.reply_to, f"That was done already: {self._results[kind]}.")
        else:
            self._results[kind] = f"{_NAMES[kind].lower()} is on its way"
            task = asyncio.create_task(self._escalate(request, triage))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def ended(self) -> None:
        """Wait for what was begun."""
        while self._tasks:
            await asyncio.gather(*self._tasks)

    async def recall_pages(self, runbooks: list[Runbook]) -> None:
        """The incident is over: whoever was paged, by the button or by one of `runbooks`, need not come."""
        paged = EscalationKind.PAGE in self._results or any(
            isinstance(step, PageStep) for runbook in runbooks for step in runbook.steps
        )
        if not paged:
            return
        request = PageResolve(incident_id=self._anomaly.anomaly_id, service_id=self._anomaly.service_id)
        try:
            await workflow.execute_activity("page.resolve", request, **presets.PLAN, summary="nobody has to come any more")
        except ActivityError as error:
            self._narrator.note(f"The page could not be resolved: {failure_of(error).sentence}", Tone.WARNING)

    async def _escalate(self, request: EscalateRequest, triage: Triage) -> None:
        step = PageStep(type="page") if request.kind is EscalationKind.PAGE else TicketStep(type="ticket")
        try:
            result = await workflow.execute_activity(
                "step.execute",
                StepRequest(
                    workflow_id=self._anomaly.anomaly_id,
                    incident_id=self._anomaly.anomaly_id,
                    runbook="",
                    number=BUTTON_STEP,
                    step=step,
                    names=expressions.names_of(self._anomaly, triage.severity),
                    anomaly=self._anomaly,
                    fixed_at=workflow.now(),
                ),
                result_type=StepResult,
                **presets.execute(step),
                summary=step.title,
            )
        except ActivityError as error:
            del self._results[request.kind]  # the button may be pressed again
            sentence = failure_of(error).sentence
            self._record(request, f"{step.title} failed: {sentence}", failed=True)
            self._narrator.note(f"{step.title} (asked for by {request.by.name}) failed: {sentence}", Tone.FAILURE)
            return
        self._results[request.kind] = result.summary
        self._record(request, result.summary, failed=False)
        self._narrator.note(f"{result.summary} (asked for by {request.by.name})", Tone.SUCCESS)

    def _record(self, request: EscalateRequest, text: str, *, failed: bool) -> None:
        self._scribe.record(AuditAction.INCIDENT_ESCALATED, text, by=request.by, kind=request.kind.value, failed=failed)


_NAMES = {EscalationKind.PAGE: "Paging on-call", EscalationKind.TICKET: "Creating a ticket"}
