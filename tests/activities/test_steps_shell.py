"""Shell steps, from the step of a runbook to a real sshd and back."""

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from activities.clients.ssh import SshClient
from activities.clients.ssh_hosts import SETTING
from activities.secrets import Secrets
from activities.steps import StepActivities, register
from activities.steps.shell import ShellSteps
from domain.incident import StepRequest
from domain.plan import StepPlan
from tests.activities.ssh_hosts import ALIAS, QUICK_LIMITS, Recorder, Tree, hosts_of
from tests.activities.steps import NAMES, QUICK, Attempt, a_request, a_step, attempt, eventually, failure_of, run_step, with_plan
from tests.peers.sshd import SshServer, sshd

SECRET = "hunter2-value"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    with sshd(tmp_path_factory.mktemp("sshd")) as running:
        yield running


def shell_activities(server: SshServer, *allowed: str, secrets: Secrets | None = None, **changes: Any) -> StepActivities:
    known = secrets or Secrets({})
    client = SshClient(hosts_of(server, *allowed, **changes), QUICK_LIMITS)
    return StepActivities(register([ShellSteps(client, known)]), known, heartbeat_interval=QUICK)


def a_shell(command: str, **keys: Any) -> StepRequest:
    names = keys.pop("names", NAMES)
    return a_request(a_step(type="shell", command=command, **{"host": ALIAS, **keys}), names=names)


# What is planned


async def test_the_plan_says_where_which_line_will_be_run(server: SshServer) -> None:
    activities = shell_activities(server, "systemctl restart {unit:[a-z-]+}")
    connections = server.connections()
    plan = await attempt(activities.plan, a_shell("systemctl  restart '{{ service_id }}'"))
    target = f"{server.user}@127.0.0.1:{server.port}"
    fingerprint = hosts_of(server).host(ALIAS).host_key.fingerprint
    assert plan.title == "Run `systemctl restart payment-api` on prod-host-01"
    assert plan.change == f"{target} runs: systemctl restart payment-api"
    assert [(fact.label, fact.value) for fact in plan.facts] == [
        ("Host", f"prod-host-01 ({target})"),
        ("Host key", fingerprint),
        ("Time limit", "60 s, then the command is ended"),
    ]
    assert plan.request == {
        "host": "prod-host-01",
        "address": "127.0.0.1",
        "port": server.port,
        "user": server.user,
        "host_key": fingerprint,
        "command": "systemctl restart payment-api",
    }
    assert server.connections() == connections


async def test_a_value_is_planned_as_one_quoted_word(server: SshServer) -> None:
    plan = await attempt(
        shell_activities(server, "logger {text:(?s:.*)}").plan,
        a_shell("logger {{ root_cause }}", names={"root_cause": "a; reboot\n$(b)"}),
    )
    assert plan.request["command"] == "logger 'a; reboot\n$(b)'"
    assert plan.change.endswith("runs: logger 'a; reboot\\n$(b)'")
    assert plan.facts[-1].label == "Note"


async def test_the_whole_line_is_in_the_change_even_where_the_title_is_cut(server: SshServer) -> None:
    text = "x" * 1_000
    plan = await attempt(shell_activities(server, "logger {text:x*}").plan, a_shell(f"logger {text}"))
    assert plan.change.endswith(f"runs: logger {text}")
    assert len(plan.title) < 300


@pytest.mark.parametrize("method", ["plan", "execute"])
async def test_without_a_hosts_file_the_setting_is_named(method: str) -> None:
    activities = StepActivities(register([ShellSteps(None, Secrets({}))]), Secrets({}))
    error = await failure_of(attempt(getattr(activities, method), a_shell("uptime")))
    assert (error.type, error.non_retryable) == ("NotConfigured", True)
    assert SETTING in error.message


