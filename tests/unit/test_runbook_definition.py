"""Runbook definitions: what loads, what is refused and in which words, and that a definition survives its travel."""

import copy
import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from domain.anomaly import Anomaly, Severity
from domain.expressions import ExpressionError
from domain.runbook import (
    HttpStep,
    KubernetesStep,
    Runbook,
    RunbookFault,
    RunbookFaults,
    SlackStep,
    Trigger,
    load_runbook,
)

law = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""For properties on a shared machine: how long an example takes says nothing."""

EXAMPLE = """
{
  "name": "scale-out-payment-api",
  "description": "Scale up payment-api pods when CPU exceeds threshold",
  "trigger": {
    "service_id": "payment-api",
    "metric_name": "cpu_usage_percent",
    "condition": "anomaly_score > 0.7"
  },
  "steps": [
    {
      "type": "slack",
      "message": "Scaling payment-api from 3 to 5 pods due to CPU anomaly",
      "channel": "#alerts",
      "require_approval": false
    },
    {
      "type": "kubernetes",
      "action": "scale",
      "namespace": "production",
      "deployment": "payment-api",
      "replicas": 5,
      "require_approval": true,
      "approval_timeout_minutes": 10
    },
    {
      "type": "http",
      "method": "POST",
      "url": "https://api.pagerduty.com/incidents",
      "headers": { "Authorization": "Token $PAGERDUTY_API_TOKEN" },
      "body": { "type": "incident", "title": "payment-api scaled — monitoring" }
    }
  ],
  "rollback_on_failure": true,
  "dry_run": false
}
"""
"""The example of InfraSage's documentation; it has to load unchanged."""

SLACK: dict[str, Any] = {"type": "slack", "message": "hello"}
ROLLOUT_UNDO: dict[str, Any] = {"type": "kubernetes", "action": "rollout-undo", "namespace": "prod", "deployment": "api"}
SCALE: dict[str, Any] = {"type": "kubernetes", "action": "scale", "namespace": "prod", "deployment": "api", "replicas": 5}
HTTP: dict[str, Any] = {"type": "http", "url": "https://example.com/hook"}
SHELL: dict[str, Any] = {"type": "shell", "command": "systemctl restart payment-api", "host": "prod-host-01"}
MINIMAL: dict[str, Any] = {"name": "restart", "steps": [SLACK]}

ANOMALY = Anomaly(
    anomaly_id="anom-7f3d",
    service_id="payment-api",
    metric_name="cpu_usage_percent",
    timestamp=datetime(2026, 4, 10, 12, 0, 5, tzinfo=UTC),
    anomaly_score=0.93,
)


def example() -> dict[str, Any]:
    return json.loads(EXAMPLE)


def faults(definition: object) -> dict[str, str]:
    """Path → reason, after making sure that no path has two."""
    with pytest.raises(RunbookFaults) as refused:
        load_runbook(definition)
    found = {fault.path: fault.reason for fault in refused.value.faults}
    assert len(found) == len(refused.value.faults)
    return found


def faults_of_step(step: object) -> dict[str, str]:
    return faults({**MINIMAL, "steps": [SLACK, step]})


def step_of(definition: dict[str, Any]) -> Any:
    return load_runbook({**MINIMAL, "steps": [definition]}).steps[0]


# --- what loads ---------------------------------------------------------------------------------------------------


def test_the_example_of_the_documentation_loads_unchanged() -> None:
    runbook = load_runbook(example())
    assert runbook.name == "scale-out-payment-api"
    assert runbook.trigger == Trigger(service_id="payment-api", metric_name="cpu_usage_percent", condition="anomaly_score > 0.7")
    assert (runbook.rollback_on_failure, runbook.dry_run) == (True, False)
    message, scale, request = runbook.steps
    assert isinstance(message, SlackStep)
    assert (message.channel, message.require_approval) == ("#alerts", False)
    assert isinstance(scale, KubernetesStep)
    assert (scale.require_approval, scale.approval_timeout_minutes, scale.replicas) == (True, 10, 5)
    assert scale.title == "Scale deployment to 5 replicas"
    assert isinstance(request, HttpStep)
    assert request.headers == {"Authorization": "Token $PAGERDUTY_API_TOKEN"}
    assert request.body == {"type": "incident", "title": "payment-api scaled — monitoring"}


