"""The command `infrasage`: its subcommands, and what becomes of a failure. What a subcommand does is in the modules beside this.

What loads Temporal, ClickHouse or FastAPI (about a second) is imported where it is used: `infrasage show` needs none of them.
"""

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from cli import operate, runbooks
from cli.environment import read_env_file
from cli.local_stack import DATA_DIR, DATA_DIR_VARIABLE
from cli.operate import AsJson
from cli.output import Failure, complain, err, remark

app = typer.Typer(
    name="infrasage",
    help="Runbook orchestrator of InfraSage: alerts in Slack, runbooks behind approvals, incident memory.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

INTERRUPTED = 130
"""Exit code of a command that was ended by Ctrl-C, as shells have it."""

Host = Annotated[str, typer.Option(help="Where the API listens; 0.0.0.0 is every network of this machine.")]
Port = Annotated[int, typer.Option(help="Of the API and the console.")]
DataDir = Annotated[Path, typer.Option(help="Everything that has to survive a restart.", envvar=DATA_DIR_VARIABLE, file_okay=False)]


@app.callback()
def root(debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of a failure.")] = False) -> None:
    """Runbook orchestrator of InfraSage: alerts in Slack, runbooks behind approvals, incident memory."""
    _show_traceback(debug)
    read_env_file()


@app.command()
def up(
    port: Port = 9093,
    temporal_port: Annotated[int, typer.Option(help="Of the embedded Temporal server.")] = 7233,
    ui_port: Annotated[int, typer.Option(help="Of the Temporal UI.")] = 8233,
    data_dir: DataDir = DATA_DIR,
    host: Host = "127.0.0.1",
    temporal_synchronous: Annotated[
        Literal["full", "normal"],
        typer.Option(help="normal is faster, but a power cut (not a crash) may lose what was acknowledged last."),
    ] = "full",
) -> None:
    """Start the embedded stack: Temporal, worker and API in one go."""
    from cli.stack import StackOptions
    from cli.up import run_up

    run_up(
        StackOptions(
            data_dir=data_dir.absolute(),
            port=port,
            temporal_port=temporal_port,
            ui_port=ui_port,
            host=host,
            temporal_synchronous=temporal_synchronous,
        )
    )


@app.command()
def api(port: Port = 9093, host: Host = "127.0.0.1") -> None:
    """Start the HTTP API alone, against TEMPORAL_* and CLICKHOUSE_*."""
    from cli.serve import run_api

    run_api(host, port)


@app.command()
def worker() -> None:
    """Start a worker alone, against TEMPORAL_* and CLICKHOUSE_*."""
    from cli.worker import run_worker

    run_worker()


for command in (
    operate.fire,
    operate.incidents,
    operate.show,
    operate.approve,
    operate.reject,
    operate.resolve,
    operate.halt,
    operate.settle,
):
    app.command()(command)

app.add_typer(runbooks.commands, name="runbooks")
app.command()(operate.audit)


@app.command()
def replay(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Holds the histories, *.json.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Replay stored workflow histories against this code."""
    from cli.replay import run_replay

    run_replay(folder, as_json=as_json)


@app.command()
def doctor(data_dir: DataDir = DATA_DIR, as_json: AsJson = False) -> None:
    """Check configuration, Temporal, ClickHouse, Slack, Kubernetes and runbooks."""
    from cli.doctor import run_doctor

    run_doctor(data_dir.absolute(), as_json=as_json)


@app.command(hidden=True)
def demo(
    yes: Annotated[bool, typer.Option("--yes", help="Approve without asking.")] = False,
) -> None:
    """Show the whole story on a simulated cluster, and clean up (`make demo`)."""
    from cli.demo import run_demo

    run_demo(yes=yes)


class _Traceback:
    wanted = False


def _show_traceback(wanted: bool) -> None:
    _Traceback.wanted = wanted


def run(arguments: Sequence[str]) -> int:
    """Run one command. Returns: its exit code; a failure has been told by then, in one sentence on stderr."""
    try:
        return app(list(arguments), standalone_mode=False) or 0
    except typer.Exit as end:
        return end.exit_code
    except (typer.Abort, KeyboardInterrupt):
        remark("Interrupted.")
        return INTERRUPTED
    except BrokenPipeError:  # the reader of a pipe has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if _Traceback.wanted:
            err.print("".join(traceback.format_exception(error)), soft_wrap=True)
        sentence, code = _told(error)
        complain(sentence)
        return code


def _told(error: Exception) -> tuple[str, int]:
    """The sentence and the exit code of a failure."""
    from activities.errors import OrchestratorError
    from cli.embedded_data_dir import EmbeddedStackError
    from domain.settings import SettingsError

    match error:
        case Failure():
            return str(error), error.exit_code
        case EmbeddedStackError() | OrchestratorError() | SettingsError():
            return str(error), 1
        case typer.TyperException():
            sentence = error.format_message().replace("Value error, ", "").rstrip(".")
            return f"{sentence}; `infrasage COMMAND --help` tells how.", error.exit_code
        case _:
            # Its text may quote anything, a secret included: only its kind and its place are told.
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(place.filename).name}:{place.lineno}"
            return f"InfraSage failed ({type(error).__name__} at {where}): `infrasage --debug …` shows the details.", 70


def main() -> None:
    """Entry point of the program.

    A process that used the Temporal client can abort after its work, when the interpreter ends (sdk-python #300), and the exit code
    would be 134: it ends here, with everything written out.
    """
    code = run(sys.argv[1:])
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (BrokenPipeError, ValueError):
            code = code or 1
    os._exit(code)


if __name__ == "__main__":
    main()
