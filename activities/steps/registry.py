"""The step types that a worker knows, by their `type`."""

from collections.abc import Iterable, Mapping

from activities.secrets import Secrets
from activities.steps.base import StepType
from activities.steps.http import HttpSteps, WebPort
from activities.steps.kubernetes import ClusterPort, KubernetesSteps
from activities.steps.shell import ShellSteps
from activities.steps.slack import MessagePort, SlackSteps


def register(step_types: Iterable[StepType]) -> dict[str, StepType]:
    """Index step types. Raises: ValueError when two claim the same `type`."""
    registry: dict[str, StepType] = {}
    for step_type in step_types:
        if step_type.type in registry:
            raise ValueError(f"two step types are registered as '{step_type.type}'")
        registry[step_type.type] = step_type
    return registry


def build_step_types(
    *, slack: MessagePort | None, web: WebPort, cluster: ClusterPort | None, secrets: Secrets
) -> Mapping[str, StepType]:
    """Every step type of a runbook; without `slack` or `cluster` its steps say so when they are reached."""
    return register([SlackSteps(slack), KubernetesSteps(cluster), HttpSteps(web, secrets), ShellSteps()])
