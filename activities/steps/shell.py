"""The step type `shell`: definitions load and are checked, but this version runs no command."""

from typing import Any, ClassVar, NoReturn

from activities.errors import NotConfigured
from activities.steps.base import cannot_be_undone
from domain.incident import StepRequest, UndoRequest
from domain.plan import StepPlan, StepResult


class ShellSteps:
    """Refuse, in one sentence, wherever a shell step is reached."""

    type: ClassVar[str] = "shell"

    def render(self, request: StepRequest) -> dict[str, Any]:
        self._refuse(request)

    async def plan(self, request: StepRequest) -> StepPlan:
        self._refuse(request)

    async def execute(self, request: StepRequest) -> StepResult:
        self._refuse(request)

    async def undo(self, request: UndoRequest) -> StepResult:
        raise cannot_be_undone(request)

    def _refuse(self, request: StepRequest) -> NoReturn:
        raise NotConfigured(
            f"step {request.number} cannot run: shell steps need RUNBOOK_SHELL_HOSTS, the file of hosts and their allowed commands,"
            " and this version does not run them yet"
        )
