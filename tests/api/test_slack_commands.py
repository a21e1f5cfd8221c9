"""`/infrasage`: read without surprises, answered to the person alone, and true."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.slack.command_line import CommandLine, parse, unquoted
from api.slack.payloads import read_command
from domain.incident import IncidentStatus, IncidentView, RunStatus, Verdict
from tests.api.edge import COMMANDS, Edge, a_report, an_id
from tests.peers.slack import slash_form
from tests.workflows.world import IncidentOnStage, Stage, eventually, scale_runbook

SEED = 'resolve anom-7f3d "Scaled from 3 to 5 pods. Memory leak in v2.3.1 DB pool — upgrading to v2.3.2."'


# --- reading ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ("", "", "")),
        ("   ", ("", "", "")),
        ("help", ("help", "", "")),
        ("INCIDENTS", ("incidents", "", "")),
        ("status anom-7f3d", ("status", "anom-7f3d", "")),
        (SEED, ("resolve", "anom-7f3d", "Scaled from 3 to 5 pods. Memory leak in v2.3.1 DB pool — upgrading to v2.3.2.")),
        ("resolve a “curly double”", ("resolve", "a", "curly double")),
        ("resolve a ‘curly single’", ("resolve", "a", "curly single")),
        ("resolve a 'straight single'", ("resolve", "a", "straight single")),
        ("resolve a no quotes at all", ("resolve", "a", "no quotes at all")),
        ("resolve a it's the pool's fault", ("resolve", "a", "it's the pool's fault")),
        ("resolve a \"he said 'no'\"", ("resolve", "a", "he said 'no'")),
        ('resolve a "“nested”"', ("resolve", "a", "“nested”")),
        ('resolve a "unclosed', ("resolve", "a", '"unclosed')),
        ('resolve a "mixed”', ("resolve", "a", '"mixed”')),
        ('resolve a "', ("resolve", "a", '"')),
        ('resolve a ""', ("resolve", "a", "")),
        ("resolve a b  c\td", ("resolve", "a", "b  c\td")),
        ("resolve a line one\nline two", ("resolve", "a", "line one\nline two")),
        ("  resolve \u00a0 a \u00a0 b  ", ("resolve", "a", "b")),
        ("resolve a $(rm -rf /) `id` \\n ; | & *", ("resolve", "a", "$(rm -rf /) `id` \\n ; | & *")),
        ("resolve a p99 &gt; 3 s &amp; &lt;nothing&gt; &quot;", ("resolve", "a", "p99 > 3 s & <nothing> &quot;")),
        ("resolve a &amp;lt;", ("resolve", "a", "&lt;")),
    ],
)
def test_a_line_is_verb_id_and_rest(text: str, expected: tuple[str, str, str]) -> None:
    assert parse(text) == CommandLine(verb=expected[0], subject=expected[1], rest=expected[2])


@given(st.text())
def test_any_line_is_read(text: str) -> None:
    line = parse(text)
    assert line.verb == line.verb.lower() and not line.subject.split()[1:]


@given(st.text(alphabet=st.characters(exclude_characters="\"'“”‘’", exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"]), min_size=1))
def test_one_pair_of_quotes_is_taken_off_whatever_is_inside(text: str) -> None:
    for opening, closing in ('""', "''", "“”", "‘’"):
        assert unquoted(f"{opening}{text}{closing}") == text
        assert unquoted(f"{opening}{opening}{text}{closing}{closing}") == f"{opening}{text}{closing}"
    assert unquoted(text) == text


def test_the_word_payload_in_a_text_does_not_make_it_an_interaction() -> None:
    assert read_command(slash_form('resolve payload-api "the payload was bad"').encode()).text.startswith("resolve payload-api")


# --- answering ----------------------------------------------------------------------------------------------------


async def asked(edge: Edge, text: str, **values: Any) -> str:
    """Type a command. Returns: everything that the person alone is shown."""
    answer = await edge.signed(COMMANDS, slash_form(text, **values))
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["response_type"] == "ephemeral"
    assert body["text"] and body["blocks"]
    return body["text"]


async def opened(edge: Edge, stage: Stage, **values: Any) -> IncidentOnStage:
    """Post an anomaly and wait until it is triaged."""
    report = a_report(**values)
    assert (await edge.post("/api/v1/anomalies", report)).status_code == 202
    handle = stage.client.get_workflow_handle(report["anomaly_id"], result_type=IncidentView)
    incident = IncidentOnStage(stage, handle)

    async def triaged() -> bool:
        return (await incident.view()).severity is not None

    await eventually(triaged)
    return incident


async def test_help_lists_what_there_is_under_the_name_that_was_typed(edge: Edge) -> None:
    for text in ("", "help", "HELP"):
        assert "/infrasage resolve" in await asked(edge, text)
    assert "/sage resolve" in await asked(edge, "help", command="/sage")


async def test_an_unknown_verb_is_answered_with_what_to_type(edge: Edge) -> None:
    assert "/infrasage help" in await asked(edge, "explode everything")


async def test_a_resolution_is_stored_and_remembered(edge: Edge, stage: Stage) -> None:
    incident = await opened(edge, stage)
    said = await asked(edge, f"resolve {incident.handle.id} “Scaled to 5 pods, it's the DB pool”")
    assert incident.handle.id in said and "stored" in said
    view = await incident.result()
    assert view.status is IncidentStatus.RESOLVED and view.resolution is not None
    assert view.resolution.text == "Scaled to 5 pods, it's the DB pool"
    assert (view.resolution.by.id, view.resolution.by.name, view.resolution.by.source) == ("U0JANE0001", "jane", "slack")


async def test_a_second_resolution_is_told_by_whom_and_when(edge: Edge, stage: Stage) -> None:
    incident = await opened(edge, stage)
    await asked(edge, f"resolve {incident.handle.id} first", user_name="ada", user_id="U0ADA00001")
    view = await incident.result()
    said = await asked(edge, f"resolve {incident.handle.id} second")
    assert view.resolution is not None
    assert "already resolved by ada" in said and f"{view.resolution.at:%Y-%m-%d %H:%M:%S} UTC" in said


@pytest.mark.parametrize(
    "text",
    ["resolve", "resolve anom-1", 'resolve anom-1 ""', "status", "approve", "reject", "reject anom-1", "halt", "run", "run x"],
)
async def test_what_is_missing_is_said_with_an_example(edge: Edge, text: str) -> None:
    assert f"/infrasage {text.split()[0]} <" in (await asked(edge, text)).replace("&lt;", "<")


@pytest.mark.parametrize("text", ["resolve {id} x", "status {id}", "approve {id}", "reject {id} no", "halt {id}"])
async def test_an_unknown_incident_is_named(edge: Edge, text: str) -> None:
    unknown = an_id()
    assert unknown in await asked(edge, text.format(id=unknown))


async def test_a_text_that_is_too_long_or_not_storable_is_refused_and_nothing_is_signalled(edge: Edge, stage: Stage) -> None:
    incident = await opened(edge, stage)
    assert "4000" in await asked(edge, f"resolve {incident.handle.id} {'x' * 4_001}")
    assert "control character" in await asked(edge, f"resolve {incident.handle.id} a\x00b")
    assert (await incident.view()).resolution is None


async def test_status_tells_where_an_incident_and_its_runs_stand(edge: Edge, stage: Stage) -> None:
    stage.world.runbooks = (scale_runbook(),)
    incident = await opened(edge, stage)
    await (await incident.run()).open_request()
    said = await asked(edge, f"status {incident.handle.id}")
    assert "payment-api" in said and "scale-out-payment-api" in said and "awaiting approval" in said


async def test_incidents_lists_open_and_suppressed_ones(edge: Edge, stage: Stage) -> None:
    loud = await opened(edge, stage)
    stage.world.verdict = Verdict(alert=False, reason="quiet hours")
    quiet = await opened(edge, stage)
    resolved = await opened(edge, stage)
    await resolved.resolve()
    await resolved.result()

    async def listed() -> bool:
        said = await asked(edge, "incidents")
        return loud.handle.id in said and quiet.handle.id in said and resolved.handle.id not in said

    await eventually(listed)


async def test_an_approval_can_be_typed(edge: Edge, stage: Stage) -> None:
    stage.world.runbooks = (scale_runbook(),)
    incident = await opened(edge, stage)
    run = await incident.run()
    await run.open_request()
    said = await asked(edge, f"approve {incident.handle.id} looks right")
    assert "scale-out-payment-api step 2" in said and "stored" in said and "approved" not in said.lower()
    assert (await run.result()).status is RunStatus.SUCCEEDED
    approved = next(event for event in stage.world.events if event.action == "approval.approved")
    assert (approved.actor, approved.detail["reason"]) == ("U0JANE0001", "looks right")


async def test_a_rejection_can_be_typed_and_says_why(edge: Edge, stage: Stage) -> None:
    stage.world.runbooks = (scale_runbook(),)
    incident = await opened(edge, stage)
    run = await incident.run()
    await run.open_request()
    await asked(edge, f'reject {incident.handle.id} "wrong service"')
    result = await run.result()
    assert result.status is RunStatus.HALTED and "wrong service" in result.summary


async def test_where_several_approvals_are_open_the_buttons_are_pointed_to(edge: Edge, stage: Stage) -> None:
    stage.world.runbooks = (scale_runbook(name="one"), scale_runbook(name="two"))
    incident = await opened(edge, stage)
    for name in ("one", "two"):
        await (await incident.run(name)).open_request()
    assert "buttons" in await asked(edge, f"approve {incident.handle.id}")
    assert stage.world.executed == [1, 1]


async def test_runs_can_be_halted_and_started_by_a_line(edge: Edge, stage: Stage) -> None:
    name = an_id()
    edge.shelf.runbooks = (scale_runbook(name=name),)
    workflow_id = f"manual/{name}/1"
    assert workflow_id in await asked(edge, f"run {name} payment-api")
    assert "scale-out" not in await asked(edge, "run nothing payment-api")

    async def waits() -> bool:
        return "awaiting approval" in await asked(edge, f"status {workflow_id}")

    await eventually(waits)
    assert name in await asked(edge, f"halt {workflow_id} enough")

    async def halted() -> bool:
        return "halted" in await asked(edge, f"status {workflow_id}")

    await eventually(halted)


async def test_foreign_text_in_an_answer_is_never_markup(edge: Edge) -> None:
    answer = await edge.signed(COMMANDS, slash_form("status <!channel>&<@U0ADA00001>*bold*"))
    text = answer.json()["text"]
    assert "<!channel>" not in text and "<@U0ADA00001>" not in text
    for block in answer.json()["blocks"]:
        assert block["text"]["type"] == "plain_text"