def test_yaml_says_the_same_as_json() -> None:
    assert load_runbook(yaml.safe_load(yaml.safe_dump(example()))) == load_runbook(example())
    assert load_runbook(yaml.safe_load(EXAMPLE)) == load_runbook(example())


def test_absent_keys_have_the_documented_defaults() -> None:
    runbook = load_runbook(MINIMAL)
    assert (runbook.description, runbook.trigger, runbook.rollback_on_failure, runbook.dry_run) == ("", None, False, False)
    for definition, timeout in ((SLACK, 15), (SCALE, 300), (HTTP, 30), (SHELL, 60)):
        step = step_of(definition)
        assert (step.require_approval, step.approval_timeout_minutes, step.timeout_seconds) == (False, 10, timeout)
    assert step_of(HTTP).method == "GET"


@pytest.mark.parametrize(
    ("definition", "title"),
    [
        (SLACK, "Post a message in the thread"),
        ({**SLACK, "channel": "#alerts"}, "Post a message to #alerts"),
        (SCALE, "Scale deployment to 5 replicas"),
        ({"type": "kubernetes", "action": "restart", "namespace": "prod", "deployment": "api"}, "Restart deployment api"),
        ({"type": "kubernetes", "action": "rollout-undo", "namespace": "prod", "deployment": "api"}, "Roll back deployment api"),
        ({"type": "kubernetes", "action": "cordon", "node": "node-1"}, "Cordon node node-1"),
        ({"type": "kubernetes", "action": "uncordon", "node": "node-1"}, "Uncordon node node-1"),
        ({"type": "kubernetes", "action": "drain", "node": "node-1"}, "Drain node node-1"),
        ({**HTTP, "method": "POST", "url": "https://example.com/a?key=$KEY"}, "POST https://example.com/a"),
        (SHELL, "Run `systemctl restart payment-api` on prod-host-01"),
    ],
)
def test_a_step_has_a_title_in_the_imperative(definition: dict[str, Any], title: str) -> None:
    assert step_of(definition).title == title


@pytest.mark.parametrize("minutes", [0.1, 1, 10, 10.5, 7 * 24 * 60])
def test_minutes_may_be_fractions(minutes: float) -> None:
    step = step_of({**SCALE, "approval_timeout_minutes": minutes})
    assert step.approval_timeout.total_seconds() == pytest.approx(minutes * 60)


def test_placeholders_are_kept_for_the_run_to_fill() -> None:
    step = step_of({**SCALE, "namespace": "{{ environment }}", "deployment": "{{ service_id }}"})
    assert list(step.texts()) == ["{{ environment }}", "{{ service_id }}"]
    web = step_of({**HTTP, "headers": {"X": "{{ severity }}"}, "body": {"a": ["{{ anomaly_id }}", 1]}})
    assert list(web.texts()) == [HTTP["url"], "{{ severity }}", "{{ anomaly_id }}"]
    assert list(step_of(SHELL).texts()) == [SHELL["command"], SHELL["host"]]
    assert list(step_of(SLACK).texts()) == ["hello"]


def test_the_name_of_a_secret_stays_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAGERDUTY_API_TOKEN", "hunter2")
    runbook = load_runbook(
        {**MINIMAL, "steps": [{**HTTP, "url": "$BASE/x", "headers": {"A": "Token $PAGERDUTY_API_TOKEN"}, "body": "${X} $$ $1"}]}
    )
    carried = Runbook.model_validate_json(runbook.model_dump_json())
    assert carried == runbook
    assert "Token $PAGERDUTY_API_TOKEN" in carried.model_dump_json()
    assert "hunter2" not in carried.model_dump_json()
    assert list(carried.steps[0].texts()) == ["$BASE/x", "Token $PAGERDUTY_API_TOKEN", "${X} $$ $1"]


