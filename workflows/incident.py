"""The story of one incident: triage, alert, start the runbooks, wait to be resolved, remember, close."""

import asyncio
from datetime import datetime
from typing import Any

from temporalio import workflow
from temporalio.common import RawValue, SearchAttributePair, TypedSearchAttributes
from temporalio.exceptions import ActivityError, ChildWorkflowError, WorkflowAlreadyStartedError
from temporalio.workflow import ChildWorkflowHandle, ParentClosePolicy

from domain import expressions
from domain.audit import AuditAction
from domain.incident import (
    AcknowledgeRequest,
    AlertView,
    EscalateRequest,
    HaltRequest,
    IncidentInput,
    IncidentStatus,
    IncidentView,
    RecoverRequest,
    RememberRequest,
    Resolution,
    ResolveRequest,
    RunbookInput,
    RunbookResult,
    RunStatus,
    SlackMode,
    Triage,
    TriageRequest,
    anomaly_records,
)
from domain.inputs import bind_inputs
from domain.narration import Alert, AlertState, PostedMessage, Tone
from domain.runbook import Runbook
from workflows import ids, presets, search
from workflows.escalations import Escalations
from workflows.narrator import Narrator
from workflows.scribe import Scribe, Subject
from workflows.signals import read_signal

Run = ChildWorkflowHandle[Any, RunbookResult]

_ALERT = "alert"


