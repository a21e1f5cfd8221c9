"""The step types that steer a run: wait, verify, run another runbook, call a human."""

import re
from collections.abc import Iterator
from datetime import datetime, time, timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints, ValidationInfo, field_validator, model_validator

from domain import expressions
from domain.base import Durable, in_words, storable
from domain.expressions import Scalar
from domain.step_base import HeaderName, HeaderValue, Minutes, Seconds, StepBase, WebAddress, fillable

_CLOCK = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")


class WaitStep(StepBase):
    """Wait `minutes`, or `until` the next time a clock in UTC shows `HH:MM`. Durable: a restart does not shorten or prolong it."""

    type: Literal["wait"]
    minutes: Minutes | None = None
    until: str | None = None
    timeout_seconds: Seconds = 24 * 60 * 60.0

    @field_validator("until")
    @classmethod
    def _until_is_a_time(cls, value: str | None) -> str | None:
        if value is not None and not _CLOCK.fullmatch(value):
            raise ValueError("must be HH:MM in UTC, between 00:00 and 23:59")
        return value

    @model_validator(mode="after")
    def _one_of_both(self) -> "WaitStep":
        if (self.minutes is None) == (self.until is None):
            raise ValueError("takes either 'minutes' or 'until'")
        return self

    @property
    def title(self) -> str:
        return f"Wait {self.minutes:g} min" if self.minutes is not None else f"Wait until {self.until} UTC"

    @property
    def runs_in_workflow(self) -> bool:
        return True

    def ends_at(self, now: datetime) -> datetime:
        """When a wait that begins at `now` (aware, UTC) is over."""
        if self.minutes is not None:
            return now + timedelta(minutes=self.minutes)
        hour, minute = (int(part) for part in (self.until or "").split(":"))
        today = datetime.combine(now.date(), time(hour, minute), tzinfo=now.tzinfo)
        return today if today > now else today + timedelta(days=1)


class HttpExpectation(Durable):
    """What an answer must be like."""

    status: Annotated[int, Field(ge=100, le=599)] | None = None
    """Absent: any 2xx."""
    body_contains: Annotated[str, StringConstraints(min_length=1, max_length=1_000)] | None = None


class HttpProbe(Durable):
    """A GET whose answer is judged."""

    url: WebAddress
    headers: Annotated[dict[HeaderName, HeaderValue], Field(max_length=50)] = Field(default_factory=dict[str, str])
    expect: HttpExpectation = HttpExpectation()


Query = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=4_000),
    AfterValidator(storable),
    AfterValidator(fillable),
]


class CheckStep(StepBase):
    """Verify, again and again until it holds or `timeout_seconds` are over: a check that does not hold is a failed step.

    One of `http`, `prometheus` (an instant query) and `clickhouse` (a query that reads one number); the last two with a `condition`
    on `value`, e.g. `value < 0.5`.
    """

    type: Literal["check"]
    http: HttpProbe | None = None
    prometheus: Query | None = None
    clickhouse: Query | None = None
    condition: str | None = None
    interval_seconds: Annotated[float, Field(ge=0.1, le=3_600)] = 5.0
    timeout_seconds: Seconds = 300.0

    @field_validator("condition")
    @classmethod
    def _condition_is_usable(cls, value: str | None) -> str | None:
        if value is not None:
            expressions.check_condition(value, {"value"})
        return value

    @model_validator(mode="after")
    def _one_probe(self) -> "CheckStep":
        given = [name for name in ("http", "prometheus", "clickhouse") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError("takes exactly one of 'http', 'prometheus' and 'clickhouse'")
        if (self.condition is None) != (given == ["http"]):
            raise ValueError("needs a 'condition' on value for prometheus and clickhouse, and takes none for http")
        return self

    @property
    def title(self) -> str:
        if self.http is not None:
            return f"Check that {self.http.url.split('?', 1)[0]} answers {self.http.expect.status or '2xx'}"
        return f"Check that {self.prometheus or self.clickhouse} gives {self.condition}"

    def texts(self) -> Iterator[str]:
        yield from (text for text in (self.prometheus, self.clickhouse) if text is not None)
        if self.http is not None:
            yield self.http.url
            yield from self.http.headers.values()


class RunbookStep(StepBase):
    """Run another runbook as part of this one."""

    type: Literal["runbook"]
    runbook: Annotated[str, in_words(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", "must be the name of a runbook")]
    inputs: Annotated[dict[str, Scalar], Field(max_length=50)] = Field(default_factory=dict[str, Scalar])
    timeout_seconds: Seconds = 60 * 60.0

    @field_validator("inputs")
    @classmethod
    def _inputs_are_fillable(cls, value: dict[str, Scalar], info: ValidationInfo) -> dict[str, Scalar]:
        for text in value.values():
            if isinstance(text, str):
                fillable(text, info)
        return value

    @property
    def title(self) -> str:
        return f"Run the runbook {self.runbook}"

    @property
    def runs_in_workflow(self) -> bool:
        return True

    def texts(self) -> Iterator[str]:
        yield from (text for text in self.inputs.values() if isinstance(text, str))


Summary = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=1_000),
    AfterValidator(storable),
    AfterValidator(fillable),
]
"""PagerDuty's `payload.summary` takes 1,024 characters."""


class PageStep(StepBase):
    """Page the on-call engineer through PagerDuty; one incident is one page, however often it is paged."""

    type: Literal["page"]
    summary: Summary | None = None
    """Absent: what is known of the anomaly."""
    timeout_seconds: Seconds = 30.0

    @property
    def title(self) -> str:
        return "Page on-call"

    def texts(self) -> Iterator[str]:
        yield from (text for text in (self.summary,) if text is not None)


TicketSummary = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=250), AfterValidator(storable), AfterValidator(fillable)
]
"""Jira's summary takes 255 characters."""


class TicketStep(StepBase):
    """Create a Jira ticket; one incident is one ticket, however often it is asked for."""

    type: Literal["ticket"]
    summary: TicketSummary | None = None
    description: Query | None = None
    timeout_seconds: Seconds = 30.0

    @property
    def title(self) -> str:
        return "Create a Jira ticket"

    def texts(self) -> Iterator[str]:
        yield from (text for text in (self.summary, self.description) if text is not None)
