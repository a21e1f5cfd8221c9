"""The Slack clients against a Slack on loopback: what arrives there, what every failure becomes, and what never leaks."""

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
from pydantic import SecretStr

from activities.clients.slack_failures import REMEDIES, failure, throttled
from activities.clients.slack_web import SlackBot, SlackWebhook
from activities.errors import OrchestratorError, RateLimited, Refused, Unreachable
from activities.messages.alert import alert_message
from activities.messages.answers import sentence
from activities.messages.approval import approval_message
from activities.messages.parts import SlackMessage, Surroundings
from domain.approval import ReplyTo
from domain.incident import EscalationKind
from domain.narration import PostedMessage
from tests.peers.http import answer, http_peer
from tests.peers.http_certificates import Authority
from tests.peers.slack import Drop, Hang, Refuse, SlackPeer, Status, Throttle
from tests.peers.slack_samples import CONSOLE, sample_alert, sample_card

SHORT = timedelta(seconds=0.3)
HELLO = sentence("hello")
NOWHERE = PostedMessage(channel="C0OPSALERT", ts="1.1")
SURROUNDINGS = Surroundings(CONSOLE, interactive=True, offers=frozenset(EscalationKind))


@pytest_asyncio.fixture
async def slack() -> AsyncIterator[SlackPeer]:
    async with SlackPeer() as peer:
        yield peer


@pytest_asyncio.fixture
async def bot(slack: SlackPeer) -> AsyncIterator[SlackBot]:
    client = SlackBot(SecretStr(slack.token), "#ops-alerts", api_url=slack.api_url, timeout=SHORT)
    yield client
    await client.aclose()


@pytest_asyncio.fixture
async def webhook(slack: SlackPeer) -> AsyncIterator[SlackWebhook]:
    client = SlackWebhook(SecretStr(slack.webhook_url), "#ops-alerts", timeout=SHORT)
    yield client
    await client.aclose()


# --- what arrives -----------------------------------------------------------------------------------------------------


async def test_an_alert_a_reply_and_an_update_arrive_as_one_thread(slack: SlackPeer, bot: SlackBot) -> None:
    alert = await bot.post(None, alert_message(sample_alert(), SURROUNDINGS))
    card = await bot.post(None, approval_message(sample_card(), SURROUNDINGS), alert)
    (shown,) = slack.messages("#ops-alerts")
    (reply,) = slack.replies(shown)
    assert (alert.channel, alert.ts) == (shown.channel, shown.ts)
    assert reply.action_ids == ["approve_step", "reject_step"]
    await bot.update(card, sentence("done"))
    assert (reply.shown, reply.action_ids, reply.edits) == ("done", [], 1)
    assert not slack.refusals


async def test_links_are_not_unfurled_and_names_are_not_looked_for_in_posts_and_updates(slack: SlackPeer, bot: SlackBot) -> None:
    posted = await bot.post(None, HELLO)
    (message,) = slack.messages()
    for key, value in {"unfurl_links": False, "unfurl_media": False, "parse": "none", "link_names": False}.items():
        assert message.request[key] == value, key
    await bot.update(posted, HELLO)
    assert (message.request["parse"], message.request["link_names"]) == ("none", False)


async def test_a_channel_that_is_named_wins_over_the_thread(slack: SlackPeer, bot: SlackBot) -> None:
    thread = await bot.post(None, HELLO)
    await bot.post("#alerts", HELLO, thread)
    await bot.post(thread.channel, HELLO, thread)
    (elsewhere,) = slack.messages("#alerts")
    assert elsewhere.thread_ts is None
    assert len(slack.replies(slack.messages()[0])) == 1


async def test_reactions_come_and_go_and_are_safe_to_repeat(slack: SlackPeer, bot: SlackBot) -> None:
    posted = await bot.post(None, HELLO)
    (message,) = slack.messages()
    await bot.react(posted, "gear")
    await bot.react(posted, "gear")
    assert message.reactions == {"gear"}
    await bot.unreact(posted, "gear")
    await bot.unreact(posted, "gear")
    assert message.reactions == set()
    await bot.react(NOWHERE, "gear")
    await bot.unreact(NOWHERE, "gear")
    assert slack.refusals == [
        "reactions.add: already_reacted",
        "reactions.remove: no_reaction",
        "reactions.add: message_not_found",
        "reactions.remove: message_not_found",
    ]


async def test_one_person_alone_is_told(slack: SlackPeer, bot: SlackBot) -> None:
    await bot.tell(ReplyTo(channel="C0OPSALERT", user="U0JANE0001"), sentence("Too late."))
    (told,) = slack.ephemerals
    assert (told.user, told.channel, told.text) == ("U0JANE0001", "C0OPSALERT", "Too late.")
    assert not slack.messages()


