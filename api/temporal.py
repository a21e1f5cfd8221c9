"""What the API asks of Temporal: start, signal, look at, list. Every call is bounded in all, and fails with one sentence.

The bound is `asyncio.timeout` around the whole call: the client retries underneath its own `rpc_timeout`, so a call with
`rpc_timeout=1.5 s` was seen to take 6 to 9 s against a server that was down.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from temporalio.client import Client, WorkflowExecution, WorkflowExecutionStatus, WorkflowQueryFailedError
from temporalio.common import (
    SearchAttributeKey,
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from api.problems import RETRY_AFTER_SECONDS, Problem, unavailable
from api.visibility import visibility_query
from domain.base import Durable
from workflows import search
from workflows.ids import TASK_QUEUE

INCIDENT = "IncidentWorkflow"
RUN = "RunbookWorkflow"

INTAKE_SECONDS = 5.0
"""Longest time that storing an anomaly may take before the sender is asked to try again."""

ACTION_SECONDS = 3.0
"""Longest time of one look or one signal asked for by a key."""

READY_SECONDS = 2.0

LIST_PAGE = 200

SUMMARY_BYTES = 400
"""Of a workflow's summary (Temporal's `limit.userMetadataSummarySize`)."""

log = logging.getLogger(__name__)

View = TypeVar("View", bound=Durable)


class TemporalUnavailable(Problem):
    """Temporal cannot be reached, or did not answer in time: what was asked may or may not be stored."""

    def __init__(self, detail: str) -> None:
        super().__init__(503, detail, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})


class NoWorker(Problem):
    """Temporal answers, but no worker does: nothing can be shown until one runs."""

    def __init__(self, what: str) -> None:
        super().__init__(
            503,
            f"No worker answered for {what} in time: check that `infrasage worker` runs, and try again.",
            headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
        )


class NotRunning(Exception):
    """The workflow that was to be signalled is unknown, or has ended."""


@dataclass(frozen=True)
class Execution:
    """What Temporal itself knows of a workflow, without a worker."""

    workflow_id: str
    kind: str
    """`IncidentWorkflow` or `RunbookWorkflow`."""
    running: bool
    status: str | None
    """The status word as the workflow last set it."""
    service: str | None
    severity: str | None
    runbook: str | None
    started_at: datetime
    closed_at: datetime | None
    memo: dict[str, object]


class TemporalAccess:
    """The one way of the API to Temporal. Holds the client and nothing else."""

    def __init__(self, client: Client, *, task_queue: str = TASK_QUEUE) -> None:
        """`client` must carry the plugin of `workflows.connection`; it may be lazy. `task_queue`: where started workflows run."""
        self._client = client
        self._task_queue = task_queue

    async def start(
        self,
        kind: str,
        argument: Durable,
        *,
        workflow_id: str,
        attributes: list[SearchAttributePair[str]],
        memo: dict[str, object] | None = None,
        summary: str,
    ) -> bool:
        """Start a workflow once and for ever per id. Returns: False when the id was taken, by a running or by an ended one.

        Raises TemporalUnavailable. Durable: True only after Temporal has stored it.
        """
        try:
            async with within(INTAKE_SECONDS):
                await self._client.start_workflow(
                    kind,
                    argument,
                    id=workflow_id,
                    task_queue=self._task_queue,
                    id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                    id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
                    memo=memo,
                    search_attributes=TypedSearchAttributes(attributes),
                    static_summary=_clipped(summary),
                )
        except WorkflowAlreadyStartedError:
            return False
        except RPCError as error:
            raise _translated(error) from None
        return True

    async def signal(self, workflow_id: str, name: str, argument: Durable, *, seconds: float = ACTION_SECONDS) -> None:
        """Store a signal. Raises NotRunning, TemporalUnavailable. Durable once it returns; no worker is needed."""
        try:
            async with within(seconds):
                await self._client.get_workflow_handle(workflow_id).signal(name, argument)
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                raise NotRunning(workflow_id) from None
            raise _translated(error) from None

    async def describe(self, workflow_id: str, *, seconds: float = ACTION_SECONDS) -> Execution | None:
        """What Temporal knows of an incident or a run; None when it knows none of that id. Raises TemporalUnavailable."""
        try:
            async with within(seconds):
                description = await self._client.get_workflow_handle(workflow_id).describe()
                execution = await _execution(description)
        except RPCError as error:
            # INVALID_ARGUMENT is an id longer than Temporal takes: nothing has it.
            if error.status in (RPCStatusCode.NOT_FOUND, RPCStatusCode.INVALID_ARGUMENT):
                return None
            raise _translated(error) from None
        return execution if execution.kind in (INCIDENT, RUN) else None

    async def view(self, workflow_id: str, model: type[View], *, seconds: float = ACTION_SECONDS) -> View | None:
        """Ask the query `view`; None when Temporal knows no such workflow. Raises NoWorker, TemporalUnavailable.

        A query needs a live worker, and one that is not answered in time counts as a missing worker: call `describe` first
        where it matters which of the two is missing.
        """
        try:
            async with asyncio.timeout(seconds):
                return await self._client.get_workflow_handle(workflow_id).query("view", result_type=model)
        except TimeoutError:
            raise NoWorker(workflow_id) from None
        except (WorkflowQueryFailedError, ApplicationError) as error:
            log.warning("the query view of %s failed: %s", workflow_id, error)
            raise unavailable(f"The worker could not show {workflow_id}; the reason is in its log.") from None
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return None
            if error.status in (RPCStatusCode.FAILED_PRECONDITION, RPCStatusCode.DEADLINE_EXCEEDED):
                raise NoWorker(workflow_id) from None
            raise _translated(error) from None
        except RuntimeError as error:
            raise _not_connected(error) from None

    async def executions(
        self,
        kind: str,
        filters: Mapping[SearchAttributeKey[str], str],
        keep: Callable[[Execution], bool],
        limit: int,
        *,
        seconds: float = ACTION_SECONDS,
    ) -> list[Execution]:
        """The first `limit` incidents or runs that `keep` accepts, open ones first, newest first.

        `filters` narrow what the server sends; `keep` decides. The server's list follows a change within about a second.
        Raises TemporalUnavailable.
        """
        found: list[Execution] = []
        try:
            async with within(seconds):
                async for item in self._client.list_workflows(visibility_query(kind, filters), page_size=LIST_PAGE):
                    execution = await _execution(item)
                    if keep(execution):
                        found.append(execution)
                    if len(found) >= limit:
                        break
        except RPCError as error:
            raise _translated(error) from None
        return found

    async def count(self, query: str) -> int:
        """How many workflows a visibility query finds. Raises TemporalUnavailable."""
        try:
            async with within(ACTION_SECONDS):
                return (await self._client.count_workflows(query)).count
        except RPCError as error:
            raise _translated(error) from None

    async def is_ready(self) -> bool:
        """Whether Temporal answers now, within 2 s."""
        try:
            async with within(READY_SECONDS):
                return await self._client.service_client.check_health()
        except (RPCError, TemporalUnavailable):
            return False


def _clipped(summary: str) -> str:
    return summary.encode()[: SUMMARY_BYTES - 2].decode(errors="ignore")  # the two quotes of JSON count


@asynccontextmanager
async def within(seconds: float) -> AsyncGenerator[None]:
    """Bound whatever is asked of Temporal inside, all of it together. Raises TemporalUnavailable."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise TemporalUnavailable(f"Temporal did not answer within {seconds:g} s: try again.") from None
    except RuntimeError as error:
        raise _not_connected(error) from None


def _not_connected(error: RuntimeError) -> Exception:
    """A client made with `lazy=True` connects at its first call, and says with a RuntimeError that it could not."""
    if "Failed client connect" in str(error):
        return TemporalUnavailable("Temporal cannot be reached: try again.")
    return error


def _translated(error: RPCError) -> Problem:
    log.warning("Temporal refused a call: %s %s", error.status.name, error.message)
    if error.status is RPCStatusCode.INVALID_ARGUMENT and "search attribute" in error.message:
        return TemporalUnavailable("Temporal does not know InfraSage's search attributes yet: start a worker once, it adds them.")
    return TemporalUnavailable(f"Temporal could not take this ({error.status.name.lower()}): try again.")


async def _execution(found: WorkflowExecution) -> Execution:
    attributes = found.typed_search_attributes
    return Execution(
        workflow_id=found.id,
        kind=found.workflow_type,
        running=found.status is WorkflowExecutionStatus.RUNNING,
        status=attributes.get(search.STATUS),
        service=attributes.get(search.SERVICE),
        severity=attributes.get(search.SEVERITY),
        runbook=attributes.get(search.RUNBOOK),
        started_at=found.start_time,
        closed_at=found.close_time,
        memo=dict(await found.memo()),
    )
