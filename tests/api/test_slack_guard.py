"""The door of the Slack routes: whatever is not signed by Slack, now, is 401, and never an error of ours."""

import hashlib
import hmac
import time
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.metrics import Metrics
from api.slack import guard
from api.slack.guard import FRESH_SECONDS, SLACK_LIMIT_BYTES, Claim, Guard, Refusal, read_claim
from domain.settings import SettingsError
from tests.api.edge import COMMANDS, INTERACTIONS, Edge, settings_for
from tests.peers.slack import SlackPeer, block_actions, interaction_form, slash_form
from tests.workflows.world import Stage

SECRET = "8f742231b10e8888abcd99yyyzzz85a5"
NOW = 1_775_822_405
FORM = b"application/x-www-form-urlencoded"

Headers = list[tuple[bytes, bytes]]


def signature(secret: str, body: bytes, timestamp: bytes, version: bytes = b"v0") -> bytes:
    digest = hmac.new(secret.encode(), version + b":" + timestamp + b":" + body, hashlib.sha256).hexdigest()
    return version + b"=" + digest.encode()


def genuine(body: bytes, secret: str = SECRET, at: float | None = None) -> Headers:
    timestamp = str(int(time.time() if at is None else at)).encode()
    return [
        (b"content-type", FORM),
        (b"x-slack-request-timestamp", timestamp),
        (b"x-slack-signature", signature(secret, body, timestamp)),
    ]


def replaced(headers: Headers, name: bytes, *values: bytes) -> Headers:
    return [item for item in headers if item[0] != name] + [(name, value) for value in values]


BODY = slash_form("help").encode()


async def sent(edge: Edge, headers: Headers, body: bytes = BODY, path: str = COMMANDS) -> httpx.Response:
    return await edge.http.post(path, content=body, headers=headers)


async def test_what_slack_signs_is_let_in(edge: Edge) -> None:
    assert (await sent(edge, genuine(BODY))).status_code == 200


TIMESTAMP, SIGNATURE = b"x-slack-request-timestamp", b"x-slack-signature"


def malformed() -> list[tuple[str, Headers]]:
    good = genuine(BODY)
    at = good[1][1]
    cases: list[tuple[str, Headers]] = [
        ("no timestamp", replaced(good, TIMESTAMP)),
        ("no signature", replaced(good, SIGNATURE)),
        ("neither", [good[0]]),
        ("two signatures", [*good, good[2]]),
        ("two timestamps", [*good, good[1]]),
        ("two signatures, one right", [*good, (SIGNATURE, b"v0=" + b"0" * 64)]),
    ]
    for value in (
        b"",
        b" ",
        b"now",
        b"1.5",
        b"1e9",
        b"-1",
        b"+1",
        b"0",
        b"9" * 13,
        b"9" * 5_000,
        b"NaN",
        b"\xd9\xa1\xd9\xa2",
        b"0x5",
    ):
        headers = replaced(good, TIMESTAMP, value)
        cases.append((f"timestamp {value[:20]!r}, signed", replaced(headers, SIGNATURE, signature(SECRET, BODY, value))))
    for value in (
        b"",
        b"v0=",
        b"v0",
        b"v1" + good[2][1][2:],
        b"V0" + good[2][1][2:],
        good[2][1].upper(),
        good[2][1][3:],
        good[2][1] + b"0",
        good[2][1][:-1],
        b" " + good[2][1],
        good[2][1].replace(b"v0=", b"v0=v0="),
        b"v0=" + "é".encode() * 32,
        b"v0=\xff\xfe" + b"0" * 62,
        b"v0=" + b"0" * 64,
        b"v0=" + b"0" * 30_000,
        signature("", BODY, at),
        signature(SECRET.upper(), BODY, at),
        signature(SECRET, BODY + b" ", at),
        signature(SECRET, BODY, at, b"v1"),
    ):
        cases.append((f"signature {value[:12]!r}", replaced(good, SIGNATURE, value)))
    return cases


@pytest.mark.parametrize("path", [INTERACTIONS, COMMANDS])
async def test_everything_malformed_is_401(edge: Edge, path: str) -> None:
    for case, headers in malformed():
        answer = await sent(edge, headers, path=path)
        assert answer.status_code == 401, case
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(("offset", "status"), [(-290, 200), (290, 200), (-310, 401), (310, 401), (-86_400, 401)])
async def test_a_signature_is_good_for_five_minutes(edge: Edge, offset: int, status: int) -> None:
    assert (await sent(edge, genuine(BODY, at=time.time() + offset))).status_code == status