async def test_the_check_names_the_team_the_bot_and_the_scopes_that_are_missing(slack: SlackPeer, bot: SlackBot) -> None:
    identity = await bot.check()
    assert (identity.team, identity.bot_user, identity.bot_user_id) == ("Acme", "infrasage", "U0BOT00001")
    assert identity.missing_scopes == ()
    slack.scopes = ("chat:write",)
    assert (await bot.check()).missing_scopes == ("chat:write.public", "commands", "reactions:write")


async def test_a_webhook_posts_whole_messages_to_its_channel(slack: SlackPeer, webhook: SlackWebhook) -> None:
    assert await webhook.post(None, alert_message(sample_alert(), Surroundings(CONSOLE, interactive=False))) is None
    await webhook.post("#alerts", HELLO, NOWHERE)
    assert slack.messages("#ops-alerts")[0].request["channel"] == "#ops-alerts"
    (elsewhere,) = slack.messages("#alerts")
    assert (elsewhere.thread_ts, elsewhere.request["unfurl_links"]) == (None, False)


async def test_a_webhook_without_a_channel_names_none(slack: SlackPeer) -> None:
    client = SlackWebhook(SecretStr(slack.webhook_url))
    try:
        await client.post(None, HELLO)
    finally:
        await client.aclose()
    assert "channel" not in slack.messages()[0].request


async def test_checking_a_webhook_posts_nothing(slack: SlackPeer, webhook: SlackWebhook) -> None:
    await webhook.check()
    assert not slack.messages()
    assert slack.calls["webhook"] == 1
    slack.script("webhook", Refuse("no_service", status=404))
    with pytest.raises(Refused, match="no_service"):
        await webhook.check()


# --- what failures become -----------------------------------------------------------------------------------------------

PASSING = [
    Status(500),
    Status(503, "", "text/plain"),
    Status(502, '{"ok": false, "error": "invalid_auth"}', "application/json"),
    Status(500, "not json", "application/json"),
    Drop(),
    Hang(),
    Refuse("internal_error"),
    Refuse("fatal_error"),
    Refuse("service_unavailable"),
    Refuse("request_timeout"),
    Refuse("team_added_to_org"),
]


@pytest.mark.parametrize("behaviour", PASSING, ids=str)
async def test_trouble_that_may_pass_is_worth_another_try(slack: SlackPeer, bot: SlackBot, behaviour: Any) -> None:
    slack.script("chat.postMessage", behaviour)
    with pytest.raises(Unreachable) as caught:
        await bot.post(None, HELLO)
    assert caught.value.retryable
    assert slack.calls["chat.postMessage"] == 1, "the client does not retry by itself"
    await bot.post(None, HELLO)
    assert len(slack.messages()) == 1


WEBHOOK_PASSING = [
    Status(503, "upstream connect error", "text/plain"),
    Status(500),
    Status(500, "rollup_error", "text/plain"),
    Status(503, "", "text/plain"),
    Drop(),
    Hang(),
]


@pytest.mark.parametrize("behaviour", WEBHOOK_PASSING, ids=str)
async def test_a_webhooks_trouble_that_may_pass_is_worth_another_try(
    slack: SlackPeer, webhook: SlackWebhook, behaviour: Any
) -> None:
    slack.script("webhook", behaviour)
    with pytest.raises(Unreachable):
        await webhook.post(None, HELLO)
    assert slack.calls["webhook"] == 1


@pytest.mark.parametrize(
    ("header", "wait"),
    [(7, timedelta(seconds=7)), (None, None), ("soon", None), ("-1", None), ("9" * 30, None), (999_999, timedelta(hours=1))],
)
async def test_being_throttled_gives_slacks_own_delay_at_once(
    slack: SlackPeer, bot: SlackBot, webhook: SlackWebhook, header: int | str | None, wait: timedelta | None
) -> None:
    slack.script("chat.postMessage", Throttle(header))
    slack.script("webhook", Throttle(header))
    began = time.monotonic()
    for client in (bot, webhook):
        with pytest.raises(RateLimited) as caught:
            await client.post(None, HELLO)
        assert caught.value.retry_after == wait
    assert time.monotonic() - began < 2, "nobody slept"
    assert slack.calls == {"chat.postMessage": 1, "webhook": 1}


async def test_a_throttle_without_status_429_is_one_too(slack: SlackPeer, bot: SlackBot) -> None:
    slack.script("chat.postMessage", Refuse("ratelimited"))
    with pytest.raises(RateLimited):
        await bot.post(None, HELLO)


@pytest.mark.parametrize("code", [*REMEDIES, "some_new_code"])
async def test_a_refusal_names_slacks_code_and_a_known_one_says_what_to_do(slack: SlackPeer, bot: SlackBot, code: str) -> None:
    slack.script("chat.postMessage", Refuse(code))
    with pytest.raises(Refused) as caught:
        await bot.post(None, HELLO)
    assert str(caught.value).startswith(f"Slack refused: {code}.")
    assert REMEDIES.get(code, "") in str(caught.value)
    assert not caught.value.retryable


