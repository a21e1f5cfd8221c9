"""The whole story against a real `infrasage up`: by the command line, by HTTP and by clicks in Slack."""

import asyncio
import json
from uuid import uuid4

import httpx
import pytest

from cli.simulated_cluster import SimulatedCluster
from tests.e2e.harness import (
    REPOSITORY,
    RunningStack,
    actions,
    an_anomaly,
    an_id,
    eventually,
    has_ended,
    is_waiting,
    scale_runbook,
    write_runbook,
)
from tests.peers.slack import PeerMessage, SlackPeer

RESOLUTION = "Scaled from 3 to 5 pods. Memory leak in v2.3.1 DB pool — upgrading to v2.3.2."


def a_service(stack: RunningStack, cluster: SimulatedCluster, **step: object) -> str:
    """A service of one's own with three replicas and the runbook that scales it to five."""
    service = f"service-{uuid4().hex[:8]}"
    cluster.add_deployment("production", service, 3)
    write_runbook(stack.runbooks, scale_runbook(service, **step))
    return service


def writes_of(cluster: SimulatedCluster, service: str) -> list[tuple[int, int]]:
    return [(write.before, write.after) for write in cluster.writes if write.deployment == service]


async def alert_of(slack: SlackPeer, service: str) -> PeerMessage:
    found: list[PeerMessage] = []

    async def check() -> bool:
        found[:] = [message for message in slack.messages() if f"Service: {service} " in message.shown]
        return bool(found)

    await eventually(check)
    assert len(found) == 1
    return found[0]


async def reply_of(slack: SlackPeer, alert: PeerMessage, words: str) -> PeerMessage:
    found: list[PeerMessage] = []

    async def check() -> bool:
        found[:] = [message for message in slack.replies(alert) if words in message.shown]
        return bool(found)

    await eventually(check, otherwise=lambda: f"{[message.shown for message in slack.replies(alert)]}")
    return found[0]


async def test_the_whole_story_by_the_command_line(stack: RunningStack, cluster: SimulatedCluster, slack: SlackPeer) -> None:
    fired = await stack.command("fire", str(REPOSITORY / "samples" / "anomaly.json"))
    assert fired.code == 0, fired.err
    for words in (
        "🚨 Anomaly Detected — payment-api",
        "Score: 0.93 (Critical)",
        "Root Cause (92% confidence):",
        "Blast radius: user-service, checkout-service",
        "1. Scale payment-api to 5 pods",
        "sent to Slack",
    ):
        assert words in fired.out
    await stack.until("anom-7f3d", is_waiting)

    shown = await stack.command("show", "anom-7f3d")
    assert "⚡ Runbook Approval Required" in shown.out
    assert "Step 2/3: Scale deployment to 5 replicas" in shown.out
    assert "replicas 3 → 5" in shown.out
    assert "⏱ Timeout in 10 minutes (then: halt)" in shown.out
    assert writes_of(cluster, "payment-api") == []

    approved = await stack.command("approve", "anom-7f3d", "--reason", "looks right")
    assert approved.code == 0, approved.err
    assert "✅ Runbook Approval — Approved" in approved.out
    assert "Note: looks right" in approved.out
    await stack.until("anom-7f3d", has_ended)
    assert writes_of(cluster, "payment-api") == [(3, 5)]
    assert cluster.replicas("production", "payment-api") == 5

    resolved = await stack.command("resolve", "anom-7f3d", RESOLUTION)
    assert resolved.code == 0, resolved.err
    rows = await stack.audit("anom-7f3d", until="incident.resolved")
    assert actions(rows) == [
        "anomaly.recorded",
        "alert.sent",
        "runbook.started",
        "step.succeeded",
        "approval.requested",
        "approval.approved",
        "step.succeeded",
        "step.succeeded",
        "runbook.finished",
        "incident.resolved",
    ]
    assert len({row["event_id"] for row in rows}) == len(rows)
    approval = rows[5]
    assert (approval["source"], approval["detail"]["reason"]) == ("cli", "looks right")

    async def remembers() -> bool:
        again = an_anomaly(anomaly_score=0.66)  # below what starts the runbook
        posted = await stack.command("fire", "-", "--json", stdin=json.dumps(again).encode())
        text = posted.json["alert"]["text"]
        return "Historical Match: Similar incident on April 10" in text and "by scaling from 3 to 5 pods" in text

    await eventually(remembers, 20)
    table = await stack.command("audit", "anom-7f3d")
    assert "approval.approved" in table.out and "incident.resolved" in table.out
    listed = await stack.command("incidents", "--status", "resolved")
    assert "anom-7f3d" in listed.out


