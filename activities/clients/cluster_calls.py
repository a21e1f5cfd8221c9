"""What every call to the Kubernetes API goes through: the names are checked, the time is bounded, the failure is translated.

`cluster_connection` finds the credentials, `cluster_failures` says what went wrong. Every verb uses `_call`, so that none
can forget the timeout or let a credential into an error.
"""

import asyncio
import re
from collections.abc import Awaitable
from datetime import timedelta
from typing import TypeVar

from lightkube import AsyncClient

from activities.clients.cluster_connection import address
from activities.clients.cluster_failures import CALL_FAILURES, ClusterCall, translate
from activities.errors import InvalidStep, clip

CALL_TIMEOUT = timedelta(seconds=15)
"""Bound of one whole call, credential plugin included; httpx2's own timeouts only bound each read."""

_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_NAME_RULE = "allowed are lower-case letters, digits and '-', with a letter or digit at both ends, at most 63 characters"

_Answer = TypeVar("_Answer")


class ClusterCalls:
    """A connection, and the one way of calling over it."""

    def __init__(self, client: AsyncClient, *, call_timeout: timedelta = CALL_TIMEOUT) -> None:
        """Take over `client`: `aclose` closes it."""
        self._client = client
        self._call_timeout = call_timeout

    async def aclose(self) -> None:
        """Close every connection; the object is of no use afterwards."""
        await self._client.aclose()

    @property
    def _server(self) -> str:
        return address(self._client.config)

    async def _call(self, call: ClusterCall, request: Awaitable[_Answer]) -> _Answer:
        """Await one request within the timeout; a failure leaves as one of our errors, without cause or context."""
        try:
            async with asyncio.timeout(self._call_timeout.total_seconds()):
                return await request
        except CALL_FAILURES as error:
            failure = translate(error, call, self._server, self._call_timeout)
        raise failure


def deployment_call(verb: str, resource: str, namespace: str, deployment: str) -> ClusterCall:
    """Check both names before they become a path: an empty one would address every object of the kind.

    A namespace is one DNS-1123 label, a Deployment one or more joined by dots (kubernetes.io, "Object Names and IDs").
    Raises: InvalidStep.
    """
    if not _DNS_LABEL.fullmatch(namespace):
        raise InvalidStep(f"namespace {clip(namespace, 80)!r} is not a Kubernetes name: {_NAME_RULE}")
    _require_dotted_name("deployment", deployment)
    missing = f"there is no deployment {deployment} in namespace {namespace}"
    return ClusterCall(verb, resource, f"in namespace {namespace}", missing)


def node_call(verb: str, resource: str, node: str) -> ClusterCall:
    """Check the name of a node as `deployment_call` does. Raises: InvalidStep."""
    _require_dotted_name("node", node)
    return ClusterCall(verb, resource, "in the whole cluster", f"there is no node {node}")


def _require_dotted_name(kind: str, name: str) -> None:
    if len(name) > 253 or not all(_DNS_LABEL.fullmatch(label) for label in name.split(".")):
        raise InvalidStep(f"{kind} {clip(name, 80)!r} is not a Kubernetes name: {_NAME_RULE}")
