"""A real `infrasage up` as its own process for the end-to-end tests, and the command line against it.

The world around it is in the test's process: the simulated cluster and the Slack peer outlive every kill of the stack.
"""

import asyncio
import contextlib
import io
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import httpx
import yaml
from temporalio.client import Client, WorkflowHistory

from cli import main as command
from cli.embedded import free_port
from cli.embedded_data_dir import PID_FILE
from cli.local_stack import OPERATOR_KEY_FILE
from tests.peers.slack import PeerMessage, SlackPeer, signed_request

REPOSITORY = Path(__file__).parents[2]
START_SECONDS = 60.0
"""A start takes about 3 s on an idle machine."""

Json = dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def environment(**variables: str) -> dict[str, str]:
    """What a process of ours sees: nothing of the developer's settings."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    return {**kept, "PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1", **variables}


async def infrasage(*arguments: str, cwd: Path, seconds: float = 60, **variables: str) -> Outcome:
    """Run the command as a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "cli.main",
        *arguments,
        cwd=cwd,
        env=environment(**variables),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(seconds):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return Outcome(process.returncode or 0, out.decode(), err.decode())


def infrasage_here(*arguments: str, stdin: bytes = b"", cwd: Path, **variables: str) -> Outcome:
    """Run a command in this process, which spares it a second of imports; from a thread while the loop goes on."""
    out, err = io.StringIO(), io.StringIO()
    before, folder = dict(os.environ), Path.cwd()
    typed = sys.stdin
    os.environ.clear()
    os.environ.update(environment(**variables))
    os.chdir(cwd)
    sys.stdin = io.TextIOWrapper(io.BytesIO(stdin))
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = command.run(arguments)
    finally:
        sys.stdin = typed
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(before)
    return Outcome(code, out.getvalue(), err.getvalue())


@dataclass
class RunningStack:
    """One data directory and the `infrasage up` on it, which may be killed and started again."""

    folder: Path
    variables: Mapping[str, str] = field(default_factory=dict[str, str])
    port: int = field(default_factory=free_port)
    temporal_port: int = field(default_factory=free_port)
    ui_port: int = field(default_factory=free_port)
    process: asyncio.subprocess.Process | None = None
    starts: int = 0

    @property
    def data_dir(self) -> Path:
        return self.folder / "data"

    @property
    def runbooks(self) -> Path:
        return self.folder / "runbooks"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def temporal(self) -> str:
        return f"127.0.0.1:{self.temporal_port}"

    @property
    def output(self) -> str:
        """What it printed in all its starts, stdout and stderr."""
        return "".join(path.read_text() for path in sorted(self.folder.glob("up-*.log")))

    def arguments(self) -> list[str]:
        ports = ["--port", self.port, "--temporal-port", self.temporal_port, "--ui-port", self.ui_port]
        return ["up", *map(str, ports), "--data-dir", str(self.data_dir), "--temporal-synchronous", "normal"]

    async def start(self) -> Self:
        """Start it, and wait until it is ready."""
        self.runbooks.mkdir(exist_ok=True)
        self.starts += 1
        with (self.folder / f"up-{self.starts}.log").open("wb") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "cli.main",
                *self.arguments(),
                cwd=self.folder,
                env=environment(RUNBOOKS_DIR=str(self.runbooks), **self.variables),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
        await eventually(self._is_up, START_SECONDS)
        return self

    async def _is_up(self) -> bool:
        assert self.process is not None
        assert self.process.returncode is None, f"`infrasage up` ended: {self.output}"
        if "InfraSage is up." not in (self.folder / f"up-{self.starts}.log").read_text():
            return False
        async with self.client() as http:
            return (await http.get("/readyz")).status_code == 200

    async def kill(self) -> None:
        """SIGKILL the whole of it at once, Temporal's server first: nothing gets the chance to end well."""
        assert self.process is not None
        server = int((self.data_dir / PID_FILE).read_text())
        os.kill(server, signal.SIGKILL)
        os.killpg(self.process.pid, signal.SIGKILL)
        await self.process.wait()

    async def stop(self) -> int:
        """SIGTERM, as a service manager would. Returns: the exit code."""
        assert self.process is not None
        if self.process.returncode is None:
            self.process.terminate()
        async with asyncio.timeout(60):
            return await self.process.wait()

    # --- talking to it ------------------------------------------------------------------------------------------

    @property
    def key(self) -> str:
        return (self.data_dir / OPERATOR_KEY_FILE).read_text().strip()

    def client(self, **headers: str) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, headers={"X-API-Key": self.key, **headers}, timeout=30, trust_env=False)

    async def command(self, *arguments: str, stdin: bytes = b"", **variables: str) -> Outcome:
        """A command of an operator on this machine, who has set nothing but where the data directory is."""
        given = {"INFRASAGE_DATA_DIR": str(self.data_dir), **variables}
        return await asyncio.to_thread(infrasage_here, *arguments, stdin=stdin, cwd=self.folder, **given)

    async def post(self, path: str, body: Json | None = None) -> Json:
        async with self.client() as http:
            answer = await http.post(path, json=body)
            assert answer.is_success, answer.text
            return answer.json()

    async def get(self, path: str, **parameters: str) -> Json:
        async with self.client() as http:
            answer = await http.get(path, params=parameters)
            assert answer.is_success, answer.text
            return answer.json()

    async def fire(self, **overrides: Any) -> str:
        """Post an anomaly. Returns: its id."""
        anomaly = an_anomaly(**overrides)
        await self.post("/api/v1/anomalies", anomaly)
        return anomaly["anomaly_id"]

    async def incident(self, incident_id: str) -> Json:
        """The incident as the API shows it; while no worker answers yet, an empty one without runs."""
        async with self.client() as http:
            answer = await http.get(f"/api/v1/incidents/{incident_id}")
        if answer.status_code == 503:
            return {"status": "", "runbooks": [], "timeline": [], "resolution": None, "severity": None}
        assert answer.is_success, answer.text
        return answer.json()

    async def until(self, incident_id: str, holds: Callable[[Json], object], seconds: float = 30) -> Json:
        """The incident, once `holds`."""
        seen: list[Json] = []

        async def check() -> bool:
            seen[:] = [await self.incident(incident_id)]
            return bool(holds(seen[0]))

        await eventually(check, seconds, lambda: f"{seen}\n{self.output}")
        return seen[0]

    async def audit(self, incident_id: str, *, until: str | None = None) -> list[Json]:
        """The audit rows of an incident, once the last action `until` is among them: rows arrive within 2 s."""
        rows: list[Json] = []

        async def check() -> bool:
            rows[:] = (await self.get("/api/v1/audit", incident=incident_id))["rows"]
            return until is None or until in [row["action"] for row in rows]

        await eventually(check, 20, lambda: f"{rows}")
        return rows

    async def click(self, slack: SlackPeer, card: PeerMessage, action_id: str, **user: str) -> int:
        """A signed click, as Slack sends it. Returns: the status that Slack gets."""
        return await self.deliver(slack, slack.click(card, action_id, **user))

    async def deliver(self, slack: SlackPeer, click: str) -> int:
        """Hand over the body of a click, signed now. Returns: the status that Slack gets."""
        async with httpx.AsyncClient(base_url=self.url, timeout=10, trust_env=False) as http:
            headers = signed_request(slack.signing_secret, click)
            return (await http.post("/api/v1/slack/interactions", content=click, headers=headers)).status_code


