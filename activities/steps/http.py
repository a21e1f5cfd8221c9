"""The step type `http`: one request to an allowed host, with secrets filled in on the way out only."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, ClassVar, Protocol

from pydantic import JsonValue

from activities.clients.web_messages import IDEMPOTENT_METHODS, READING_METHODS, HttpAnswer, HttpRequest, check_request
from activities.errors import InvalidStep, OrchestratorError, OutcomeUnknown, RateLimited, Refused, Unreachable, clip
from activities.secrets import Secrets
from activities.steps import http_body
from activities.steps.base import CHANGE_LIMIT_CHARACTERS, cannot_be_undone, plan_of, read_as, step_of
from activities.steps.rendering import fill_beside_secrets, for_url
from domain.base import Durable, sha256_of
from domain.incident import StepRequest, UndoRequest
from domain.plan import Fact, StepPlan, StepResult
from domain.runbook import HttpStep

EXCERPT_CHARACTERS = 200
"""How much of a refusal's body is shown."""

EXAMINED_BYTES = 16 * 1024
"""How much of a refusal's body is searched for secrets; the excerpt lies well inside, so that none is cut in two."""

KEY_LIMIT_CHARACTERS = 200
"""Longest idempotency key sent as it is; takers allow 255 (Stripe) and less."""

RETRY_AFTER_LIMIT = timedelta(hours=1)

_PLAIN_KEY = re.compile(r"[A-Za-z0-9._:/-]+")
_DELTA_SECONDS = re.compile(r"[0-9]{1,9}")


class WebPort(Protocol):
    """What this step type needs of the HTTP client."""

    async def check(self, url: str) -> object:
        """Judge the URL and the addresses behind it without connecting; raises as `send` does before it sends."""
        ...

    async def send(self, request: HttpRequest) -> HttpAnswer:
        """Send once, follow nothing.

        Raises: InvalidStep, NotConfigured, Refused; Unreachable when nothing was sent or the method may be repeated;
        OutcomeUnknown when it may have arrived.
        """
        ...


class ResolvedRequest(Durable):
    """The resolved request; secrets stand as `$NAME`, everywhere else a `$NAME` is spelled `$$NAME`."""

    method: str
    url: str
    headers: dict[str, str]
    body: JsonValue = None

    @property
    def shown_url(self) -> str:
        return self.url.partition("?")[0]