@pytest.mark.parametrize(
    ("definition", "at_most_once"),
    [
        (SLACK, False),
        (SCALE, False),
        (SHELL, True),
        (HTTP, False),
        ({**HTTP, "method": "HEAD"}, False),
        ({**HTTP, "method": "POST"}, True),
        ({**HTTP, "method": "PATCH"}, True),
        ({**HTTP, "method": "PUT"}, True),
        ({**HTTP, "method": "DELETE"}, True),
        ({**HTTP, "method": "POST", "idempotent": True}, False),
        ({**HTTP, "method": "DELETE", "idempotent": True}, False),
    ],
)
def test_what_changes_the_world_runs_once_unless_the_runbook_declares_it_repeatable(
    definition: dict[str, Any], at_most_once: bool
) -> None:
    assert step_of(definition).at_most_once is at_most_once


# --- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("definition", [None, [], [MINIMAL], "name: x", 5, True])
def test_a_runbook_is_a_mapping(definition: object) -> None:
    assert faults(definition) == {"": "must be a mapping of keys, not a list or a text"}


def test_an_empty_runbook_names_what_it_needs() -> None:
    assert faults({}) == {"name": "is required", "steps": "is required"}


@pytest.mark.parametrize(
    ("change", "path", "reason"),
    [
        (
            {"name": ""},
            "name",
            "must be 1 to 100 letters, digits and the characters . _ -, of which the first is a letter or digit",
        ),
        (
            {"name": "a b"},
            "name",
            "must be 1 to 100 letters, digits and the characters . _ -, of which the first is a letter or digit",
        ),
        (
            {"name": "a/b"},
            "name",
            "must be 1 to 100 letters, digits and the characters . _ -, of which the first is a letter or digit",
        ),
        (
            {"name": "x" * 101},
            "name",
            "must be 1 to 100 letters, digits and the characters . _ -, of which the first is a letter or digit",
        ),
        ({"name": 5}, "name", "must be a text"),
        ({"description": "x" * 8_001}, "description", "may have 8000 characters at most"),
        ({"description": "a\x1bb"}, "description", "may not contain the control character U+001B"),
        ({"rollback_on_failure": "yes"}, "rollback_on_failure", "must be true or false"),
        ({"dry_run": 1}, "dry_run", "must be true or false"),
        ({"steps": []}, "steps", "must have 1 to 50 entries, not 0"),
        ({"steps": [SLACK] * 51}, "steps", "must have 1 to 50 entries, not 51"),
        ({"steps": SLACK}, "steps", "must be a list"),
        ({"steps": "slack"}, "steps", "must be a list"),
        ({"steps": ["slack"]}, "steps[0]", "must be a mapping of keys"),
        ({"trigger": "payment-api"}, "trigger", "must be a mapping of keys"),
        ({"trigger": []}, "trigger", "must be a mapping of keys"),
        ({"trigger": {}}, "trigger.service_id", "is required"),
        ({"trigger": {"service_id": ""}}, "trigger.service_id", "may not be empty"),
        ({"trigger": {"service_id": "  "}}, "trigger.service_id", "may not be empty"),
        ({"trigger": {"service_id": "pay["}}, "trigger.service_id", "has a '[' that is never closed"),
        ({"trigger": {"service_id": ["a"]}}, "trigger.service_id", "must be a text"),
        ({"trigger": {"service_id": "a", "metric_name": ""}}, "trigger.metric_name", "may not be empty"),
        (
            {"trigger": {"service_id": "a", "metric_name": None}},
            "trigger.metric_name",
            "has no value; give one, or leave the key out",
        ),
        ({"trigger": {"service_id": "a", "condition": None}}, "trigger.condition", "has no value; give one, or leave the key out"),
        ({"trigger": {"service_id": "a", "condition": ""}}, "trigger.condition", "a condition may not be empty"),
        ({"trigger": {"service_id": "a", "condition": True}}, "trigger.condition", "must be a text"),
        (
            {"trigger": {"service_id": "a", "condition": "1"}},
            "trigger.condition",
            "'1' must compare something; 'and', 'or' and 'not' join comparisons",
        ),
        ({"trigger": None}, "trigger", "has no value; give one, or leave the key out"),
        (
            {"trigger": {"service": "a", "service_id": "a"}},
            "trigger.service",
            "is not a key that is known here; known are condition, metric_name, service_id",
        ),
        (
            {"approvers": ["U1"]},
            "approvers",
            "is not a key that is known here; known are description, dry_run, inputs, name, rollback_on_failure, steps, trigger",
        ),
        (
            {"a b": 1},
            "['a b']",
            "is not a key that is known here; known are description, dry_run, inputs, name, rollback_on_failure, steps, trigger",
        ),
    ],
)
def test_a_fault_of_the_runbook_has_a_path_and_a_reason(change: dict[str, Any], path: str, reason: str) -> None:
    assert faults({**MINIMAL, **change}) == {path: reason}