@contextlib.asynccontextmanager
async def running(folder: Path, **variables: str) -> AsyncIterator[RunningStack]:
    """A stack of one's own; whatever is left of it is killed at the end."""
    stack = RunningStack(folder, variables)
    try:
        yield await stack.start()
    finally:
        if stack.process is not None and stack.process.returncode is None:
            await stack.kill()


def slack_variables(slack: SlackPeer) -> dict[str, str]:
    """The settings of a bot at the Slack peer."""
    return {
        "SLACK_BOT_TOKEN": slack.token,
        "SLACK_SIGNING_SECRET": slack.signing_secret,
        "SLACK_CHANNEL": "#ops-alerts",
        "SLACK_API_URL": slack.api_url,
    }


def write_runbook(folder: Path, definition: Json) -> None:
    folder.mkdir(exist_ok=True)
    (folder / f"{definition['name']}.yaml").write_text(yaml.safe_dump(definition, allow_unicode=True))


def scale_runbook(service: str = "payment-api", **step: Any) -> Json:
    """The seed's runbook, for a service of one's own."""
    return {
        "name": f"scale-out-{service}",
        "trigger": {"service_id": service},
        "steps": [
            {"type": "slack", "message": f"Scaling {service} from 3 to 5 pods"},
            {
                "type": "kubernetes",
                "action": "scale",
                "namespace": "production",
                "deployment": service,
                "replicas": 5,
                "require_approval": True,
                **step,
            },
            {"type": "slack", "message": f"{service} scaled — monitoring"},
        ],
        "rollback_on_failure": True,
    }


def an_anomaly(anomaly_id: str | None = None, **overrides: Any) -> Json:
    """The seed's anomaly under an id of its own, as JSON values."""
    sample = json.loads((REPOSITORY / "samples" / "anomaly.json").read_text())
    return {**sample, "anomaly_id": anomaly_id or an_id(), **overrides}


def an_id() -> str:
    return f"anom-{uuid4().hex[:10]}"


def open_step(story: Json) -> Json | None:
    """The first step that waits for a decision."""
    for run in story["runbooks"]:
        for step in run["steps"]:
            if step["approval"] and step["approval"]["status"] == "open":
                return step
    return None


def is_waiting(story: Json) -> bool:
    return open_step(story) is not None


def has_ended(story: Json) -> bool:
    """Whether every run of the incident, and there is one at least, has ended."""
    return bool(story["runbooks"]) and all(run["finished_at"] for run in story["runbooks"])


async def eventually(
    check: Callable[[], Awaitable[bool]], seconds: float = 30, otherwise: Callable[[], str] = lambda: "it did not happen in time"
) -> None:
    """Poll until `check` holds."""
    deadline = time.monotonic() + seconds
    while not await check():
        assert time.monotonic() < deadline, otherwise()
        await asyncio.sleep(0.05)


def is_alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def actions(rows: Sequence[Json]) -> list[str]:
    return [row["action"] for row in rows]


async def history(temporal: str, workflow_id: str) -> WorkflowHistory:
    """The history of a workflow, as the Temporal at that address keeps it."""
    client = await Client.connect(temporal)
    return await client.get_workflow_handle(workflow_id).fetch_history()


async def attempts(temporal: str, workflow_id: str, activity_type: str) -> list[int]:
    """Of each run of an activity, the attempt that ended it; 1 is the first."""
    events = (await history(temporal, workflow_id)).events
    scheduled = {event.event_id: event.activity_task_scheduled_event_attributes.activity_type.name for event in events}
    started = [
        event.activity_task_started_event_attributes for event in events if event.HasField("activity_task_started_event_attributes")
    ]
    return [item.attempt for item in started if scheduled[item.scheduled_event_id] == activity_type]
