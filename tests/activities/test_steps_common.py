"""The rules that hold for every step type: what may run, what is told of failures, heartbeats, attempts."""

import asyncio
from typing import Any, ClassVar

import pytest

from activities.errors import (
    Conflict,
    OrchestratorError,
    OutcomeUnknown,
    RateLimited,
    StepFailed,
    Unreachable,
    to_application_error,
    undo_of,
)
from activities.secrets import Secrets
from activities.steps import StepActivities, register
from activities.steps import heartbeat as step_heartbeat
from activities.steps.base import StepType
from domain.incident import StepRequest, UndoRequest
from domain.plan import StepPlan, StepResult, Undo
from domain.runbook import Step
from tests.activities.steps import (
    NAMES,
    QUICK,
    Attempt,
    a_request,
    a_scale,
    a_step,
    an_undo_request,
    attempt,
    eventually,
    failure_of,
    step_activities,
    with_plan,
)

A_MESSAGE = a_step(type="slack", message="hello")
AN_APPROVED_MESSAGE = a_step(type="slack", message="hello", require_approval=True)
A_POST = a_step(type="http", method="POST", url="http://127.0.0.1/")
AN_UNDO = Undo(title="Put it back", request={"to": 3})


class Recorder:
    """A step type that records what reached it, and does what the test says."""

    type: ClassVar[str] = "slack"

    def __init__(self, *, failure: Exception | None = None) -> None:
        self.executed: list[StepRequest] = []
        self.failure = failure
        self.release = asyncio.Event()
        self.release.set()
        self.rendered: dict[str, Any] = {"exact": "request"}

    def render(self, request: StepRequest) -> dict[str, Any]:
        return self.rendered

    async def plan(self, request: StepRequest) -> StepPlan:
        return StepPlan(title="Do it", change="something", request=self.rendered, observed={"replicas": 3})

    async def execute(self, request: StepRequest) -> StepResult:
        self.executed.append(request)
        await self.release.wait()
        if self.failure:
            raise self.failure
        return StepResult(summary="done with hunter2-value", outputs={"said": "hunter2-value", "count": 1}, undo=AN_UNDO)

    async def undo(self, request: UndoRequest) -> StepResult:
        if self.failure:
            raise self.failure
        return StepResult(summary="taken back")


class HttpRecorder(Recorder):
    type: ClassVar[str] = "http"


class KubernetesRecorder(Recorder):
    type: ClassVar[str] = "kubernetes"


def activities_of(*types: StepType, secrets: Secrets | None = None) -> StepActivities:
    return StepActivities(register(types), secrets or Secrets({}), heartbeat_interval=QUICK)


# What may run


async def test_a_step_that_needs_no_plan_runs_without_one_and_gets_one_made() -> None:
    recorder = Recorder()
    await attempt(activities_of(recorder).execute, a_request(A_MESSAGE))
    (seen,) = recorder.executed
    assert seen.plan is not None
    assert seen.plan.title == "Do it"


async def test_an_approved_step_runs_with_the_plan_that_was_approved() -> None:
    recorder = Recorder()
    activities = activities_of(recorder)
    plan = await attempt(activities.plan, a_request(AN_APPROVED_MESSAGE))
    await attempt(activities.execute, with_plan(a_request(AN_APPROVED_MESSAGE), plan, approved=True))
    assert [request.plan for request in recorder.executed] == [plan]


async def refused(recorder: Recorder, request: StepRequest) -> str:
    error = await failure_of(attempt(activities_of(recorder).execute, request))
    assert error.type == "PlanChanged"
    assert error.non_retryable
    assert recorder.executed == []
    return error.message


async def test_a_step_that_asks_for_approval_does_not_run_without_a_plan() -> None:
    recorder = Recorder()
    assert "without one: nothing was run" in await refused(recorder, a_request(AN_APPROVED_MESSAGE))


async def test_an_approval_without_its_plan_runs_nothing() -> None:
    recorder = Recorder()
    digest = (await recorder.plan(a_request(A_MESSAGE))).digest
    assert "without one: nothing was run" in await refused(recorder, a_request(A_MESSAGE, approved_digest=digest))


async def test_a_step_whose_plan_reads_the_world_does_not_run_without_one() -> None:
    recorder = KubernetesRecorder()
    assert "must be planned before it runs" in await refused(recorder, a_request(a_scale()))


async def test_a_step_that_asks_for_approval_does_not_run_on_a_plan_alone() -> None:
    recorder = Recorder()
    plan = await recorder.plan(a_request(AN_APPROVED_MESSAGE))
    assert "was not approved" in await refused(recorder, a_request(AN_APPROVED_MESSAGE, plan=plan))


