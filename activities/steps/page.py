"""The step type `page`, and the activity `page.resolve`: call the engineer on call, and take the call back."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol

from pydantic import SecretStr
from temporalio import activity

from activities.errors import InvalidStep, NotConfigured, OrchestratorError, clip, to_application_error
from activities.steps.base import CHANGE_LIMIT_CHARACTERS, cannot_be_undone, plan_of, step_of
from domain import expressions, paging
from domain.incident import StepRequest, UndoRequest
from domain.paging import PageResolve, Routes
from domain.plan import Fact, StepPlan, StepResult
from domain.runbook import PageStep


class PagerPort(Protocol):
    """Where events go."""

    async def send(self, event: Mapping[str, Any], routing_key: SecretStr) -> None:
        """Send an event; the same `dedup_key` twice is one page. Raises: Unreachable, RateLimited, Refused."""
        ...


class PageSteps:
    """One incident is one page: retries and further steps find it by its key, so every attempt may be repeated."""

    type: ClassVar[str] = "page"

    def __init__(self, pager: PagerPort | None, routes: Routes, console_url: str) -> None:
        """`pager`: None where nobody can be paged at all. `console_url`: INFRASAGE_URL, for the link in the page."""
        self._pager = pager
        self._routes = routes
        self._console_url = console_url

    def render(self, request: StepRequest) -> dict[str, Any]:
        """The event without its routing key, which no history may hold."""
        step = step_of(request, PageStep)
        summary = None if step.summary is None else expressions.render(step.summary, request.names)
        return paging.trigger_event(
            incident_id=request.incident_id,
            service_id=_service_of(request),
            environment=request.anomaly.environment if request.anomaly else _text(request, "environment"),
            severity=_text(request, "severity"),
            summary=summary,
            anomaly=request.anomaly,
            console_url=self._console_url,
        )

    async def plan(self, request: StepRequest) -> StepPlan:
        """Render, and see that somebody is paged for the service. Raises: NotConfigured."""
        event, service = self.render(request), _service_of(request)
        key_for(self._routes, service)
        return StepPlan(
            title="Page on-call",
            change=f"whoever is on call for {service} is paged through PagerDuty",
            facts=(
                Fact(label="Summary", value=clip(event["payload"]["summary"], CHANGE_LIMIT_CHARACTERS)),
                Fact(label="Severity", value=event["payload"]["severity"]),
            ),
            request=event,
        )

    async def execute(self, request: StepRequest) -> StepResult:
        step_of(request, PageStep)
        event, service = plan_of(request).request, _service_of(request)
        key = key_for(self._routes, service)
        if self._pager is None:
            raise NotConfigured("this worker has no connection to PagerDuty")
        await self._pager.send(event, key)
        return StepResult(summary=f"On-call for {service} was paged through PagerDuty", outputs={"dedup_key": event["dedup_key"]})

    async def undo(self, request: UndoRequest) -> StepResult:
        raise cannot_be_undone(request)


class PagingActivities:
    """`page.resolve`."""

    def __init__(self, pager: PagerPort, routes: Routes) -> None:
        self._pager = pager
        self._routes = routes

    @property
    def all(self) -> list[Callable[..., Any]]:
        """What a worker registers."""
        return [self.resolve]

    @activity.defn(name="page.resolve")
    async def resolve(self, resolve: PageResolve) -> StepResult:
        """Tell PagerDuty that an incident is over. Safe to run twice, and for an incident that nobody was paged for.

        Raises: ApplicationError[NotConfigured, Unreachable, RateLimited, Refused].
        """
        try:
            await self._pager.send(paging.resolve_event(resolve.incident_id), key_for(self._routes, resolve.service_id))
        except OrchestratorError as error:
            raise to_application_error(error) from None
        return StepResult(summary=f"PagerDuty knows that {resolve.incident_id} is over")


def key_for(routes: Routes, service_id: str) -> SecretStr:
    """Raises: NotConfigured naming the settings when nobody is paged for the service."""
    key = routes.key_of(service_id)
    if key is None:
        raise NotConfigured(
            f"nobody can be paged for {service_id}: PAGERDUTY_SERVICE_KEY is not set,"
            " and no service_pattern of PAGERDUTY_ROUTING_RULES matches"
        )
    return key


def _service_of(request: StepRequest) -> str:
    service = request.anomaly.service_id if request.anomaly else _text(request, "service_id")
    if not service:
        raise InvalidStep(f"step {request.number} cannot page: its run knows no service")
    return service


def _text(request: StepRequest, name: str) -> str | None:
    value = request.names.get(name)
    return value if isinstance(value, str) and value else None
