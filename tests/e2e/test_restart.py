"""`kill -9` of the whole stack, Temporal's server included, at several points: restarted on its directory, nothing is lost or doubled.

The cluster and Slack are in the test's process and outlive the kills: what they counted is what happened.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from cli.simulated_cluster import SimulatedCluster
from tests.e2e.harness import (
    RunningStack,
    actions,
    eventually,
    has_ended,
    is_waiting,
    running,
    scale_runbook,
    slack_variables,
    write_runbook,
)
from tests.peers.slack import PeerMessage, SlackPeer

SERVICE = "checkout-api"
ROLLOUT = timedelta(seconds=1.5)
"""Long enough to kill the stack between the write and the end of its step."""

CLICK_SECONDS = 5.0
"""How soon a click after a restart has to have its effect: a worker that was killed would hold its queue for 10 s by default."""


@dataclass
class World:
    stack: RunningStack
    cluster: SimulatedCluster
    slack: SlackPeer

    async def restart(self) -> None:
        await self.stack.kill()
        await self.stack.start()

    @property
    def writes(self) -> list[tuple[int, int]]:
        return [(write.before, write.after) for write in self.cluster.writes]

    @property
    def alert(self) -> PeerMessage:
        (alert,) = self.slack.messages()
        return alert

    @property
    def cards(self) -> list[PeerMessage]:
        return [message for message in self.slack.replies(self.alert) if "Runbook Approval" in message.shown]

    async def waiting(self) -> str:
        """An incident whose runbook waits for approval, with its card in Slack. Returns: its id."""
        incident_id = await self.stack.fire(service_id=SERVICE)
        await self.stack.until(incident_id, is_waiting)
        await eventually(self._card_is_there)
        return incident_id

    async def _card_is_there(self) -> bool:
        return len(self.cards) == 1

    async def has_written(self) -> bool:
        return len(self.writes) > 0

    async def finished_once(self, incident_id: str) -> None:
        """The run ended well, and everything it did is there once."""
        story = await self.stack.until(incident_id, has_ended)
        assert story["runbooks"][0]["status"] == "succeeded", story
        assert self.writes == [(3, 5)]
        rows = await self.stack.audit(incident_id, until="runbook.finished")
        assert sorted(actions(rows)) == sorted(
            [
                "anomaly.recorded",
                "alert.sent",
                "runbook.started",
                "step.succeeded",
                "approval.requested",
                "approval.approved",
                "step.succeeded",
                "step.succeeded",
                "runbook.finished",
            ]
        )
        assert len({row["event_id"] for row in rows}) == len(rows)
        assert len(self.cards) == 1


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with SimulatedCluster(rollout=ROLLOUT) as cluster, SlackPeer() as slack:
        cluster.add_deployment("production", SERVICE, 3)
        write_runbook(tmp_path / "runbooks", scale_runbook(SERVICE))
        kubeconfig = cluster.write_kubeconfig(tmp_path / "kubeconfig")
        async with running(tmp_path, KUBECONFIG=str(kubeconfig), **slack_variables(slack)) as stack:
            yield World(stack, cluster, slack)


async def test_killed_while_it_waits_for_approval_the_first_click_after_the_restart_counts(world: World) -> None:
    incident_id = await world.waiting()
    first_key = world.stack.key

    await world.restart()
    clicked_at = time.monotonic()
    assert await world.stack.click(world.slack, world.cards[0], "approve_step") == 200
    await eventually(world.has_written, CLICK_SECONDS)

    assert time.monotonic() - clicked_at < CLICK_SECONDS
    await world.finished_once(incident_id)
    assert world.stack.key == first_key
    assert world.stack.output.count("API key") == 1  # shown at the first start only


async def test_killed_right_after_the_approval_was_answered_it_is_not_forgotten(world: World) -> None:
    incident_id = await world.waiting()
    await world.stack.post(f"/api/v1/incidents/{incident_id}/decision", {"decision": "approve"})

    await world.restart()

    await world.finished_once(incident_id)


async def test_killed_while_the_step_runs_the_cluster_is_written_once(world: World) -> None:
    incident_id = await world.waiting()
    await world.stack.post(f"/api/v1/incidents/{incident_id}/decision", {"decision": "approve"})
    await eventually(world.has_written)

    await world.restart()

    await world.finished_once(incident_id)
    # The step was really begun twice, so that the guard, and not luck, kept the second write away.
    patches = [request for request in world.cluster.requests if request.method == "PATCH"]
    assert len(patches) == 2


async def test_killed_right_after_the_resolution_was_answered_it_is_remembered(world: World) -> None:
    incident_id = await world.waiting()
    await world.stack.post(f"/api/v1/incidents/{incident_id}/resolve", {"text": "Restarted the connection pool."})

    await world.restart()

    story = await world.stack.until(incident_id, lambda seen: seen["resolution"])
    assert story["status"] == "resolved"
    await world.stack.until(incident_id, has_ended)
    rows = await world.stack.audit(incident_id, until="incident.resolved")
    assert actions(rows).count("incident.resolved") == 1
    assert world.writes == []

    async def remembers() -> bool:
        again = await world.stack.fire(service_id=SERVICE, anomaly_score=0.5)
        seen = await world.stack.until(again, lambda story: story["severity"])
        return seen["similar"] is not None and seen["similar"]["anomaly_id"] == incident_id

    await eventually(remembers, 20)


async def test_an_approval_that_expired_while_everything_was_down_is_not_accepted_afterwards(world: World) -> None:
    definition = scale_runbook(SERVICE, approval_timeout_minutes=0.05)
    write_runbook(world.stack.runbooks, definition)
    incident_id = await world.waiting()
    card = world.cards[0]
    await world.stack.kill()
    await asyncio.sleep(0)  # the deadline passes on the clock of the world, not on ours: the wait is the restart below
    deadline = time.monotonic() + 3.5
    await eventually(lambda: _passed(deadline))

    await world.stack.start()
    await world.stack.click(world.slack, card, "approve_step")

    story = await world.stack.until(incident_id, has_ended)
    assert story["runbooks"][0]["steps"][1]["approval"]["status"] == "expired"
    assert world.writes == []
    rows = await world.stack.audit(incident_id, until="runbook.finished")
    assert "approval.approved" not in actions(rows)


async def _passed(deadline: float) -> bool:
    return time.monotonic() >= deadline
