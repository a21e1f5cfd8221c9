"""The step types that a worker knows, by their `type`."""

from collections.abc import Iterable, Mapping

from activities.secrets import Secrets
from activities.steps.base import StepType
from activities.steps.check import CheckSteps, NumberPort, PrometheusPort
from activities.steps.http import HttpSteps, WebPort
from activities.steps.kubernetes import ClusterPort, KubernetesSteps
from activities.steps.page import PagerPort, PageSteps
from activities.steps.shell import ShellPort, ShellSteps
from activities.steps.slack import MessagePort, SlackSteps
from activities.steps.ticket import TicketPort, TicketSteps
from domain.paging import Routes

NOBODY = Routes()
"""No rule and no key: nobody is paged for any service."""


def register(step_types: Iterable[StepType]) -> dict[str, StepType]:
    """Index step types. Raises: ValueError when two claim the same `type`."""
    registry: dict[str, StepType] = {}
    for step_type in step_types:
        if step_type.type in registry:
            raise ValueError(f"two step types are registered as '{step_type.type}'")
        registry[step_type.type] = step_type
    return registry


def build_step_types(
    *,
    slack: MessagePort | None,
    web: WebPort,
    cluster: ClusterPort | None,
    secrets: Secrets,
    prometheus: PrometheusPort | None = None,
    clickhouse: NumberPort | None = None,
    shell: ShellPort | None = None,
    pager: PagerPort | None = None,
    routes: Routes = NOBODY,
    tracker: TicketPort | None = None,
    console_url: str = "",
) -> Mapping[str, StepType]:
    """Every step type of a runbook; where a client is None, the steps that need it say so when they are reached."""
    return register(
        [
            SlackSteps(slack),
            KubernetesSteps(cluster),
            HttpSteps(web, secrets),
            ShellSteps(shell, secrets),
            CheckSteps(web, secrets, prometheus=prometheus, clickhouse=clickhouse),
            PageSteps(pager, routes, console_url),
            TicketSteps(tracker, console_url),
        ]
    )
