"""A canary as a runbook's secret: it reaches the one server it is meant for, and nothing that is kept or shown ever holds it."""

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

import pytest
from temporalio.client import Client

from tests.e2e.harness import RunningStack, has_ended, history, is_waiting, running, slack_variables, write_runbook
from tests.e2e.leaks import forms_of, leaks_in, leaks_in_files
from tests.peers.http import HttpPeer, Received, http_peer
from tests.peers.slack import SlackPeer

CANARY = "s3cr3t/ca+nary:42\"é'<&>"
"""With whatever each encoding writes in its own way."""


@dataclass
class Told:
    """Everything that is kept or shown of the runs with the secret."""

    histories: str
    audit: str
    slack: str
    api: str
    output: str
    data_dir: Path


@dataclass
class Sung:
    """Two runs that used the canary, one whose far side was content and one whose far side repeats the secret in its refusal."""

    received: list[Received]
    told: Told


@pytest.fixture(scope="module")
async def sung(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Sung]:
    folder = tmp_path_factory.mktemp("canary")
    header = CANARY.replace("é", "").replace('"', "")

    async def parrot(request: Received, writer: asyncio.StreamWriter) -> None:
        status = 200 if request.target.startswith("/good") else 400
        token = request.headers["authorization"].removeprefix("Token ")
        echoes = [token, quote(token, safe=""), base64.b64encode(token.encode()).decode(), json.dumps(token)]
        body = json.dumps({"error": f"bad token {' '.join(echoes)}", "sent": request.body.decode()}).encode()
        head = f"HTTP/1.1 {status} Answer\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()

    async with SlackPeer() as slack, http_peer(parrot) as peer:
        for name, path in (("good", "/good"), ("bad", "/bad?key=$CANARY_KEY")):
            write_runbook(folder / "runbooks", _runbook(name, peer, path))
        variables = {"RUNBOOK_SECRETS": "CANARY_TOKEN,CANARY_KEY", "CANARY_TOKEN": header, "CANARY_KEY": CANARY}
        async with running(folder, **variables, **slack_variables(slack)) as stack:
            stories: list[str] = []
            for service in ("good", "bad"):
                incident_id = await stack.fire(service_id=service)
                await stack.until(incident_id, is_waiting)
                for command in (("show", incident_id), ("approve", incident_id), ("show", incident_id), ("audit", incident_id)):
                    outcome = await stack.command(*command)
                    stories.append(outcome.out + outcome.err)
                stories.append(json.dumps(await stack.until(incident_id, has_ended), ensure_ascii=False))
                await stack.audit(incident_id, until="runbook.finished")
            rows = await stack.get("/api/v1/audit")
            histories = [await history(stack.temporal, workflow_id) for workflow_id in await _all_workflows(stack)]
            assert len(histories) == 4
            told = Told(
                histories="\n".join(item.to_json() for item in histories),
                audit=json.dumps(rows, ensure_ascii=False),
                slack=json.dumps([message.request for channel in slack.channels.values() for message in channel.messages.values()]),
                api="\n".join(stories),
                output="",
                data_dir=stack.data_dir,
            )
            assert await stack.stop() == 0
            told.output = stack.output
            yield Sung(list(peer.requests), told)


def _runbook(name: str, peer: HttpPeer, path: str) -> dict[str, object]:
    step = {
        "type": "http",
        "method": "POST",
        "url": peer.url(path),
        "headers": {"Authorization": "Token $CANARY_TOKEN"},
        "body": {"token": "$CANARY_TOKEN", "key": "a $CANARY_KEY b"},
        "require_approval": True,
    }
    return {"name": f"canary-{name}", "trigger": {"service_id": name}, "steps": [step], "rollback_on_failure": True}


async def _all_workflows(stack: RunningStack) -> list[str]:
    client = await Client.connect(stack.temporal)
    return [item.id async for item in client.list_workflows("")]


SECRETS = (CANARY, CANARY.replace("é", "").replace('"', ""))


def test_the_secret_reaches_the_server_it_is_meant_for(sung: Sung) -> None:
    assert [request.target.partition("?")[0] for request in sung.received] == ["/good", "/bad"]
    for request in sung.received:
        assert request.headers["authorization"] == f"Token {SECRETS[1]}"
        assert json.loads(request.body)["key"] == f"a {CANARY} b"
    assert unquote(sung.received[1].target) == f"/bad?key={CANARY}"


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("where", ["histories", "audit", "slack", "api", "output"])
def test_nothing_that_is_kept_or_shown_holds_the_secret(sung: Sung, where: str, secret: str) -> None:
    text = getattr(sung.told, where)
    assert len(text) > 500 or where == "output"
    assert leaks_in(text, secret) == []


@pytest.mark.parametrize("secret", SECRETS)
def test_no_file_of_the_data_directory_holds_the_secret(sung: Sung, secret: str) -> None:
    assert leaks_in_files(sung.told.data_dir, secret) == []


def test_what_stands_for_the_secret_is_its_name(sung: Sung) -> None:
    for text in (sung.told.audit, sung.told.api, sung.told.slack):
        assert "$CANARY_TOKEN" in text


@pytest.mark.parametrize("number", range(len(forms_of(CANARY))))
def test_the_search_would_find_each_form(number: int, tmp_path: Path) -> None:
    form = forms_of(CANARY)[number].decode()
    payload = base64.b64encode(json.dumps({"text": f"before {form} after"}, ensure_ascii=False).encode()).decode()
    assert leaks_in(f"before {form} after", CANARY)
    assert leaks_in(json.dumps({"payloads": [{"data": payload}]}), CANARY)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "table.bin").write_bytes(b"\x00\x01" + form.encode() + b"\xff")
    assert len(leaks_in_files(tmp_path, CANARY)) == 1


def test_the_search_finds_the_secret_in_a_history_that_holds_it(sung: Sung) -> None:
    leaked = base64.b64encode(json.dumps({"headers": {"Authorization": CANARY}}).encode()).decode()
    planted, count = re.subn(r'"data": "[^"]+"', f'"data": "{leaked}"', sung.told.histories, count=1)
    assert count == 1
    assert leaks_in(planted, CANARY)