@pytest.mark.parametrize("digest", ["", "0" * 64])
async def test_an_approval_of_another_plan_runs_nothing(digest: str) -> None:
    recorder = Recorder()
    plan = await recorder.plan(a_request(AN_APPROVED_MESSAGE))
    request = a_request(AN_APPROVED_MESSAGE, plan=plan, approved_digest=digest)
    assert "is not what was approved" in await refused(recorder, request)


async def test_an_approval_of_another_plan_stops_a_step_that_asked_for_none_too() -> None:
    recorder = Recorder()
    plan = await recorder.plan(a_request(A_MESSAGE))
    assert "is not what was approved" in await refused(recorder, a_request(A_MESSAGE, plan=plan, approved_digest="0" * 64))


async def test_a_plan_that_saw_another_world_than_the_approved_one_runs_nothing() -> None:
    recorder = Recorder()
    plan = await recorder.plan(a_request(AN_APPROVED_MESSAGE))
    moved = plan.model_copy(update={"observed": {"replicas": 4}})
    request = a_request(AN_APPROVED_MESSAGE, plan=moved, approved_digest=plan.digest)
    assert "is not what was approved" in await refused(recorder, request)


@pytest.mark.parametrize("planned", [{"exact": "other"}, {}, {"exact": "request", "more": 1}])
async def test_an_approved_plan_of_something_else_runs_nothing(planned: dict[str, Any]) -> None:
    recorder = Recorder()
    plan = StepPlan(title="Do it", change="something", request=planned)
    request = a_request(AN_APPROVED_MESSAGE, plan=plan, approved_digest=plan.digest)
    assert "is not what was planned" in await refused(recorder, request)


async def test_a_true_is_not_the_1_that_was_approved_although_python_calls_them_equal() -> None:
    recorder = Recorder()
    recorder.rendered = {"replicas": True}
    plan = StepPlan(title="Do it", change="something", request={"replicas": 1})
    assert "is not what was planned" in await refused(recorder, a_request(A_MESSAGE, plan=plan))


@pytest.mark.parametrize(
    "other",
    [
        a_step(type="slack", message="hello {{ root_cause }}", require_approval=True),
        a_step(type="slack", message="hello", channel="#alerts", require_approval=True),
    ],
)
async def test_the_plan_of_another_message_is_refused_by_the_real_step_type(other: Step) -> None:
    activities = step_activities()
    plan = await attempt(activities.plan, a_request(AN_APPROVED_MESSAGE))
    request = a_request(other, plan=plan, approved_digest=plan.digest)
    assert (await failure_of(attempt(activities.execute, request))).type == "PlanChanged"


async def test_a_name_that_changed_since_the_approval_changes_the_step() -> None:
    activities = step_activities()
    step = a_step(type="slack", message="{{ root_cause }}", require_approval=True)
    plan = await attempt(activities.plan, a_request(step))
    request = a_request(step, names={**NAMES, "root_cause": "another"}, plan=plan, approved_digest=plan.digest)
    assert (await failure_of(attempt(activities.execute, request))).type == "PlanChanged"


# What is told of failures


@pytest.mark.parametrize("method", ["plan", "execute"])
async def test_a_placeholder_without_a_value_is_an_invalid_step(method: str) -> None:
    request = a_request(a_step(type="slack", message="{{ metric_value }}"))
    error = await failure_of(attempt(getattr(step_activities(), method), request))
    assert (error.type, error.non_retryable) == ("InvalidStep", True)
    assert error.message == "'{{ metric_value }}' has no value in this run"


async def test_a_type_that_nobody_registered_is_refused_by_its_name() -> None:
    error = await failure_of(attempt(activities_of().plan, a_request(A_POST)))
    assert (error.type, error.message) == ("InvalidStep", "step 2 is of type http, which this worker does not know")


def test_two_step_types_cannot_claim_one_name() -> None:
    with pytest.raises(ValueError, match="two step types are registered as 'slack'"):
        register([Recorder(), Recorder()])


@pytest.mark.parametrize(
    ("failure", "retryable"),
    [(Conflict("no"), False), (Unreachable("no"), True), (RateLimited("no"), True), (OutcomeUnknown("no"), False)],
)
async def test_every_failure_leaves_with_its_own_type_and_without_a_cause(failure: OrchestratorError, retryable: bool) -> None:
    error = await failure_of(attempt(activities_of(Recorder(failure=failure)).execute, a_request(A_MESSAGE)))
    assert (error.type, error.non_retryable) == (type(failure).__name__, not retryable)
    assert error.__cause__ is None
    assert error.__context__ is None


async def test_the_undo_of_a_step_that_failed_after_its_change_is_a_detail_of_the_failure() -> None:
    failing = Recorder(failure=StepFailed("half done", undo=AN_UNDO))
    error = await failure_of(attempt(activities_of(failing).execute, a_request(A_MESSAGE)))
    assert (error.type, error.non_retryable) == ("StepFailed", True)
    assert undo_of(error) == AN_UNDO
    assert undo_of(to_application_error(StepFailed("half done", undo=None))) is None