@pytest.mark.parametrize("method", ["plan", "execute"])
@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (a_shell("reboot"), "step 2: the command is not allowed; allowed are `uptime`, `logger {text:[a-z]+}`"),
        (a_shell("uptime; reboot"), "step 2: the command is not allowed word for word, and has ';' outside of quotes"),
        (a_shell("logger {{ root_cause }}"), "step 2: the command is not allowed; allowed are"),
        (a_shell("logger {{ root_cause }}", names={"root_cause": "a b"}), "step 2: the command is not allowed"),
        (a_shell("logger {{ root_cause }}", names={"root_cause": "-f"}), "step 2: the command is not allowed"),
        (a_shell("logger {{ metric_value }}"), "'{{ metric_value }}' has no value in this run"),
        (a_shell("uptime", host="web-9"), "step 2: 'web-9' is not a host of shell steps; known are prod-host-01"),
        (a_shell("uptime", host="{{ environment }}"), "step 2: 'production' is not a host of shell steps"),
    ],
)
async def test_what_is_not_allowed_does_not_reach_the_host(
    server: SshServer, method: str, request_: StepRequest, reason: str
) -> None:
    connections = server.connections()
    error = await failure_of(attempt(getattr(shell_activities(server, "uptime", "logger {text:[a-z]+}"), method), request_))
    assert (error.type, error.non_retryable) == ("InvalidStep", True)
    assert error.message.startswith(reason)
    assert server.connections() == connections


@pytest.mark.parametrize(
    "change",
    [
        {"user": "somebody"},
        {"address": "localhost"},
        {"port": 1},
        {"host_key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"},
    ],
)
async def test_a_host_that_is_configured_otherwise_than_when_it_was_approved_runs_nothing(
    server: SshServer, change: dict[str, Any]
) -> None:
    request = a_shell("echo ok", require_approval=True)
    plan = await attempt(shell_activities(server, "echo ok").plan, request)
    connections = server.connections()
    error = await failure_of(
        attempt(shell_activities(server, "echo ok", **change).execute, with_plan(request, plan, approved=True))
    )
    assert error.type == "PlanChanged"
    assert server.connections() == connections


async def test_a_command_that_is_no_longer_allowed_runs_no_more_though_it_was_approved(server: SshServer) -> None:
    request = a_shell("echo ok", require_approval=True)
    plan = await attempt(shell_activities(server, "echo ok").plan, request)
    error = await failure_of(attempt(shell_activities(server, "uptime").execute, with_plan(request, plan, approved=True)))
    assert error.type == "InvalidStep"


async def test_a_plan_with_another_line_in_it_runs_nothing(server: SshServer) -> None:
    request = a_shell("echo ok", require_approval=True)
    activities = shell_activities(server, "echo ok")
    plan = await attempt(activities.plan, request)
    forged = StepPlan(title=plan.title, change=plan.change, request={**plan.request, "command": "reboot"})
    assert (await failure_of(attempt(activities.execute, with_plan(request, forged, approved=True)))).type == "PlanChanged"


# What comes back