KUBERNETES_NAME = "must be the name of one object: lower-case letters, digits, - and ., or {{ name }}"
KNOWN_NAMES = "anomaly_id, anomaly_score, environment, metric_name, metric_value, rca_confidence, root_cause, service_id, severity"


@pytest.mark.parametrize(
    ("step", "path", "reason"),
    [
        ({}, "type", "must be one of slack, kubernetes, http, shell, wait, check, runbook, page, ticket"),
        ({"type": "email"}, "type", "must be one of slack, kubernetes, http, shell, wait, check, runbook, page, ticket"),
        ({"type": 5}, "type", "must be one of slack, kubernetes, http, shell, wait, check, runbook, page, ticket"),
        ({"type": ["slack"]}, "type", "must be one of slack, kubernetes, http, shell, wait, check, runbook, page, ticket"),
        ({**SLACK, "type": None}, "type", "has no value; give one, or leave the key out"),
        ({"type": "slack"}, "message", "is required"),
        ({**SLACK, "message": ""}, "message", "may not be empty"),
        ({**SLACK, "message": " \n "}, "message", "may not be empty"),
        ({**SLACK, "message": "x" * 3_001}, "message", "may have 3000 characters at most"),
        ({**SLACK, "message": "{{ nope }}"}, "message", f"'{{{{ nope }}}}' is not known here; known are {KNOWN_NAMES}"),
        ({**SLACK, "message": "{{ a b }}"}, "message", "'{{ a b }}' is not a name; only {{ name }} is substituted"),
        ({**SLACK, "message": "{{ service_id"}, "message", "a '{{' is never closed by '}}'"),
        (
            {**SLACK, "channel": ""},
            "channel",
            "must be a channel: # and up to 80 letters, digits and the characters . _ -, or its id",
        ),
        (
            {**SLACK, "channel": "#a b"},
            "channel",
            "must be a channel: # and up to 80 letters, digits and the characters . _ -, or its id",
        ),
        ({**SLACK, "channel": None}, "channel", "has no value; give one, or leave the key out"),
        (
            {**SLACK, "name": "1st"},
            "name",
            "must be 1 to 50 letters, digits and the characters _ -, of which the first is a letter or _",
        ),
        ({**SLACK, "when": None}, "when", "has no value; give one, or leave the key out"),
        ({**SLACK, "when": " "}, "when", "a condition may not be empty"),
        ({**SLACK, "when": True}, "when", "must be a text"),
        ({**SLACK, "when": "nope == 1"}, "when", f"'nope' is not known here; known are {KNOWN_NAMES}"),
        ({**SLACK, "require_approval": "true"}, "require_approval", "must be true or false"),
        ({**SLACK, "require_approval": None}, "require_approval", "has no value; give one, or leave the key out"),
        ({**SLACK, "approval_timeout_minutes": 0}, "approval_timeout_minutes", "must be more than 0"),
        ({**SLACK, "approval_timeout_minutes": -1}, "approval_timeout_minutes", "must be more than 0"),
        ({**SLACK, "approval_timeout_minutes": 10_081}, "approval_timeout_minutes", "must be 10080 or less"),
        ({**SLACK, "approval_timeout_minutes": "10"}, "approval_timeout_minutes", "must be a number"),
        ({**SLACK, "approval_timeout_minutes": True}, "approval_timeout_minutes", "must be a number"),
        ({**SLACK, "timeout_seconds": 0}, "timeout_seconds", "must be more than 0"),
        ({**SLACK, "timeout_seconds": 86_401}, "timeout_seconds", "must be 86400 or less"),
        (
            {**SLACK, "ttl": 5},
            "ttl",
            "is not a key that is known here; known are approval_timeout_minutes, channel, message, name, "
            "on_failure, require_approval, retry, timeout_seconds, type, undo, when",
        ),
        ({**SCALE, "action": "delete"}, "action", "must be 'scale', 'restart', 'rollout-undo', 'cordon', 'uncordon' or 'drain'"),
        ({**SCALE, "replicas": "5"}, "replicas", "must be a whole number"),
        ({**SCALE, "replicas": 5.5}, "replicas", "must be a whole number"),
        ({**SCALE, "replicas": True}, "replicas", "must be a whole number"),
        ({**SCALE, "replicas": -1}, "replicas", "must be 0 or more"),
        ({**SCALE, "replicas": 10_001}, "replicas", "must be 10000 or less"),
        ({**SCALE, "namespace": ""}, "namespace", "may not be empty"),
        ({**SCALE, "namespace": "\t"}, "namespace", "may not be empty"),
        ({**SCALE, "namespace": "*"}, "namespace", KUBERNETES_NAME),
        ({**SCALE, "deployment": "Payment"}, "deployment", KUBERNETES_NAME),
        ({**SCALE, "deployment": "../secrets"}, "deployment", KUBERNETES_NAME),
        ({**SCALE, "deployment": "a,b"}, "deployment", KUBERNETES_NAME),
        ({**SCALE, "deployment": "-l app=x"}, "deployment", KUBERNETES_NAME),
        ({**SCALE, "namespace": None}, "namespace", "has no value; give one, or leave the key out"),
        ({**SCALE, "node": "n1"}, "node", "is not taken by the action scale, which takes namespace, deployment, replicas, wait"),
        ({**SCALE, "action": "restart"}, "replicas", "is not taken by the action restart, which takes namespace, deployment, wait"),
        ({**ROLLOUT_UNDO, "to_revision": 0}, "to_revision", "must be 1 or more"),
        ({**ROLLOUT_UNDO, "to_revision": "13"}, "to_revision", "must be a whole number"),
        ({**ROLLOUT_UNDO, "wait": "no"}, "wait", "must be true or false"),
        (
            {**SCALE, "to_revision": 3},
            "to_revision",
            "is not taken by the action scale, which takes namespace, deployment, replicas, wait",
        ),
        (
            {"type": "kubernetes", "action": "drain", "node": "n", "wait": True},
            "wait",
            "is not taken by the action drain, which takes node",
        ),
        ({"type": "kubernetes", "action": "drain"}, "node", "is required by the action drain"),
        ({"type": "kubernetes", "action": "cordon", "node": ""}, "node", "may not be empty"),
        ({"type": "http"}, "url", "is required"),
        ({**HTTP, "url": ""}, "url", "may not be empty"),
        ({**HTTP, "url": "example.com"}, "url", "must begin with http:// or https://"),
        ({**HTTP, "url": "file:///etc/passwd"}, "url", "must begin with http:// or https://"),
        ({**HTTP, "url": "https://a/\r\nHost: b"}, "url", "may not contain the control or invisible character U+000D"),
        ({**HTTP, "url": "https://a/" + "x" * 2_000}, "url", "may have 2000 characters at most"),
        ({**HTTP, "method": "TRACE"}, "method", "must be 'GET', 'HEAD', 'POST', 'PUT', 'PATCH' or 'DELETE'"),
        ({**HTTP, "method": "get"}, "method", "must be 'GET', 'HEAD', 'POST', 'PUT', 'PATCH' or 'DELETE'"),
        ({**HTTP, "headers": {"A": 5}}, "headers.A", "must be a text"),
        ({**HTTP, "headers": {"A": "x\r\nB: y"}}, "headers.A", "may not contain the control or invisible character U+000D"),
        ({**HTTP, "headers": {"A": "{{ nope }}"}}, "headers.A", f"'{{{{ nope }}}}' is not known here; known are {KNOWN_NAMES}"),
        ({**HTTP, "headers": {"A B": "x"}}, "headers['A B']", "must be a header name: 1 to 100 letters, digits and -"),
        ({**HTTP, "headers": []}, "headers", "must be a mapping of keys"),
        ({**HTTP, "headers": {f"H{number}": "x" for number in range(51)}}, "headers", "may have 50 entries at most"),
        ({**HTTP, "body": {"a": ["{{ nope }}"]}}, "body", f"'{{{{ nope }}}}' is not known here; known are {KNOWN_NAMES}"),
        ({**HTTP, "idempotent": "yes"}, "idempotent", "must be true or false"),
        ({"type": "shell", "command": "x"}, "host", "is required"),
        ({**SHELL, "command": ""}, "command", "may not be empty"),
        ({**SHELL, "command": "   "}, "command", "may not be empty"),
        ({**SHELL, "command": "a\nrm -rf /"}, "command", "may not contain the control or invisible character U+000A"),
        ({**SHELL, "command": "echo a\u202eb"}, "command", "may not contain the control or invisible character U+202E"),
        ({**SHELL, "host": " "}, "host", "may not be empty"),
        ({**SHELL, "command": ["rm", "-rf"]}, "command", "must be a text"),
    ],
)
def test_a_fault_of_a_step_has_a_path_in_the_file_and_a_reason(step: dict[str, Any], path: str, reason: str) -> None:
    assert faults_of_step(step) == {f"steps[1].{path}": reason}