async def test_a_missing_scope_is_named(slack: SlackPeer, bot: SlackBot) -> None:
    slack.scopes = ("chat:write",)
    posted = await bot.post(None, HELLO)
    with pytest.raises(Refused, match=r"missing_scope\. Add the scope reactions:write to the app and install it again"):
        await bot.react(posted, "gear")


async def test_updating_a_message_that_is_gone_is_refused(bot: SlackBot) -> None:
    with pytest.raises(Refused, match=r"message_not_found\. The message was deleted"):
        await bot.update(NOWHERE, HELLO)


async def test_a_message_that_slack_would_not_take_is_refused(bot: SlackBot) -> None:
    block = {"type": "section", "text": {"type": "plain_text", "text": "x" * 3_001}}
    with pytest.raises(Refused, match="invalid_blocks"):
        await bot.post(None, SlackMessage(text="x", blocks=[block]))


@pytest.mark.parametrize(
    ("behaviour", "code"),
    [
        (Refuse("no_service", status=404), "no_service"),
        (Refuse("channel_is_archived", status=410), "channel_is_archived"),
        (Refuse("action_prohibited", status=403), "action_prohibited"),
        (Refuse("invalid_blocks"), "invalid_blocks"),
        (Refuse("invalid_payload"), "invalid_payload"),
    ],
)
async def test_a_webhooks_refusals_are_told_alike(slack: SlackPeer, webhook: SlackWebhook, behaviour: Refuse, code: str) -> None:
    slack.script("webhook", behaviour)
    with pytest.raises(Refused) as caught:
        await webhook.post(None, HELLO)
    assert str(caught.value) == f"Slack refused: {code}. {REMEDIES[code]}"


@pytest.mark.parametrize(
    "behaviour",
    [
        Status(200, "<html>log in</html>"),
        Status(200, "ok", "text/plain"),
        Status(200, '["ok"]', "application/json"),
        Status(200, '{"ok": true}', "application/json"),
        Status(404, "<html>not here</html>"),
        Status(200, "not json", "application/json"),
    ],
    ids=str,
)
async def test_an_answer_that_is_not_slacks_is_no_success(slack: SlackPeer, bot: SlackBot, behaviour: Status) -> None:
    slack.script("chat.postMessage", behaviour)
    with pytest.raises(Refused, match="SLACK_API_URL"):
        await bot.post(None, HELLO)


@pytest.mark.parametrize("behaviour", [Status(200, "<html>log in</html>"), Status(302, ""), Status(404, "<html></html>")], ids=str)
async def test_a_page_in_place_of_a_webhook_is_no_success(slack: SlackPeer, webhook: SlackWebhook, behaviour: Status) -> None:
    slack.script("webhook", behaviour)
    with pytest.raises(Refused, match="SLACK_WEBHOOK_URL"):
        await webhook.post(None, HELLO)


async def test_a_webhook_is_not_redirected(slack: SlackPeer) -> None:
    for status in (302, 307):
        async with http_peer(answer(status, headers={"location": slack.webhook_url})) as detour:
            with pytest.raises(Refused, match=f"HTTP {status}"):
                await _post_once(SlackWebhook(SecretStr(detour.url())))
            assert len(detour.requests) == 1
    assert not slack.calls, "alerts went where nobody configured them to go"


async def test_a_far_end_that_refuses_connections_is_unreachable() -> None:
    async with SlackPeer() as gone:
        api_url, webhook_url, token = gone.api_url, gone.webhook_url, gone.token
    bot, webhook = SlackBot(SecretStr(token), "#x", api_url=api_url), SlackWebhook(SecretStr(webhook_url))
    for client in (bot, webhook):
        with pytest.raises(Unreachable, match=r"Slack \(127\.0\.0\.1\) cannot be reached: the connection failed"):
            await client.post(None, HELLO)
        await client.aclose()


async def test_a_certificate_that_is_not_trusted_is_said_to_be_the_trouble() -> None:
    async with http_peer(tls=Authority().serve("127.0.0.1")) as stranger:
        with pytest.raises(Unreachable, match="its TLS certificate is not trusted here"):
            await _post_once(SlackWebhook(SecretStr(stranger.url(scheme="https"))))
        assert not stranger.requests


async def test_a_far_end_without_tls_is_said_to_be_the_trouble(slack: SlackPeer) -> None:
    api_url = slack.api_url.replace("http://", "https://")
    with pytest.raises(Unreachable, match="it does not speak TLS as expected"):
        await _post_once(SlackBot(SecretStr(slack.token), "#x", api_url=api_url))