async def test_a_command_that_succeeded_tells_its_output(server: SshServer, tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    activities = shell_activities(server, f"{recorder.command} {{service:[a-z-]+}}", "echo out; echo err >&2; exit 0")
    result = await run_step(activities, a_shell(f"{recorder.command} {{{{ service_id }}}}"))
    assert recorder.executions() == [[b"payment-api"]]
    assert result.outputs == {"exit_code": 0, "output": ""}
    assert result.undo is None
    result = await run_step(activities, a_shell("echo out; echo err >&2; exit 0"))
    assert sorted(str(result.outputs["output"]).split("\n")) == ["err", "out"]
    assert result.summary.startswith("`echo out; echo err >&2; exit 0` on prod-host-01 exited 0 in ")
    assert result.summary.endswith(" s")


async def test_a_command_that_failed_tells_its_code_and_its_last_words(server: SshServer, tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    command = f"{recorder.command} x; echo begun; seq 1 500 >&2; echo 'unit not found' >&2; exit 5"
    error = await failure_of(run_step(shell_activities(server, command), a_shell(command)))
    assert (error.type, error.non_retryable) == ("StepFailed", True)
    assert " on prod-host-01 exited 5 after 0." in error.message
    assert error.message.endswith("499 500 unit not found”")
    assert "begun" not in error.message.rpartition("exited")[2]
    assert error.details == ()
    assert len(recorder.executions()) == 1


async def test_a_command_that_failed_without_a_word_of_error_tells_the_end_of_its_output(server: SshServer) -> None:
    error = await failure_of(run_step(shell_activities(server, "echo told; exit 1"), a_shell("echo told; exit 1")))
    assert error.message.endswith(": “told”")


async def test_a_command_that_a_signal_ended_says_so(server: SshServer) -> None:
    error = await failure_of(run_step(shell_activities(server, "kill -9 $$"), a_shell("kill -9 $$")))
    assert "was ended by the signal KILL after" in error.message


async def test_secrets_are_kept_out_of_output_and_failure(server: SshServer, tmp_path: Path) -> None:
    secrets = Secrets({"API_TOKEN": SECRET})
    (tmp_path / "written").write_text(f"a {SECRET} b hunter2\033[1m-value c")
    shown = f"cat {tmp_path}/written"
    fails = f"{shown} >&2; exit 1"
    activities = shell_activities(server, shown, fails, secrets=secrets)
    result = await run_step(activities, a_shell(shown))
    assert result.outputs["output"] == "a $API_TOKEN b $API_TOKEN c"
    assert SECRET not in result.summary
    error = await failure_of(run_step(activities, a_shell(fails)))
    assert error.message.endswith(": “a $API_TOKEN b $API_TOKEN c”")
    assert "hunter2" not in error.message


async def test_a_host_that_refuses_is_told_in_one_sentence(server: SshServer) -> None:
    activities = shell_activities(server, "uptime", user="nobody-here")
    error = await failure_of(run_step(activities, a_shell("uptime")))
    assert (error.type, error.non_retryable) == ("Refused", True)
    assert error.message == (
        f"prod-host-01 (nobody-here@127.0.0.1:{server.port}) does not accept the key of that user: nothing was run"
    )


async def test_a_far_shell_that_ends_before_it_comes_to_the_command_did_not_run_it(tmp_path: Path) -> None:
    with sshd(tmp_path / "sshd", extra="ForceCommand echo closed for today; exit 1") as server:
        error = await failure_of(run_step(shell_activities(server, "uptime"), a_shell("uptime")))
    assert error.type == "Refused"
    assert error.message == (
        "`uptime` on prod-host-01 was not run: the far shell exited 1 before it came to the command: “closed for today”"
    )


# At most once, and not for ever


async def test_a_command_whose_attempt_was_lost_is_not_run_again(server: SshServer, tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    activities = shell_activities(server, recorder.command)
    await attempt(activities.execute, a_shell(recorder.command))
    for number in (2, 3):
        error = await failure_of(attempt(activities.execute, a_shell(recorder.command), number=number))
        assert (error.type, error.non_retryable) == ("OutcomeUnknown", True)
    assert len(recorder.executions()) == 1


async def test_a_cut_connection_leaves_an_unknown_outcome_of_one_execution(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    with sshd(tmp_path / "sshd") as server:
        running = asyncio.ensure_future(failure_of(run_step(shell_activities(server, tree.command), a_shell(tree.command))))
        await eventually(lambda: tree.is_grown)
        server.signal_connections(signal.SIGKILL)
        error = await running
        assert (error.type, error.non_retryable) == ("OutcomeUnknown", True)
        assert len(tree.processes()) == 3
    tree.kill()


async def test_a_command_that_takes_too_long_is_ended_and_the_failure_says_so(server: SshServer, tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    error = await failure_of(run_step(shell_activities(server, tree.command), a_shell(tree.command, timeout_seconds=2)))
    assert error.type == "StepFailed"
    assert error.message.endswith(" on prod-host-01 was not over within 2 s and was ended with its process group")
    assert tree.is_grown, "2 s are too short for this machine"
    assert tree.alive() == []


async def test_a_step_that_is_cancelled_ends_its_command_and_is_heard_of_meanwhile(server: SshServer, tmp_path: Path) -> None:
    tree, running = Tree(tmp_path, stubborn=True), Attempt()
    activities = shell_activities(server, tree.command)
    work = asyncio.ensure_future(failure_of(running.run(activities.execute, a_shell(tree.command))))
    await eventually(lambda: tree.is_grown)
    heartbeats = len(running.heartbeats)
    running.environment.cancel()
    error = await work
    assert error.type == "StepFailed"
    assert " on prod-host-01 was ended with its process group after " in error.message
    assert error.message.endswith(" s, because the step was cancelled")
    assert tree.alive() == []
    assert len(running.heartbeats) > heartbeats


async def test_the_control_a_step_that_is_not_cancelled_lets_its_command_run(server: SshServer, tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    work = asyncio.ensure_future(attempt(shell_activities(server, tree.command).execute, a_shell(tree.command)))
    await eventually(lambda: tree.is_grown)
    assert len(tree.alive()) == 3
    tree.kill()
    assert (await failure_of(work)).type == "StepFailed"
