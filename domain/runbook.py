"""The runbook definition: the shape of InfraSage's own runbooks, checked whole before anything runs.

One class per step type. A definition is loaded strictly (`load_runbook`, unknown keys refused), and travels with its run as it was
loaded: a running runbook never changes under edits. A key that is accepted is honoured; there are no others.
"""

import json
from collections.abc import Iterator
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal, cast

from pydantic import Field, JsonValue, StringConstraints, ValidationError, field_validator, model_validator

from domain import expressions
from domain.anomaly import Anomaly, Severity
from domain.base import Durable, Name, Text, sha256_of

RunbookName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
"""1 to 100 of letters, digits and `._-`: it is the last part of a workflow id and the address of the runbook."""

StepName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_-]{0,49}$")]

Minutes = Annotated[float, Field(gt=0, le=7 * 24 * 60)]
Seconds = Annotated[float, Field(gt=0, le=24 * 60 * 60)]


class Trigger(Durable):
    """Which anomalies start the runbook. `service_id` and `metric_name` take globs; case matters."""

    service_id: Name
    metric_name: Name | None = None
    condition: str | None = None

    @field_validator("condition")
    @classmethod
    def _condition_is_usable(cls, value: str | None) -> str | None:
        if value is not None:
            expressions.check_condition(value)
        return value

    def matches(self, anomaly: Anomaly, severity: Severity) -> bool:
        """Raises ExpressionError when the condition cannot be evaluated for this anomaly: then nothing is started."""
        if not fnmatchcase(anomaly.service_id, self.service_id):
            return False
        if self.metric_name is not None and not fnmatchcase(anomaly.metric_name, self.metric_name):
            return False
        return self.condition is None or expressions.holds(self.condition, expressions.names_of(anomaly, severity))


class StepBase(Durable):
    """The keys every step takes."""

    name: StepName | None = None
    when: str | None = None
    """A condition; false skips the step, an error halts the run."""
    require_approval: bool = False
    approval_timeout_minutes: Minutes = 10

    @field_validator("when")
    @classmethod
    def _when_is_usable(cls, value: str | None) -> str | None:
        if value is not None:
            expressions.check_condition(value, expressions.ANOMALY_NAMES)
        return value

    @property
    def approval_timeout(self) -> timedelta:
        return timedelta(minutes=self.approval_timeout_minutes)

    @property
    def title(self) -> str:
        """What the step does, in the imperative."""
        raise NotImplementedError

    @property
    def reads_world(self) -> bool:
        """Whether its plan depends on the world, so that it must be recorded before the step executes."""
        return False

    @property
    def at_most_once(self) -> bool:
        """Whether a lost outcome may not be repaired by running the step again."""
        return False

    def texts(self) -> Iterator[str]:
        """Every text of the step that takes placeholders."""
        return iter(())


class SlackStep(StepBase):
    """Post a message; without `channel`, in the incident's thread."""

    type: Literal["slack"]
    message: Annotated[Text, StringConstraints(min_length=1, max_length=3_000)]
    channel: Annotated[str, StringConstraints(pattern=r"^[#@]?[A-Za-z0-9._-]{1,80}$")] | None = None
    timeout_seconds: Seconds = 15

    @property
    def title(self) -> str:
        return f"Post a message to {self.channel}" if self.channel else "Post a message in the thread"

    def texts(self) -> Iterator[str]:
        yield self.message


class KubernetesStep(StepBase):
    """Act on a Deployment, or on a node (`cordon`, `uncordon`, `drain`)."""

    type: Literal["kubernetes"]
    action: Literal["scale", "restart", "rollout-undo", "cordon", "uncordon", "drain"]
    namespace: Name | None = None
    deployment: Name | None = None
    node: Name | None = None
    replicas: Annotated[int, Field(ge=0, le=10_000)] | None = None
    timeout_seconds: Seconds = 300

    @model_validator(mode="after")
    def _keys_of_the_action(self) -> "KubernetesStep":
        on_node = self.action in ("cordon", "uncordon", "drain")
        needed = {"node"} if on_node else {"namespace", "deployment"}
        if self.action == "scale":
            needed.add("replicas")
        for key in ("namespace", "deployment", "node", "replicas"):
            given = getattr(self, key) is not None
            if key in needed and not given:
                raise ValueError(f"action {self.action} needs the key '{key}'")
            if given and key not in needed:
                raise ValueError(f"action {self.action} does not take the key '{key}'")
        return self

    @property
    def title(self) -> str:
        match self.action:
            case "scale":
                return f"Scale deployment to {self.replicas} replicas"
            case "restart":
                return f"Restart deployment {self.deployment}"
            case "rollout-undo":
                return f"Roll back deployment {self.deployment}"
            case "cordon" | "uncordon" | "drain":
                return f"{self.action.capitalize()} node {self.node}"

    @property
    def reads_world(self) -> bool:
        return True

    def texts(self) -> Iterator[str]:
        yield from (text for text in (self.namespace, self.deployment, self.node) if text)


