"""Every timeout and retry of the stories, named by purpose. A story carries no literal of its own."""

from datetime import timedelta
from typing import TypedDict

from temporalio.common import RetryPolicy
from temporalio.workflow import ActivityCancellationType

from domain.runbook import Step


class ActivityOptions(TypedDict, total=False):
    """The part of Temporal's activity options that presets decide."""

    start_to_close_timeout: timedelta
    schedule_to_close_timeout: timedelta
    heartbeat_timeout: timedelta
    retry_policy: RetryPolicy
    cancellation_type: ActivityCancellationType


TRIAGE = ActivityOptions(
    start_to_close_timeout=timedelta(seconds=15),
    retry_policy=RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=timedelta(seconds=10)),
)
"""Without end: an incident that is not triaged is an incident that nobody hears of."""

RECORD = ActivityOptions(
    start_to_close_timeout=timedelta(seconds=15),
    retry_policy=RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=timedelta(seconds=30)),
)
"""Without end: an outage of ClickHouse delays the record, and loses nothing."""

RECORD_REFUSED_PAUSE = timedelta(minutes=1)
"""Before rows that ClickHouse refused for good are offered again: somebody has to mend the server first."""

RECORD_LINGER = timedelta(seconds=2)
"""How long rows may wait for company: an activity costs the server about 5 ms, a story that moves on fast writes once."""

RECORD_BATCH_LIMIT = 200
"""Rows in one activity; at about 1 KiB a row far below Temporal's 2 MiB for a payload."""

DELIVER = ActivityOptions(
    start_to_close_timeout=timedelta(seconds=60),
    schedule_to_close_timeout=timedelta(seconds=90),
    retry_policy=RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=timedelta(seconds=10), maximum_attempts=3),
)
"""One try of the narrator at Slack, short so that the next one can use a thread found meanwhile."""

DELIVER_PAUSES = tuple(timedelta(seconds=seconds) for seconds in (5, 15, 30, 60, 120, 300, 300, 300, 300))
"""Between the narrator's tries; afterwards a message is given up, about half an hour after it was to be told."""

DELIVER_BATCH_LIMIT = 20

DELIVERY_WAIT = timedelta(seconds=15)
"""Longest time that Slack may hold up a story: then a run starts without its thread, and an approval's clock starts unseen."""

PLAN = ActivityOptions(
    start_to_close_timeout=timedelta(seconds=30),
    schedule_to_close_timeout=timedelta(minutes=5),
    retry_policy=RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=timedelta(seconds=15)),
)

UNDO = ActivityOptions(
    start_to_close_timeout=timedelta(minutes=5),
    heartbeat_timeout=timedelta(seconds=10),
    retry_policy=RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=timedelta(seconds=15), maximum_attempts=6),
    cancellation_type=ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
)

STEP_MARGIN = timedelta(seconds=10)
"""Beyond a step's own `timeout_seconds`, which the step keeps itself, so that its sentence arrives and not Temporal's."""

STEP_ATTEMPTS = 5
"""Of a step that may be repeated."""

ROUNDS_LIMIT = 5
"""How often a step is planned and asked again because the world keeps moving, before it fails."""

HALT_WAIT = timedelta(minutes=5)
"""How long a resolved incident waits for its runs to end before it writes its memory without their outcome."""


def execute(step: Step) -> ActivityOptions:
    """A step that may not be repeated gets exactly one attempt: a lost outcome is asked about, never rerun."""
    limit = timedelta(seconds=step.timeout_seconds) + STEP_MARGIN
    wish = step.retry
    attempts = 1 if step.at_most_once else wish.attempts if wish else STEP_ATTEMPTS
    return ActivityOptions(
        start_to_close_timeout=limit,
        heartbeat_timeout=timedelta(seconds=10),
        retry_policy=RetryPolicy(
            initial_interval=timedelta(seconds=wish.backoff_seconds if wish else 1),
            maximum_interval=timedelta(seconds=max(wish.backoff_seconds, 60) if wish else 10),
            maximum_attempts=attempts,
        ),
        cancellation_type=ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
    )
