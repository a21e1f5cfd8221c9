"""HTTP steps against servers on loopback: what is sent, what counts as success, what may be tried again."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from activities.clients.web import WebClient
from activities.secrets import Secrets
from activities.steps import StepActivities
from activities.steps.http import idempotency_key
from domain.incident import StepRequest
from domain.plan import StepResult
from domain.runbook import Step
from tests.activities.steps import (
    NAMES,
    TRUST,
    WORKFLOW_ID,
    a_request,
    a_step,
    attempt,
    failure_of,
    run_step,
    step_activities,
    with_plan,
)
from tests.peers.http import HttpPeer, Received, Reply, answer, http_peer, tcp_peer, unused_port

SECRETS = Secrets({"PAGERDUTY_API_TOKEN": "pd+s3cret/value", "UNSET": ""})
EVERY_WRITE = ("POST", "PATCH", "PUT", "DELETE")


def activities_with(web: WebClient | None = None, secrets: Secrets = SECRETS) -> StepActivities:
    return step_activities(web=web, secrets=secrets)


def a_post(url: str, **keys: Any) -> Step:
    return a_step(**{"type": "http", "method": "POST", "url": url, **keys})


async def execute(step: Step, *, number: int = 1, **keys: Any) -> StepResult:
    return await attempt(activities_with().execute, a_request(step, **keys), number=number)


@pytest.fixture
async def peer() -> AsyncIterator[HttpPeer]:
    async with http_peer(answer(201, b'{"id": "Q1"}')) as listening:
        yield listening


async def sent(peer: HttpPeer, *, names: dict[str, Any] | None = None, **keys: Any) -> Received:
    await execute(a_post(**{"url": peer.url("/incidents"), **keys}), names={**NAMES, **(names or {})})
    return peer.requests[-1]


# What is sent


async def test_the_pages_own_request_arrives_with_its_secret_and_its_body(peer: HttpPeer) -> None:
    body = {"type": "incident", "title": "payment-api scaled — monitoring"}
    request = await sent(peer, headers={"Authorization": "Token $PAGERDUTY_API_TOKEN"}, body=body)
    assert (request.method, request.target) == ("POST", "/incidents")
    assert request.headers["authorization"] == "Token pd+s3cret/value"
    assert request.headers["content-type"] == "application/json"
    assert json.loads(request.body) == body


async def test_the_result_tells_what_was_answered_and_how_fast(peer: HttpPeer) -> None:
    result = await execute(a_post(peer.url("/incidents?key=$PAGERDUTY_API_TOKEN")))
    before, _, seconds = result.summary.removesuffix(" s").rpartition(" in ")
    assert before == f"POST {peer.url('/incidents')} answered 201"
    assert 0 <= float(seconds) < 10
    assert result.outputs == {"status": 201}
    assert result.undo is None


async def test_a_body_of_text_is_sent_as_it_is(peer: HttpPeer) -> None:
    request = await sent(peer, body="scaled: {{ service_id }} \u2014 costs $5")
    assert request.body.decode() == "scaled: payment-api \u2014 costs $5"
    assert request.headers["content-type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize("body", [[1, 2.5, True, None, "x"], {"a": {"b": ["{{ service_id }}"]}}, 5, False, {}, []])
async def test_every_other_body_is_sent_as_json(peer: HttpPeer, body: Any) -> None:
    request = await sent(peer, body=body)
    assert json.loads(request.body) == json.loads(json.dumps(body).replace("{{ service_id }}", "payment-api"))
    assert request.headers["content-type"] == "application/json"


async def test_without_a_body_none_is_sent(peer: HttpPeer) -> None:
    request = await sent(peer)
    assert request.body == b""
    assert "content-type" not in request.headers


async def test_a_content_type_of_the_steps_own_stays(peer: HttpPeer) -> None:
    request = await sent(peer, headers={"content-TYPE": "application/vnd.api+json"}, body={"a": 1})
    assert request.headers["content-type"] == "application/vnd.api+json"


async def test_a_secret_in_a_json_body_is_written_as_json() -> None:
    secrets = Secrets({"QUOTED": 'a"b\\c'})
    async with http_peer() as peer:
        await attempt(
            activities_with(secrets=secrets).execute, a_request(a_post(peer.url(), body={"token": "$QUOTED", "$QUOTED": 1}))
        )
        assert json.loads(peer.requests[0].body) == {"token": 'a"b\\c', "$QUOTED": 1}


async def test_a_secret_fills_path_and_query_as_it_is(peer: HttpPeer) -> None:
    request = await sent(peer, url=peer.url("/hooks/$PAGERDUTY_API_TOKEN?t=$PAGERDUTY_API_TOKEN"))
    assert request.target == "/hooks/pd+s3cret/value?t=pd+s3cret/value"


async def test_a_whole_address_may_be_a_secret_and_is_not_told(peer: HttpPeer) -> None:
    activities = activities_with(secrets=Secrets({"HOOK_URL": peer.url("/T0/B0")}))
    request = a_request(a_post("$HOOK_URL"))
    plan = await attempt(activities.plan, request)
    result = await attempt(activities.execute, request)
    assert plan.title == "POST $HOOK_URL"
    assert result.summary.startswith("POST $HOOK_URL answered 201")
    assert peer.requests[0].target == "/T0/B0"


HOSTILE = '$PAGERDUTY_API_TOKEN "&x=1 \r\nX-Evil: 1'


async def test_a_foreign_value_can_neither_name_a_secret_nor_leave_the_json_text_it_stands_in(peer: HttpPeer) -> None:
    names = {"root_cause": HOSTILE}
    as_value = await sent(peer, names=names, body={"title": "{{ root_cause }}"})
    assert json.loads(as_value.body) == {"title": HOSTILE}
    as_text = await sent(
        peer, names=names, body='{"title": "{{ root_cause }}"}', headers={"Content-Type": "application/json; charset=utf-8"}
    )
    assert json.loads(as_text.body) == {"title": HOSTILE}
    plain = await sent(peer, names=names, body="{{ root_cause }}")
    assert plain.body.decode() == HOSTILE


async def test_a_foreign_value_cannot_add_a_form_field(peer: HttpPeer) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    request = await sent(peer, names={"root_cause": HOSTILE}, body="cause={{ root_cause }}&n=1", headers=headers)
    assert request.body == b"cause=%24PAGERDUTY_API_TOKEN+%22%26x%3D1+%0D%0AX-Evil%3A+1&n=1"


async def test_a_foreign_value_stays_within_its_part_of_the_url(peer: HttpPeer) -> None:
    request = await sent(peer, names={"root_cause": HOSTILE}, url=peer.url("/a/{{ root_cause }}/b?c={{ root_cause }}"))
    encoded = "%24PAGERDUTY_API_TOKEN%20%22%26x%3D1%20%0D%0AX-Evil%3A%201"
    assert request.target == f"/a/{encoded}/b?c={encoded}"


@pytest.mark.parametrize("method", ["plan", "execute"])
async def test_a_foreign_value_cannot_add_a_header(peer: HttpPeer, method: str) -> None:
    request = a_request(a_post(peer.url(), headers={"X-Cause": "{{ root_cause }}"}), names={**NAMES, "root_cause": HOSTILE})
    error = await failure_of(attempt(getattr(activities_with(), method), request))
    assert error.type == "InvalidStep"
    assert "X-Cause" in error.message
    assert peer.requests == []


@pytest.mark.parametrize("value", [".", ".."])
async def test_a_foreign_value_cannot_move_the_request_to_another_path(peer: HttpPeer, value: str) -> None:
    request = a_request(a_post(peer.url("/services/{{ service_id }}/restart")), names={**NAMES, "service_id": value})
    error = await failure_of(attempt(activities_with().execute, request))
    assert (error.type, error.message) == ("InvalidStep", "the path of a URL may not hold the segments . or ..")
    assert peer.requests == []


async def test_a_foreign_value_that_looks_like_a_reference_is_shown_as_text_in_the_plan(peer: HttpPeer) -> None:
    step = a_post(peer.url(), body={"title": "{{ root_cause }}", "token": "$PAGERDUTY_API_TOKEN"})
    plan = await attempt(activities_with().plan, a_request(step, names={**NAMES, "root_cause": "see $PAGERDUTY_API_TOKEN"}))
    assert plan.request["body"] == {"title": "see $$PAGERDUTY_API_TOKEN", "token": "$PAGERDUTY_API_TOKEN"}


# The idempotency key


async def test_every_attempt_carries_the_same_idempotency_key(peer: HttpPeer) -> None:
    step = a_post(peer.url(), idempotent=True)
    await execute(step)
    await execute(step, number=2)
    assert [request.headers["idempotency-key"] for request in peer.requests] == [f"{WORKFLOW_ID}/2"] * 2


async def test_an_idempotency_key_of_the_steps_own_stays(peer: HttpPeer) -> None:
    request = await sent(peer, headers={"idempotency-key": "my-own"})
    assert request.headers["idempotency-key"] == "my-own"


@pytest.mark.parametrize("workflow_id", ["x" * 199, "anom é", "anom 1", 'anom"1', "", "a\nb"])
def test_a_key_that_a_header_could_not_carry_is_hashed(workflow_id: str) -> None:
    key = idempotency_key(workflow_id, 1)
    if workflow_id:
        assert len(key) == 64
    assert key.isascii() and key.isprintable() and len(key) <= 200
    assert key != idempotency_key(workflow_id, 2)


# The plan


async def test_the_plan_shows_the_whole_request_and_no_secret(peer: HttpPeer) -> None:
    url = peer.url("/incidents?service={{ service_id }}")
    step = a_post(url, headers={"Authorization": "Token $PAGERDUTY_API_TOKEN"}, body={"b": 1, "a": "{{ environment }}"})
    plan = await attempt(activities_with().plan, a_request(step))
    assert plan.title == f"POST {peer.url('/incidents')}"
    assert plan.request == {
        "method": "POST",
        "url": peer.url("/incidents?service=payment-api"),
        "headers": {"Authorization": "Token $PAGERDUTY_API_TOKEN"},
        "body": {"b": 1, "a": "production"},
    }
    assert [(fact.label, fact.value) for fact in plan.facts] == [
        ("URL", peer.url("/incidents?service=payment-api")),
        ("Headers", "Authorization: Token $PAGERDUTY_API_TOKEN"),
        ("Body", '{"a":"production","b":1}'),
    ]
    assert peer.connections == 0


@pytest.mark.parametrize(
    "keys",
    [{"headers": {"Authorization": "Token $NOT_ALLOWED"}}, {"body": {"deep": ["$NOT_ALLOWED"]}}, {"body": "$NOT_ALLOWED"}],
)
async def test_a_secret_that_is_not_allowed_fails_the_plan_before_anybody_is_asked(peer: HttpPeer, keys: dict[str, Any]) -> None:
    error = await failure_of(attempt(activities_with().plan, a_request(a_post(peer.url(), **keys))))
    assert (error.type, error.non_retryable) == ("NotConfigured", True)
    assert error.message == "$NOT_ALLOWED is not a secret that runbooks may use: RUNBOOK_SECRETS does not name it"


async def test_a_secret_that_is_not_set_fails_the_plan_before_anybody_is_asked(peer: HttpPeer) -> None:
    error = await failure_of(attempt(activities_with().plan, a_request(a_post(f"{peer.url()}$UNSET"))))
    assert error.type == "NotConfigured"
    assert error.message.startswith("$UNSET has no value")


async def test_a_host_that_is_not_allowed_fails_the_plan_before_anybody_is_asked() -> None:
    error = await failure_of(attempt(activities_with().plan, a_request(a_post("https://api.pagerduty.com/incidents"))))
    assert (error.type, error.non_retryable) == ("InvalidStep", True)
    assert "api.pagerduty.com" in error.message


async def test_without_an_allow_list_the_plan_names_the_setting() -> None:
    activities = activities_with(WebClient([], tls=TRUST))
    error = await failure_of(attempt(activities.plan, a_request(a_post("https://api.pagerduty.com/incidents"))))
    assert error.type == "NotConfigured"
    assert "RUNBOOK_HTTP_ALLOW" in error.message


async def test_a_name_that_does_not_resolve_yet_is_no_refusal() -> None:
    async def unknown(host: str, port: int) -> Sequence[str]:
        raise OSError("no such host")

    activities = activities_with(WebClient(["api.pagerduty.com"], resolver=unknown, tls=TRUST))
    error = await failure_of(attempt(activities.plan, a_request(a_post("https://api.pagerduty.com/incidents"))))
    assert (error.type, error.non_retryable) == ("Unreachable", False)


# Answers


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
async def test_any_2xx_is_success(status: int) -> None:
    async with http_peer(answer(status)) as peer:
        assert (await execute(a_post(peer.url()))).outputs == {"status": status}


async def failed(reply: Reply, *, excerpt_of: str = "", **keys: Any) -> Any:
    async with http_peer(reply) as peer:
        error = await failure_of(execute(a_post(peer.url("/x?q=1"), **keys)))
        assert len(peer.requests) == 1
        assert error.message.startswith(f"{keys.get('method', 'POST')} {peer.url('/x')} answered ")
        return error


@pytest.mark.parametrize("status", [400, 401, 404, 409, 422, 500, 502, 504])
@pytest.mark.parametrize("idempotent", [False, True])
async def test_any_other_status_is_a_refusal_that_tells_the_answer(status: int, idempotent: bool) -> None:
    error = await failed(answer(status, b"no\r\n such\x00\x1b[31m thing " + b"y" * 500), idempotent=idempotent)
    assert (error.type, error.non_retryable) == ("Refused", True)
    before, _, excerpt = error.message.removesuffix("”").partition(": “")
    assert before.endswith(f" answered {status}")
    assert excerpt.startswith("no such [31m thing yyy")
    assert len(excerpt) == 200
    assert excerpt.isprintable()


async def test_an_answer_without_words_is_told_by_its_status() -> None:
    error = await failed(answer(404))
    assert error.message.endswith(" answered 404")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(status: int) -> None:
    async with http_peer() as target:
        error = await failed(answer(status, headers={"location": target.url("/elsewhere")}))
        assert (error.type, error.non_retryable) == ("Refused", True)
        assert error.message.endswith(f"answered {status}, a redirect, which is not followed")
        assert target.connections == 0


@pytest.mark.parametrize(("status", "kind"), [(429, "RateLimited"), (503, "Unreachable")])
async def test_a_repeatable_step_waits_as_long_as_it_is_asked_to(status: int, kind: str) -> None:
    error = await failed(answer(status, headers={"retry-after": "7"}), idempotent=True)
    assert (error.type, error.non_retryable) == (kind, False)
    assert error.next_retry_delay == timedelta(seconds=7)


@pytest.mark.parametrize("status", [429, 503])
async def test_a_step_that_may_happen_once_is_refused_by_the_same_answers(status: int) -> None:
    error = await failed(answer(status, headers={"retry-after": "7"}))
    assert (error.type, error.non_retryable, error.next_retry_delay) == ("Refused", True, None)


@pytest.mark.parametrize(
    ("wish", "delay"),
    [
        ("0", timedelta(0)),
        ("99999999", timedelta(hours=1)),
        ("soon", None),
        ("-1", None),
        ("1.5", None),
        ("", None),
        ("٣", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", timedelta(0)),
        ("Fri, 31 Dec 9999 23:59:59 GMT", timedelta(hours=1)),
        ("Fri, 31 Dec 9999 23:59:59 +99999999999999999999", None),
    ],
)
async def test_a_wish_to_wait_is_bounded_and_nonsense_is_no_wish(wish: str, delay: timedelta | None) -> None:
    error = await failed(answer(429, headers={"retry-after": wish}), idempotent=True)
    assert error.next_retry_delay == delay


async def test_a_wish_to_wait_may_be_a_date() -> None:
    at = datetime.now(UTC) + timedelta(seconds=30)
    error = await failed(answer(503, headers={"retry-after": format_datetime(at, usegmt=True)}), idempotent=True)
    assert timedelta(seconds=20) < error.next_retry_delay <= timedelta(seconds=30)


# Failures on the way


async def broken(step_keys: dict[str, Any]) -> Any:
    """The failure of a request that arrived and got no answer."""

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)

    async with tcp_peer(hang_up) as peer:
        return await failure_of(execute(a_post(peer.url(), **step_keys)))


@pytest.mark.parametrize("method", EVERY_WRITE)
async def test_a_lost_answer_of_a_step_that_may_happen_once_is_an_unknown_outcome(method: str) -> None:
    error = await broken({"method": method})
    assert (error.type, error.non_retryable) == ("OutcomeUnknown", True)


@pytest.mark.parametrize("method", (*EVERY_WRITE, "GET"))
async def test_a_lost_answer_of_a_repeatable_step_is_tried_again(method: str) -> None:
    error = await broken({"method": method, "idempotent": True})
    assert (error.type, error.non_retryable) == ("Unreachable", False)


async def test_nobody_at_home_is_no_unknown_outcome_and_yet_tried_once() -> None:
    error = await failure_of(execute(a_post(f"http://127.0.0.1:{unused_port()}/")))
    assert (error.type, error.non_retryable) == ("Unreachable", True)
    assert error.message.endswith("nothing was sent.")


async def test_nobody_at_home_is_tried_again_by_a_repeatable_step() -> None:
    error = await failure_of(execute(a_step(type="http", url=f"http://127.0.0.1:{unused_port()}/")))
    assert (error.type, error.non_retryable) == ("Unreachable", False)


async def test_a_silent_server_is_given_up_after_the_steps_own_time() -> None:
    async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with tcp_peer(silence) as peer:
        error = await failure_of(execute(a_post(peer.url(), timeout_seconds=0.2)))
    assert error.type == "OutcomeUnknown"
    assert "within 0.2 s" in error.message


async def test_an_approved_request_is_sent_as_it_was_approved_and_only_then(peer: HttpPeer) -> None:
    request: StepRequest = a_request(a_post(peer.url("/{{ service_id }}"), require_approval=True))
    activities = activities_with()
    plan = await attempt(activities.plan, request)
    tampered = plan.model_copy(update={"request": {**plan.request, "url": peer.url("/other")}})
    for wrong in (with_plan(request, tampered, approved=True), with_plan(request, plan), request):
        assert (await failure_of(attempt(activities.execute, wrong))).type == "PlanChanged"
    assert peer.requests == []
    await run_step(activities, request)
    assert [received.target for received in peer.requests] == ["/payment-api"]