@pytest.mark.parametrize("url", ["not a url", "ftp://127.0.0.1/x", "https://", ""])
async def test_a_url_that_is_none_is_a_sentence_about_the_setting(url: str) -> None:
    webhook, bot = SlackWebhook(SecretStr(url)), SlackBot(SecretStr("xoxb-1"), "#x", api_url=url)
    for client in (webhook, bot):
        with pytest.raises(Refused, match="SLACK_API_URL"):
            await client.post(None, HELLO)
        await client.aclose()


def test_every_code_and_its_scope_and_delay_are_told_in_one_sentence() -> None:
    assert str(failure("")) == "Slack refused: no error code."
    assert str(failure("missing_scope", needed="chat:write")).count("chat:write") == 1
    assert str(throttled("3")) == "Slack asked to slow down for 3 s."
    assert "\n" not in str(failure("a\nb\u202e"))


# --- what never leaks -----------------------------------------------------------------------------------------------------

EVERYTHING = [*PASSING, Throttle(1), Refuse("invalid_auth"), Status(200, "<html></html>"), Status(200, "fine", "text/plain")]


@pytest.fixture
def everything_logged(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.DEBUG):
        yield caplog


def whole_story(error: BaseException | None) -> str:
    """The error and everything it leads to, as a careless log would write it."""
    story = ""
    while error is not None:
        story += f"{error!r} {error} {vars(error)!r} {error.args!r}\n"
        error = error.__cause__ or error.__context__
    return story


@pytest.mark.parametrize("behaviour", EVERYTHING, ids=str)
async def test_the_token_and_the_webhooks_url_are_in_no_error_and_no_log(
    slack: SlackPeer, bot: SlackBot, webhook: SlackWebhook, everything_logged: pytest.LogCaptureFixture, behaviour: Any
) -> None:
    slack.script("chat.postMessage", behaviour)
    slack.script("webhook", behaviour)
    secret_path = slack.webhook_url.removeprefix(slack.base_url)
    for client in (bot, webhook):
        with pytest.raises(OrchestratorError) as caught:
            await client.post(None, HELLO)
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None, "the error leads to the request that failed"
        for text in (whole_story(caught.value), everything_logged.text, repr(vars(client)["_connection"])):
            assert slack.token not in text
            assert secret_path not in text


async def test_what_is_told_is_not_logged_even_at_debug(
    slack: SlackPeer, bot: SlackBot, webhook: SlackWebhook, everything_logged: pytest.LogCaptureFixture
) -> None:
    await bot.post(None, sentence("words of an incident"))
    await webhook.post(None, sentence("words of an incident"))
    assert len(slack.messages()) == 2
    assert "words of an incident" not in everything_logged.text


def test_the_story_of_an_error_does_show_a_secret_that_is_in_it() -> None:
    def careless() -> None:
        try:
            raise ValueError("xoxb-secret")
        except ValueError:
            raise Unreachable("no answer") from None

    with pytest.raises(Unreachable) as caught:
        careless()
    assert "xoxb-secret" in whole_story(caught.value)


@pytest.mark.parametrize(
    "url", ["http://exa mple/secret-path", "nonsense://secret-path", "http://[secret-path", "http://x:secret-path/"]
)
async def test_a_url_that_cannot_be_used_is_not_repeated(everything_logged: pytest.LogCaptureFixture, url: str) -> None:
    with pytest.raises(OrchestratorError) as caught:
        await _post_once(SlackWebhook(SecretStr(url)))
    assert "secret-path" not in whole_story(caught.value) + everything_logged.text


# --- connections ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy"])
async def test_a_proxy_is_used_but_for_hosts_that_are_excepted(
    slack: SlackPeer, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    async with SlackPeer() as wrong_way:
        monkeypatch.setenv(variable, wrong_way.base_url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        await _post_once(SlackBot(SecretStr(slack.token), "#ops-alerts", api_url=slack.api_url))
        await _post_once(SlackWebhook(SecretStr(slack.webhook_url)))
        assert len(slack.messages()) == 2
        monkeypatch.delenv("NO_PROXY")
        monkeypatch.delenv("no_proxy")
        await _post_once(SlackBot(SecretStr(wrong_way.token), "#ops-alerts", api_url=slack.api_url))
        assert len(wrong_way.messages()) == 1, "without the exception the proxy is asked"


async def _post_once(client: SlackBot | SlackWebhook) -> None:
    try:
        posting: Awaitable[object] = client.post(None, HELLO)
        await posting
    finally:
        await client.aclose()


async def test_a_closed_client_leaves_no_connection_open(slack: SlackPeer) -> None:
    client = SlackBot(SecretStr(slack.token), "#ops-alerts", api_url=slack.api_url)
    await client.post(None, HELLO)
    session = vars(client)["_connection"].session()
    await client.aclose()
    assert session.closed
    await SlackWebhook(SecretStr(slack.webhook_url)).aclose()
