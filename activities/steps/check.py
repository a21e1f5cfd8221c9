"""The step type `check`: ask again and again whether the world is as it should be; nothing is changed."""

import asyncio
import contextlib
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, ClassVar, Protocol

from pydantic import Field, ValidationError

from activities.clients.web_messages import HttpAnswer, HttpRequest
from activities.errors import InvalidStep, NotConfigured, OutcomeUnknown, Refused, TransientError, Unreachable, clip
from activities.secrets import Secrets
from activities.steps.base import CHANGE_LIMIT_CHARACTERS, cannot_be_undone, plan_of, read_as, step_of
from activities.steps.check_queries import BoundQuery, bind_sql, fill_promql
from activities.steps.heartbeat import say
from activities.steps.http import HttpSteps, ResolvedRequest, WebPort
from domain import expressions
from domain.base import Durable
from domain.expressions import Scalar
from domain.flow_steps import HttpExpectation
from domain.incident import StepRequest, UndoRequest
from domain.plan import Fact, StepPlan, StepResult
from domain.runbook import CheckStep, HttpStep

PROBE_TIMEOUT = timedelta(seconds=10)
"""Of one look at the world; a check that waits longer for one answer looks too seldom."""

LAST_PROBE_TIMEOUT = timedelta(seconds=1)
"""What the last look is given, at least, so that it does not end before it began. The workflow allows a step 10 s beyond its own
timeout (`workflows.presets.STEP_MARGIN`)."""


_LEADING = re.compile(r"\{\{[^{}]*\}\}")


class PrometheusPort(Protocol):
    """What a prometheus check needs of the client."""

    @property
    def where(self) -> str:
        """The server as it is named in sentences."""
        ...

    async def number(self, query: str, within: timedelta) -> float:
        """The value of an instant query. Raises: TransientError where asking again may help, else a PermanentError."""
        ...


class NumberPort(Protocol):
    """What a clickhouse check needs of the client."""

    async def number(self, query: str, parameters: dict[str, Any]) -> float:
        """The one number that a query reads; it changes nothing. Raises: as `PrometheusPort.number`."""
        ...


class ResolvedCheck(Durable):
    """What is asked; secrets of the http probe stand as `$NAME`."""

    http: ResolvedRequest | None = None
    expect: HttpExpectation | None = None
    prometheus: str | None = None
    clickhouse: BoundQuery | None = None
    condition: str | None = None
    interval_seconds: float
    timeout_seconds: float


class Look(Durable):
    """What one look saw."""

    holds: bool
    seen: str
    """`value was 0.93`, `it answered 503`."""
    outputs: dict[str, int | float] = Field(default_factory=dict[str, int | float])


class CheckSteps:
    """Reads only, so a lost attempt is simply begun again."""

    type: ClassVar[str] = "check"

    def __init__(
        self, web: WebPort, secrets: Secrets, *, prometheus: PrometheusPort | None = None, clickhouse: NumberPort | None = None
    ) -> None:
        self._web = web
        self._secrets = secrets
        self._http = HttpSteps(web, secrets)
        self._prometheus = prometheus
        self._clickhouse = clickhouse

    def render(self, request: StepRequest) -> dict[str, Any]:
        return self._resolve(request).model_dump(mode="json")

    async def plan(self, request: StepRequest) -> StepPlan:
        """Render, and check what can be checked before: that the source is configured, and the host of a probe allowed."""
        step, resolved = step_of(request, CheckStep), self._resolve(request)
        if step.http is not None:
            with contextlib.suppress(Unreachable):  # a name that does not resolve yet may be what the check waits for
                await self._http.plan(_as_http(request, step))
        if step.prometheus is not None:
            _ = self._prometheus_port
        if step.clickhouse is not None:
            _ = self._clickhouse_port
        return StepPlan(
            title=_title(resolved),
            change=f"nothing is changed: {self._where(resolved)} is asked every {step.interval_seconds:g} s until it holds,"
            f" for {step.timeout_seconds:g} s at most",
            facts=_facts(resolved),
            request=resolved.model_dump(mode="json"),
        )

    async def execute(self, request: StepRequest) -> StepResult:
        """Look until it holds. Raises: Refused naming what was seen last; a PermanentError of the source at once."""
        step_of(request, CheckStep)
        check = read_as(ResolvedCheck, plan_of(request).request, f"the plan of step {request.number}")
        clock = asyncio.get_running_loop()
        started = clock.time()
        deadline = started + check.timeout_seconds
        looks = 0
        while True:
            left = timedelta(seconds=deadline - clock.time())
            look = await self._look(check, max(min(left, PROBE_TIMEOUT), LAST_PROBE_TIMEOUT))
            looks += 1
            if look.holds:
                return StepResult(
                    summary=f"The check holds: {look.seen}{_wanted(check)}, after {clock.time() - started:.1f} s",
                    outputs={**look.outputs, "looks": looks},
                )
            left_seconds = deadline - clock.time()
            if left_seconds <= 0:
                raise Refused(f"check did not hold within {check.timeout_seconds:g} s: {look.seen}{_wanted(check)}")
            say(f"{look.seen}{_wanted(check)}")
            await asyncio.sleep(min(check.interval_seconds, left_seconds))

    async def undo(self, request: UndoRequest) -> StepResult:
        raise cannot_be_undone(request)

    def _resolve(self, request: StepRequest) -> ResolvedCheck:
        step, names = step_of(request, CheckStep), request.names
        probe = None if step.http is None else ResolvedRequest.model_validate(self._http.render(_as_http(request, step)))
        return ResolvedCheck(
            http=probe,
            expect=step.http.expect if step.http else None,
            prometheus=None if step.prometheus is None else fill_promql(step.prometheus, names),
            clickhouse=None if step.clickhouse is None else bind_sql(step.clickhouse, names),
            condition=step.condition,
            interval_seconds=step.interval_seconds,
            timeout_seconds=step.timeout_seconds,
        )

    async def _look(self, check: ResolvedCheck, within: timedelta) -> Look:
        """Look once. What passes by itself counts as not holding. Raises: PermanentError."""
        try:
            async with asyncio.timeout(within.total_seconds()):
                if check.http is not None:
                    return await self._look_at_http(check.http, check.expect or HttpExpectation(), within)
                return _judged(check, await self._number(check, within))
        except (TransientError, OutcomeUnknown) as error:
            return Look(holds=False, seen=str(error).rstrip("."))
        except TimeoutError:
            return Look(holds=False, seen=f"no answer within {within.total_seconds():g} s")

    async def _number(self, check: ResolvedCheck, within: timedelta) -> float:
        if check.prometheus is not None:
            return await self._prometheus_port.number(check.prometheus, within)
        if check.clickhouse is not None:
            return await self._clickhouse_port.number(check.clickhouse.text, check.clickhouse.parameters)
        raise InvalidStep("the plan of the check names nothing that could be asked")

    async def _look_at_http(self, probe: ResolvedRequest, expect: HttpExpectation, within: timedelta) -> Look:
        answer: HttpAnswer = await self._web.send(
            HttpRequest(
                method=probe.method,
                url=self._secrets.resolve(probe.url),
                headers={name: self._secrets.resolve(value) for name, value in probe.headers.items()},
                timeout=within,
            )
        )
        is_expected = answer.status == expect.status if expect.status is not None else 200 <= answer.status < 300
        outputs: dict[str, int | float] = {"status": answer.status}
        if not is_expected:
            seen = f"{probe.shown_url} answered {answer.status}, wanted {expect.status or '2xx'}"
            return Look(holds=False, seen=seen, outputs=outputs)
        if expect.body_contains is not None and expect.body_contains not in answer.body.decode(errors="replace"):
            seen = f"{probe.shown_url} answered {answer.status} without “{clip(expect.body_contains, 100)}” in the body"
            return Look(holds=False, seen=seen, outputs=outputs)
        return Look(holds=True, seen=f"{probe.shown_url} answered {answer.status}", outputs=outputs)

    def _where(self, check: ResolvedCheck) -> str:
        if check.http is not None:
            return check.http.shown_url
        return self._prometheus_port.where if check.prometheus is not None else "ClickHouse"

    @property
    def _prometheus_port(self) -> PrometheusPort:
        if self._prometheus is None:
            raise NotConfigured("PROMETHEUS_URL is not set, and a prometheus check asks the server there")
        return self._prometheus

    @property
    def _clickhouse_port(self) -> NumberPort:
        if self._clickhouse is None:
            raise NotConfigured("this worker has no ClickHouse, and a clickhouse check asks it")
        return self._clickhouse


