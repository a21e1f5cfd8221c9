"""Planted secrets: whatever happens to a request, they reach the far side and nothing else."""

import asyncio
import base64
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from urllib.parse import quote

import pytest
from temporalio.api.failure.v1 import Failure
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.exceptions import ApplicationError

from activities.clients.web import WebClient
from activities.secrets import Secrets
from activities.steps import StepActivities
from domain.incident import StepRequest
from domain.runbook import Step
from tests.activities.steps import a_request, a_step, attempt, run_step, step_activities, with_plan
from tests.peers.http import Received, answer, http_peer, tcp_peer, unused_port

CANARIES = {
    "PAGERDUTY_API_TOKEN": "plover-token/7f3d+AA==",
    "HOOK_PATH": "T0PLOVER/B0PLOVER/zZyYxX",
    "BODY_KEY": 'plover "quoted" \\ key',
}
FRAGMENTS = ("plover", "PLOVER", "zZyYxX", "7f3d+", "quoted")
"""Parts of the values: not even half of one may be told."""

Far = Callable[[], AbstractAsyncContextManager[str]]


async def read_all(request: Received, writer: asyncio.StreamWriter) -> None:
    """Refuse, and repeat everything that was sent in every form that comes to mind."""
    everything = {**request.headers, "target": request.target, "body": request.body.decode()}
    authorization = request.headers["authorization"]
    forms = [
        json.dumps(everything),
        json.dumps(json.dumps(everything)),
        quote(authorization),
        quote(authorization, safe=""),
        base64.b64encode(authorization.encode()).decode(),
        base64.urlsafe_b64encode(authorization.encode()).decode(),
    ]
    echo = {"location": f"http://127.0.0.1{request.target}", "x-request-id": authorization, "etag": authorization}
    await answer(401, "\n".join(forms).encode(), echo)(request, writer)


@asynccontextmanager
async def accepting() -> AsyncIterator[str]:
    async with http_peer(answer(201, b"taken")) as peer:
        yield peer.url()
        assert peer.requests[0].headers["authorization"] == f"Token {CANARIES['PAGERDUTY_API_TOKEN']}"
        assert peer.requests[0].target == f"/{CANARIES['HOOK_PATH']}?k={CANARIES['PAGERDUTY_API_TOKEN']}"
        assert json.loads(peer.requests[0].body) == {"key": CANARIES["BODY_KEY"]}


@asynccontextmanager
async def echoing() -> AsyncIterator[str]:
    async with http_peer(read_all) as peer:
        yield peer.url()
        assert len(peer.requests) == 1


@asynccontextmanager
async def echoing_in_few_words() -> AsyncIterator[str]:
    """The value crosses the end of what is shown of an answer."""

    async def reply(request: Received, writer: asyncio.StreamWriter) -> None:
        await answer(403, b"x" * 180 + request.headers["authorization"].encode())(request, writer)

    async with http_peer(reply) as peer:
        yield peer.url()


@asynccontextmanager
async def redirecting() -> AsyncIterator[str]:
    async def reply(request: Received, writer: asyncio.StreamWriter) -> None:
        await answer(302, headers={"location": f"http://127.0.0.1{request.target}"})(request, writer)

    async with http_peer(reply) as peer:
        yield peer.url()


@asynccontextmanager
async def absent() -> AsyncIterator[str]:
    yield f"http://127.0.0.1:{unused_port()}/"


@asynccontextmanager
async def silent() -> AsyncIterator[str]:
    async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with tcp_peer(silence) as peer:
        yield peer.url()


@asynccontextmanager
async def hanging_up() -> AsyncIterator[str]:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)

    async with tcp_peer(hang_up) as peer:
        yield peer.url()


@asynccontextmanager
async def babbling() -> AsyncIterator[str]:
    """Not HTTP: the library's own error would quote the line, which here repeats what was sent."""

    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readuntil(b"\r\n\r\n"))
        await writer.drain()

    async with tcp_peer(babble) as peer:
        yield peer.url()


@asynccontextmanager
async def forbidden() -> AsyncIterator[str]:
    yield "http://192.0.2.1/"


FAR_SIDES: list[Far] = [
    accepting,
    echoing,
    echoing_in_few_words,
    redirecting,
    absent,
    silent,
    hanging_up,
    babbling,
    forbidden,
]


