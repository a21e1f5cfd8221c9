"""The step type `shell`: one allowed command on a configured host, run at most once."""

from datetime import timedelta
from typing import Any, ClassVar, Protocol

from activities.clients.ssh_messages import ShellOutcome, Stop
from activities.errors import InvalidStep, NotConfigured, OrchestratorError, Refused, StepFailed, clip
from activities.secrets import Secrets
from activities.steps.base import cannot_be_undone, plan_of, read_as, step_of
from activities.steps.shell_output import last_words, shown
from domain import expressions
from domain.base import Durable
from domain.incident import StepRequest, UndoRequest
from domain.plan import Fact, StepPlan, StepResult
from domain.runbook import ShellStep
from domain.shell_commands import NotAllowed, visible
from domain.shell_hosts import ShellHost, ShellHosts, UnknownHost

TITLE_COMMAND_CHARACTERS = 200
"""How much of the command stands in titles and sentences; all of it is in the change that an approver sees."""

EXCERPT_CHARACTERS = 300
"""How much of a failed command's last words is told."""


class ShellPort(Protocol):
    """What this step type needs of SSH."""

    @property
    def hosts(self) -> ShellHosts: ...

    async def run(self, host: ShellHost, command: str, within: timedelta) -> ShellOutcome:
        """Run once, and end what is not over `within` the time, or is cancelled.

        Raises: NotConfigured, Refused, Unreachable when nothing was run; OutcomeUnknown when nobody can say.
        """
        ...


class ResolvedCommand(Durable):
    """The resolved request."""

    host: str
    """Its alias."""
    address: str
    port: int
    user: str
    host_key: str
    """Fingerprint."""
    command: str
    """The line as the far shell gets it."""


class ShellSteps:
    """Sent once: nobody knows what a command does when it is run again."""

    type: ClassVar[str] = "shell"

    def __init__(self, shell: ShellPort | None, secrets: Secrets) -> None:
        """Without `shell` every step is refused; `secrets` are kept out of what commands wrote."""
        self._shell = shell
        self._secrets = secrets

    def render(self, request: StepRequest) -> dict[str, Any]:
        _, resolved = self._resolve(request)
        return resolved.model_dump(mode="json")

    async def plan(self, request: StepRequest) -> StepPlan:
        """Say where which line will be run. Nothing is connected: that the host answers is found out when the step runs."""
        host, resolved = self._resolve(request)
        command = visible(resolved.command)
        facts = [
            Fact(label="Host", value=f"{host.alias} ({host.target})"),
            Fact(label="Host key", value=resolved.host_key),
            Fact(label="Time limit", value=f"{request.step.timeout_seconds:g} s, then the command is ended"),
        ]
        if command != resolved.command:
            facts.append(Fact(label="Note", value="control and invisible characters are written out, as \\n or \\u202e"))
        return StepPlan(
            title=f"Run {self._in_title(resolved)} on {host.alias}",
            change=f"{host.target} runs: {command}",
            facts=tuple(facts),
            request=resolved.model_dump(mode="json"),
        )

    async def execute(self, request: StepRequest) -> StepResult:
        """Run the planned line.

        Raises: StepFailed when it failed or had to be ended; Refused, Unreachable, NotConfigured when nothing was run;
        OutcomeUnknown when nobody can say.
        """
        planned = read_as(ResolvedCommand, plan_of(request).request, f"the plan of step {request.number}")
        host = self._host(request, planned.host)
        outcome = await self._require_shell().run(host, planned.command, timedelta(seconds=request.step.timeout_seconds))
        what = f"{self._in_title(planned)} on {host.alias}"
        if outcome.stopped or outcome.exit_code != 0:
            raise self._failure(what, outcome, request.step.timeout_seconds)
        return StepResult(
            summary=f"{what} exited 0 in {_seconds(outcome)}",
            outputs={"exit_code": 0, "output": shown(outcome.output, self._secrets.redact)},
        )

    async def undo(self, request: UndoRequest) -> StepResult:
        raise cannot_be_undone(request)

    def _resolve(self, request: StepRequest) -> tuple[ShellHost, ResolvedCommand]:
        step = step_of(request, ShellStep)
        host = self._host(request, expressions.render(step.host, request.names))
        try:
            command = host.command_line(step.command, request.names)
        except NotAllowed as error:
            raise InvalidStep(f"step {request.number}: the command {error}") from None
        return host, ResolvedCommand(
            host=host.alias,
            address=host.address,
            port=host.port,
            user=host.user,
            host_key=host.host_key.fingerprint,
            command=command,
        )

    def _host(self, request: StepRequest, alias: str) -> ShellHost:
        try:
            return self._require_shell().hosts.host(alias)
        except UnknownHost as error:
            raise InvalidStep(f"step {request.number}: {error}") from None

    def _require_shell(self) -> ShellPort:
        if self._shell is None:
            raise NotConfigured("shell steps are off: set RUNBOOK_SHELL_HOSTS to the file of hosts and their allowed commands")
        return self._shell

    def _in_title(self, resolved: ResolvedCommand) -> str:
        return f"`{clip(self._secrets.redact(visible(resolved.command)), TITLE_COMMAND_CHARACTERS)}`"

    def _failure(self, what: str, outcome: ShellOutcome, limit_seconds: float) -> OrchestratorError:
        words = last_words(outcome.errors, self._secrets.redact, EXCERPT_CHARACTERS)
        words = words or last_words(outcome.output, self._secrets.redact, EXCERPT_CHARACTERS)
        sentence = f"{what} {_ending(outcome, limit_seconds)}" + (f": “{words}”" if words else "")
        return StepFailed(sentence, undo=None) if outcome.began else Refused(sentence)


def _ending(outcome: ShellOutcome, limit_seconds: float) -> str:
    if outcome.stopped is Stop.TIMEOUT:
        return f"was not over within {limit_seconds:g} s and was ended with its process group"
    if outcome.stopped is Stop.CANCELLED:
        return f"was ended with its process group after {_seconds(outcome)}, because the step was cancelled"
    how = f"exited {outcome.exit_code}" if outcome.signal is None else f"was ended by the signal {outcome.signal}"
    if not outcome.began:
        return f"was not run: the far shell {how} before it came to the command"
    return f"{how} after {_seconds(outcome)}"


def _seconds(outcome: ShellOutcome) -> str:
    return f"{outcome.elapsed.total_seconds():.1f} s"
