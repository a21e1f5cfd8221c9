"""Which runbooks a run may call: resolved when it starts, so that what it calls never changes under edits either."""

from collections.abc import Iterable

from domain.inputs import InputError, bind_inputs
from domain.runbook import Runbook, RunbookStep

DEPTH_LIMIT = 5
"""A runbook calls one that calls one …: deeper is a mistake, and each level is a workflow."""


class LibraryError(ValueError):
    """A runbook calls what cannot be called; one sentence naming it."""


def library_of(runbook: Runbook, runbooks: Iterable[Runbook]) -> dict[str, Runbook]:
    """The runbooks that `runbook` calls, at any depth, by name.

    Raises: LibraryError for one that does not exist, that calls itself, that nests deeper than `DEPTH_LIMIT`, or whose inputs are
    not those it declares.
    """
    known = {one.name: one for one in runbooks}
    found: dict[str, Runbook] = {}

    def visit(caller: Runbook, path: tuple[str, ...]) -> None:
        for step in caller.steps:
            if not isinstance(step, RunbookStep):
                continue
            called = known.get(step.runbook)
            if called is None:
                raise LibraryError(f"runbook {caller.name} calls {step.runbook}, which does not exist or does not load")
            if called.name in path:
                raise LibraryError(f"runbook {called.name} calls itself: {' → '.join((*path, called.name))}")
            if len(path) > DEPTH_LIMIT:
                raise LibraryError(f"runbook {path[0]} calls runbooks more than {DEPTH_LIMIT} levels deep")
            try:
                _require_fitting(step, called)
            except InputError as error:
                raise LibraryError(f"runbook {caller.name} calls {called.name}: {error}") from error
            found[called.name] = called
            visit(called, (*path, called.name))

    visit(runbook, (runbook.name,))
    return found


def _require_fitting(step: RunbookStep, called: Runbook) -> None:
    """Hold what a step gives against what the called runbook declares. A text may still be filled in: only its name is judged."""
    filled_in_later = {name for name, value in step.inputs.items() if isinstance(value, str) and name in called.inputs}
    judged = {name: value for name, value in step.inputs.items() if name not in filled_in_later}
    bind_inputs({name: one for name, one in called.inputs.items() if name not in filled_in_later}, judged)
