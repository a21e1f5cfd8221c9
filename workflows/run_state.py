"""What a run knows of its steps, and how it shows them: the state model of `RunbookWorkflow`, without its story."""

from dataclasses import dataclass, field
from datetime import datetime

from domain.approval import Gate
from domain.audit import RunbookExecution
from domain.conditions import Scalar
from domain.incident import (
    ApprovalView,
    RunbookInput,
    RunbookView,
    RunStatus,
    StepStatus,
    StepView,
    TimelineEntry,
    UndoRequest,
)
from domain.narration import ApprovalCard
from domain.plan import StepPlan, StepResult
from domain.runbook import Step
from domain.step_base import OUTPUTS_PREFIX


@dataclass
class StepState:
    """One step of the run."""

    number: int
    """1-based."""
    step: Step
    status: StepStatus = StepStatus.PENDING
    plan: StepPlan | None = None
    gate: Gate | None = None
    result: StepResult | None = None
    undos: list[UndoRequest] = field(default_factory=list[UndoRequest])
    """What takes it back, in the order in which it was done; known once it was executed, also when it failed half-way."""
    run: str | None = None
    """Workflow id of the run that the step started."""
    remark: str = ""
    """Why it was skipped, failed or is unknown."""

    @property
    def title(self) -> str:
        return self.plan.title if self.plan else self.step.title

    @property
    def summary(self) -> str:
        """What it did; before that, what it will do."""
        return self.result.summary if self.result else self.title

    def view(self) -> StepView:
        return StepView(
            index=self.number,
            type=self.step.type,
            name=self.step.name,
            summary=f"{self.summary} ({self.remark})" if self.remark else self.summary,
            change=self.plan.change if self.plan else "",
            status=self.status,
            approval=self._approval(),
            run=self.run,
        )

    def _approval(self) -> ApprovalView | None:
        gate = self.gate
        if gate is None:
            return None
        return ApprovalView(
            ref=gate.ref,
            status=gate.status,
            title=gate.title,
            change=self.plan.change if self.plan else "",
            facts=self.plan.facts if self.plan else (),
            opened_at=gate.opened_at,
            deadline_at=gate.deadline_at,
            decided_by=gate.decided_by.name if gate.decided_by else None,
            decided_at=gate.decided_at,
            reason=gate.reason,
        )


@dataclass
class RunState:
    """One run: its input, its steps and how it stands."""

    workflow_id: str
    input: RunbookInput
    started_at: datetime
    steps: list[StepState] = field(init=False)
    names: dict[str, Scalar] = field(init=False)
    """For conditions and texts: those of the input, and the outputs of the steps so far."""
    status: RunStatus = RunStatus.RUNNING
    summary: str = ""
    finished_at: datetime | None = None
    recovered_at: datetime | None = None

    def __post_init__(self) -> None:
        self.names = dict(self.input.names)
        self.steps = [StepState(number, step) for number, step in enumerate(self.input.runbook.steps, start=1)]

    @property
    def is_dry(self) -> bool:
        return self.input.dry_run or self.input.runbook.dry_run

    def find(self, number: int) -> StepState | None:
        """The step of that 1-based number, if there is one."""
        return self.steps[number - 1] if 1 <= number <= len(self.steps) else None

    def learn(self, state: StepState) -> None:
        """Let later steps refer to the outputs of a named step that succeeded."""
        if state.step.name is not None and state.result is not None:
            for field_name, value in state.result.outputs.items():
                self.names[f"{OUTPUTS_PREFIX}{state.step.name}.{field_name}"] = value

    def position(self, state: StepState) -> str:
        """`Step 2/3`."""
        return f"Step {state.number}/{len(self.steps)}"

    def view(self, timeline: list[TimelineEntry]) -> RunbookView:
        return RunbookView(
            name=self.input.runbook.name,
            workflow_id=self.workflow_id,
            incident_id=self.input.incident_id,
            service_id=self.input.service_id,
            environment=self.input.environment,
            status=self.status,
            summary=self.summary,
            started_at=self.started_at,
            finished_at=self.finished_at,
            started_by=self.input.started_by.name,
            dry_run=self.is_dry,
            steps=tuple(state.view() for state in self.steps),
            timeline=tuple(timeline),
        )

    def card(self, state: StepState) -> ApprovalCard:
        """The approval card of a step that has a plan and a gate."""
        gate, plan = state.gate, state.plan
        if gate is None or plan is None:
            raise RuntimeError("a card needs a plan and a gate")
        return ApprovalCard(
            workflow_id=self.workflow_id,
            incident_id=self.input.incident_id,
            runbook=self.input.runbook.name,
            service_id=self.input.service_id,
            environment=self.input.environment,
            step=state.number,
            step_count=len(self.steps),
            title=plan.title,
            change=plan.change,
            facts=plan.facts,
            ref=gate.ref,
            timeout=gate.timeout,
            deadline_at=gate.deadline_at,
            status=gate.status,
            decided_by=gate.decided_by,
            decided_at=gate.decided_at,
            reason=gate.reason,
            recovered_at=self.recovered_at if gate.is_open else None,
        )

    def execution(self) -> RunbookExecution:
        """The row of `infrasage_runbook_executions`."""
        return RunbookExecution(
            workflow_id=self.workflow_id,
            incident_id=self.input.incident_id,
            runbook=self.input.runbook.name,
            service_id=self.input.service_id,
            environment=self.input.environment or "",
            status=self.status.value,
            started_at=self.started_at,
            finished_at=self.finished_at,
            started_by=self.input.started_by.name,
            steps=[
                {"index": state.number, "type": state.step.type, "summary": state.view().summary, "status": state.status.value}
                for state in self.steps
            ],
        )

    def details(self) -> str:
        """The steps as a Markdown table, for a reader who has only the Temporal UI."""
        rows = [
            f"| {state.number} | {_cell(state.title)} | {_cell(state.plan.change if state.plan else '')} "
            f"| {state.status.value} | {_cell(state.remark or (state.result.summary if state.result else ''))} |"
            for state in self.steps
        ]
        heading = f"**{self.status.value}** {_cell(self.summary)}".rstrip()
        return "\n".join([heading, "", "| step | what | change | status | result |", "|---|---|---|---|---|", *rows])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
