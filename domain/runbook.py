"""The runbook definition: the shape of InfraSage's own runbooks, checked whole before anything runs.

A definition is loaded strictly (`load_runbook`, unknown keys refused), and travels with its run as it was loaded: a running runbook
never changes under edits. A key that is accepted is honoured; there are no others.
"""

import json
from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase
from typing import Annotated, Any, cast

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from domain import expressions
from domain.anomaly import Anomaly, Severity
from domain.base import Durable, Glob, Text, in_words, sha256_of
from domain.documents import DocumentTooLarge, unsayable
from domain.faults import place_of, reason_of
from domain.flow_steps import CheckStep, PageStep, RunbookStep, TicketStep, WaitStep
from domain.inputs import Input, InputName
from domain.step_base import KNOWN_NAMES, OUTPUTS_PREFIX, StepBase
from domain.steps import HttpStep, KubernetesStep, ShellStep, SlackStep

__all__ = [
    "CheckStep",
    "HttpStep",
    "Input",
    "KubernetesStep",
    "PageStep",
    "Runbook",
    "RunbookFault",
    "RunbookFaults",
    "RunbookName",
    "RunbookStep",
    "ShellStep",
    "SlackStep",
    "Step",
    "StepBase",
    "TicketStep",
    "Trigger",
    "WaitStep",
    "load_runbook",
]

Step = Annotated[
    SlackStep | KubernetesStep | HttpStep | ShellStep | WaitStep | CheckStep | RunbookStep | PageStep | TicketStep,
    Field(discriminator="type"),
]

UndoStep = Annotated[SlackStep | KubernetesStep | HttpStep | ShellStep, Field(discriminator="type")]
"""The steps that may take another one back: they act by themselves, without approval and without an undo of their own."""

for _class in (SlackStep, KubernetesStep, HttpStep, ShellStep, WaitStep, CheckStep, RunbookStep, PageStep, TicketStep):
    _class.model_rebuild(_types_namespace={"UndoStep": UndoStep})

STEPS_LIMIT = 50

RunbookName = Annotated[
    str,
    in_words(
        r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}",
        "must be 1 to 100 letters, digits and the characters . _ -, of which the first is a letter or digit",
    ),
]
"""It is the last part of a workflow id and the address of the runbook."""


class Trigger(Durable):
    """Which anomalies start the runbook. `service_id` and `metric_name` take globs; case matters."""

    service_id: Glob
    metric_name: Glob | None = None
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


class Runbook(Durable):
    """A named list of steps and the anomalies that start it."""

    name: RunbookName
    description: Text = ""
    trigger: Trigger | None = None
    """Absent: the runbook is only started by hand."""
    inputs: dict[InputName, Input] = Field(default_factory=dict[str, Input])
    """What a run can be told, by name; conditions and texts refer to them as they do to the anomaly's names."""
    steps: tuple[Step, ...]
    rollback_on_failure: bool = False
    dry_run: bool = False

    @field_validator("steps")
    @classmethod
    def _steps_are_consistent(cls, steps: tuple[Step, ...]) -> tuple[Step, ...]:
        if not 1 <= len(steps) <= STEPS_LIMIT:
            raise ValueError(f"must have 1 to {STEPS_LIMIT} entries, not {len(steps)}")
        for name in _repeated([step.name for step in steps]):
            raise ValueError(_two_steps(name))
        earlier: set[str] = set()
        for number, step in enumerate(steps, start=1):
            _require_earlier(number, step, earlier)
            if step.at_most_once and step.retry is not None and step.retry.attempts > 1:
                raise ValueError(f"step {number} may happen once at most and takes no 'retry' (declare it idempotent, if it is)")
            if step.undo is not None and (step.undo.require_approval or step.undo.undo or step.undo.when):
                raise ValueError(f"the undo of step {number} takes no 'require_approval', no 'when' and no 'undo' of its own")
            if step.name is not None:
                earlier.add(step.name)
        return steps

    @model_validator(mode="after")
    def _triggered_runs_have_their_inputs(self) -> "Runbook":
        for name, wanted in self.inputs.items():
            if name in expressions.ANOMALY_NAMES:
                raise ValueError(f"the input '{name}' has the name of something that every run knows; choose another one")
            if self.trigger is not None and wanted.default is None:
                raise ValueError(f"the input '{name}' needs a default, because an anomaly that starts the runbook gives none")
        return self

    @property
    def version(self) -> str:
        """SHA-256 of the definition: which text a run was started from."""
        return sha256_of(self.model_dump(mode="json"))


