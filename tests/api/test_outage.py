"""Temporal hangs or is gone: nothing is pretended, everybody is told in time, and trying again is safe."""

import asyncio
import json
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client

from activities.messages.approval import encode_ref
from cli.embedded import free_port
from domain.approval import ApprovalRef
from tests.api.edge import COMMANDS, INTERACTIONS, Edge, a_report
from tests.peers.slack import Hang, SlackPeer, block_actions, interaction_form, signed_request, slash_form
from tests.peers.temporal import real_server
from workflows.connection import connect

SLACK_SECONDS = 3.0
"""Slack hangs up after this."""


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Fail when what is inside takes longer. Time in which the machine ran nobody's threads does not count: others use it too."""
    over = threading.Event()
    stalls: list[float] = []

    def watch() -> None:
        while not over.is_set():
            began = time.monotonic()
            time.sleep(0.02)
            stalls.append(max(time.monotonic() - began - 0.03, 0))

    watching = threading.Thread(target=watch)
    watching.start()
    began = time.monotonic()
    try:
        yield
    finally:
        took = time.monotonic() - began
        over.set()
        watching.join()
    assert took - sum(stalls) < seconds, f"{took:.2f} s, of which the machine stalled {sum(stalls):.2f} s"


@dataclass
class Patient:
    """An edge, and the server behind it that can be taken ill."""

    edge: Edge
    pid: int

    @contextmanager
    def hangs(self) -> Iterator[None]:
        """The server takes connections and answers nothing."""
        stop(self.pid)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)


def stop(pid: int) -> None:
    """Stop a process; returns when it has stopped, which the signal alone does not promise."""
    os.kill(pid, signal.SIGSTOP)
    deadline = time.monotonic() + 5
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        assert time.monotonic() < deadline, "the server does not stop"


@pytest.fixture
async def patient(slack: SlackPeer) -> AsyncIterator[Patient]:
    async with real_server() as server:
        client = await connect(target_host=server.address)
        assert server.pid is not None
        async with Edge(client, "nobody-listens", slack) as edge:
            yield Patient(edge, server.pid)


@pytest.fixture
async def cut_off(slack: SlackPeer) -> AsyncIterator[Edge]:
    """An edge whose Temporal was never there: refused connections, with a client that connects at its first call."""
    client = await connect(target_host=f"127.0.0.1:{free_port()}", lazy=True)
    async with Edge(client, "nobody-listens", slack) as edge:
        yield edge


def click(slack: SlackPeer, action: str = "approve_step") -> str:
    value = encode_ref("anom-7f3d/scale-out", ApprovalRef(step=2, round=1, digest="ab" * 32))
    button = {"type": "button", "action_id": action, "value": value}
    return interaction_form(block_actions(button, channel="C0OPSALERT", ts="1.1", response_url=slack.response_url))


async def test_a_hanging_temporal_makes_intake_503_in_bounded_time_and_the_repeat_creates_one_incident(patient: Patient) -> None:
    report = a_report()
    with patient.hangs():
        with within(7):
            answer = await patient.edge.post("/api/v1/anomalies", report)
        assert answer.status_code == 503 and int(answer.headers["Retry-After"]) > 0
    again = await patient.edge.post("/api/v1/anomalies", report)
    assert again.status_code in (200, 202)
    assert (await patient.edge.post("/api/v1/anomalies", report)).json()["created"] is False


async def test_a_click_while_temporal_hangs_is_answered_in_time_and_told(patient: Patient, slack: SlackPeer) -> None:
    with patient.hangs(), within(SLACK_SECONDS):
        answer = await patient.edge.signed(INTERACTIONS, click(slack))
    assert answer.status_code == 503
    assert len(slack.responses) == 1
    told = json.dumps(slack.responses[0])
    assert "click again" in told and "infrasage approve anom-7f3d" in told


async def test_a_click_while_everything_hangs_is_still_answered_in_time(
    patient: Patient, slack: SlackPeer, caplog: pytest.LogCaptureFixture
) -> None:
    slack.script("response_url", Hang())
    slack.script("chat.postEphemeral", Hang())
    with patient.hangs(), within(SLACK_SECONDS):
        answer = await patient.edge.signed(INTERACTIONS, click(slack, "reject_step"))
    assert answer.status_code == 503
    assert "could not be delivered" in caplog.text