def test_every_fault_of_a_file_is_told_at_once() -> None:
    definition = {
        "name": "a b",
        "trigger": {"metric_name": None, "condition": "nope > 1"},
        "steps": [
            {"type": "slack", "name": "first"},
            {"type": "kubernetes", "action": "scale"},
            {"type": "http", "name": "first", "url": "x", "body": "{{ nope }}"},
            {"type": "mail"},
            "shell",
            {"type": "shell", "command": "x", "host": "y", "when": "", "replicas": 3},
        ],
        "rollback": True,
    }
    assert list(faults(definition)) == [
        "trigger.metric_name",
        "steps",  # two are named 'first'
        "name",
        "trigger.service_id",
        "trigger.condition",
        "steps[0].message",
        "steps[1].namespace",
        "steps[1].deployment",
        "steps[1].replicas",
        "steps[2].url",
        "steps[2].body",
        "steps[3].type",
        "steps[4]",
        "steps[5].when",
        "steps[5].replicas",
        "rollback",
    ]


def test_two_steps_of_one_name_are_refused_when_loaded_and_when_made() -> None:
    steps = [{**SLACK, "name": "tell"}, SCALE, {**SLACK, "name": "tell"}]
    assert faults({**MINIMAL, "steps": steps}) == {"steps": "has two steps named 'tell'"}
    with pytest.raises(ValidationError, match="two steps named 'tell'"):
        Runbook.model_validate({**MINIMAL, "steps": steps})


