"""Whether a container is healthy, for Docker's HEALTHCHECK: exit code 0 or 1, and one sentence.

    health.py api [PORT]   the API answers on this host, on port 9093 if no other is named
    health.py worker       Temporal has heard of this host's worker within the last two minutes

A worker listens nowhere. That it polls its task queue is the only proof that it can work, and Temporal knows.
"""

import asyncio
import os
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

API_PORT = 9093

ANSWER_SECONDS = 3.0
"""Docker gives up after 5 s (see the HEALTHCHECK); a healthy API answers within milliseconds."""

TEMPORAL_SECONDS = 8.0
"""Of the whole look, connecting included: the client retries underneath, so it is bounded from outside."""

POLL_AGE_LIMIT = timedelta(minutes=2)
"""A poll that finds no work is held open by the server for up to 70 s (its long-poll timeout), and only then comes again."""


class Unhealthy(Exception):
    """One sentence that says why."""


def check_api(port: int) -> str:
    """Ask `/healthz`. Raises: Unhealthy."""
    url = f"http://127.0.0.1:{port}/healthz"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # nobody proxies loopback, whatever HTTP_PROXY says
    try:
        with opener.open(url, timeout=ANSWER_SECONDS) as answer:
            return f"{url} answers {answer.status}"
    except urllib.error.HTTPError as error:
        raise Unhealthy(f"{url} answers {error.code}") from None
    except OSError as error:
        raise Unhealthy(f"{url} does not answer ({type(error).__name__})") from None


async def check_worker(host: str, now: datetime) -> str:
    """Look for a recent poller on `host`, by the identity `pid@host` that the Temporal SDK gives. Raises: Unhealthy."""
    from temporalio.service import RPCError

    try:
        async with asyncio.timeout(TEMPORAL_SECONDS):
            polls = [poll async for poll in _polls()]
    except (TimeoutError, RPCError, RuntimeError, OSError, ValueError) as error:
        raise Unhealthy(f"Temporal does not answer ({type(error).__name__})") from None
    return judge(polls, host, now)


def judge(polls: Iterable[tuple[str, datetime]], host: str, now: datetime) -> str:
    """Whether one of `polls` (identity, when) is of `host` and recent. Raises: Unhealthy."""
    own = [at for identity, at in polls if identity.rpartition("@")[2] == host]
    if not own:
        raise Unhealthy(f"no worker of {host} polls the task queue")
    age = now - max(own)
    if age > POLL_AGE_LIMIT:
        raise Unhealthy(f"the worker of {host} polled {age.total_seconds():.0f} s ago for the last time")
    return f"the worker of {host} polls"


async def _polls() -> AsyncIterator[tuple[str, datetime]]:
    """The identities that poll the task queue, and when each did so for the last time."""
    from temporalio.api.enums.v1 import TaskQueueType
    from temporalio.api.taskqueue.v1 import TaskQueue
    from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
    from temporalio.client import Client
    from temporalio.envconfig import ClientConfig

    from workflows.ids import TASK_QUEUE

    options: dict[str, Any] = {"target_host": "127.0.0.1:7233", **ClientConfig.load_client_connect_config()}
    client = await Client.connect(**options)
    request = DescribeTaskQueueRequest(
        namespace=client.namespace,
        task_queue=TaskQueue(name=TASK_QUEUE),
        task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
    )
    for poller in (await client.workflow_service.describe_task_queue(request)).pollers:
        yield poller.identity, poller.last_access_time.ToDatetime(UTC)


def main(arguments: list[str]) -> int:
    """Returns: the exit code. Docker keeps what is printed."""
    try:
        match arguments:
            case ["api", *port] if len(port) <= 1 and all(text.isdecimal() for text in port):
                print(check_api(int(port[0]) if port else API_PORT))
            case ["worker"]:
                print(asyncio.run(check_worker(socket.gethostname(), datetime.now(UTC))))
            case _:
                print("usage: health.py api [PORT], or health.py worker")
                return 2
    except Unhealthy as error:
        print(error)
        return 1
    return 0


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(code)  # a process that used the Temporal client can abort when the interpreter ends (sdk-python #300)