def _require_earlier(number: int, step: StepBase, earlier: Collection[str]) -> None:
    """Refuse references to outputs of steps that do not come before."""
    for text in step.texts():
        for name in expressions.placeholders(text):
            if not name.startswith(OUTPUTS_PREFIX):
                continue
            _, _, rest = name.partition(".")
            of_step, _, field = rest.partition(".")
            if of_step not in earlier or not field:
                raise ValueError(f"step {number} refers to '{{{{ {name} }}}}': no step before it is named '{of_step}'")


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
        raise RunbookFaults([RunbookFault(path="", reason="must be a mapping of keys, not a list or a text")])
    document = cast("dict[Any, Any]", definition)
    try:
        faults = [_fault(place, reason) for place, reason in unsayable(document)]
    except DocumentTooLarge as error:
        raise RunbookFaults([_fault((), str(error))]) from error
    if faults:
        raise RunbookFaults(faults)
    faults = [*_keys_without_value(document), *_repeated_names(document)]
    runbook = None
    try:
        known = expressions.ANOMALY_NAMES | _names_of_inputs(document)
        runbook = Runbook.model_validate_json(json.dumps(document), strict=True, extra="forbid", context={KNOWN_NAMES: known})
    except ValidationError as error:
        known = {fault.path for fault in faults}
        faults += [fault for item in error.errors() if (fault := _fault_of(item)).path not in known]
    if runbook is None or faults:
        raise RunbookFaults(faults)
    return runbook


def _fault(place: Sequence[int | str], reason: str) -> RunbookFault:
    return RunbookFault(path=place_of(place), reason=reason)


def _fault_of(error: ErrorDetails) -> RunbookFault:
    model, place = _model_at(error["loc"])
    reason = reason_of(error)
    if error["type"] == "extra_forbidden":
        reason += f"; known are {', '.join(sorted(model.model_fields))}"
    elif error["type"] in ("union_tag_not_found", "union_tag_invalid"):
        place = (*place, "type")
        reason = f"must be one of {', '.join(_STEP_TYPES)}"
    return _fault(place, reason)


_STEP_TYPES: dict[str, type[StepBase]] = {
    "slack": SlackStep,
    "kubernetes": KubernetesStep,
    "http": HttpStep,
    "shell": ShellStep,
    "wait": WaitStep,
    "check": CheckStep,
    "runbook": RunbookStep,
    "page": PageStep,
    "ticket": TicketStep,
}


def _model_at(location: tuple[int | str, ...]) -> tuple[type[Durable], tuple[int | str, ...]]:
    """The class that a location is about, and the location as it is in the file: pydantic adds the member of the union."""
    match location:
        case ("steps", int() as index, str() as kind, "undo", str() as inner, *rest) if {kind, inner} <= _STEP_TYPES.keys():
            return _STEP_TYPES[inner], ("steps", index, "undo", *rest)
        case ("steps", int() as index, str() as kind, *rest) if kind in _STEP_TYPES:
            return _STEP_TYPES[kind], ("steps", index, *rest)
        case ("trigger", *_):
            return Trigger, location
        case ("inputs", str(), *_):
            return Input, location
        case _:
            return Runbook, location


def _names_of_inputs(document: dict[str, Any]) -> frozenset[str]:
    inputs = document.get("inputs")
    return frozenset(cast("dict[str, Any]", inputs)) if isinstance(inputs, dict) else frozenset()


def _keys_without_value(document: dict[str, Any]) -> list[RunbookFault]:
    """Keys with nothing behind them (`metric_name:`), which YAML reads as null: left out they would mean "any" or "always"."""
    places: list[tuple[tuple[int | str, ...], Any]] = [((), document), (("trigger",), document.get("trigger"))]
    places += [(("steps", index), step) for index, step in enumerate(_listed(document.get("steps")))]
    return [
        _fault((*place, key), "has no value; give one, or leave the key out")
        for place, mapping in places
        if isinstance(mapping, dict)
        for key, value in cast("dict[str, Any]", mapping).items()
        if value is None and not (place and place[0] == "steps" and key == "body")
    ]


def _repeated_names(document: dict[str, Any]) -> list[RunbookFault]:
    steps = [cast("dict[str, Any]", step) for step in _listed(document.get("steps")) if isinstance(step, dict)]
    return [_fault(("steps",), _two_steps(name)) for name in _repeated([step.get("name") for step in steps])]


def _two_steps(name: str) -> str:
    return f"has two steps named '{name}'"


def _repeated(names: Sequence[Any]) -> list[str]:
    """Each text that is more than once among `names`, once."""
    texts = [name for name in names if isinstance(name, str)]
    return [name for name in dict.fromkeys(texts) if texts.count(name) > 1]


def _listed(value: Any) -> list[Any]:
    return cast("list[Any]", value) if isinstance(value, list) else []