def telling(url: str, *, idempotent: bool, seconds: float = 20) -> Step:
    return a_step(
        type="http",
        method="POST",
        url=f"{url}$HOOK_PATH?k=$PAGERDUTY_API_TOKEN",
        headers={"Authorization": "Token $PAGERDUTY_API_TOKEN"},
        body={"key": "$BODY_KEY"},
        timeout_seconds=seconds,
        idempotent=idempotent,
        require_approval=True,
    )


async def everything_told(activities: StepActivities, request: StepRequest) -> list[str]:
    """What a history would keep of the step: plan, result or failure with its stack trace, as they are encoded."""
    kept: list[str] = []
    try:
        plan = await attempt(activities.plan, request)
        kept.append(plan.model_dump_json())
        result = await attempt(activities.execute, with_plan(request, plan, approved=True))
        kept.append(result.model_dump_json())
    except ApplicationError as error:
        failure = Failure()
        await pydantic_data_converter.encode_failure(error, failure)
        kept += [str(failure), repr(error), *(repr(link) for link in chain(error))]
    return kept


def chain(error: BaseException | None) -> list[BaseException]:
    links: list[BaseException] = []
    while error is not None:
        links.append(error)
        error = error.__cause__ or error.__context__
    return links


@pytest.mark.parametrize("idempotent", [False, True])
@pytest.mark.parametrize("far", FAR_SIDES, ids=lambda far: far.__name__)
async def test_a_secret_reaches_the_far_side_and_nothing_else(
    far: Far, idempotent: bool, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    activities = step_activities(secrets=Secrets(CANARIES))
    async with far() as url:
        step = telling(url, idempotent=idempotent, seconds=0.3 if far is silent else 20)
        kept = await everything_told(activities, a_request(step))
    logged = [f"{record.getMessage()} {record.args} {record.exc_text}" for record in caplog.records]
    streams = capfd.readouterr()
    assert kept
    for text in [*kept, *logged, streams.out, streams.err]:
        for fragment in FRAGMENTS:
            assert fragment not in text
        for value in CANARIES.values():
            for hidden in (base64.b64encode(value.encode()).decode()[:12], quote(value, safe="")):
                assert hidden not in text


async def test_the_canary_would_be_heard_if_nothing_took_it_out() -> None:
    """The control: with secrets that the activities do not know, the echo comes through."""

    class Unguarded(Secrets):
        def redact(self, text: str) -> str:
            return text

    async with echoing() as url:
        kept = await everything_told(step_activities(secrets=Unguarded(CANARIES)), a_request(telling(url, idempotent=True)))
    assert any("plover" in text for text in kept)


async def test_a_secret_with_a_line_break_is_refused_without_being_told() -> None:
    secrets = Secrets({"PAGERDUTY_API_TOKEN": "plover-token\n"})
    step = a_step(type="http", url="http://127.0.0.1:1/", headers={"Authorization": "Token $PAGERDUTY_API_TOKEN"})
    with pytest.raises(ApplicationError) as caught:
        await run_step(step_activities(secrets=secrets), a_request(step))
    assert caught.value.type == "InvalidStep"
    assert "Authorization" in caught.value.message
    assert "plover" not in str(caught.value)


async def test_the_host_of_a_secret_address_is_not_told_when_it_cannot_be_reached() -> None:
    url = f"http://127.0.0.1:{unused_port()}/T0PLOVER"
    activities = step_activities(secrets=Secrets({"HOOK_URL": url}))
    with pytest.raises(ApplicationError) as caught:
        await attempt(activities.execute, a_request(a_step(type="http", method="POST", url="$HOOK_URL")))
    assert caught.value.message.startswith("http://$HOOK_URL could not be reached")


async def test_the_host_of_a_secret_address_is_not_told_when_it_is_not_allowed() -> None:
    activities = step_activities(
        secrets=Secrets({"HOOK_URL": "https://hooks.example.com/T0PLOVER"}), web=WebClient(["other.example.com"])
    )
    with pytest.raises(ApplicationError) as caught:
        await attempt(activities.plan, a_request(a_step(type="http", method="POST", url="$HOOK_URL")))
    assert caught.value.message == "$HOOK_URL is not among the hosts that RUNBOOK_HTTP_ALLOW allows."
