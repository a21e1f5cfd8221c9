"""Record the histories that the replay test holds the workflows against, one per path of the stories.

    python -m tests.replay.record [FOLDER]

Each scenario is played on the real server by the real workflows. A stored history is never edited: a scenario whose file exists
is left alone, so that a changed workflow has to replay what the old one did.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

from temporalio.client import WorkflowHandle

from activities.errors import OutcomeUnknown, PlanChanged, Refused
from domain.approval import Choice
from domain.incident import RecoverRequest, RunStatus, SettleRequest, SlackMode, StepRequest, Verdict
from domain.plan import StepResult
from domain.runbook import Runbook, load_runbook
from tests.peers.temporal import real_server
from tests.workflows.world import ADA, BOB, Stage, hasty, scale_runbook
from workflows.connection import connect

HISTORIES = Path(__file__).parent / "histories"

Handles = list[WorkflowHandle]
Scenario = Callable[[Stage], Awaitable[Handles]]


async def approved(stage: Stage) -> Handles:
    """The seed's story: alerted, approved, executed, a second click refused, resolved, remembered."""
    stage.world.runbooks = (scale_runbook(),)
    incident = await stage.incident()
    run = await incident.run()
    ref = await run.open_request()
    await run.decide(Choice.APPROVE, ref, reason="go")
    await run.decide(Choice.REJECT, ref, by=BOB)
    await run.result()
    await incident.resolve()
    await incident.result()
    return [incident.handle, run.handle]


async def rejected(stage: Stage) -> Handles:
    run = await stage.run()
    await run.decide(Choice.REJECT, await run.open_request(), reason="not at noon")
    await run.result()
    return [run.handle]


async def expired(stage: Stage) -> Handles:
    run = await stage.run(hasty(minutes=0.01))
    await run.result()
    return [run.handle]


async def suppressed(stage: Stage) -> Handles:
    """Not alerted; its approval is asked for all the same, and cancelled by the resolution."""
    stage.world.verdict = Verdict(alert=False, reason="quiet hours 23:00–07:00 UTC")
    stage.world.runbooks = (scale_runbook(),)
    incident = await stage.incident()
    run = await incident.run()
    await run.open_request()
    await incident.resolve()
    await incident.result()
    await run.result()
    return [incident.handle, run.handle]


async def rolled_back(stage: Stage) -> Handles:
    def refuse_the_last(request: StepRequest) -> StepResult | None:
        if request.step.type == "http":
            raise Refused("the hook answered 400")
        return None

    stage.world.on_execute = refuse_the_last
    run = await stage.run(_scale_and_hook())
    await run.result()
    return [run.handle]


async def replanned(stage: Stage) -> Handles:
    """The world moved after the approval; the step is planned and asked again."""

    def move_once(request: StepRequest) -> StepResult | None:
        if request.step.type == "kubernetes" and stage.world.replicas == 3:
            stage.world.replicas = 4
            raise PlanChanged("payment-api has 4 replicas, the plan saw 3")
        return None

    stage.world.on_execute = move_once
    run = await stage.run()
    await run.decide(Choice.APPROVE, await run.open_request())
    await run.decide(Choice.APPROVE, await run.open_request(round=2))
    await run.result()
    return [run.handle]


async def unknown(stage: Stage) -> Handles:
    tries: list[int] = []

    def lose_the_first(request: StepRequest) -> StepResult | None:
        tries.append(request.number)
        if len(tries) == 1:
            raise OutcomeUnknown("the connection broke after the request was sent")
        return None

    stage.world.on_execute = lose_the_first
    run = await stage.run(
        load_runbook({"name": "hook", "steps": [{"type": "http", "method": "POST", "url": "https://example.com/hook"}]})
    )
    await run.when(RunStatus.UNKNOWN)
    await run.handle.signal("settle", SettleRequest(step=1, choice="retry", by=ADA, received_at=await stage.now()))
    await run.result()
    return [run.handle]


async def recovered(stage: Stage) -> Handles:
    stage.world.triage_overrides = {"recovered_close": timedelta(seconds=1)}
    stage.world.runbooks = (hasty(minutes=0.01),)
    incident = await stage.incident()
    run = await incident.run()
    await run.open_request()
    await incident.handle.signal("recover", RecoverRequest(recovered_at=await stage.now()))
    await incident.result()
    return [incident.handle, run.handle]


async def worker_restarted(stage: Stage) -> Handles:
    """The worker goes away while the gate is open, a click arrives meanwhile, and another worker goes on."""
    stage.world.runbooks = (scale_runbook(),)
    incident = await stage.incident()
    run = await incident.run()
    ref = await run.open_request()
    await stage.stop_worker()
    await run.decide(Choice.APPROVE, ref)
    await stage.start_worker()
    await run.result()
    await incident.resolve()
    await incident.result()
    return [incident.handle, run.handle]


async def dry(stage: Stage) -> Handles:
    run = await stage.run(dry_run=True)
    await run.result()
    return [run.handle]


async def without_slack(stage: Stage) -> Handles:
    stage.world.slack = SlackMode.OFF
    stage.world.runbooks = (scale_runbook(),)
    incident = await stage.incident()
    run = await incident.run()
    await run.decide(Choice.APPROVE, await run.open_request())
    await run.result()
    await incident.resolve()
    await incident.result()
    return [incident.handle, run.handle]


SCENARIOS: tuple[Scenario, ...] = (
    approved,
    rejected,
    expired,
    suppressed,
    rolled_back,
    replanned,
    unknown,
    recovered,
    worker_restarted,
    dry,
    without_slack,
)


def _scale_and_hook() -> Runbook:
    return load_runbook(
        {
            "name": "scale-and-hook",
            "steps": [
                {"type": "kubernetes", "action": "scale", "namespace": "production", "deployment": "payment-api", "replicas": 5},
                {"type": "http", "method": "POST", "url": "https://example.com/hook"},
            ],
            "rollback_on_failure": True,
        }
    )


async def record(folder: Path) -> list[Path]:
    """Play what is not recorded yet. Returns: the files written."""
    written: list[Path] = []
    recorded = {path.name.split(".")[0] for path in folder.glob("*.json")}  # noqa: ASYNC240 - once, before anything runs
    async with real_server() as server:
        client = await connect(target_host=server.address)
        for scenario in SCENARIOS:
            name = scenario.__name__.replace("_", "-")
            if name in recorded:
                continue
            async with Stage(client) as stage:
                for handle in await scenario(stage):
                    history = await handle.fetch_history()
                    kind = "run" if "/" in handle.id else "incident"
                    path = folder / f"{name}.{kind}.json"
                    path.write_text(history.to_json() + "\n")
                    written.append(path)
    return written


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else HISTORIES
    target.mkdir(parents=True, exist_ok=True)
    for path in asyncio.run(record(target)):
        print(path.name)