def test_an_action_that_lacks_everything_names_each_key() -> None:
    assert faults_of_step({"type": "kubernetes", "action": "scale"}) == {
        f"steps[1].{key}": "is required by the action scale" for key in ("namespace", "deployment", "replicas")
    }
    assert faults_of_step({"type": "kubernetes"}) == {"steps[1].action": "is required"}


@pytest.mark.parametrize(
    ("definition", "path", "starts"),
    [
        (
            {**MINIMAL, "steps": [{**HTTP, "body": {"at": date(2026, 4, 10)}}]},
            "steps[0].body.at",
            "is a date, which a runbook cannot hold",
        ),
        ({**MINIMAL, "steps": [{**HTTP, "body": [1, float("inf")]}]}, "steps[0].body[1]", "must be a finite number"),
        ({**MINIMAL, "steps": [{**SLACK, "timeout_seconds": float("nan")}]}, "steps[0].timeout_seconds", "must be a finite number"),
        ({**MINIMAL, "description": b"x"}, "description", "is a bytes, which"),
        ({**MINIMAL, True: "on"}, "True", "is a key that is not a text"),
        ({**MINIMAL, "steps": [{**HTTP, "body": 10**400}]}, "steps[0].body", "is a number that is too large"),
    ],
    ids=range(6),
)
def test_what_yaml_can_say_and_json_cannot_is_refused_with_its_path(definition: object, path: str, starts: str) -> None:
    [(found, reason)] = faults(definition).items()
    assert found == path
    assert reason.startswith(starts)