class HttpSteps:
    """Sent once, unless the method or the runbook says that sending twice is as good; always with an `Idempotency-Key`."""

    type: ClassVar[str] = "http"

    def __init__(self, web: WebPort, secrets: Secrets) -> None:
        self._web = web
        self._secrets = secrets

    def render(self, request: StepRequest) -> dict[str, Any]:
        return self._resolve(request).model_dump(mode="json")

    async def plan(self, request: StepRequest) -> StepPlan:
        """Render, and check what can be checked before a human is asked: secrets, headers, allow-list, addresses."""
        resolved = self._resolve(request)
        message = self._message(resolved, request)
        check_request(message)
        await self._web.check(message.url)
        return StepPlan(
            title=f"{resolved.method} {resolved.shown_url}",
            change=f"one {resolved.method} request is sent; it cannot be taken back",
            facts=_facts(resolved),
            request=resolved.model_dump(mode="json"),
        )

    async def execute(self, request: StepRequest) -> StepResult:
        step = step_of(request, HttpStep)
        resolved = read_as(ResolvedRequest, plan_of(request).request, f"the plan of step {request.number}")
        answer = await self._send(self._message(resolved, request), at_most_once=step.at_most_once)
        summary = f"{resolved.method} {resolved.shown_url} answered {answer.status}"
        if not 200 <= answer.status < 300:
            raise self._refusal(summary, answer, may_repeat=not step.at_most_once)
        return StepResult(summary=f"{summary} in {answer.elapsed.total_seconds():.1f} s", outputs={"status": answer.status})

    async def undo(self, request: UndoRequest) -> StepResult:
        raise cannot_be_undone(request)

    def _resolve(self, request: StepRequest) -> ResolvedRequest:
        step, names = step_of(request, HttpStep), request.names
        url = fill_beside_secrets(step.url, names, for_url)
        _check_path(url)
        return ResolvedRequest(
            method=step.method,
            url=url,
            headers={name: fill_beside_secrets(value, names) for name, value in step.headers.items()},
            body=http_body.fill(step.body, names, _header(step.headers, "content-type")),
        )

    def _message(self, resolved: ResolvedRequest, request: StepRequest) -> HttpRequest:
        headers = {name: self._secrets.resolve(value) for name, value in resolved.headers.items()}
        content = http_body.encode(resolved.body, self._secrets)
        if content is not None and _header(headers, "content-type") is None:
            headers["Content-Type"] = content.media_type
        if _header(headers, "idempotency-key") is None:
            headers["Idempotency-Key"] = idempotency_key(request.workflow_id, request.number)
        return HttpRequest(
            method=resolved.method,
            url=self._secrets.resolve(resolved.url),
            headers=headers,
            body=None if content is None else content.octets,
            timeout=timedelta(seconds=request.step.timeout_seconds),
        )

    async def _send(self, message: HttpRequest, *, at_most_once: bool) -> HttpAnswer:
        """Send; what an error says of the outcome follows the step's own word on whether it may be repeated."""
        try:
            return await self._web.send(message)
        except OutcomeUnknown as error:
            if at_most_once:
                raise
            failure = Unreachable(str(error))
        except Unreachable as error:
            # The client calls PUT and DELETE repeatable, and does not say whether one that failed was sent.
            if not at_most_once or message.method not in IDEMPOTENT_METHODS - READING_METHODS:
                raise
            failure = OutcomeUnknown(str(error))
        raise failure

    def _refusal(self, summary: str, answer: HttpAnswer, *, may_repeat: bool) -> OrchestratorError:
        if 300 <= answer.status < 400:
            return Refused(f"{summary}, a redirect, which is not followed")
        excerpt = self._excerpt(answer.body)
        sentence = f"{summary}: “{excerpt}”" if excerpt else summary
        if may_repeat and answer.status == 429:
            return RateLimited(sentence, retry_after=_retry_after(answer))
        if may_repeat and answer.status == 503:
            return Unreachable(sentence, retry_after=_retry_after(answer))
        return Refused(sentence)

    def _excerpt(self, body: bytes) -> str:
        text = self._secrets.redact(body[:EXAMINED_BYTES].decode(errors="replace"))
        visible = "".join(character if character.isprintable() else " " for character in text)
        return clip(" ".join(visible.split()), EXCERPT_CHARACTERS)


def idempotency_key(workflow_id: str, number: int) -> str:
    """The key of a step's effect, the same in every attempt; its SHA-256 where it is long or not plain ASCII."""
    key = f"{workflow_id}/{number}"
    return key if len(key) <= KEY_LIMIT_CHARACTERS and _PLAIN_KEY.fullmatch(key) else sha256_of(key)


def _check_path(url: str) -> None:
    """Refuse segments by which a filled-in value could move the request to another path. Raises: InvalidStep."""
    if any(segment in (".", "..") for segment in url.partition("?")[0].split("/")):
        raise InvalidStep("the path of a URL may not hold the segments . or ..")


def _facts(resolved: ResolvedRequest) -> tuple[Fact, ...]:
    facts = [Fact(label="URL", value=clip(resolved.url, CHANGE_LIMIT_CHARACTERS))]
    if resolved.headers:
        headers = ", ".join(f"{name}: {value}" for name, value in resolved.headers.items())
        facts.append(Fact(label="Headers", value=clip(headers, CHANGE_LIMIT_CHARACTERS)))
    if resolved.body is not None:
        facts.append(Fact(label="Body", value=clip(http_body.shown(resolved.body), CHANGE_LIMIT_CHARACTERS)))
    return tuple(facts)


def _header(headers: Mapping[str, str], wanted: str) -> str | None:
    return next((value for name, value in headers.items() if name.lower() == wanted), None)


def _retry_after(answer: HttpAnswer) -> timedelta | None:
    """Read Retry-After: seconds or a date (RFC 9110 section 10.2.3); None for anything else."""
    text = answer.headers.get("retry-after", "").strip()
    if _DELTA_SECONDS.fullmatch(text):
        return min(timedelta(seconds=int(text)), RETRY_AFTER_LIMIT)
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    # A date without a zone is in GMT, the only zone that HTTP has.
    left = (at if at.tzinfo else at.replace(tzinfo=UTC)) - datetime.now(UTC)
    return min(max(left, timedelta(0)), RETRY_AFTER_LIMIT)
