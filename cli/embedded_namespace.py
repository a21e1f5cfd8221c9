"""Readiness of the embedded Temporal server: wait for its services, and give its namespace our retention and attributes."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta

from google.protobuf.duration_pb2 import Duration
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.namespace.v1 import NamespaceConfig
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.api.workflowservice.v1 import (
    DescribeNamespaceRequest,
    DescribeWorkflowExecutionRequest,
    UpdateNamespaceRequest,
)
from temporalio.service import ConnectConfig, RPCError, RPCStatusCode, ServiceClient

from cli.embedded_data_dir import EmbeddedStackError
from cli.embedded_ports import LOOPBACK

_CALL_TIMEOUT = timedelta(seconds=5)
_POLL_SECONDS = 0.05
# What a server answers while its services find each other, or (RESOURCE_EXHAUSTED) for the second change of a
# namespace within a second: its limit `frontend.namespaceRPS.namespaceReplicationInducingAPIs` is 1 per second.
_NOT_YET = frozenset(
    {
        RPCStatusCode.UNAVAILABLE,
        RPCStatusCode.DEADLINE_EXCEEDED,
        RPCStatusCode.NOT_FOUND,
        RPCStatusCode.RESOURCE_EXHAUSTED,
        RPCStatusCode.CANCELLED,
    }
)


async def make_ready(port: int, namespace: str, retention: timedelta, search_attributes: Mapping[str, str]) -> None:
    """Wait until workflows can be started in `namespace`, and see to its retention and search attributes.

    Waits without end: the caller bounds it. Safe to run on every start: what is already right is not written.
    Raises: EmbeddedStackError if the server refuses a setting.
    """
    await _wait_for_listener(port)
    while True:
        try:
            client = await ServiceClient.connect(ConnectConfig(target_host=f"{LOOPBACK}:{port}"))
            await _wait_for_history(client, namespace)
            await _set_retention(client, namespace, retention)
            await _add_missing_attributes(client, namespace, search_attributes)
            return
        except RPCError as error:
            if error.status not in _NOT_YET:
                raise EmbeddedStackError(f"The embedded Temporal server refused its setup: {error.message}.") from None
        except RuntimeError as error:  # all that the client raises when the frontend answers "not healthy yet"
            if "connect" not in str(error):
                raise
        await asyncio.sleep(_POLL_SECONDS)


async def _wait_for_listener(port: int) -> None:
    """A plain socket first: the gRPC client answers a refused connection with waits that grow."""
    while True:
        with suppress(OSError):
            _, writer = await asyncio.open_connection(LOOPBACK, port)
            writer.close()
            await writer.wait_closed()
            return
        await asyncio.sleep(_POLL_SECONDS)


async def _wait_for_history(client: ServiceClient, namespace: str) -> None:
    """Ask for a workflow that does not exist: only a frontend that reaches a working history service can say so."""
    request = DescribeWorkflowExecutionRequest(namespace=namespace, execution=WorkflowExecution(workflow_id="infrasage-readiness"))
    await client.check_health(timeout=_CALL_TIMEOUT)
    await client.workflow_service.describe_namespace(DescribeNamespaceRequest(namespace=namespace), timeout=_CALL_TIMEOUT)
    try:
        await client.workflow_service.describe_workflow_execution(request, timeout=_CALL_TIMEOUT)
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise


async def _set_retention(client: ServiceClient, namespace: str, retention: timedelta) -> None:
    """The CLI creates namespaces with 24 hours and has no option for it."""
    wanted = Duration()
    wanted.FromTimedelta(retention)
    found = await client.workflow_service.describe_namespace(DescribeNamespaceRequest(namespace=namespace), timeout=_CALL_TIMEOUT)
    if found.config.workflow_execution_retention_ttl != wanted:
        await client.workflow_service.update_namespace(
            UpdateNamespaceRequest(namespace=namespace, config=NamespaceConfig(workflow_execution_retention_ttl=wanted)),
            timeout=_CALL_TIMEOUT,
        )


async def _add_missing_attributes(client: ServiceClient, namespace: str, wanted: Mapping[str, str]) -> None:
    """The CLI's `--search-attribute` counts only when the namespace is created; this serves older data directories."""
    types = {name: _type_number(kind) for name, kind in wanted.items()}
    listed = await client.operator_service.list_search_attributes(
        ListSearchAttributesRequest(namespace=namespace), timeout=_CALL_TIMEOUT
    )
    existing = dict(listed.custom_attributes)
    for name, number in types.items():
        if existing.get(name, number) != number:
            raise EmbeddedStackError(f"The search attribute {name} exists in this data directory with another type.")
    missing = {name: number for name, number in types.items() if name not in existing}
    if missing:
        await client.operator_service.add_search_attributes(
            AddSearchAttributesRequest(namespace=namespace, search_attributes=missing), timeout=_CALL_TIMEOUT
        )


def _type_number(kind: str) -> "IndexedValueType.ValueType":
    # "KeywordList" is INDEXED_VALUE_TYPE_KEYWORD_LIST, the only name of two words.
    name = "KEYWORD_LIST" if kind == "KeywordList" else kind.upper()
    return IndexedValueType.Value(f"INDEXED_VALUE_TYPE_{name}")