@pytest.mark.parametrize("text", ["resolve anom-7f3d done", "status anom-7f3d", "incidents", "approve anom-7f3d", "halt anom-7f3d"])
async def test_a_command_while_temporal_hangs_is_answered_in_time_and_claims_nothing(patient: Patient, text: str) -> None:
    with patient.hangs(), within(SLACK_SECONDS):
        answer = await patient.edge.signed(COMMANDS, slash_form(text))
    assert answer.status_code == 200
    said = answer.json()["text"]
    assert "did not answer" in said and "is stored" not in said
    if text.startswith("resolve"):
        assert "infrasage resolve anom-7f3d" in said


async def test_the_probes_tell_a_hanging_temporal_from_a_dead_process(patient: Patient) -> None:
    with patient.hangs():
        with within(3):
            assert (await patient.edge.http.get("/readyz")).status_code == 503
        assert (await patient.edge.http.get("/healthz")).status_code == 200
        assert (await patient.edge.http.get("/metrics")).status_code == 200
    assert (await patient.edge.http.get("/readyz")).status_code == 200


async def test_a_group_of_alerts_that_temporal_does_not_take_is_503_so_that_it_comes_again(cut_off: Edge) -> None:
    alert = {
        "status": "firing",
        "labels": {"alertname": "X", "app": "a"},
        "startsAt": "2026-04-10T12:00:05Z",
        "fingerprint": "0" * 16,
    }
    for status in ("firing", "resolved"):
        answer = await cut_off.post("/api/v1/alertmanager", {"version": "4", "alerts": [{**alert, "status": status}]})
        assert answer.status_code == 503


async def test_every_call_answers_503_within_its_bound_when_temporal_is_not_there(cut_off: Edge, slack: SlackPeer) -> None:
    calls: list[tuple[str, str, Any]] = [
        ("GET", "/api/v1/incidents", None),
        ("GET", "/api/v1/incidents/anom-7f3d", None),
        ("GET", "/api/v1/runs", None),
        ("GET", "/readyz", None),
        ("POST", "/api/v1/anomalies", a_report()),
        ("POST", "/api/v1/incidents/anom-7f3d/resolve", {"text": "x"}),
        ("POST", "/api/v1/incidents/anom-7f3d/decision", {"decision": "approve"}),
        ("POST", "/api/v1/incidents/anom-7f3d/acknowledge", None),
        ("POST", "/api/v1/incidents/anom-7f3d/halt", None),
    ]
    for method, path, body in calls:
        with within(6):
            answer = await (cut_off.get(path) if method == "GET" else cut_off.post(path, body))
            assert answer.status_code == 503, (path, answer.text)
            assert "Temporal" in answer.json()["detail"] and "Traceback" not in answer.text
    with within(SLACK_SECONDS):
        assert (await cut_off.signed(INTERACTIONS, click(slack))).status_code == 503
    assert len(slack.responses) == 1


async def test_a_server_that_comes_back_is_used_again(slack: SlackPeer) -> None:
    async with real_server() as server:
        client: Client = await connect(target_host=server.address)
        async with Edge(client, "nobody-listens", slack) as edge:
            assert server.pid is not None
            stop(server.pid)
            waiting = [asyncio.create_task(edge.post("/api/v1/anomalies", a_report())) for _ in range(5)]
            await asyncio.wait(waiting, timeout=0.2)
            os.kill(server.pid, signal.SIGCONT)
            assert {answer.status_code for answer in await asyncio.gather(*waiting)} == {202}


async def test_a_temporal_that_does_not_know_our_attributes_yet_is_said_to_lack_them() -> None:
    async with real_server(search_attributes={}) as server:
        client = await connect(target_host=server.address)
        async with Edge(client, "nobody-listens") as edge:
            answer = await edge.post("/api/v1/anomalies", a_report())
            assert answer.status_code == 503 and "search attributes" in answer.json()["detail"]


async def test_a_signed_body_that_takes_its_time_leaves_less_of_slacks_three_seconds(patient: Patient, slack: SlackPeer) -> None:
    body = click(slack).encode()

    async def late() -> AsyncIterator[bytes]:
        yield body[:10]
        await asyncio.sleep(1.6)
        yield body[10:]

    with patient.hangs(), within(SLACK_SECONDS):
        answer = await patient.edge.http.post(INTERACTIONS, content=late(), headers=signed_request(slack.signing_secret, body))
    assert answer.status_code == 503 and len(slack.responses) == 1
