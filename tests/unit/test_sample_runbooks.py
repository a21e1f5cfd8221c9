"""The samples in `runbooks/` load as they are, and so does the page's own example."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from domain.anomaly import Anomaly, Severity
from domain.expressions import holds, names_of
from domain.library import library_of
from domain.runbook import HttpStep, KubernetesStep, Runbook, RunbookFaults, ShellStep, SlackStep, load_runbook

ROOT = Path(__file__).parents[2]
SAMPLES = sorted(path for path in (ROOT / "runbooks").iterdir() if path.suffix in (".yaml", ".yml", ".json"))
PAGE_EXAMPLE = ROOT / "tests" / "data" / "page-example-runbook.json"

SEED_ANOMALY = Anomaly.model_validate(
    {
        "anomaly_id": "anom-7f3d",
        "service_id": "payment-api",
        "environment": "production",
        "metric_name": "cpu_usage_percent",
        "anomaly_score": 0.93,
        "timestamp": "2026-04-10T12:00:05Z",
    }
)


def definition_in(path: Path) -> Any:
    return json.loads(path.read_text()) if path.suffix == ".json" else yaml.safe_load(path.read_text())


def sample(name: str) -> Runbook:
    return next(runbook for runbook in map(load_runbook, map(definition_in, SAMPLES)) if runbook.name == name)


def test_there_are_samples() -> None:
    assert len(SAMPLES) >= 10


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_a_sample_loads_and_is_named_like_its_file(path: Path) -> None:
    runbook = load_runbook(definition_in(path))
    assert runbook.name == path.stem
    assert runbook.description


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_a_sample_asks_before_it_changes_anything(path: Path) -> None:
    for step in load_runbook(definition_in(path)).steps:
        match step:
            case KubernetesStep() | ShellStep():
                assert step.require_approval
            case HttpStep():
                assert step.method == "GET" or step.require_approval
            case _:
                assert not step.at_most_once


def test_every_runbook_that_a_sample_calls_is_a_sample() -> None:
    runbooks = [load_runbook(definition_in(path)) for path in SAMPLES]
    assert {name for runbook in runbooks for name in library_of(runbook, runbooks)} == {"capacity-check"}


def test_a_sample_with_a_mistake_would_not_load() -> None:
    definition = definition_in(ROOT / "runbooks" / "scale-out-payment-api.yaml")
    definition["steps"][1]["replica"] = definition["steps"][1].pop("replicas")
    with pytest.raises(RunbookFaults) as caught:
        load_runbook(definition)
    assert {fault.path for fault in caught.value.faults} >= {"steps[1].replica"}


def test_the_seeds_anomaly_starts_the_seeds_runbook_and_no_other_sample() -> None:
    matching = [
        runbook.name
        for runbook in map(load_runbook, map(definition_in, SAMPLES))
        if runbook.trigger and runbook.trigger.matches(SEED_ANOMALY, Severity.CRITICAL)
    ]
    assert matching == ["scale-out-payment-api"]


def test_the_seeds_runbook_asks_what_the_seed_shows() -> None:
    runbook = sample("scale-out-payment-api")
    step = runbook.steps[1]
    assert len(runbook.steps) == 3
    assert step.title == "Scale deployment to 5 replicas"
    assert isinstance(step, KubernetesStep)
    assert step.namespace == "production"
    assert (step.require_approval, step.approval_timeout_minutes) == (True, 10)
    assert runbook.rollback_on_failure
    closing = runbook.steps[2]
    assert isinstance(closing, SlackStep)
    assert closing.message == "payment-api scaled — monitoring"


@pytest.mark.parametrize(("cause", "told"), [("a full disk", True), (None, False)])
def test_the_latency_runbook_tells_the_cause_only_where_one_is_known(cause: str | None, told: bool) -> None:
    names = names_of(SEED_ANOMALY.model_copy(update={"root_cause": cause}), Severity.CRITICAL)
    condition = sample("scale-out-on-latency").steps[1].when
    assert condition is not None
    assert holds(condition, names) is told


@pytest.mark.parametrize(
    ("changes", "starts"),
    [
        ({}, True),
        ({"anomaly_score": 0.79}, False),
        ({"environment": "staging"}, False),
        ({"service_id": "payment-worker"}, False),
    ],
)
def test_the_latency_runbook_starts_for_a_slow_api_in_production(changes: dict[str, Any], starts: bool) -> None:
    slow = SEED_ANOMALY.model_copy(update={"metric_name": "request_latency_p99_ms", "service_id": "user-api", **changes})
    trigger = sample("scale-out-on-latency").trigger
    assert trigger is not None
    assert trigger.matches(slow, Severity.HIGH) is starts


def test_the_pages_own_example_loads_unchanged() -> None:
    definition = definition_in(PAGE_EXAMPLE)
    runbook = load_runbook(definition)
    assert runbook.name == "scale-out-payment-api"
    kept = runbook.model_dump(mode="json", exclude_unset=True)
    assert kept == definition
    assert runbook.trigger is not None
    assert runbook.trigger.matches(SEED_ANOMALY, Severity.CRITICAL)
