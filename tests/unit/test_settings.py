"""Settings: every variable with its default, what it takes and refuses, and that no sentence repeats a secret."""

import json
import os
import traceback
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from domain.access import ApiKey, Role, Scope, hash_key
from domain.anomaly import SeverityBands
from domain.incident import EscalationKind, SlackMode
from domain.rules import NotificationRules, QuietHours
from domain.settings import Settings, SettingsError, load_settings

BOT = {"SLACK_BOT_TOKEN": "xoxb-hunter2-token", "SLACK_SIGNING_SECRET": "hunter2-secret", "SLACK_CHANNEL": "#ops-alerts"}
WEBHOOK = "https://hooks.slack.com/services/T00000000/B00000000/XXXXXXXXXXXXXXXXXXXXXXXX"
HASH = hash_key("isage_hunter2")


law = hypothesis_settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
"""For properties on a shared machine: how long an example takes says nothing."""


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable of ours, and no `.env` but what the test writes."""
    for name in list(os.environ):
        if name.lower() in Settings.model_fields:
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def load(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Settings:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return load_settings()


def refusal(monkeypatch: pytest.MonkeyPatch, **variables: str) -> str:
    with pytest.raises(SettingsError) as refused:
        load(monkeypatch, **variables)
    return str(refused.value)


def test_without_any_variable_there_is_a_default_for_everything() -> None:
    settings = load_settings()
    assert {name: getattr(settings, name) for name in Settings.model_fields if name != "clickhouse_password"} == {
        "slack_webhook_url": None,
        "slack_channel": None,
        "slack_bot_token": None,
        "slack_signing_secret": None,
        "slack_api_url": "https://slack.com/api/",
        "slack_min_anomaly_score": 0.0,
        "slack_service_filter": (),
        "slack_quiet_hours_start": None,
        "slack_quiet_hours_end": None,
        "slack_quiet_hours_tz": "UTC",
        "severity_bands": SeverityBands(medium=0.4, high=0.6, critical=0.8),
        "clickhouse_host": None,
        "clickhouse_port": None,
        "clickhouse_user": "default",
        "clickhouse_database": "default",
        "clickhouse_tls_enabled": False,
        "clickhouse_tls_ca_cert": None,
        "infrasage_url": "http://localhost:9093",
        "infrasage_api_keys": (),
        "incident_max_open_days": 30,
        "incident_recovered_close_hours": 24,
        "runbooks_dir": Path("runbooks"),
        "runbook_secrets": (),
        "runbook_shell_hosts": None,
        "runbook_http_allow": (),
        "kubeconfig": None,
        "prometheus_url": None,
        "pagerduty_service_key": None,
        "pagerduty_routing_rules": (),
        "pagerduty_events_url": "https://events.pagerduty.com/v2/enqueue",
        "jira_url": None,
        "jira_user": None,
        "jira_api_token": None,
        "jira_project_key": None,
        "jira_issue_type": "Task",
        "slack_app_token": None,
        "infrasage_approvers": None,
        "infrasage_roles": None,
    }
    assert settings.clickhouse_password.get_secret_value() == ""
    assert settings.slack_mode is SlackMode.OFF
    assert settings.rules == NotificationRules()
    assert (settings.max_open, settings.recovered_close) == (timedelta(days=30), timedelta(hours=24))


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("SLACK_CHANNEL", "#ops-alerts", "#ops-alerts"),
        ("SLACK_CHANNEL", "C0123ABCD", "C0123ABCD"),
        ("SLACK_API_URL", "http://127.0.0.1:8080/api", "http://127.0.0.1:8080/api/"),
        ("SLACK_API_URL", "https://slack.com/api/", "https://slack.com/api/"),
        ("SLACK_MIN_ANOMALY_SCORE", "0.6", 0.6),
        ("SLACK_MIN_ANOMALY_SCORE", "0", 0.0),
        ("SLACK_MIN_ANOMALY_SCORE", "1", 1.0),
        ("SLACK_SERVICE_FILTER", "payment-api,checkout-service,auth-service", ("payment-api", "checkout-service", "auth-service")),
        ("SLACK_SERVICE_FILTER", " payment-* , auth-?,", ("payment-*", "auth-?")),
        ("SLACK_QUIET_HOURS_TZ", "America/New_York", "America/New_York"),
        ("SEVERITY_BANDS", '{"high": 0.7}', SeverityBands(medium=0.4, high=0.7, critical=0.8)),
        ("CLICKHOUSE_HOST", "clickhouse", "clickhouse"),
        ("CLICKHOUSE_HOST", "ch_1.internal.example.com", "ch_1.internal.example.com"),
        ("CLICKHOUSE_HOST", "10.0.0.5", "10.0.0.5"),
        ("CLICKHOUSE_HOST", "::1", "::1"),
        ("CLICKHOUSE_PORT", "8443", 8443),
        ("CLICKHOUSE_USER", "infrasage", "infrasage"),
        ("CLICKHOUSE_DATABASE", "ops_2", "ops_2"),
        ("CLICKHOUSE_TLS_ENABLED", "true", True),
        ("CLICKHOUSE_TLS_ENABLED", "0", False),
        ("CLICKHOUSE_TLS_CA_CERT", "/etc/ssl/ca.pem", Path("/etc/ssl/ca.pem")),
        ("INFRASAGE_URL", "https://infrasage.example.com", "https://infrasage.example.com"),
        ("INFRASAGE_URL", "https://infrasage.example.com:9093/", "https://infrasage.example.com:9093"),
        ("INFRASAGE_URL", "https://example.com/ops/infrasage//", "https://example.com/ops/infrasage"),
        ("INFRASAGE_URL", "http://[::1]:9093", "http://[::1]:9093"),
        ("INFRASAGE_URL", " http://console_1:80 ", "http://console_1:80"),
        ("INCIDENT_MAX_OPEN_DAYS", "0.5", 0.5),
        ("INCIDENT_MAX_OPEN_DAYS", "365", 365),
        ("INCIDENT_RECOVERED_CLOSE_HOURS", "48", 48),
        ("RUNBOOKS_DIR", "/srv/runbooks", Path("/srv/runbooks")),
        ("RUNBOOK_SECRETS", "PAGERDUTY_API_TOKEN, _X1", ("PAGERDUTY_API_TOKEN", "_X1")),
        ("RUNBOOK_SHELL_HOSTS", "hosts.yaml", Path("hosts.yaml")),
        ("RUNBOOK_HTTP_ALLOW", "api.pagerduty.com,*.internal:8080@10.0.0.0/8", ("api.pagerduty.com", "*.internal:8080@10.0.0.0/8")),
        ("KUBECONFIG", "/home/me/.kube/config", Path("/home/me/.kube/config")),
        ("PROMETHEUS_URL", "http://prometheus.monitoring:9090/", "http://prometheus.monitoring:9090"),
        ("PROMETHEUS_URL", "https://example.com/prometheus", "https://example.com/prometheus"),
        ("PAGERDUTY_EVENTS_URL", "http://127.0.0.1:8080/v2/enqueue", "http://127.0.0.1:8080/v2/enqueue"),
        ("PAGERDUTY_EVENTS_URL", "https://events.eu.pagerduty.com/v2/enqueue", "https://events.eu.pagerduty.com/v2/enqueue"),
        ("JIRA_ISSUE_TYPE", "Incident", "Incident"),
    ],
)
def test_a_variable_is_read(monkeypatch: pytest.MonkeyPatch, variable: str, text: str, value: object) -> None:
    assert getattr(load(monkeypatch, **{variable: text}), variable.lower()) == value


URL = "must be an http:// or https:// URL of a host, with an optional port and path and nothing after them."
GLOBS = "must be a comma list of service names or globs; "
WRONG = {
    "SLACK_CHANNEL": [
        (text, "must be the name of a channel, such as #ops-alerts, or its id.") for text in ("#ops alerts", "#a\nb")
    ],
    "SLACK_API_URL": [("slack.com/api/", URL), ("ftp://slack.com", URL), ("https://slack.com/api/?x=1", URL)],
    "SLACK_WEBHOOK_URL": [
        ("hooks.slack.com/services/x", URL),
        ("https://hooks.slack.com/services/x#y", URL),
        (
            "http://hooks.slack.com/services/x",
            "must be an https:// URL, or an http:// URL of this machine: whoever reads it can post to Slack.",
        ),
        (
            "http://127.0.0.1.example.com/x",
            "must be an https:// URL, or an http:// URL of this machine: whoever reads it can post to Slack.",
        ),
    ],
    "SLACK_MIN_ANOMALY_SCORE": [
        (text, "must be a number from 0 to 1.") for text in ("-0.1", "1.1", "nan", "inf", "high", "0,6", "true", "60%")
    ],
    "SLACK_SERVICE_FILTER": [
        (",", "must be a comma list with at least one entry."),
        ("a,pay[,b", GLOBS + "entry 2: it has a '[' that is never closed."),
        ("a\nb", GLOBS + "entry 1: it may not contain the control or invisible character U+000A."),
        ("a," + "x" * 201, GLOBS + "entry 2: it may have 200 characters at most."),
    ],
    "SLACK_QUIET_HOURS_TZ": [
        (text, "must be an IANA zone such as America/New_York.") for text in ("EST5", "Mars/Olympus", "../UTC")
    ],
    "SEVERITY_BANDS": [
        (text, f'must be JSON such as {{"medium": 0.4, "high": 0.6, "critical": 0.8}}; {reason}.')
        for text, reason in [
            ("0.5", "it must be a mapping of keys"),
            ("{", "it must be valid JSON"),
            ('{"hgih": 0.7}', "hgih is not a key that is known here"),
            ('{"high": "0.7"}', "high must be a number"),
            ('{"high": NaN}', "it must ascend within 0..1: medium, high, critical"),
            ('{"high": 0.9}', "it must ascend within 0..1: medium, high, critical"),
        ]
    ],
    "CLICKHOUSE_HOST": [
        (text, "must be a host name or address, without scheme and port (the port is CLICKHOUSE_PORT).")
        for text in ("http://clickhouse", "clickhouse:8123", "a b", "click/house", "[::1]", "user@host", "-a", "x" * 254, ".")
    ],
    "CLICKHOUSE_PORT": [(text, "must be a port from 1 to 65535.") for text in ("0", "65536", "-1", "http", "8123.5")],
    "CLICKHOUSE_DATABASE": [
        (text, "must be 1 to 64 letters, digits and _, of which the first is a letter or _.")
        for text in ("1a", "a-b", "a;drop", "a`b", "x" * 65, "ä")
    ],
    "CLICKHOUSE_TLS_ENABLED": [(text, "must be true or false.") for text in ("maybe", "2", "enabled")],
    "INFRASAGE_URL": [
        *(
            (text, URL)
            for text in ("localhost:9093", "http://", "http:///x", "https://a b", "http://a/?q", "http://a/#f", "http://u:p@a")
        ),
        *(
            (text, URL)
            for text in ("javascript:alert(1)", "http://a/<script>", "http://a|b", "http://[::g]", "http://[1.2.3.4]", "HTTP://a")
        ),
        *(
            (text, URL)
            for text in ("http://a:", "http://a:x", "http://a:123456", "http://-a", "http://a..b", "http://a\\b", "http://ä.de")
        ),
        *((text, "must have a port from 1 to 65535.") for text in ("http://a:0", "http://a:65536")),
    ],
    "INCIDENT_MAX_OPEN_DAYS": [
        (text, "must be a number of days above 0, at most 365.") for text in ("0", "-1", "366", "nan", "inf", "a month")
    ],
    "INCIDENT_RECOVERED_CLOSE_HOURS": [
        (text, "must be a number of hours above 0, at most 8760.") for text in ("0", "-1", "8761", "nan", "one")
    ],
    "RUNBOOK_SECRETS": [
        (",,", "must be a comma list with at least one entry."),
        *(
            (
                text,
                "must be a comma list of names of environment variables, each of letters, digits and _ without $; "
                f"entry {text.count(',') + 1} is none.",
            )
            for text in ("$TOKEN", "A,B-C", "A,1B", "TOKEN=hunter2", "A B", "Ä")
        ),
    ],
    "RUNBOOK_HTTP_ALLOW": [
        (",", "must be a comma list with at least one entry."),
        *(
            (text, f"must be a comma list of host[:port] without scheme and path; entry {text.count(',') + 1} is none.")
            for text in ("https://api.example.com", "a.com,b c", "a.com,\u200bb")
        ),
    ],
}


@pytest.mark.parametrize(("variable", "text", "reason"), [(name, *case) for name, cases in WRONG.items() for case in cases])
def test_a_wrong_value_is_one_sentence_that_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, text: str, reason: str
) -> None:
    assert refusal(monkeypatch, **{variable: text}) == f"{variable} {reason}"


def test_every_wrong_value_has_its_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    assert refusal(monkeypatch, SLACK_MIN_ANOMALY_SCORE="x", CLICKHOUSE_PORT="0", INFRASAGE_URL="y") == (
        f"SLACK_MIN_ANOMALY_SCORE must be a number from 0 to 1. CLICKHOUSE_PORT must be a port from 1 to 65535. INFRASAGE_URL {URL}"
    )


@pytest.mark.parametrize("blank", ["", " ", "\t \n"])
def test_a_blank_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch, blank: str) -> None:
    settings = load(monkeypatch, **{name.upper(): blank for name in Settings.model_fields})
    assert settings == load_settings()
    assert settings.slack_mode is SlackMode.OFF


def test_the_name_of_a_variable_may_be_in_lower_case(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(monkeypatch, slack_channel="#ops").slack_channel == "#ops"


# --- Slack --------------------------------------------------------------------------------------------------------


def test_a_webhook_alone_can_post(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch, SLACK_WEBHOOK_URL=WEBHOOK)
    assert settings.slack_mode is SlackMode.WEBHOOK
    assert settings.slack_webhook_url is not None
    assert settings.slack_webhook_url.get_secret_value() == WEBHOOK


@pytest.mark.parametrize("url", ["http://127.0.0.1:8065/x", "http://localhost/x", "http://[::1]:80/x", "http://127.9.9.9/x"])
def test_a_webhook_without_encryption_may_be_on_this_machine(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    assert load(monkeypatch, SLACK_WEBHOOK_URL=url).slack_mode is SlackMode.WEBHOOK


def test_a_bot_has_a_token_a_signing_secret_and_a_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch, **BOT, SLACK_WEBHOOK_URL=WEBHOOK)
    assert settings.slack_mode is SlackMode.BOT


@pytest.mark.parametrize("secret", [None, "", " ", "\t", "\n"])
def test_a_token_without_a_signing_secret_is_refused(monkeypatch: pytest.MonkeyPatch, secret: str | None) -> None:
    variables = {**BOT, "SLACK_SIGNING_SECRET": secret} if secret is not None else {k: v for k, v in BOT.items() if "SIGN" not in k}
    sentence = refusal(monkeypatch, **variables)
    assert sentence == "SLACK_SIGNING_SECRET must be set, and not be empty, when SLACK_BOT_TOKEN is."


@pytest.mark.parametrize("secret", ["", "  "])
def test_a_secret_that_is_given_in_code_is_held_to_the_same(secret: str) -> None:
    with pytest.raises(SettingsError, match="SLACK_SIGNING_SECRET must be set"):
        load_settings(slack_bot_token="xoxb-1", slack_channel="#a", slack_signing_secret=secret)


@pytest.mark.parametrize("channel", [None, "", "  "])
def test_a_token_without_a_channel_is_refused(monkeypatch: pytest.MonkeyPatch, channel: str | None) -> None:
    variables = {**BOT, "SLACK_CHANNEL": channel} if channel is not None else {k: v for k, v in BOT.items() if "CHANNEL" not in k}
    sentence = refusal(monkeypatch, **variables)
    assert sentence == "SLACK_CHANNEL must name the channel of the alerts when SLACK_BOT_TOKEN is set."


@pytest.mark.parametrize("variable", ["SLACK_BOT_TOKEN", "SLACK_SIGNING_SECRET"])
@pytest.mark.parametrize("value", ["hunter2 hunter2", "hunter2\nhunter2", "hunter2\x7f", "hünter2"])
def test_a_secret_with_a_space_or_a_stray_character_is_refused(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    sentence = refusal(monkeypatch, **{**BOT, variable: value})
    assert sentence == f"{variable} must be one word of printable ASCII characters without spaces."


def test_a_secret_loses_the_line_break_of_the_file_it_was_read_from(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch, **{**BOT, "SLACK_SIGNING_SECRET": "hunter2\n"})
    assert settings.slack_signing_secret is not None
    assert settings.slack_signing_secret.get_secret_value() == "hunter2"


@pytest.mark.parametrize("variable", ["SLACK_APP_TOKEN", "INFRASAGE_APPROVERS", "INFRASAGE_ROLES"])
@pytest.mark.parametrize("value", ["xapp-hunter2", "{}", "U1,U2", ","])
def test_what_would_be_ignored_and_fail_open_is_refused(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    sentence = refusal(monkeypatch, **{variable: value})
    assert sentence == f"{variable} is not supported in this version and may not be set, because nothing would obey it."


def test_what_would_be_ignored_is_refused_in_the_file_too() -> None:
    Path(".env").write_text("INFRASAGE_APPROVERS=U0ADA\n")
    with pytest.raises(SettingsError, match="INFRASAGE_APPROVERS is not supported"):
        load_settings()


# --- Prometheus, PagerDuty and Jira --------------------------------------------------------------------------------

JIRA = {
    "JIRA_URL": "https://example.atlassian.net/",
    "JIRA_USER": "bot@example.com",
    "JIRA_API_TOKEN": "hunter2-token",
    "JIRA_PROJECT_KEY": "OPS",
}
RULES = (
    '[{"service_pattern": "payment-*", "service_key": "hunter2-payments"}, {"service_pattern": "*", "service_key": "hunter2-rest"}]'
)
PRIVATE = "must be an https:// URL, or an http:// URL of this machine: a key travels with every request."


def test_jira_is_whole_or_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch, **JIRA)
    assert (settings.jira_url, settings.jira_issue_type) == ("https://example.atlassian.net", "Task")
    assert settings.offers == {EscalationKind.TICKET}


@pytest.mark.parametrize("missing", [("JIRA_URL",), ("JIRA_API_TOKEN",), ("JIRA_USER", "JIRA_PROJECT_KEY")])
def test_half_a_jira_is_refused_and_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, missing: tuple[str, ...]) -> None:
    sentence = refusal(monkeypatch, **{name: value for name, value in JIRA.items() if name not in missing})
    assert sentence == (
        f"{' and '.join(missing)} must be set too: tickets need JIRA_URL, JIRA_USER, JIRA_API_TOKEN and JIRA_PROJECT_KEY."
    )


@pytest.mark.parametrize(
    ("variable", "text", "reason"),
    [
        ("JIRA_URL", "http://jira.example.com", PRIVATE),
        ("JIRA_URL", "https://bot:hunter2@example.atlassian.net", URL),
        ("JIRA_USER", "bot:hunter2", "must be the email address of an Atlassian account."),
        ("JIRA_API_TOKEN", "hunter2 hunter2", "must be one word of printable ASCII characters without spaces."),
        (
            "JIRA_PROJECT_KEY",
            'OPS" OR project = "X',
            "must be the key of a Jira project, such as OPS: capitals, digits and _, of which the first is a capital.",
        ),
        ("JIRA_ISSUE_TYPE", "Task\nX", "may not contain the control or invisible character U+000A."),
        ("PROMETHEUS_URL", "prometheus:9090", URL),
        ("PROMETHEUS_URL", "http://prometheus:9090/?token=hunter2", URL),
        ("PAGERDUTY_EVENTS_URL", "http://events.pagerduty.com/v2/enqueue", PRIVATE),
        ("PAGERDUTY_SERVICE_KEY", "hunter2 hunter2", "must be one word of printable ASCII characters without spaces."),
        *(
            ("PAGERDUTY_ROUTING_RULES", text, f"must be a JSON list of objects with service_pattern and service_key; {fault}.")
            for text, fault in (
                ("hunter2", "it must be valid JSON"),
                ('{"payment-*": "hunter2"}', "it must be a list"),
                ('[{"service_pattern": "*"}]', "[0].service_key is required"),
                ('[{"service_pattern": "*", "service_key": "hunter2", "x": 1}]', "[0].x is not a key that is known here"),
                ('[{"service_pattern": "", "service_key": "hunter2"}]', "[0].service_pattern may not be empty"),
                (
                    '[{"service_pattern": "*", "service_key": ""}]',
                    "[0].service_key must be one word of printable ASCII characters without spaces",
                ),
            )
        ),
    ],
)
def test_a_wrong_service_is_one_sentence_that_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, text: str, reason: str
) -> None:
    given = {**JIRA, variable: text} if variable.startswith("JIRA") else {variable: text}
    sentence = refusal(monkeypatch, **given)
    assert sentence == f"{variable} {reason}"
    assert "hunter2" not in sentence


def test_a_paging_key_or_a_rule_is_enough_to_offer_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().offers == frozenset()
    settings = load(monkeypatch, PAGERDUTY_ROUTING_RULES=RULES)
    assert settings.offers == {EscalationKind.PAGE}
    key = settings.routes.key_of("payment-api")
    assert key is not None
    assert key.get_secret_value() == "hunter2-payments"
    monkeypatch.delenv("PAGERDUTY_ROUTING_RULES")
    settings = load(monkeypatch, PAGERDUTY_SERVICE_KEY="hunter2-all", **JIRA)
    assert settings.offers == {EscalationKind.PAGE, EscalationKind.TICKET}
    assert settings.routes.key_of("anything") is settings.pagerduty_service_key
    assert "hunter2" not in repr(settings)


# --- rules --------------------------------------------------------------------------------------------------------


def test_the_rules_are_those_of_the_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(
        monkeypatch,
        SLACK_MIN_ANOMALY_SCORE="0.6",
        SLACK_SERVICE_FILTER="payment-api,checkout-service",
        SLACK_QUIET_HOURS_START="23:00",
        SLACK_QUIET_HOURS_END="07:00",
        SLACK_QUIET_HOURS_TZ="America/New_York",
    )
    quiet = QuietHours.parse("23:00", "07:00", "America/New_York")
    assert settings.rules == NotificationRules(min_score=0.6, services=("payment-api", "checkout-service"), quiet=quiet)


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"SLACK_QUIET_HOURS_START": "23:00"}, "SLACK_QUIET_HOURS_START and SLACK_QUIET_HOURS_END must be set together."),
        ({"SLACK_QUIET_HOURS_END": "07:00"}, "SLACK_QUIET_HOURS_START and SLACK_QUIET_HOURS_END must be set together."),
        (
            {"SLACK_QUIET_HOURS_START": "11pm", "SLACK_QUIET_HOURS_END": "07:00"},
            "SLACK_QUIET_HOURS_START must be HH:MM between 00:00 and 23:59.",
        ),
        (
            {"SLACK_QUIET_HOURS_START": "23:00", "SLACK_QUIET_HOURS_END": "24:00"},
            "SLACK_QUIET_HOURS_END must be HH:MM between 00:00 and 23:59.",
        ),
        (
            {"SLACK_QUIET_HOURS_START": "23:00", "SLACK_QUIET_HOURS_END": "23:00"},
            "SLACK_QUIET_HOURS_START and SLACK_QUIET_HOURS_END may not be equal; leave both out to switch quiet hours off.",
        ),
    ],
)
def test_quiet_hours_are_a_whole_or_refused(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], sentence: str) -> None:
    assert refusal(monkeypatch, **variables) == sentence


# --- API keys -----------------------------------------------------------------------------------------------------


def key(**changes: Any) -> dict[str, Any]:
    return {"name": "ops", "role": "operator", "scope": "full", "key_sha256": HASH, **changes}


def test_keys_are_read_from_json(monkeypatch: pytest.MonkeyPatch) -> None:
    other = key(name="grafana", role="viewer", scope="ingestion", key_sha256=hash_key("isage_other").upper())
    settings = load(monkeypatch, INFRASAGE_API_KEYS=json.dumps([key(), other]))
    assert settings.infrasage_api_keys == (
        ApiKey(name="ops", role=Role.OPERATOR, scope=Scope.FULL, key_sha256=HASH),
        ApiKey(name="grafana", role=Role.VIEWER, scope=Scope.INGESTION, key_sha256=hash_key("isage_other")),
    )


KEYS = "must be a JSON list of objects with name, role, scope and key_sha256; "


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("isage_hunter2", KEYS + "it must be valid JSON"),
        ("[", KEYS + "it must be valid JSON"),
        ("[" * 10_000, KEYS + "it must be valid JSON"),
        ("{}", KEYS + "it must be a list"),
        ("null", KEYS + "it must be a list"),
        ('["isage_hunter2"]', KEYS + "[0] must be a mapping of keys"),
        ("[{}]", KEYS + "[0].name is required"),
        (json.dumps([key(name="")]), KEYS + "[0].name may not be empty"),
        (json.dumps([key(role="root")]), KEYS + "[0].role must be 'viewer', 'operator' or 'admin'"),
        (json.dumps([key(scope="all")]), KEYS + "[0].scope must be 'ingestion', 'readonly' or 'full'"),
        (
            json.dumps([key(key_sha256="isage_hunter2")]),
            KEYS + "[0].key_sha256 must be the SHA-256 of the key, 64 hexadecimal digits",
        ),
        (json.dumps([key(key_sha256=hash_key(""))]), KEYS + "[0].key_sha256 is the hash of an empty key"),
        (json.dumps([key(), key(name="b", scoep="readonly")]), KEYS + "[1].scoep is not a key that is known here"),
        (
            json.dumps([{name: value for name, value in key().items() if name != "scope"}]),
            "must say name, role, scope and key_sha256 of every key; [0] has no scope",
        ),
        (
            json.dumps([{name: value for name, value in key().items() if name != "role"}]),
            "must say name, role, scope and key_sha256 of every key; [0] has no role",
        ),
        (json.dumps([key(), key(name="OPS", key_sha256=hash_key("x"))]), "may not have two keys of the same name"),
        (json.dumps([key(), key(name="b")]), "may not have two keys of the same key_sha256"),
    ],
    ids=range(17),
)
def test_keys_that_are_not_whole_are_refused(monkeypatch: pytest.MonkeyPatch, text: str, reason: str) -> None:
    assert refusal(monkeypatch, INFRASAGE_API_KEYS=text) == f"INFRASAGE_API_KEYS {reason}."


def test_keys_that_are_made_in_code_are_taken() -> None:
    made = ApiKey(name="demo", key_sha256=HASH)
    assert load_settings(infrasage_api_keys=(made,)).infrasage_api_keys == (made,)


# --- secrets ------------------------------------------------------------------------------------------------------

SECRETS = {
    **BOT,
    "SLACK_WEBHOOK_URL": "https://hooks.slack.com/services/hunter2",
    "CLICKHOUSE_PASSWORD": "hunter2",
}


def test_secrets_do_not_show_in_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch, **SECRETS)
    assert settings.clickhouse_password.get_secret_value() == "hunter2"
    for shown in (repr(settings), str(settings), settings.model_dump_json()):
        assert "hunter2" not in shown


@pytest.mark.parametrize("variable", [name.upper() for name in Settings.model_fields])
@pytest.mark.parametrize("value", ["hunter2 /:?<>\x01", "hunter2://[hunter2", '[{"hunter2": "hunter2"', "hunter2,$hunter2,["])
def test_no_sentence_repeats_what_was_given(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    try:
        load(monkeypatch, **{variable: value})
    except SettingsError as error:
        assert "hunter2" not in "".join(traceback.format_exception(error))
        assert variable in str(error) or variable == "SLACK_BOT_TOKEN"  # alone, it lacks SLACK_SIGNING_SECRET
        assert error.__context__ is None
        assert error.__cause__ is None


variables = st.sampled_from(sorted(name.upper() for name in Settings.model_fields))
values = st.text(st.characters(exclude_characters="\x00", exclude_categories=("Cs",)), max_size=30) | st.sampled_from(
    ["[]", "{}", "null", "1", "a,b", "http://a", "23:00", "true"]
)


@law
@given(st.dictionaries(variables, values, max_size=4))
def test_any_environment_loads_or_ends_in_sentences(given_variables: dict[str, str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in given_variables.items():
            patch.setenv(name, value)
        try:
            load_settings()
        except SettingsError as error:
            assert str(error).endswith(".")


# --- the file -----------------------------------------------------------------------------------------------------


def test_the_file_of_the_documentation_is_read() -> None:
    Path(".env").write_text(
        "# Slack\n"
        "SLACK_CHANNEL=#ops-alerts\n"
        "SLACK_BOT_TOKEN=xoxb-your-bot-token\n"
        "SLACK_SIGNING_SECRET=your-signing-secret\n"
        "SLACK_MIN_ANOMALY_SCORE=0.6\n"
        "SLACK_SERVICE_FILTER=payment-api,checkout-service,auth-service\n"
        "SLACK_QUIET_HOURS_START=23:00\n"
        "SLACK_QUIET_HOURS_END=07:00\n"
        "SLACK_QUIET_HOURS_TZ=America/New_York\n"
        f"INFRASAGE_API_KEYS='{json.dumps([key()])}'\n"
        "TEMPORAL_ADDRESS=localhost:7233\n"
        "SOMETHING_ELSE=x\n",
        encoding="utf-8",
    )
    settings = load_settings()
    assert settings.slack_mode is SlackMode.BOT
    assert settings.slack_channel == "#ops-alerts"
    assert settings.rules.services == ("payment-api", "checkout-service", "auth-service")
    assert str(settings.rules.quiet) == "23:00–07:00 America/New_York"
    assert settings.infrasage_api_keys[0].name == "ops"


def test_the_environment_wins_over_the_file_and_a_blank_in_it_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("SLACK_CHANNEL=#file\nCLICKHOUSE_HOST=from-file\n")
    settings = load(monkeypatch, SLACK_CHANNEL="#environment", CLICKHOUSE_HOST="")
    assert (settings.slack_channel, settings.clickhouse_host) == ("#environment", "from-file")


def test_a_wrong_value_in_the_file_is_the_same_sentence() -> None:
    Path(".env").write_text("SLACK_MIN_ANOMALY_SCORE=hunter2\nINFRASAGE_API_KEYS=[\n")
    with pytest.raises(SettingsError) as refused:
        load_settings()
    assert str(refused.value) == (
        "SLACK_MIN_ANOMALY_SCORE must be a number from 0 to 1. "
        "INFRASAGE_API_KEYS must be a JSON list of objects with name, role, scope and key_sha256; it must be valid JSON."
    )


@pytest.mark.parametrize("content", [b"SLACK_CHANNEL=#a\xff\n", b"\xff\xfeS\x00L\x00"])
def test_a_file_that_is_not_utf_8_is_one_sentence(content: bytes) -> None:
    Path(".env").write_bytes(content)
    with pytest.raises(SettingsError, match=r"^The file \.env must be readable and in UTF-8\.$"):
        load_settings()


def test_settings_cannot_be_changed_once_they_are_read() -> None:
    settings = load_settings()
    with pytest.raises(ValueError, match="frozen"):
        settings.slack_channel = "#other"
