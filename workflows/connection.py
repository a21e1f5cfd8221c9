"""The Temporal connection: one plugin for client, worker and replayer, so that what replays is what runs."""

import dataclasses
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import temporalio.api.common.v1
import temporalio.api.failure.v1
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.client import Client
from temporalio.contrib.pydantic import PydanticPayloadConverter
from temporalio.converter import DataConverter, DefaultFailureConverter, PayloadConverter
from temporalio.envconfig import ClientConfig
from temporalio.exceptions import ApplicationError, FailureError
from temporalio.plugin import SimplePlugin
from temporalio.worker import Worker, WorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner
from temporalio.workflow import SandboxImportNotificationPolicy

from workflows import search
from workflows.ids import TASK_QUEUE
from workflows.incident import IncidentWorkflow
from workflows.runbook import RunbookWorkflow

WORKFLOWS: tuple[type, ...] = (IncidentWorkflow, RunbookWorkflow)

PASSTHROUGH = (
    "domain",  # pure; importing its models anew for every run would cost tens of milliseconds
    "simpleeval",  # pure; imported by domain.expressions
    "workflows.ids",  # pure functions
    "workflows.presets",  # constants
    "workflows.search",  # constants
    "workflows.signals",  # a pure function over the run's own converter
    "workflows.run_state",  # models
    "workflows.failures",  # a pure function
    "workflows.scribe",  # these hold the parts that the stories are told with; they use nothing of the world
    "workflows.narrator",
    "workflows.approvals",
    "workflows.inline_steps",
    "workflows.escalations",
    "workflows.rollback",
)
"""Modules that the sandbox takes from the process instead of importing them for every run."""

LOCAL_TEMPORAL = "127.0.0.1:7233"

CACHED_WORKFLOWS = 2_000
"""Open incidents and runs kept in memory: about 66 KiB each; an evicted one costs about 22 ms at its next click."""

STICKY_TIMEOUT = timedelta(seconds=1)
"""How long a task waits for the worker that has the run cached. The SDK's 10 s is what a click after a crash would wait."""

HEARTBEAT = timedelta(seconds=2)
"""How often a running step is heard of, and so how soon a cancellation reaches it; the SDK's own would be 8 s here."""

DRAIN = timedelta(seconds=20)
"""How long running activities may finish when a worker is stopped."""


class StrictPayloadConverter(PydanticPayloadConverter):
    """Pydantic's converter, with one difference: a payload that does not fit fails the workflow at once.

    Left alone, the SDK retries the workflow task for ever, and nobody hears of it. The sentence names types only: the content may
    be anything.
    """

    def from_payloads(
        self, payloads: Sequence[temporalio.api.common.v1.Payload], type_hints: list[type] | None = None
    ) -> list[Any]:
        try:
            return super().from_payloads(payloads, type_hints)
        except FailureError:
            raise
        except Exception as error:
            expected = ", ".join(getattr(hint, "__name__", str(hint)) for hint in type_hints or [])
            raise ApplicationError(
                f"a payload could not be read as {expected or 'its type'} ({type(error).__name__})",
                type="PayloadInvalid",
                non_retryable=True,
            ) from None


class DiscreetFailureConverter(DefaultFailureConverter):
    """Keeps out of histories what an exception happens to carry.

    An error of ours is a sentence already, and needs no stack trace. Any other is a bug whose text may hold anything, a secret
    among it: its type and its trace (code, no values) are kept, its text is not.
    """

    def to_failure(
        self, exception: BaseException, payload_converter: PayloadConverter, failure: temporalio.api.failure.v1.Failure
    ) -> None:
        super().to_failure(exception, payload_converter, failure)
        if isinstance(exception, FailureError):
            failure.stack_trace = ""
        else:
            failure.message = f"unexpected {type(exception).__name__}; its text is withheld, the trace names the place"


def _sandboxed(runner: WorkflowRunner | None) -> WorkflowRunner:
    if not isinstance(runner, SandboxedWorkflowRunner):
        raise RuntimeError("the workflow sandbox stays on")
    restrictions = runner.restrictions.with_passthrough_modules(*PASSTHROUGH)
    return dataclasses.replace(
        runner,
        restrictions=restrictions.with_import_notification_policy(
            SandboxImportNotificationPolicy.WARN_ON_DYNAMIC_IMPORT
            | SandboxImportNotificationPolicy.RAISE_ON_UNINTENTIONAL_PASSTHROUGH
        ),
    )


def orchestrator_plugin(workflows: Sequence[type] = WORKFLOWS) -> SimplePlugin:
    """Converter, sandbox and workflows, shared by client, worker and replayer."""
    return SimplePlugin(
        "infrasage",
        data_converter=DataConverter(
            payload_converter_class=StrictPayloadConverter, failure_converter_class=DiscreetFailureConverter
        ),
        workflow_runner=_sandboxed,
        workflows=workflows,
    )


async def connect(**overrides: Any) -> Client:
    """Connect as `TEMPORAL_*` say (`temporalio.envconfig`), `overrides` winning. Raises RuntimeError when nobody answers."""
    config: dict[str, Any] = {"target_host": LOCAL_TEMPORAL, **ClientConfig.load_client_connect_config(), **overrides}
    return await Client.connect(**config, plugins=[orchestrator_plugin()])


def orchestrator_worker(client: Client, activities: Sequence[Callable[..., Any]], **overrides: Any) -> Worker:
    """The worker of the task queue. `client` must carry the plugin, which brings workflows, sandbox and converter."""
    options: dict[str, Any] = {
        "task_queue": TASK_QUEUE,
        "max_cached_workflows": CACHED_WORKFLOWS,
        "sticky_queue_schedule_to_start_timeout": STICKY_TIMEOUT,
        "graceful_shutdown_timeout": DRAIN,
        "default_heartbeat_throttle_interval": HEARTBEAT,
        "max_heartbeat_throttle_interval": HEARTBEAT,
        **overrides,
    }
    return Worker(client, activities=activities, **options)


async def ensure_search_attributes(client: Client) -> None:
    """Register the search attributes that the namespace lacks. Safe to run twice and by several processes at once."""
    known = await client.operator_service.list_search_attributes(ListSearchAttributesRequest(namespace=client.namespace))
    missing = [key.name for key in search.ALL if key.name not in known.custom_attributes]
    if missing:
        await add_search_attributes(client, missing)


async def add_search_attributes(client: Client, names: Sequence[str]) -> None:
    """Register keyword attributes under these names. Raises RPCError for what the server does not allow."""
    keyword = IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD
    request = AddSearchAttributesRequest(namespace=client.namespace, search_attributes=dict.fromkeys(names, keyword))
    await client.operator_service.add_search_attributes(request)