def test_the_five_minutes_are_exact() -> None:
    for offset, good in (
        (0, True),
        (FRESH_SECONDS, True),
        (FRESH_SECONDS + 1, False),
        (-FRESH_SECONDS, True),
        (-FRESH_SECONDS - 1, False),
    ):
        claim = read_claim(genuine(BODY, at=NOW + offset), NOW)
        assert isinstance(claim, Claim) is good
        assert good or claim is Refusal.STALE


@pytest.mark.parametrize("body", [b"text=\xff\xfe", b"\x00\xff", b"payload=%7B%7D&x=\xc3\x28"])
async def test_a_body_that_is_not_utf8_is_401_even_when_it_is_signed(edge: Edge, body: bytes) -> None:
    for path in (INTERACTIONS, COMMANDS):
        assert (await sent(edge, genuine(body), body, path)).status_code == 401


async def test_a_body_of_1_mib_is_read_and_a_longer_one_is_413(edge: Edge) -> None:
    longest = BODY + b"&x=" + b"a" * (SLACK_LIMIT_BYTES - len(BODY) - 3)
    assert (await sent(edge, genuine(longest), longest)).status_code == 200
    longer = longest + b"a"
    assert (await sent(edge, genuine(longer), longer)).status_code == 413


async def test_the_body_of_a_request_without_a_claim_is_not_read(edge: Edge) -> None:
    async def unread() -> Any:
        raise AssertionError("the body was read")
        yield b""

    assert (await edge.http.post(COMMANDS, content=unread())).status_code == 401


async def test_a_signature_does_not_replace_a_key_nor_a_key_a_signature(edge: Edge) -> None:
    assert (await edge.http.get("/api/v1/incidents", headers=genuine(b""))).status_code == 401
    assert (await edge.post(COMMANDS, content=BODY, headers={"Content-Type": FORM.decode()})).status_code == 401


async def test_without_a_signing_secret_the_routes_are_not_there(lone_edge: Edge) -> None:
    for path in (INTERACTIONS, COMMANDS):
        answer = await lone_edge.http.post(path, content=BODY, headers=genuine(BODY, secret=""))
        assert answer.status_code == 404


def test_an_empty_secret_is_accepted_nowhere(slack: SlackPeer) -> None:
    for blank in ("", " ", "\t\n"):
        with pytest.raises(ValueError, match="may not be empty"):
            Guard(blank, Metrics())
        with pytest.raises(SettingsError):
            settings_for(slack, {}, slack_signing_secret=blank)
    assert not Claim(b"1", signature("", BODY, b"1")).holds(BODY, b"")


@given(
    timestamp=st.binary(max_size=30) | st.integers().map(lambda number: str(number).encode()) | st.just(str(NOW).encode()),
    forged=st.binary(max_size=80) | st.from_regex(rb"v0=[0-9a-f]{64}", fullmatch=True),
)
@settings(max_examples=500, deadline=None)
def test_no_claim_of_a_stranger_holds(timestamp: bytes, forged: bytes) -> None:
    claim = read_claim([(TIMESTAMP, timestamp), (SIGNATURE, forged)], NOW)
    assert not isinstance(claim, Claim) or not claim.holds(BODY, SECRET.encode())


PIECES = st.sampled_from([b"", b"0", b"v0=", b"payload=", b"%00", b"\xff", "“".encode(), b"&", b"{", b"}" * 50])
BODIES = st.lists(PIECES | st.binary(max_size=20), max_size=12).map(b"".join)
VALUES = st.binary(max_size=60).map(lambda value: bytes(byte for byte in value if byte not in (0, 10, 13)))


