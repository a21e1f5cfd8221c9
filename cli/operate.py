"""The operator's commands: post an anomaly, look at incidents, decide, resolve. Each asks the API and shows what it answered."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from cli import showing
from cli.api_client import Api, attempt, incident_path, open_api
from cli.output import Failure, print_json, remark, say, waiting, warn
from domain.approval import ApprovalStatus
from domain.incident import IncidentStatus, RunStatus, StepStatus

OUTCOME_SECONDS = 10.0
"""How long a command waits to see what came of it; the work itself goes on without it."""

INCIDENT_SECONDS = 5.0
"""How long `fire` waits for the incident to be triaged and alerted."""

POLL_SECONDS = 0.2

ANOMALY_LIMIT_BYTES = 64 * 1024
"""Of the API."""

Json = dict[str, Any]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
IncidentId = Annotated[str, typer.Argument(metavar="ID", help="Of the incident: the anomaly id.", show_default=False)]
OfRunbook = Annotated[str | None, typer.Option("--runbook", metavar="NAME", help="Which, where several are open.")]
OfStep = Annotated[int | None, typer.Option("--step", metavar="N", help="Which, where several are open; counted from 1.")]


def fire(
    file: Annotated[str, typer.Argument(metavar="FILE", help="The anomaly as JSON; - reads stdin.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Post an anomaly and print its incident."""
    content = _anomaly(file)
    with open_api() as api, waiting("Posting the anomaly"):
        answer = api.post("/api/v1/anomalies", content)
        story = _eventually(api, answer["workflow_id"], _is_open_for_business, INCIDENT_SECONDS)
    if as_json:
        print_json({**answer, **(story or {})})
        return
    if not answer["created"]:
        remark(f"{answer['anomaly_id']} was posted before: this is the incident it started.")
    if story is None:
        warn("The incident is stored, but no worker shows it yet: start one with `infrasage worker`.")
        say(answer["workflow_id"])
        return
    say(showing.incident(story, api.url))