class HttpStep(StepBase):
    """Send one HTTP request to an allow-listed host; `$NAME` in header values, URL and body stands for a secret."""

    type: Literal["http"]
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    url: Annotated[str, StringConstraints(min_length=1, max_length=2_000)]
    headers: dict[str, str] = Field(default_factory=dict[str, str])
    body: JsonValue = None
    timeout_seconds: Seconds = 30
    idempotent: bool = False
    """Declares that the far side takes the same request twice as once (it is sent with an `Idempotency-Key`)."""

    @property
    def title(self) -> str:
        return f"{self.method} {self.url.split('?', 1)[0]}"

    @property
    def at_most_once(self) -> bool:
        return not self.idempotent and self.method in ("POST", "PATCH")

    def texts(self) -> Iterator[str]:
        yield self.url
        yield from self.headers.values()
        yield from _strings_in(self.body)


class ShellStep(StepBase):
    """Run one allowed command on a configured host."""

    type: Literal["shell"]
    command: Annotated[str, StringConstraints(min_length=1, max_length=4_000)]
    host: Name
    timeout_seconds: Seconds = 60

    @property
    def title(self) -> str:
        return f"Run `{self.command}` on {self.host}"

    @property
    def at_most_once(self) -> bool:
        return True

    def texts(self) -> Iterator[str]:
        yield self.command
        yield self.host


Step = Annotated[SlackStep | KubernetesStep | HttpStep | ShellStep, Field(discriminator="type")]


class Runbook(Durable):
    """A named list of steps and the anomalies that start it."""

    name: RunbookName
    description: Text = ""
    trigger: Trigger | None = None
    """Absent: the runbook is only started by hand."""
    steps: Annotated[tuple[Step, ...], Field(min_length=1, max_length=50)]
    rollback_on_failure: bool = False
    dry_run: bool = False

    @model_validator(mode="after")
    def _steps_are_consistent(self) -> "Runbook":
        names = [step.name for step in self.steps if step.name]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two steps are named '{name}'")
        for number, step in enumerate(self.steps, start=1):
            for text in step.texts():
                try:
                    expressions.check_text(text, expressions.ANOMALY_NAMES)
                except expressions.ExpressionError as error:
                    raise ValueError(f"step {number}: {error}") from error
        return self

    @property
    def version(self) -> str:
        """SHA-256 of the definition: which text a run was started from."""
        return sha256_of(self.model_dump(mode="json"))


class RunbookFault(Durable):
    """One fault of a runbook file: where in the file (`steps[1].replicas`) and why."""

    path: str
    reason: str


class RunbookFaults(ValueError):
    """Everything wrong with one definition, at once."""

    def __init__(self, faults: list[RunbookFault]) -> None:
        super().__init__("; ".join(f"{fault.path}: {fault.reason}" if fault.path else fault.reason for fault in faults))
        self.faults = faults


def load_runbook(definition: object) -> Runbook:
    """Check a parsed YAML or JSON document strictly. Raises RunbookFaults with every fault, its place and its reason."""
    if not isinstance(definition, dict):
        raise RunbookFaults([RunbookFault(path="", reason="a runbook is a mapping of keys, not a list or a text")])
    try:
        text = json.dumps(cast("dict[Any, Any]", definition), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise RunbookFaults([RunbookFault(path="", reason=f"holds a value that JSON cannot express: {error}")]) from error
    try:
        return Runbook.model_validate_json(text, strict=True, extra="forbid")
    except ValidationError as error:
        raise RunbookFaults([_fault(item["loc"], item["type"], item["msg"]) for item in error.errors()]) from error


_STEP_TYPES = ("slack", "kubernetes", "http", "shell")


def _fault(location: tuple[int | str, ...], kind: str, message: str) -> RunbookFault:
    path = ""
    for index, part in enumerate(location):
        if isinstance(part, int):
            path += f"[{part}]"
        elif part in _STEP_TYPES and index >= 2 and location[index - 2] == "steps":
            continue  # pydantic names the member of the union; it is not in the file
        else:
            path += f".{part}" if path else part
    reason = "is not a key that is known here" if kind == "extra_forbidden" else message.removeprefix("Value error, ")
    return RunbookFault(path=path, reason=reason)


def _strings_in(value: JsonValue) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _strings_in(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _strings_in(item)
