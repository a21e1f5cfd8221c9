"""`infrasage doctor`: a line for each thing, and a failure for what is required and does not work."""

import json
from pathlib import Path

from cli.embedded import free_port
from tests.e2e.harness import RunningStack, infrasage_here, slack_variables, write_runbook
from tests.peers.slack import SlackPeer


def grades(out: str) -> dict[str, str]:
    return {item["check"]: item["grade"] for item in json.loads(out)["checks"]}


async def test_a_stack_that_works_is_in_good_health_and_the_missing_policy_is_mentioned(stack: RunningStack) -> None:
    outcome = await stack.command("doctor", RUNBOOKS_DIR=str(stack.runbooks), **stack.variables)
    assert outcome.code == 0, outcome.out + outcome.err
    lines = [line.split() for line in outcome.out.splitlines()]
    assert [line[1] for line in lines[:6]] == ["configuration", "Temporal", "ClickHouse", "Slack", "approvals", "Kubernetes"]
    assert {line[0] for line in lines} == {"ok", "warn"}
    assert stack.temporal in outcome.out
    assert "anyone who can reach the app in Slack (#ops-alerts) may approve a step" in outcome.out


async def test_a_token_of_no_use_and_one_with_too_few_scopes_are_failures(stack: RunningStack) -> None:
    async with SlackPeer(scopes=("chat:write",)) as poor:
        wrong = await stack.command("doctor", "--json", **{**slack_variables(poor), "SLACK_BOT_TOKEN": "xoxb-wrong"})
        few = await stack.command("doctor", "--json", **slack_variables(poor))
    assert (wrong.code, grades(wrong.out)["Slack"]) == (1, "FAIL")
    assert (few.code, grades(few.out)["Slack"]) == (1, "FAIL")
    assert "lacks the scopes chat:write.public, commands, reactions:write" in few.out
    assert "xoxb-wrong" not in wrong.out + wrong.err
    assert few.err == "Error: Slack cannot be used as configured.\n"


async def test_a_webhook_is_checked_without_a_message(stack: RunningStack, slack: SlackPeer) -> None:
    posted = len(slack.messages())
    outcome = await stack.command("doctor", "--json", SLACK_WEBHOOK_URL=slack.webhook_url)
    assert grades(outcome.out)["Slack"] == "ok"
    assert len(slack.messages()) == posted
    gone = await stack.command("doctor", "--json", SLACK_WEBHOOK_URL=slack.webhook_url + "x")
    assert (gone.code, grades(gone.out)["Slack"]) == (1, "FAIL")


async def test_a_runbook_that_does_not_load_is_a_failure_and_one_that_could_not_run_a_warning(
    stack: RunningStack, tmp_path: Path
) -> None:
    step = {"type": "http", "url": "https://example.com/", "headers": {"Authorization": "Token $DEPLOY_TOKEN"}}
    write_runbook(tmp_path / "runbooks", {"name": "deploy", "steps": [step]})
    unready = await stack.command("doctor", RUNBOOKS_DIR=str(tmp_path / "runbooks"))
    assert unready.code == 0, unready.err
    assert "deploy step 1: $DEPLOY_TOKEN is not a secret that runbooks may use" in unready.out

    (tmp_path / "runbooks" / "broken.yaml").write_text("name: broken\nsteps: []\n")
    broken = await stack.command("doctor", RUNBOOKS_DIR=str(tmp_path / "runbooks"))
    assert broken.code == 1
    assert "steps: must have 1 to 50 entries" in broken.out


def test_where_nothing_runs_temporal_fails_with_a_sentence(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    outcome = infrasage_here("doctor", cwd=tmp_path, TEMPORAL_ADDRESS=address, RUNBOOKS_DIR="/nowhere")
    assert outcome.code == 1
    assert f"Temporal cannot be reached at {address}" in outcome.out
    assert "RUNBOOKS_DIR cannot be read" in outcome.out
    assert outcome.err == "Error: Temporal, runbooks cannot be used as configured.\n"
    assert not (tmp_path / ".infrasage").exists()  # looking makes nothing


def test_a_wrong_setting_is_the_only_finding(tmp_path: Path) -> None:
    outcome = infrasage_here("doctor", "--json", cwd=tmp_path, SLACK_QUIET_HOURS_START="25:00")
    assert outcome.code == 1
    assert list(grades(outcome.out)) == ["configuration"]
    assert "SLACK_QUIET_HOURS_START" in outcome.out
