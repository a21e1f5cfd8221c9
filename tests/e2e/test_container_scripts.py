"""The scripts of the containers, against real servers: the namespace job, the schema job, and the health checks."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from temporalio.api.operatorservice.v1 import ListSearchAttributesRequest
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client

from cli.embedded import TemporalServer, free_port
from tests.peers.temporal import real_server
from workflows import search
from workflows.connection import orchestrator_plugin, orchestrator_worker

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
PROGRAMS = Path(sys.executable).parent
NOW = datetime(2026, 4, 10, 12, 0, 5, tzinfo=UTC)


async def run(*command: str, **environment: str) -> tuple[int, str]:
    """Run a script as its container would. Returns: exit code, and everything that it printed."""
    path = environment.pop("PATH", f"{PROGRAMS}:{os.environ['PATH']}")
    process = await asyncio.create_subprocess_exec(
        *command,
        env={"PATH": path, "HOME": os.environ.get("HOME", "/"), "PYTHONPATH": str(ROOT), **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(60):
        printed, _ = await process.communicate()
    return process.returncode or 0, printed.decode()


@pytest.fixture
async def server() -> AsyncIterator[TemporalServer]:
    async with real_server(search_attributes={}) as running:
        yield running


# --- the jobs -----------------------------------------------------------------------------------------------------


async def test_the_namespace_job_makes_the_namespace_with_its_attributes_and_may_run_again(server: TemporalServer) -> None:
    for sentence in ("Namespace incidents made", "Namespace incidents is there"):
        code, printed = await run(
            "sh", str(DOCKER / "temporal-namespace.sh"), TEMPORAL_ADDRESS=server.address, TEMPORAL_NAMESPACE="incidents"
        )
        assert code == 0, printed
        assert sentence in printed
    client = await Client.connect(server.address, namespace="incidents")
    made = await client.workflow_service.describe_namespace(DescribeNamespaceRequest(namespace="incidents"))
    assert made.config.workflow_execution_retention_ttl.ToTimedelta() == timedelta(days=30)
    known = await client.operator_service.list_search_attributes(ListSearchAttributesRequest(namespace="incidents"))
    assert {key.name for key in search.ALL} <= set(known.custom_attributes)


async def test_the_namespace_job_fails_when_temporal_does_not_come() -> None:
    code, printed = await run(
        "sh", str(DOCKER / "temporal-namespace.sh"), TEMPORAL_ADDRESS=f"127.0.0.1:{free_port()}", WAIT_SECONDS="0"
    )
    assert code == 1
    assert "was not healthy within 0 s" in printed


def sql_tool(folder: Path, *, fails_at: str = "never") -> Path:
    """A temporal-sql-tool that writes down what it is asked, and fails at one command."""
    tool = folder / "temporal-sql-tool"
    tool.write_text(f'#!/bin/sh\necho "$2 $3" >> {folder}/told\n[ "$2 $3" != "{fails_at}" ]\n')
    tool.chmod(0o755)
    return folder / "told"


async def test_the_schema_job_sets_up_both_databases_in_order(tmp_path: Path) -> None:
    told = sql_tool(tmp_path)
    code, _ = await run("sh", str(DOCKER / "temporal-schema.sh"), PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert code == 0
    assert told.read_text().splitlines() == [
        f"{database} {command}"
        for database in ("temporal", "temporal_visibility")
        for command in ("create-database", "setup-schema", "update-schema")
    ]


async def test_the_schema_job_ends_with_the_first_failure(tmp_path: Path) -> None:
    told = sql_tool(tmp_path, fails_at="temporal setup-schema")
    code, printed = await run("sh", str(DOCKER / "temporal-schema.sh"), PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert code != 0
    assert "done" not in printed
    assert told.read_text().splitlines() == ["temporal create-database", "temporal setup-schema"]


# --- health -------------------------------------------------------------------------------------------------------


async def health(*arguments: str, **environment: str) -> tuple[int, str]:
    return await run(sys.executable, str(DOCKER / "health.py"), *arguments, **environment)


async def test_a_worker_is_healthy_once_it_polls(server: TemporalServer) -> None:
    code, printed = await health("worker", TEMPORAL_ADDRESS=server.address)
    assert code == 1
    assert "no worker of" in printed
    client = await Client.connect(server.address, plugins=[orchestrator_plugin()])
    found = (code, printed)
    async with orchestrator_worker(client, []), asyncio.timeout(30):
        while found[0] != 0:  # each look takes half a second
            found = await health("worker", TEMPORAL_ADDRESS=server.address)
    assert found == (0, f"the worker of {socket.gethostname()} polls\n")


async def test_a_worker_without_temporal_is_not_healthy() -> None:
    code, printed = await health("worker", TEMPORAL_ADDRESS=f"127.0.0.1:{free_port()}")
    assert code == 1
    assert printed.startswith("Temporal does not answer")


def health_script() -> Any:
    """The script as a module; it is in no package."""
    spec = spec_from_file_location("health", DOCKER / "health.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("polls", "sentence"),
    [
        ([("1@here", NOW)], None),
        ([("1@here", NOW - timedelta(hours=1)), ("7@here", NOW - timedelta(seconds=119))], None),
        ([], "no worker of here"),
        ([("1@there", NOW), ("1@nowhere", NOW)], "no worker of here"),
        ([("1@here", NOW - timedelta(seconds=121))], "polled 121 s ago"),
    ],
)
def test_only_a_recent_poll_of_this_host_counts(polls: list[tuple[str, datetime]], sentence: str | None) -> None:
    script = health_script()
    if sentence is None:
        assert script.judge(polls, "here", NOW) == "the worker of here polls"
        return
    with pytest.raises(script.Unhealthy, match=sentence):
        script.judge(polls, "here", NOW)


class Answer(BaseHTTPRequestHandler):
    """200 for `/healthz` alone; 500 for it where the server is `broken`."""

    def do_GET(self) -> None:
        good = self.path == "/healthz" and not getattr(self.server, "broken", False)
        self.send_response(200 if good else 500)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""


@pytest.mark.parametrize(("broken", "expected"), [(False, 0), (True, 1)])
async def test_an_api_is_healthy_when_it_answers_and_no_proxy_is_asked(broken: bool, expected: int) -> None:
    with HTTPServer(("127.0.0.1", 0), Answer) as api:
        api.broken = broken  # type: ignore[attr-defined]
        thread = Thread(target=api.serve_forever, daemon=True)
        thread.start()
        try:
            proxy = f"http://127.0.0.1:{free_port()}"
            code, printed = await health("api", str(api.server_port), http_proxy=proxy, HTTP_PROXY=proxy)
        finally:
            api.shutdown()
            thread.join()
    assert code == expected, printed


async def test_an_api_that_is_not_there_is_not_healthy() -> None:
    code, printed = await health("api", str(free_port()))
    assert code == 1
    assert "does not answer" in printed


async def test_health_says_how_it_is_used() -> None:
    assert await health("console") == (2, "usage: health.py api [PORT], or health.py worker\n")


def test_the_shell_scripts_can_be_read_by_any_shell() -> None:
    for script in DOCKER.glob("*.sh"):
        subprocess.run(["sh", "-n", str(script)], check=True)
        assert os.access(script, os.X_OK)
