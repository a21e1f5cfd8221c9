"""The scribe: a workflow's queue of rows for ClickHouse, written in order and in batches while the story goes on."""

import asyncio
from dataclasses import dataclass
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ActivityError

from domain.audit import AuditAction, AuditEvent, RecordBatch, RecordedAnomaly, RunbookExecution
from domain.base import SYSTEM, Actor
from domain.incident import TimelineEntry
from workflows import presets

Row = AuditEvent | RunbookExecution | RecordedAnomaly


@dataclass
class Subject:
    """What the rows of one workflow are about."""

    incident_id: str
    runbook: str = ""


class Scribe:
    """Keeps the timeline at once, and the tables within `RECORD_LINGER`. Nothing is dropped: a workflow ends only after `drain`.

    Rows wait a moment for company, because each activity is cost; a story that is about to wait for a human urges them on.
    """

    def __init__(self, subject: Subject) -> None:
        self.timeline: list[TimelineEntry] = []
        self._subject = subject
        self._rows: list[Row] = []
        self._urgent = False
        self._closing = False
        self._task: asyncio.Task[None] | None = None

    def record(
        self,
        action: AuditAction,
        text: str,
        *,
        by: Actor = SYSTEM,
        step: int | None = None,
        **detail: Any,
    ) -> None:
        """Note what happened: `text` is the sentence of the timeline, `detail` goes into the audit row beside it."""
        event = AuditEvent(
            event_id=str(workflow.uuid4()),
            at=workflow.now(),
            incident_id=self._subject.incident_id,
            action=action,
            runbook=self._subject.runbook,
            step=step,
            actor=by.id,
            actor_name=by.name,
            source=by.source,
            detail={"text": text, **detail},
        )
        self.remark(event)
        self.write(event)

    def remark(self, event: AuditEvent) -> None:
        """Show an event in the timeline whose row is written elsewhere."""
        self.timeline.append(
            TimelineEntry(
                at=event.at,
                action=event.action,
                text=str(event.detail.get("text", "")),
                actor=event.actor_name,
                runbook=event.runbook,
                step=event.step,
            )
        )

    def write(self, *rows: Row) -> None:
        """Queue rows as they are."""
        self._rows += rows
        if self._task is None:
            self._task = asyncio.create_task(self._work())

    def urge(self) -> None:
        """Write what is queued now: the story is about to wait."""
        self._urgent = bool(self._rows)

    async def drain(self) -> None:
        """Write everything, however long ClickHouse takes."""
        self._closing = True
        if self._task is not None:
            await self._task

    async def _work(self) -> None:
        while not self._closing or self._rows:
            await workflow.wait_condition(lambda: bool(self._rows) or self._closing)
            if not self._rows:
                return
            if not (self._urgent or self._closing):
                await self._linger()
            self._urgent = False
            batch = self._rows[: presets.RECORD_BATCH_LIMIT]
            await self._append(batch)
            del self._rows[: len(batch)]

    async def _linger(self) -> None:
        try:
            await workflow.wait_condition(
                lambda: self._urgent or self._closing,
                timeout=presets.RECORD_LINGER,
                timeout_summary="audit rows wait for company",
            )
        except TimeoutError:
            return

    async def _append(self, rows: list[Row]) -> None:
        batch = RecordBatch(
            audit=tuple(row for row in rows if isinstance(row, AuditEvent)),
            executions=tuple(row for row in rows if isinstance(row, RunbookExecution)),
            anomalies=tuple(row for row in rows if isinstance(row, RecordedAnomaly)),
        )
        while True:
            try:
                await workflow.execute_activity(
                    "records.append", batch, **presets.RECORD, summary=f"{len(rows)} rows: {_named(rows)}"
                )
                return
            except ActivityError as error:
                # Refused for good by the server, or cancelled with the workflow: rows are offered again until they are taken.
                workflow.logger.warning("audit rows were refused and are offered again: %s", error.cause)
                await workflow.sleep(presets.RECORD_REFUSED_PAUSE, summary="ClickHouse refused audit rows")
                batch = batch.model_copy(update={"again": True})


def _named(rows: list[Row]) -> str:
    """The audit actions of a batch for the Temporal UI, at most six."""
    names = [row.action.value for row in rows if isinstance(row, AuditEvent)]
    return ", ".join(names[:6]) + ("…" if len(names) > 6 else "")