async def test_a_signed_click_in_slack_approves_and_the_card_loses_its_buttons(
    stack: RunningStack, cluster: SimulatedCluster, slack: SlackPeer
) -> None:
    service = a_service(stack, cluster)
    incident_id = await stack.fire(service_id=service)
    alert = await alert_of(slack, service)
    card = await reply_of(slack, alert, "Runbook Approval Required")
    assert card.action_ids == ["approve_step", "reject_step"]

    assert await stack.click(slack, card, "approve_step") == 200
    story = await stack.until(incident_id, has_ended)

    assert story["runbooks"][0]["status"] == "succeeded"
    assert writes_of(cluster, service) == [(3, 5)]
    decided = await reply_of(slack, alert, "Approved by jane")
    assert (decided.ts, decided.action_ids) == (card.ts, [])
    rows = await stack.audit(incident_id, until="runbook.finished")
    assert [(row["actor"], row["source"]) for row in rows if row["action"] == "approval.approved"] == [("U0JANE0001", "slack")]


async def test_a_rejected_step_is_not_run_and_the_rejection_says_why(stack: RunningStack, cluster: SimulatedCluster) -> None:
    service = a_service(stack, cluster)
    incident_id = await stack.fire(service_id=service)
    await stack.until(incident_id, is_waiting)

    rejected = await stack.command("reject", incident_id, "--reason", "traffic is falling", "--json")

    assert rejected.code == 0, rejected.err
    assert rejected.json["approval"]["status"] == "rejected"
    story = await stack.until(incident_id, has_ended)
    assert story["runbooks"][0]["status"] == "halted"
    assert writes_of(cluster, service) == []
    again = await stack.command("approve", incident_id)
    assert (again.code, again.out) == (1, "")
    assert again.err == f"Error: {incident_id} has no open approval.\n"


async def test_a_runbook_is_halted_by_the_command_line(stack: RunningStack, cluster: SimulatedCluster) -> None:
    service = a_service(stack, cluster)
    incident_id = await stack.fire(service_id=service)
    await stack.until(incident_id, is_waiting)

    halted = await stack.command("halt", incident_id, "--reason", "wrong cluster")

    assert halted.code == 0, halted.err
    story = await stack.until(incident_id, has_ended)
    assert story["runbooks"][0]["status"] == "halted"
    assert writes_of(cluster, service) == []
    rows = await stack.audit(incident_id, until="runbook.finished")
    assert "approval.cancelled" in actions(rows) and "approval.rejected" not in actions(rows)


async def test_a_hundred_posts_of_one_anomaly_at_once_are_one_incident_and_one_alert(
    stack: RunningStack, cluster: SimulatedCluster, slack: SlackPeer
) -> None:
    service = a_service(stack, cluster)
    anomaly = an_anomaly(service_id=service)
    async with stack.client() as http:
        answers = await asyncio.gather(*(http.post("/api/v1/anomalies", json=anomaly) for _ in range(100)))

    assert sorted(answer.status_code for answer in answers) == [200] * 99 + [202]
    assert sum(answer.json()["created"] for answer in answers) == 1
    await stack.until(anomaly["anomaly_id"], is_waiting)
    alert = await alert_of(slack, service)
    cards = [message for message in slack.replies(alert) if "Runbook Approval Required" in message.shown]
    assert len(cards) == 1
    rows = await stack.audit(anomaly["anomaly_id"], until="alert.sent")
    assert actions(rows).count("anomaly.recorded") == 1
    assert actions(rows).count("alert.sent") == 1
    assert (await stack.command("halt", anomaly["anomaly_id"])).code == 0


async def test_every_listing_command_prints_one_json_document(stack: RunningStack) -> None:
    incident_id = await stack.fire(service_id="nobody-scales-me")
    await stack.until(incident_id, lambda story: story["severity"])
    commands = {
        "incidents": ("incidents", "--json"),
        "incident_id": ("show", incident_id, "--json"),
        "rows": ("audit", incident_id, "--json"),
        "runbooks": ("runbooks", "--json"),
    }
    for key, arguments in commands.items():
        outcome = await stack.command(*arguments)
        assert (outcome.code, outcome.err) == (0, "")
        assert key in outcome.json
    again = an_anomaly(service_id="nobody-scales-me")
    fired = await stack.command("fire", "-", "--json", stdin=json.dumps(again).encode())
    assert fired.json["created"] is True
    assert fired.json["anomaly_id"] == fired.json["incident_id"] == again["anomaly_id"]
    assert fired.json["status"] == "open"