def _as_http(request: StepRequest, step: CheckStep) -> StepRequest:
    """The probe as the http step that it would be, so that one set of rules holds for both."""
    if step.http is None:
        raise InvalidStep(f"step {request.number} has no http probe")
    try:
        probe = HttpStep(type="http", method="GET", url=_addressed(step.http.url, request.names), headers=step.http.headers)
    except ValidationError:
        raise InvalidStep(f"the URL of step {request.number} must be one line that begins with http:// or https://") from None
    return request.model_copy(update={"step": probe})


def _addressed(url: str, names: Mapping[str, Scalar]) -> str:
    """Fill in a placeholder that the URL begins with: it stands for scheme and host, and everywhere else a value is encoded.

    The allow-list judges what comes of it. Nothing in the value is read as a placeholder or as a secret.
    """
    leading = _LEADING.match(url)
    if leading is None:
        return url
    value = expressions.render(leading[0], names)
    if "{{" in value or not value.startswith(("http://", "https://")):
        raise InvalidStep(f"'{leading[0].strip()}' must stand for an address that begins with http:// or https://")
    return value.replace("$", "$$") + url[leading.end() :]


def _judged(check: ResolvedCheck, value: float) -> Look:
    holds = expressions.holds(check.condition or "", {"value": value})
    return Look(holds=holds, seen=f"value was {value:g}", outputs={"value": value})


def _wanted(check: ResolvedCheck) -> str:
    return "" if check.condition is None else f", wanted {check.condition}"


def _title(check: ResolvedCheck) -> str:
    if check.http is not None:
        return f"Check that {check.http.shown_url} answers {(check.expect and check.expect.status) or '2xx'}"
    query = check.prometheus or (check.clickhouse.text if check.clickhouse else "")
    return clip(f"Check that {query} gives {check.condition}", CHANGE_LIMIT_CHARACTERS)


def _facts(check: ResolvedCheck) -> tuple[Fact, ...]:
    facts: list[tuple[str, str]] = []
    if check.http is not None:
        facts.append(("URL", check.http.url))
        if check.expect is not None and check.expect.body_contains is not None:
            facts.append(("Body contains", check.expect.body_contains))
    if check.prometheus is not None:
        facts.append(("Prometheus query", check.prometheus))
    if check.clickhouse is not None:
        facts.append(("ClickHouse query", check.clickhouse.text))
        if check.clickhouse.parameters:
            shown = ", ".join(f"{name} = {value!r}" for name, value in check.clickhouse.parameters.items())
            facts.append(("Parameters", shown))
    if check.condition is not None:
        facts.append(("Holds when", check.condition))
    return tuple(Fact(label=label, value=clip(value, CHANGE_LIMIT_CHARACTERS)) for label, value in facts)
