"""Workflow ids and the task queue: ids are pure functions of what they name, so that anything posted twice is one."""

TASK_QUEUE = "infrasage"


def incident_workflow_id(anomaly_id: str) -> str:
    """The incident of an anomaly."""
    return anomaly_id


def runbook_workflow_id(incident_id: str, runbook: str) -> str:
    """The run of a runbook that an incident started."""
    return f"{incident_id}/{runbook}"


def called_workflow_id(caller: str, step: int, runbook: str) -> str:
    """The run that a `runbook` step of another run started."""
    return f"{caller}/{step}/{runbook}"


def manual_workflow_id(runbook: str, number: int) -> str:
    """The `number`-th run started by hand. No incident id begins with `manual/`: an anomaly id has no slash."""
    return f"manual/{runbook}/{number}"


def approval_key(step: int, round: int) -> str:
    """How a run refers to the message of one approval request."""
    return f"approval-{step}-{round}"