@workflow.defn(name="IncidentWorkflow")
class IncidentWorkflow:
    """One incident, from its anomaly to its resolution; open and resolvable until resolved, recovered and quiet, or too old."""

    @workflow.init
    def __init__(self, input: IncidentInput) -> None:
        self._anomaly = input.anomaly
        self._opened_at = workflow.now()
        self._status = IncidentStatus.OPEN
        self._triage: Triage | None = None
        self._alert = AlertView()
        self._scribe = Scribe(Subject(input.anomaly.anomaly_id))
        self._narrator = Narrator()
        self._escalations = Escalations(input.anomaly, self._scribe, self._narrator)
        self._runs: dict[str, Run] = {}
        self._outcomes: dict[str, str] = {}
        self._watchers: list[asyncio.Task[None]] = []
        self._resolve_request: ResolveRequest | None = None
        self._resolution: Resolution | None = None
        self._recovered_at: datetime | None = None
        self._acknowledged_by: str | None = None
        self._closed_reason: str | None = None

    @workflow.run
    async def run(self, input: IncidentInput) -> IncidentView:
        triage = self._triage = await self._triaged()
        self._narrator.open(triage.slack)
        self._open(triage)
        await self._notify(triage)
        await self._start_runbooks(triage)
        await self._until_over(triage)
        if self._resolve_request is not None:
            await self._resolved(self._resolve_request)
        else:
            self._close()
        await self._escalations.ended()
        await self._escalations.recall_pages([*triage.runbooks, *triage.library.values()])
        await asyncio.gather(self._scribe.drain(), self._narrator.drain())
        return self.view()

    # --- signals and the query ----------------------------------------------------------------------------------

    @workflow.signal(name="resolve", description="Somebody resolved it (domain.incident.ResolveRequest)")
    def resolve(self, raw: RawValue) -> None:
        request = read_signal(raw, ResolveRequest)
        if request is None:
            self._scribe.record(AuditAction.INCIDENT_SIGNAL_REFUSED, "A resolution could not be read and changed nothing")
            return
        if self._resolve_request is not None:
            first = self._resolve_request
            self._narrator.answer(
                request.reply_to, f"{self._anomaly.anomaly_id} was already resolved by {first.by.name}: nothing changed."
            )
            return
        self._resolve_request = request

    @workflow.signal(name="escalate", description="The ticket or on-call button (domain.incident.EscalateRequest)")
    def escalate(self, raw: RawValue) -> None:
        request = read_signal(raw, EscalateRequest)
        if request is not None:
            self._escalations.press(request, self._triage)

    @workflow.signal(name="acknowledge", description="Somebody is on it (domain.incident.AcknowledgeRequest)")
    def acknowledge(self, raw: RawValue) -> None:
        request = read_signal(raw, AcknowledgeRequest)
        if request is None or self._acknowledged_by is not None:
            return
        self._acknowledged_by = request.by.name
        self._scribe.record(AuditAction.INCIDENT_ACKNOWLEDGED, f"{request.by.name} is on it", by=request.by)
        self._narrator.note(f"{request.by.name} is on it")

    @workflow.signal(name="recover", description="The source says it is over (domain.incident.RecoverRequest)")
    async def recover(self, raw: RawValue) -> None:
        request = read_signal(raw, RecoverRequest)
        if request is None or self._recovered_at is not None:
            return
        self._recovered_at = request.recovered_at
        sentence = f"The source reports recovery at {request.recovered_at:%Y-%m-%d %H:%M:%S} UTC"
        self._scribe.record(AuditAction.INCIDENT_RECOVERED, sentence)
        self._narrator.note(sentence, Tone.SUCCESS)
        await self._signal_runs("recover", request)

    @workflow.query(name="view", description="How the incident stands")
    def view(self) -> IncidentView:
        triage = self._triage
        return IncidentView(
            incident_id=self._anomaly.anomaly_id,
            status=self._status,
            severity=triage.severity if triage else None,
            anomaly=self._anomaly,
            similar=triage.similar if triage else None,
            alert=self._alert,
            runbooks={name: run.id for name, run in self._runs.items()},
            faults=triage.faults if triage else (),
            opened_at=self._opened_at,
            acknowledged_by=self._acknowledged_by,
            recovered_at=self._recovered_at,
            resolution=self._resolution,
            closed_reason=self._closed_reason,
            timeline=tuple(self._scribe.timeline),
        )

    # --- the story ----------------------------------------------------------------------------------------------

    async def _triaged(self) -> Triage:
        request = TriageRequest(anomaly=self._anomaly, event_id=str(workflow.uuid4()), at=self._opened_at)
        triage = await workflow.execute_activity(
            "incident.triage",
            request,
            result_type=Triage,
            **presets.TRIAGE,
            summary=f"{self._anomaly.service_id} {self._anomaly.metric_name}",
        )
        records = anomaly_records(request, triage.severity, triage.verdict)
        for event in records.audit:
            self._scribe.remark(event)
        if not triage.recorded:
            self._scribe.write(*records.anomalies, *records.audit)
        return triage

    def _open(self, triage: Triage) -> None:
        self._status = IncidentStatus.OPEN if triage.verdict.alert else IncidentStatus.SUPPRESSED
        workflow.upsert_search_attributes(
            [search.SEVERITY.value_set(triage.severity.value), search.STATUS.value_set(self._status.value)]
        )
        if not triage.verdict.alert:
            reason = triage.verdict.reason
            self._alert = AlertView(reason=reason)
            self._scribe.record(AuditAction.ALERT_SUPPRESSED, f"Not alerted: {reason}", reason=reason)
        self._changed()

    async def _notify(self, triage: Triage) -> None:
        """Alert Slack, and go on without its thread if it does not answer in time."""
        if not triage.verdict.alert:
            return
        if triage.slack is SlackMode.OFF:
            self._alert = AlertView(reason="Slack is not configured")
            return
        alert = Alert(anomaly=self._anomaly, severity=triage.severity, similar=triage.similar)
        self._narrator.say(_ALERT, alert, in_thread=False)
        posted = await self._narrator.delivered(_ALERT)
        if self._narrator.is_settled(_ALERT):
            self._alerted(posted)
        else:
            self._watchers.append(asyncio.create_task(self._alert_later()))

    async def _alert_later(self) -> None:
        posted = await self._narrator.settled(_ALERT)
        self._alerted(posted)
        if posted is not None:
            await self._signal_runs("attach_thread", posted)

    def _alerted(self, posted: PostedMessage | None) -> None:
        problem = self._narrator.failure(_ALERT)
        if problem is not None:
            self._alert = AlertView(reason=f"Slack did not take the alert: {problem}")
            self._scribe.record(AuditAction.ALERT_FAILED, self._alert.reason or "")
            return
        self._alert = AlertView(sent=True, posted=posted)
        self._scribe.record(AuditAction.ALERT_SENT, "Alert sent to Slack", channel=posted.channel if posted else None)
        if posted is not None:
            self._narrator.attach(posted)
        for fault in self._triage.faults if self._triage else ():
            self._narrator.note(fault, Tone.WARNING)

    async def _start_runbooks(self, triage: Triage) -> None:
        if self._resolve_request is not None:
            return
        started = await asyncio.gather(*(self._start(runbook, triage) for runbook in triage.runbooks))
        for runbook, run in zip(triage.runbooks, started, strict=True):
            if run is not None:
                self._runs[runbook.name] = run
                self._watchers.append(asyncio.create_task(self._watch(runbook.name, run)))
        self._changed()

    async def _start(self, runbook: Runbook, triage: Triage) -> Run | None:
        anomaly = self._anomaly
        attributes = [
            SearchAttributePair(search.SERVICE, anomaly.service_id),
            SearchAttributePair(search.SEVERITY, triage.severity.value),
            SearchAttributePair(search.RUNBOOK, runbook.name),
            SearchAttributePair(search.STATUS, RunStatus.RUNNING.value),
        ]
        try:
            return await workflow.start_child_workflow(
                "RunbookWorkflow",
                RunbookInput(
                    incident_id=anomaly.anomaly_id,
                    runbook=runbook,
                    service_id=anomaly.service_id,
                    environment=anomaly.environment,
                    anomaly=anomaly,
                    names={**bind_inputs(runbook.inputs, {}), **expressions.names_of(anomaly, triage.severity)},
                    library=triage.library,
                    slack=triage.slack,
                    thread=self._narrator.thread,
                ),
                result_type=RunbookResult,
                id=ids.runbook_workflow_id(anomaly.anomaly_id, runbook.name),
                parent_close_policy=ParentClosePolicy.ABANDON,
                search_attributes=TypedSearchAttributes(attributes),
                static_summary=f"{runbook.name} on {anomaly.service_id}",
            )
        except WorkflowAlreadyStartedError:
            self._scribe.record(
                AuditAction.RUNBOOK_REFUSED, f"Runbook {runbook.name} was already run for this incident: not started again"
            )
            return None

    async def _watch(self, name: str, run: Run) -> None:
        try:
            self._outcomes[name] = (await run).status.value
        except ChildWorkflowError:
            self._outcomes[name] = RunStatus.FAILED.value
            self._scribe.record(AuditAction.RUNBOOK_REFUSED, f"The run of {name} ended in Temporal without a result")

    async def _until_over(self, triage: Triage) -> None:
        """Wait for a resolution, for recovery and quiet, or for old age."""
        too_old_at = self._opened_at + triage.max_open
        while self._resolve_request is None and self._closed_reason is None:
            now = workflow.now()
            quiet_at = self._quiet_at(triage)
            ends_at = min(too_old_at, quiet_at) if quiet_at else too_old_at
            if ends_at <= now:
                self._closed_reason = "recovered and quiet" if quiet_at == ends_at else "open for too long"
                break
            try:
                await workflow.wait_condition(
                    lambda seen=quiet_at: self._resolve_request is not None or self._quiet_at(triage) != seen,
                    timeout=ends_at - now,
                    timeout_summary="resolved, or closed by itself",
                )
            except TimeoutError:
                continue

    def _quiet_at(self, triage: Triage) -> datetime | None:
        """When a recovered incident closes by itself; None while it is not recovered or a runbook still runs."""
        if self._recovered_at is None or len(self._outcomes) < len(self._runs):
            return None
        return max(self._recovered_at, self._opened_at) + triage.recovered_close

    async def _resolved(self, request: ResolveRequest) -> None:
        at = max(request.received_at, self._opened_at)
        self._resolution = Resolution(text=request.text, by=request.by, at=at)
        self._status = IncidentStatus.RESOLVED
        workflow.upsert_search_attributes([search.STATUS.value_set(self._status.value)])
        self._scribe.record(
            AuditAction.INCIDENT_RESOLVED, f"Resolved by {request.by.name}: {request.text}", by=request.by, resolution=request.text
        )
        self._narrator.note(f"Resolved by {request.by.name}: {request.text}", Tone.SUCCESS)
        self._changed()
        await self._signal_runs("halt", HaltRequest(reason="the incident was resolved", by=request.by))
        await self._runs_ended()
        self._narrator.show(AlertState.RESOLVED)
        remembered = RememberRequest(anomaly=self._anomaly, resolution=self._resolution, runbook_outcomes=self._outcomes_now())
        await self._remember(remembered)

    async def _remember(self, request: RememberRequest) -> None:
        while True:
            try:
                await workflow.execute_activity("records.remember", request, **presets.RECORD, summary="into incident memory")
                return
            except ActivityError as error:
                workflow.logger.warning("incident memory was refused and is offered again: %s", error.cause)
                await workflow.sleep(presets.RECORD_REFUSED_PAUSE, summary="ClickHouse refused incident memory")

    async def _runs_ended(self) -> None:
        try:
            await workflow.wait_condition(
                lambda: len(self._outcomes) == len(self._runs),
                timeout=presets.HALT_WAIT,
                timeout_summary="runs end before their next step",
            )
        except TimeoutError:
            return  # memory then says of the run that it was still running

    def _outcomes_now(self) -> dict[str, str]:
        return {name: self._outcomes.get(name, RunStatus.RUNNING.value) for name in self._runs}

    def _close(self) -> None:
        self._status = IncidentStatus.CLOSED
        workflow.upsert_search_attributes([search.STATUS.value_set(self._status.value)])
        sentence = f"Closed by itself: {self._closed_reason}"
        self._scribe.record(AuditAction.INCIDENT_CLOSED, sentence)
        self._narrator.note(sentence)
        self._changed()

    # --- helpers ------------------------------------------------------------------------------------------------

    async def _signal_runs(self, signal: str, argument: HaltRequest | RecoverRequest | PostedMessage) -> None:
        for name, run in self._runs.items():
            if name in self._outcomes:
                continue
            try:
                await run.signal(signal, argument)
            except Exception as error:  # the run ended on its own in this very moment; its outcome arrives by itself
                workflow.logger.info("run %s did not take the signal %s: %s", run.id, signal, error)

    def _changed(self) -> None:
        anomaly = self._anomaly
        lines = [
            f"**{self._status.value}** {anomaly.service_id} · {anomaly.metric_name} · score {anomaly.anomaly_score:g}",
            "",
            *(f"- runbook `{run.id}`" for run in self._runs.values()),
        ]
        if self._resolution is not None:
            lines.append(f"- resolved by {self._resolution.by.name}")
        workflow.set_current_details("\n".join(lines))