async def accepted_of_the_forged(edge: Edge, count: int) -> tuple[int, int]:
    """Send forged requests of every kind. Returns: how many were let in, and how many ended in an error of ours."""
    answers: list[int] = []

    @given(
        body=BODIES, timestamp=VALUES | st.just(None), signed=VALUES | st.just(None), path=st.sampled_from([INTERACTIONS, COMMANDS])
    )
    @settings(max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    def collect(body: bytes, timestamp: bytes | None, signed: bytes | None, path: str) -> None:
        forged.append((body, timestamp, signed, path))

    forged: list[tuple[bytes, bytes | None, bytes | None, str]] = []
    collect()
    for body, timestamp, signed, path in forged:
        now = str(int(time.time())).encode()
        at = now if timestamp is None else timestamp
        by = signature("guessed", body, at) if signed is None else signed
        answer = await sent(edge, [(b"content-type", FORM), (TIMESTAMP, at), (SIGNATURE, by)], body, path)
        answers.append(answer.status_code)
    return sum(status not in (401, 408, 413) and status < 500 for status in answers), sum(status >= 500 for status in answers)


async def test_of_hundreds_of_forged_requests_none_gets_in_and_none_breaks_anything(edge: Edge) -> None:
    assert await accepted_of_the_forged(edge, 300) == (0, 0)
    assert edge.metric("infrasage_slack_refused_total", reason="forged") > 0
    assert edge.metric("infrasage_slack_refused_total", reason="malformed") > 0


async def test_without_the_signature_the_same_forged_requests_get_in(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: what the test above sends would reach the listeners if the guard did not compare."""
    monkeypatch.setattr(guard.Claim, "holds", lambda *_: True)
    let_in, broken = await accepted_of_the_forged(edge, 300)
    assert let_in > 0 and broken == 0


MALFORMED_PAYLOADS: list[Any] = [
    None,
    [],
    "text",
    5,
    {},
    {"type": "block_actions"},
    {"type": "block_actions", "user": {"id": "U1"}, "actions": []},
    {"type": "block_actions", "user": {"id": "U1"}, "actions": {}},
    {"type": "block_actions", "user": {"id": "U1"}, "actions": [5]},
    {"type": "block_actions", "user": {"id": "U1"}, "actions": [{"action_id": 5}]},
    {"type": "block_actions", "user": {"id": 5}, "actions": [{"action_id": "approve_step"}]},
    {"type": "block_actions", "user": {"id": ""}, "actions": [{"action_id": "approve_step"}]},
    {"type": "block_actions", "user": None, "actions": [{"action_id": "approve_step"}]},
    {"type": "block_actions", "user": {"id": "U1"}, "actions": [{"action_id": "approve_step"}, {"action_id": "reject_step"}]},
    {"type": "block_actions", "user": {"id": "U1"}, "channel": "C1", "actions": [{"action_id": "approve_step"}]},
    {"type": "view_submission", "user": {"id": "U1"}, "view": {}},
    {"type": "shortcut", "callback_id": "x"},
    {"type": "event_callback", "event": {"type": "message"}},
    {"type": ["block_actions"]},
    {"type": "block_actions", "actions": "x" * 100_000},
]


@pytest.mark.parametrize("number", range(len(MALFORMED_PAYLOADS)))
async def test_a_signed_payload_that_slack_would_not_send_is_400(edge: Edge, number: int) -> None:
    answer = await edge.signed(INTERACTIONS, interaction_form(MALFORMED_PAYLOADS[number]))
    assert answer.status_code == 400, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "body",
    [
        "",
        "payload",
        "payload=",
        "payload={",
        "payload=%7B%7D&payload=%7B%7D",
        "payload=" + "[" * 5_000,
        "x=1",
        "&".join(f"a{number}=1" for number in range(99)),
        "payload=%FF",
    ],
)
async def test_a_signed_body_that_is_no_interaction_is_400(edge: Edge, body: str) -> None:
    assert (await edge.signed(INTERACTIONS, body)).status_code == 400


@pytest.mark.parametrize(
    "body",
    [
        "",
        "x=1",
        "command=infrasage&user_id=U1",
        "command=%2Finfrasage",
        "command=%2Finfrasage&user_id=",
        "command=%2Finfrasage&user_id=U1&user_id=U2",
    ],
)
async def test_a_signed_body_that_is_no_command_is_400(edge: Edge, body: str) -> None:
    assert (await edge.signed(COMMANDS, body)).status_code == 400


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6), lambda inner: st.lists(inner, max_size=2), max_leaves=4
)
KEYS = st.sampled_from(
    [
        "type",
        "user",
        "actions",
        "channel",
        "team",
        "enterprise",
        "response_url",
        "container",
        "view",
        "event",
        "is_enterprise_install",
    ]
)


async def test_no_signed_payload_breaks_anything(edge: Edge, stage: Stage) -> None:
    changed: list[dict[str, Any]] = []

    @given(changes=st.dictionaries(KEYS, JSON_VALUES, min_size=1, max_size=4))
    @settings(max_examples=200, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    def collect(changes: dict[str, Any]) -> None:
        changed.append(changes)

    collect()
    payload = block_actions({"action_id": "view_incident", "type": "button"}, channel="C0OPSALERT", ts="1.1")
    for changes in changed:
        answer = await edge.signed(INTERACTIONS, interaction_form({**payload, **changes}))
        assert answer.status_code in (200, 400), (changes, answer.text)


def test_the_example_of_slacks_own_documentation_holds() -> None:
    body = (
        b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar"
        b"&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com"
        b"%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN"
        b"&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
    )
    headers = [
        (b"X-Slack-Request-Timestamp", b"1531420618"),
        (b"X-Slack-Signature", b"v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503"),
    ]
    claim = read_claim(headers, 1531420618)
    assert isinstance(claim, Claim) and claim.holds(body, b"8f742231b10e8888abcd99yyyzzz85a5")
