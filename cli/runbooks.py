"""`infrasage runbooks`: list what there is, check files before they are needed, run one by hand."""

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from activities.clients.runbook_files import SUFFIXES, FileFault, check_runbook_files
from cli import showing
from cli.api_client import attempt, incident_path, open_api
from cli.operate import OUTCOME_SECONDS, POLL_SECONDS, AsJson
from cli.output import Failure, foreign, print_json, remark, say, table, waiting, warn
from domain.incident import RunStatus
from domain.schema import runbook_schema

commands = typer.Typer(help="List, check and run runbooks.", invoke_without_command=True, rich_markup_mode=None)


@commands.callback()
def runbooks(context: typer.Context, as_json: AsJson = False) -> None:
    """List the runbooks as they are on disk now."""
    if context.invoked_subcommand is None:
        _list(as_json=as_json)


@commands.command("list", hidden=True)
def list_them(as_json: AsJson = False) -> None:
    """List the runbooks as they are on disk now; the same as without a subcommand."""
    _list(as_json=as_json)


def _list(*, as_json: bool) -> None:
    with open_api() as api, waiting("Asking for the runbooks"):
        answer = api.get("/api/v1/runbooks")
    if as_json:
        print_json(answer)
        return
    for fault in answer["faults"]:
        warn(fault)
    if answer["runbooks"]:
        say(showing.runbooks(answer["runbooks"]))
    else:
        remark("There are no runbooks: put *.yaml, *.yml or *.json files into RUNBOOKS_DIR.")


@commands.command()
def schema() -> None:
    """Print the JSON Schema of the runbook format, for editors."""
    print_json(runbook_schema())


@commands.command()
def validate(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH…", help="Files, or directories of them.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Check runbook files: every fault with its file, its place in the file and the reason. Needs no InfraSage."""
    files = [file for path in paths for file in _files_of(path)]
    found, faults = check_runbook_files(files)
    if as_json:
        shown = [{"file": str(fault.file), "path": fault.path, "reason": fault.reason} for fault in faults]
        print_json({"valid": [runbook.name for runbook in found], "faults": shown})
    else:
        _report([runbook.name for runbook in found], faults)
    if faults:
        broken = len({fault.file for fault in faults})
        raise Failure(f"{broken} of {len(files)} files cannot be used ({len(faults)} faults).")


@commands.command()
def run(
    name: Annotated[str, typer.Argument(help="Of the runbook.", show_default=False)],
    service: Annotated[str, typer.Option(metavar="S", help="The service it is run for.", show_default=False)],
    environment: Annotated[str | None, typer.Option(metavar="E", help="Such as production.")] = None,
    inputs: Annotated[list[str] | None, typer.Option("--input", metavar="NAME=VALUE", help="An input; may be repeated.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Plan every step and change nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run a runbook by hand, and show how far it came."""
    if not name.strip() or "/" in name:
        raise Failure("NAME must be the name of a runbook: `infrasage runbooks` lists them.")
    body: dict[str, Any] = {"service_id": service, "inputs": dict(map(_input, inputs or ())), "dry_run": dry_run}
    if environment is not None:
        body["environment"] = environment
    with open_api() as api, waiting(f"Running {name}"):
        answer = api.post(f"/api/v1/runbooks/{name}/run", body)
        path = incident_path(answer["workflow_id"])
        deadline = time.monotonic() + OUTCOME_SECONDS
        story = attempt(lambda: api.get(path))
        while (story is None or story["status"] == RunStatus.RUNNING) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
            story = attempt(lambda: api.get(path)) or story
    if as_json:
        print_json({**answer, **(story or {})})
    elif story is None:
        warn("The run is stored, but no worker shows it yet: start one with `infrasage worker`.")
        say(answer["workflow_id"])
    else:
        say(showing.incident(story, api.url))


def _input(given: str) -> tuple[str, Any]:
    """`NAME=VALUE`; a value that is a number, true or false in JSON is one, in quotes it stays a text. Raises: Failure."""
    name, separator, text = given.partition("=")
    if not name or not separator:
        raise Failure(f"--input must be NAME=VALUE, and {given!r} is not.")
    try:
        value: object = json.loads(text)
    except ValueError:
        return name, text
    return name, value if isinstance(value, str | int | float | bool) else text


def _files_of(path: Path) -> list[Path]:
    """A directory stands for its runbook files. Raises: Failure for one without any."""
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES and not file.name.startswith("."))
    if not files:
        raise Failure(f"{path} holds no runbook: files {', '.join(sorted(SUFFIXES))} are looked for.")
    return files


def _report(valid: list[str], faults: tuple[FileFault, ...]) -> None:
    if faults:
        rows = [(str(fault.file), foreign(fault.path or "–"), foreign(fault.reason)) for fault in faults]
        say(table(("file", "fixed"), ("where", "fixed"), "what is wrong", rows=rows))
    for name in valid:
        say(f"ok  {name}", style="green")