def nested(levels: int) -> dict[str, Any]:
    body: dict[str, Any] = {}
    for _ in range(levels):
        body = {"a": body}
    return {**MINIMAL, "steps": [{**HTTP, "body": body}]}


def aliases() -> dict[str, Any]:
    bomb: list[Any] = ["x"] * 10
    for _ in range(30):
        bomb = [bomb] * 10
    return {**MINIMAL, "steps": [{**HTTP, "body": bomb}]}


def itself() -> dict[str, Any]:
    loop = copy.deepcopy(MINIMAL)
    loop["steps"].append(loop)
    return loop


@pytest.mark.parametrize(
    "definition",
    [
        lambda: nested(100_000),
        aliases,
        itself,
        lambda: {**MINIMAL, "description": "x" * 10**7},
        lambda: {**MINIMAL, "steps": [SLACK] * 10**5},
    ],
    ids=["deep", "aliases", "itself", "long", "many"],
)
def test_a_document_of_any_size_is_refused_in_one_sentence(definition: Callable[[], object]) -> None:
    [(path, reason)] = faults(definition()).items()
    assert path == ""
    assert reason.startswith(("is nested more than", "holds more than"))


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=True)
    | st.text(max_size=10)
    | st.sampled_from(["slack", "kubernetes", "scale"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["name", "type", "steps", "trigger", "service_id", "action", "body", "when", "x y"]), inner, max_size=5
        )
    ),
    max_leaves=15,
)


@law
@given(json_values)
def test_any_document_loads_or_has_faults_and_never_anything_else(definition: object) -> None:
    try:
        load_runbook(definition)
    except RunbookFaults as refused:
        assert refused.faults
        assert all(fault.reason for fault in refused.faults)


@law
@given(st.sampled_from([SLACK, SCALE, HTTP, SHELL]), json_values)
def test_a_value_of_any_kind_in_any_key_of_a_step_loads_or_has_faults(step: dict[str, Any], value: object) -> None:
    for key in step:
        try:
            load_runbook({**MINIMAL, "steps": [{**step, key: value}]})
        except RunbookFaults as refused:
            assert all(fault.path.startswith("steps") for fault in refused.faults)


def test_the_text_of_the_error_holds_every_fault() -> None:
    with pytest.raises(RunbookFaults) as refused:
        load_runbook({"steps": []})
    assert str(refused.value) == "name: is required; steps: must have 1 to 50 entries, not 0"
    assert refused.value.faults[0] == RunbookFault(path="name", reason="is required")


# --- the trigger --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trigger", "matches"),
    [
        (Trigger(service_id="payment-api"), True),
        (Trigger(service_id="payment-*"), True),
        (Trigger(service_id="*"), True),
        (Trigger(service_id="Payment-api"), False),
        (Trigger(service_id="payment"), False),
        (Trigger(service_id="payment-api", metric_name="cpu_*"), True),
        (Trigger(service_id="payment-api", metric_name="memory"), False),
        (Trigger(service_id="payment-api", condition="severity == 'critical'"), True),
        (Trigger(service_id="payment-api", condition="anomaly_score > 0.95"), False),
        (Trigger(service_id="auth", condition="metric_value > 5"), False),
    ],
)
def test_a_trigger_matches_by_globs_and_condition(trigger: Trigger, matches: bool) -> None:
    assert trigger.matches(ANOMALY, Severity.CRITICAL) is matches