def incidents(
    status: Annotated[IncidentStatus | None, typer.Option(help="Only these.")] = None,
    service: Annotated[str | None, typer.Option(metavar="NAME", help="Only of this service.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500)] = 100,
    as_json: AsJson = False,
) -> None:
    """List incidents, open ones first, newest first."""
    with open_api() as api, waiting("Asking for the incidents"):
        answer = api.get("/api/v1/incidents", status=status.value if status is not None else None, service_id=service, limit=limit)
    if as_json:
        print_json(answer)
    elif answer["incidents"]:
        say(showing.incidents(answer["incidents"]))
    else:
        remark("There are no incidents" + (" like that." if status or service else "."))


def show(incident_id: IncidentId, as_json: AsJson = False) -> None:
    """Show one incident: the alert as Slack shows it, its runbooks, the open approval, the timeline."""
    with open_api() as api, waiting(f"Asking for {incident_id}"):
        story = api.get(incident_path(incident_id))
    if as_json:
        print_json(story)
    else:
        say(showing.incident(story, api.url))


def approve(
    incident_id: IncidentId,
    reason: Annotated[str, typer.Option(metavar="T", help="A note for the audit log.")] = "",
    runbook: OfRunbook = None,
    step: OfStep = None,
    as_json: AsJson = False,
) -> None:
    """Approve the open request of an incident, and show what came of it."""
    _decide(incident_id, "approve", reason, runbook, step, as_json=as_json)


def reject(
    incident_id: IncidentId,
    reason: Annotated[str, typer.Option(metavar="T", help="Why; kept in the audit log.", show_default=False)],
    runbook: OfRunbook = None,
    step: OfStep = None,
    as_json: AsJson = False,
) -> None:
    """Reject the open request of an incident: its step is not run."""
    _decide(incident_id, "reject", reason, runbook, step, as_json=as_json)


def resolve(
    incident_id: IncidentId,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What helped: shown with the next similar incident.")],
    as_json: AsJson = False,
) -> None:
    """Resolve an incident; the text goes into incident memory."""
    with open_api() as api, waiting(f"Resolving {incident_id}"):
        answer = api.post(incident_path(incident_id, "resolve"), {"text": text})
        story = _eventually(api, incident_id, lambda seen: seen["resolution"] is not None, OUTCOME_SECONDS)
    resolution = story["resolution"] if story else None
    if resolution is None:
        warn(f"The resolution is stored, but no worker has taken it yet: look with `infrasage show {incident_id}`.")
    elif resolution["text"] != text.strip():
        raise Failure(f"{incident_id} was already resolved by {resolution['by']['name']}: nothing changed.")
    if as_json:
        print_json({**answer, "status": story["status"] if story else None, "resolution": resolution})
    elif resolution is not None:
        say(f"{incident_id} is resolved: {resolution['text']}", style="green")


def halt(
    incident_id: IncidentId,
    reason: Annotated[str, typer.Option(metavar="T", help="Why; kept in the audit log.")] = "",
    runbook: OfRunbook = None,
    as_json: AsJson = False,
) -> None:
    """Stop the runbooks of an incident before their next step."""
    body = {"reason": reason} | ({"runbook": runbook} if runbook is not None else {})
    with open_api() as api, waiting(f"Halting {incident_id}"):
        answer = api.post(incident_path(incident_id, "halt"), body)
        halted = set(answer["runbooks"])
        story = _eventually(
            api,
            incident_id,
            lambda seen: all(run["finished_at"] for run in seen["runbooks"] if run["name"] in halted),
            OUTCOME_SECONDS,
        )
    if as_json:
        print_json({**answer, "runs": story["runbooks"] if story else []})
        return
    for run in story["runbooks"] if story else ():
        if run["name"] in halted:
            say(showing.runbook(run))


def settle(
    incident_id: IncidentId,
    choice: Annotated[
        Literal["done", "retry", "halt"],
        typer.Argument(help="It was done, it is to be tried again, or the run is to halt.", show_default=False),
    ],
    runbook: OfRunbook = None,
    step: OfStep = None,
    as_json: AsJson = False,
) -> None:
    """Say how a step of unknown outcome stands."""
    body = _without_none({"choice": choice, "runbook": runbook, "step": step})
    with open_api() as api, waiting(f"Settling {incident_id}"):
        answer = api.post(incident_path(incident_id, "settle"), body)
        story = _eventually(
            api,
            incident_id,
            lambda seen: _step_of(seen, answer)[1]["status"] not in (StepStatus.UNKNOWN, StepStatus.RUNNING),
            OUTCOME_SECONDS,
        )
    if story is None:
        raise Failure(f"Your word is stored, but no worker has taken it yet: look with `infrasage show {incident_id}`.")
    run, settled = _step_of(story, answer)
    if as_json:
        print_json({**answer, "step_status": settled["status"], "run_status": run["status"]})
    else:
        say(showing.runbook(run))


def audit(
    incident_id: Annotated[str | None, typer.Argument(metavar="[ID]", help="Only of this incident.", show_default=False)] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 1_000,
    as_json: AsJson = False,
) -> None:
    """Print audit rows, oldest first."""
    with open_api() as api, waiting("Asking for the audit log"):
        answer = api.get("/api/v1/audit", incident=incident_id, limit=limit)
    if as_json:
        print_json(answer)
    elif answer["rows"]:
        say(showing.audit(answer["rows"]))
    else:
        remark("The audit log has no rows" + (f" of {incident_id}." if incident_id else "."))


def _decide(incident_id: str, decision: str, reason: str, runbook: str | None, step: int | None, *, as_json: bool) -> None:
    with open_api() as api:
        with waiting("Deciding, and looking what comes of it"):
            answer, run, decided = decide(api, incident_id, decision, reason, runbook, step)
        approval = decided["approval"]
        if as_json:
            print_json({**answer, "approval": approval, "step_status": decided["status"], "run_status": run["status"]})
        else:
            say(showing.card(api.get(incident_path(incident_id)), run, decided, api.url))
            say(showing.runbook(run))
    wanted = ApprovalStatus.APPROVED if decision == "approve" else ApprovalStatus.REJECTED
    if approval["status"] != wanted:
        who = f" by {approval['decided_by']}" if approval["decided_by"] else ""
        raise Failure(f"Your answer changed nothing: the request was {approval['status']}{who}.")


def decide(
    api: Api, incident_id: str, decision: str, reason: str = "", runbook: str | None = None, step: int | None = None
) -> tuple[Json, Json, Json]:
    """Decide on the one open request, bound to the plan that is open now, and wait a moment for what comes of it.

    Returns: the API's answer, and the run and the step as they stand then. Raises: Failure; also when nobody judged it yet.
    """
    open_now = [
        (seen, asking)
        for seen, asking in showing.open_approvals(api.get(incident_path(incident_id)))
        if runbook in (None, seen["name"]) and step in (None, asking["index"])
    ]
    body = _without_none({"decision": decision, "reason": reason, "runbook": runbook, "step": step})
    ref = open_now[0][1]["approval"]["ref"] if len(open_now) == 1 else None
    if ref is not None:
        body["digest"] = ref["digest"]
    answer = api.post(incident_path(incident_id, "decision"), body)  # several or none: the API says so better than we could
    story = _eventually(api, incident_id, lambda seen: _is_settled(_step_of(seen, answer)[1], ref), OUTCOME_SECONDS)
    run, decided = _step_of(story, answer) if story else ({}, {})
    if decided and ref is not None and decided["approval"]["ref"] != ref:
        raise Failure(
            f"The world changed before the step ran: it was planned anew and asks again (`infrasage show {incident_id}`)."
        )
    if not decided or decided["approval"]["status"] == ApprovalStatus.OPEN:
        raise Failure(f"Your answer is stored, but no worker has judged it yet: look with `infrasage show {incident_id}`.")
    return answer, run, decided


def _is_settled(step: Json, ref: Json | None) -> bool:
    """Whether the decision was judged and the step, if it was to run, has ended; or another request has taken its place."""
    approval = step["approval"]
    if ref is not None and approval["ref"] != ref:
        return True
    return approval["status"] != ApprovalStatus.OPEN and step["status"] != StepStatus.RUNNING


def _is_open_for_business(story: Json) -> bool:
    """Whether the incident is triaged, its alert sent or given up, and its runs have come to a person or to their end."""
    told = story["alert"]["sent"] or story["alert"]["reason"] is not None
    return story["severity"] is not None and told and all(run["status"] != RunStatus.RUNNING for run in story["runbooks"])


def _step_of(story: Json, answer: Json) -> tuple[Json, Json]:
    """The run and the step that an answer of the API is about."""
    for run in story["runbooks"]:
        if run["workflow_id"] == answer["workflow_id"]:
            return run, run["steps"][answer["step"] - 1]
    raise Failure(f"{answer['workflow_id']} is no longer there: look with `infrasage audit`.")


def _eventually(api: Api, incident_id: str, holds: Callable[[Json], bool], seconds: float) -> Json | None:
    """The story once `holds`, or as it is when the time is up; None when no worker ever showed it."""
    deadline = time.monotonic() + seconds
    story: Json | None = None
    while True:
        seen = attempt(lambda: api.get(incident_path(incident_id)))
        story = seen or story
        if (seen is not None and holds(seen)) or time.monotonic() >= deadline:
            return story
        time.sleep(POLL_SECONDS)


def _anomaly(file: str) -> bytes:
    """The bytes to post, known to be JSON: a file that is not is told with its place. Raises: Failure."""
    name = "stdin" if file == "-" else file
    try:
        content = sys.stdin.buffer.read(ANOMALY_LIMIT_BYTES + 1) if file == "-" else _head_of(Path(file))
    except OSError as error:
        raise Failure(f"{file} cannot be read ({error.strerror}).") from None
    if len(content) > ANOMALY_LIMIT_BYTES:
        raise Failure(f"{name} has more than {ANOMALY_LIMIT_BYTES // 1024} KiB, which is more than an anomaly may have.")
    try:
        json.loads(content)
    except json.JSONDecodeError as error:
        raise Failure(f"{name} is not JSON: line {error.lineno}, column {error.colno}.") from None
    except (ValueError, RecursionError):
        raise Failure(f"{name} is not JSON in UTF-8.") from None
    return content


def _head_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(ANOMALY_LIMIT_BYTES + 1)


def _without_none(body: Json) -> Json:
    return {name: value for name, value in body.items() if value is not None}
