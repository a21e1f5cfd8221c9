"""`kill -9` of the whole stack, Temporal's server included: started again on its directory, nothing is lost and nothing done twice.

The cluster and Slack are in the test's process and outlive the kills: what they counted is what happened.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from cli.simulated_cluster import SimulatedCluster
from tests.e2e.harness import (
    RunningStack,
    actions,
    attempts,
    eventually,
    has_ended,
    is_waiting,
    open_step,
    running,
    scale_runbook,
    slack_variables,
    write_runbook,
)
from tests.peers.slack import PeerMessage, SlackPeer

ROLLOUT = timedelta(seconds=1.5)
"""Long enough to kill the stack between the write and the end of its step."""

CLICK_SECONDS = 5.0
"""How soon a click after a restart has its effect: by default, the queue of a worker that was killed would hold it for 10 s."""

FINISHED = (
    "alert.sent",
    "anomaly.recorded",
    "approval.approved",
    "approval.requested",
    "runbook.finished",
    "runbook.started",
    "step.succeeded",
    "step.succeeded",
    "step.succeeded",
)


@dataclass
class World:
    """One service on the stack of this module, with its runbook and what became of both."""

    stack: RunningStack
    cluster: SimulatedCluster
    slack: SlackPeer
    service: str

    async def restart(self) -> None:
        await self.stack.kill()
        await self.stack.start()

    @property
    def writes(self) -> list[tuple[int, int]]:
        return [(write.before, write.after) for write in self.cluster.writes if write.deployment == self.service]

    async def has_written(self) -> bool:
        return len(self.writes) > 0

    @property
    def cards(self) -> list[PeerMessage]:
        (alert,) = [message for message in self.slack.messages() if f"Service: {self.service} " in message.shown]
        return [message for message in self.slack.replies(alert) if "Runbook Approval" in message.shown]

    async def waiting(self) -> str:
        """An incident whose runbook waits for approval, long enough that nothing else is going on. Returns: its id."""
        incident_id = await self.stack.fire(service_id=self.service)
        await self.stack.until(incident_id, is_waiting)
        for action in ("alert.sent", "approval.requested"):
            await self.stack.audit(incident_id, until=action)
        assert len(self.cards) == 1
        return incident_id

    async def approved_by_key(self, incident_id: str) -> None:
        await self.stack.post(f"/api/v1/incidents/{incident_id}/decision", {"decision": "approve"})

    async def finished_once(self, incident_id: str) -> None:
        """The run ended well, and everything it did is there once."""
        story = await self.stack.until(incident_id, has_ended)
        assert story["runbooks"][0]["status"] == "succeeded", story
        assert self.writes == [(3, 5)]
        rows = await self.stack.audit(incident_id, until="runbook.finished")
        assert tuple(sorted(actions(rows))) == FINISHED
        assert len({row["event_id"] for row in rows}) == len(rows)
        assert len(self.cards) == 1


@pytest.fixture(scope="module")
async def killed_stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[RunningStack, SimulatedCluster, SlackPeer]]:
    folder = tmp_path_factory.mktemp("killed")
    async with SimulatedCluster(rollout=ROLLOUT) as cluster, SlackPeer() as slack:
        kubeconfig = cluster.write_kubeconfig(folder / "kubeconfig")
        async with running(folder, KUBECONFIG=str(kubeconfig), **slack_variables(slack)) as stack:
            yield stack, cluster, slack


@pytest.fixture
async def world(killed_stack: tuple[RunningStack, SimulatedCluster, SlackPeer]) -> World:
    stack, cluster, slack = killed_stack
    world = World(stack, cluster, slack, f"service-{uuid4().hex[:8]}")
    cluster.add_deployment("production", world.service, 3)
    write_runbook(stack.runbooks, scale_runbook(world.service))
    return world


async def test_killed_while_it_waits_for_approval_the_first_click_after_the_restart_counts(world: World) -> None:
    incident_id = await world.waiting()
    first_key = world.stack.key

    await world.restart()
    assert await world.stack.click(world.slack, world.cards[0], "approve_step") == 200
    await eventually(world.has_written, CLICK_SECONDS)

    await world.finished_once(incident_id)
    assert world.stack.key == first_key
    assert world.stack.output.count("API key") == 1  # shown at the first start only


async def test_killed_right_after_the_approval_was_answered_it_is_not_forgotten(world: World) -> None:
    incident_id = await world.waiting()
    await world.approved_by_key(incident_id)

    await world.restart()

    await world.finished_once(incident_id)


async def test_killed_while_the_step_runs_the_cluster_is_written_once(world: World) -> None:
    incident_id = await world.waiting()
    await world.approved_by_key(incident_id)
    await eventually(world.has_written)

    await world.restart()

    await world.finished_once(incident_id)
    # The step was really begun a second time, so that its guard, and not luck, kept a second write away.
    run_id = f"{incident_id}/scale-out-{world.service}"
    assert max(await attempts(world.stack.temporal, run_id, "step.execute")) == 2


async def test_killed_right_after_the_resolution_was_answered_it_is_remembered(world: World) -> None:
    incident_id = await world.waiting()
    await world.stack.post(f"/api/v1/incidents/{incident_id}/resolve", {"text": "Restarted the connection pool."})

    await world.restart()

    story = await world.stack.until(incident_id, lambda seen: seen["resolution"] and has_ended(seen))
    assert story["status"] == "resolved"
    rows = await world.stack.audit(incident_id, until="incident.resolved")
    assert actions(rows).count("incident.resolved") == 1
    assert world.writes == []

    async def remembers() -> bool:
        again = await world.stack.fire(service_id=world.service, anomaly_score=0.5)
        seen = await world.stack.until(again, lambda story: story["severity"])
        return seen["similar"] is not None and seen["similar"]["anomaly_id"] == incident_id

    await eventually(remembers, 20)


async def test_an_approval_whose_deadline_passed_while_everything_was_down_is_not_accepted_afterwards(world: World) -> None:
    write_runbook(world.stack.runbooks, scale_runbook(world.service, approval_timeout_minutes=0.08))
    incident_id = await world.stack.fire(service_id=world.service)
    # The clock of an approval starts when Slack has its card: before that, a kill would only delay it.
    story = await world.stack.until(incident_id, lambda seen: (step := open_step(seen)) and step["approval"]["deadline_at"])
    step = open_step(story)
    assert step is not None
    deadline = datetime.fromisoformat(step["approval"]["deadline_at"])
    click = world.slack.click(world.cards[0], "approve_step")
    await world.stack.kill()
    await eventually(lambda: _true(datetime.now(UTC) > deadline))

    await world.stack.start()
    assert await world.stack.deliver(world.slack, click) == 200

    story = await world.stack.until(incident_id, has_ended)
    assert story["runbooks"][0]["steps"][1]["approval"]["status"] == "expired"
    assert world.writes == []
    rows = await world.stack.audit(incident_id, until="runbook.finished")
    assert "approval.expired" in actions(rows) and "approval.approved" not in actions(rows)


async def _true(value: bool) -> bool:
    return value