def test_a_condition_without_answer_starts_nothing() -> None:
    for condition in ("metric_value > 5", "not metric_value > 5", "environment != 'staging'"):
        with pytest.raises(ExpressionError, match="unknown"):
            Trigger(service_id="payment-api", condition=condition).matches(ANOMALY, Severity.CRITICAL)


# --- the travel ---------------------------------------------------------------------------------------------------

EVERY_KIND = {
    "name": "every-kind",
    "description": "ü\n👩‍🚒",
    "trigger": {"service_id": "a-*"},
    "steps": [
        {**SLACK, "name": "tell", "when": "severity == 'high'", "channel": "C012"},
        {**SCALE, "replicas": 0, "timeout_seconds": 1},
        {"type": "kubernetes", "action": "drain", "node": "n-1", "approval_timeout_minutes": 0.1},
        {**ROLLOUT_UNDO, "to_revision": 13, "wait": False},
        {
            **HTTP,
            "method": "PUT",
            "body": {"b": [1, 1.0, None, True, "x"], "a": {}},
            "idempotent": True,
            "headers": {"B": "1", "A": "2"},
        },
        {**HTTP, "body": None},
        SHELL,
    ],
}


@pytest.mark.parametrize("definition", [example(), MINIMAL, EVERY_KIND])
def test_a_runbook_survives_its_travel_through_temporal_with_its_version(definition: dict[str, Any]) -> None:
    runbook = load_runbook(definition)
    carried = Runbook.model_validate_json(runbook.model_dump_json())
    assert carried == runbook
    assert carried.version == runbook.version
    twice = Runbook.model_validate_json(carried.model_dump_json())
    assert twice.version == runbook.version


def test_a_worker_of_an_older_version_is_deaf_to_new_keys_at_every_level() -> None:
    runbook = load_runbook(EVERY_KIND)
    carried = json.loads(runbook.model_dump_json())
    carried["new"] = 1
    carried["trigger"]["new"] = {"a": 1}
    for step in carried["steps"]:
        step["new"] = ["x"]
    assert Runbook.model_validate_json(json.dumps(carried)) == runbook


def reversed_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: reversed_keys(value[key]) for key in reversed(value)}
    return [reversed_keys(item) for item in value] if isinstance(value, list) else value


def test_the_version_is_that_of_the_content_and_not_of_its_spelling() -> None:
    version = load_runbook(example()).version
    assert load_runbook(reversed_keys(example())).version == version
    spelled_out = example()
    spelled_out["steps"][1]["approval_timeout_minutes"] = 10.0
    spelled_out["steps"][0]["approval_timeout_minutes"] = 10
    spelled_out["steps"][2]["timeout_seconds"] = 30
    assert load_runbook(spelled_out).version == version


@pytest.mark.parametrize(
    "change",
    [
        lambda runbook: runbook.update(name="other"),
        lambda runbook: runbook.update(description=""),
        lambda runbook: runbook.update(dry_run=True),
        lambda runbook: runbook["trigger"].update(condition="anomaly_score >= 0.7"),
        lambda runbook: runbook["steps"].reverse(),
        lambda runbook: runbook["steps"][1].update(replicas=6),
        lambda runbook: runbook["steps"][1].update(require_approval=False),
        lambda runbook: runbook["steps"][2]["body"].update(title="x"),
        lambda runbook: runbook["steps"].pop(),
    ],
    ids=range(9),
)
def test_another_content_is_another_version(change: Callable[[dict[str, Any]], object]) -> None:
    changed = example()
    change(changed)
    assert load_runbook(changed).version != load_runbook(example()).version


def test_a_runbook_cannot_be_changed_once_it_is_loaded() -> None:
    runbook = load_runbook(example())
    with pytest.raises(ValidationError):
        runbook.name = "other"  # pyright: ignore[reportAttributeAccessIssue]