async def test_a_dry_run_by_hand_shows_the_plan_and_changes_nothing(stack: RunningStack, cluster: SimulatedCluster) -> None:
    service = a_service(stack, cluster)

    outcome = await stack.command("runbooks", "run", f"scale-out-{service}", "--service", service, "--dry-run")

    assert outcome.code == 0, outcome.err
    assert "replicas 3 → 5" in outcome.out and "(dry run)" in outcome.out
    assert writes_of(cluster, service) == []


async def test_a_run_by_hand_is_approved_by_its_own_id(stack: RunningStack, cluster: SimulatedCluster) -> None:
    service = a_service(stack, cluster)
    started = await stack.command("runbooks", "run", f"scale-out-{service}", "--service", service, "--json")
    run_id = started.json["workflow_id"]
    assert started.json["status"] == "awaiting_approval"

    approved = await stack.command("approve", run_id)

    assert approved.code == 0, approved.err
    await stack.until(run_id, has_ended)
    assert writes_of(cluster, service) == [(3, 5)]


async def test_the_runbooks_that_load_are_listed(stack: RunningStack) -> None:
    outcome = await stack.command("runbooks")
    assert outcome.code == 0
    assert "scale-out-payment-api" in outcome.out and "3, 1 with approval" in outcome.out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("show", "anom-nowhere"), "There is no incident anom-nowhere"),
        (("approve", "anom-nowhere"), "There is no incident anom-nowhere"),
        (("resolve", "anom-nowhere", "done"), "There is no incident anom-nowhere"),
        (("runbooks", "run", "no-such", "--service", "x"), "There is no runbook no-such"),
        (("fire", "/nowhere/anomaly.json"), "/nowhere/anomaly.json cannot be read (No such file or directory)."),
    ],
)
async def test_what_is_not_there_is_told_in_one_sentence(stack: RunningStack, arguments: tuple[str, ...], sentence: str) -> None:
    outcome = await stack.command(*arguments)
    assert outcome.code == 1
    assert outcome.out == ""
    assert outcome.err.startswith(f"Error: {sentence}")
    assert outcome.err.count("\n") == 1


async def test_an_anomaly_that_is_wrong_is_told_with_every_fault(stack: RunningStack) -> None:
    wrong = an_anomaly(an_id(), anomaly_score=1.4, colour="red")
    outcome = await stack.command("fire", "-", stdin=json.dumps(wrong).encode())
    assert outcome.code == 1
    assert "anomaly_score: must be 1 or less" in outcome.err
    assert "colour: is not a key that is known here" in outcome.err
    broken = await stack.command("fire", "-", stdin=b'{"anomaly_id": ')
    assert broken.err == "Error: stdin is not JSON: line 1, column 16.\n"


async def test_the_key_that_was_printed_opens_the_api_and_only_its_hash_is_kept(stack: RunningStack) -> None:
    line = next(line for line in stack.output.splitlines() if "API key" in line)
    printed = line.split()[2]
    assert printed.startswith("isage_")
    async with httpx.AsyncClient(base_url=stack.url, trust_env=False) as http:
        assert (await http.get("/api/v1/incidents", headers={"X-API-Key": printed})).status_code == 200
        assert (await http.get("/api/v1/incidents", headers={"X-API-Key": printed + "x"})).status_code == 401
    kept = b"".join(path.read_bytes() for path in stack.data_dir.iterdir() if path.is_file())
    assert printed.encode() not in kept
    assert stack.key.encode() in kept  # the search would find it: the operator's own key is there, and readable by its owner alone
    for name in ("operator.key", "api-keys.json"):
        assert (stack.data_dir / name).stat().st_mode & 0o777 == 0o600


async def test_without_a_key_a_command_says_which_variable_to_set(stack: RunningStack) -> None:
    outcome = await stack.command("incidents", INFRASAGE_URL=stack.url, INFRASAGE_DATA_DIR="/nowhere")
    assert outcome.code == 1
    assert "asks for an API key: set INFRASAGE_API_KEY" in outcome.err
    wrong = await stack.command("incidents", INFRASAGE_API_KEY="isage_wrong")
    assert "The key in INFRASAGE_API_KEY is not known" in wrong.err


async def test_the_operator_key_is_sent_to_no_other_port_than_the_stacks(stack: RunningStack) -> None:
    seen: list[str] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(listen, "127.0.0.1", 0) as other:
        port = other.sockets[0].getsockname()[1]
        await stack.command("show", "x", INFRASAGE_URL=f"http://127.0.0.1:{port}")
    assert len(seen) == 1
    assert stack.key not in seen[0]