async def test_secrets_are_taken_out_of_failures_before_they_are_shortened() -> None:
    secrets = Secrets({"API_TOKEN": "hunter2-value"})
    failing = Recorder(failure=Conflict("x" * 990 + "hunter2-value"))
    error = await failure_of(attempt(activities_of(failing, secrets=secrets).execute, a_request(A_MESSAGE)))
    assert "hunter" not in error.message


async def test_secrets_are_taken_out_of_results_but_not_out_of_the_undo() -> None:
    secrets = Secrets({"API_TOKEN": "hunter2-value"})
    result = await attempt(activities_of(Recorder(), secrets=secrets).execute, a_request(A_MESSAGE))
    assert result.summary == "done with $API_TOKEN"
    assert result.outputs == {"said": "$API_TOKEN", "count": 1}
    assert result.undo == AN_UNDO


async def test_a_fault_of_ours_is_told_by_its_place_and_without_secrets() -> None:
    secrets = Secrets({"API_TOKEN": "hunter2-value"})
    failing = Recorder(failure=KeyError("hunter2-value"))
    error = await failure_of(attempt(activities_of(failing, secrets=secrets).execute, a_request(A_MESSAGE)))
    assert error.type == "KeyError"
    assert error.message.startswith("unexpected KeyError at test_steps_common.py:")
    assert "hunter2" not in error.message
    assert error.__cause__ is None
    assert error.__context__ is None


async def test_a_fault_of_ours_in_a_step_that_may_happen_once_is_an_unknown_outcome() -> None:
    failing = HttpRecorder(failure=KeyError("oops"))
    error = await failure_of(attempt(activities_of(failing).execute, a_request(A_POST)))
    assert (error.type, error.non_retryable) == ("OutcomeUnknown", True)


async def test_failures_of_an_undo_are_converted_too() -> None:
    failing = Recorder(failure=Conflict("somebody was here"))
    error = await failure_of(attempt(activities_of(failing).undo, an_undo_request(A_MESSAGE, AN_UNDO)))
    assert (error.type, error.message) == ("Conflict", "somebody was here")


# Attempts


async def test_a_lost_first_attempt_of_a_step_that_may_happen_once_is_not_followed_by_a_second() -> None:
    recorder = HttpRecorder()
    error = await failure_of(attempt(activities_of(recorder).execute, a_request(A_POST), number=2))
    assert (error.type, error.non_retryable) == ("OutcomeUnknown", True)
    assert recorder.executed == []


async def test_a_step_that_may_be_repeated_runs_in_its_second_attempt() -> None:
    recorder = HttpRecorder()
    repeatable = a_step(type="http", method="POST", url="http://127.0.0.1/", idempotent=True)
    await attempt(activities_of(recorder).execute, a_request(repeatable), number=2)
    assert len(recorder.executed) == 1


async def test_a_failure_of_a_step_that_may_happen_once_is_not_retried_even_where_nothing_was_sent() -> None:
    error = await failure_of(attempt(activities_of(HttpRecorder(failure=Unreachable("gone"))).execute, a_request(A_POST)))
    assert (error.type, error.non_retryable) == ("Unreachable", True)


# Heartbeats


async def test_a_step_is_heard_of_while_it_waits_and_falls_silent_when_it_is_done() -> None:
    recorder = Recorder()
    recorder.release.clear()
    running = Attempt()
    tasks_before = asyncio.all_tasks()
    task = asyncio.ensure_future(running.run(activities_of(recorder).execute, a_request(A_MESSAGE)))
    await eventually(lambda: len(running.heartbeats) >= 3)
    recorder.release.set()
    await task
    assert asyncio.all_tasks() == tasks_before


async def test_progress_is_repeated_by_the_heartbeats_that_follow() -> None:
    class Telling(Recorder):
        async def execute(self, request: StepRequest) -> StepResult:
            step_heartbeat.say("half way")
            return await super().execute(request)

    recorder = Telling()
    recorder.release.clear()
    running = Attempt()
    task = asyncio.ensure_future(running.run(activities_of(recorder).execute, a_request(A_MESSAGE)))
    await eventually(lambda: running.heartbeats.count(("half way",)) >= 3)
    recorder.release.set()
    await task


async def test_a_cancelled_step_stays_cancelled() -> None:
    recorder = Recorder()
    recorder.release.clear()
    running = Attempt()
    task = asyncio.ensure_future(running.run(activities_of(recorder).execute, a_request(A_MESSAGE)))
    await eventually(lambda: bool(recorder.executed))
    running.environment.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_the_activities_have_the_names_that_workflows_call() -> None:
    names = [getattr(method, "__temporal_activity_definition").name for method in step_activities().all]
    assert names == ["step.plan", "step.execute", "step.undo"]
