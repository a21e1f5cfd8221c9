"""`infrasage doctor`: one line for each thing that InfraSage works with, and exit 1 if something that is needed does not."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from pathlib import Path

from rich.text import Text
from temporalio.api.operatorservice.v1 import ListSearchAttributesRequest
from temporalio.client import Client
from temporalio.service import RPCError

from activities.clients.clickhouse import open_clickhouse
from activities.clients.runbook_files import RunbookFiles
from activities.errors import NotConfigured, OrchestratorError
from activities.secrets import Secrets, references
from cli import local_stack
from cli.output import Failure, foreign, print_json, say, waiting
from cli.wiring import IN_A_POD, connect_temporal, open_bot, open_cluster, open_webhook
from domain.incident import SlackMode
from domain.runbook import HttpStep, KubernetesStep, Runbook, ShellStep
from domain.settings import Settings, SettingsError, load_settings
from workflows import search

CHECK_TIMEOUT = timedelta(seconds=30)
"""Of one check; each client has shorter bounds of its own."""


class Grade(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "FAIL"


@dataclass(frozen=True)
class Finding:
    """One line."""

    grade: Grade
    subject: str
    sentence: str


_COLOURS = {Grade.OK: "green", Grade.WARN: "yellow", Grade.FAIL: "bold red"}


def run_doctor(data_dir: Path, *, as_json: bool) -> None:
    """Check everything and print it. Raises: Failure if something required fails."""
    with waiting("Asking Temporal, ClickHouse, Slack and Kubernetes"):
        findings = asyncio.run(examine(data_dir))
    failed = [finding.subject for finding in findings if finding.grade is Grade.FAIL]
    if as_json:
        checks = [{"check": item.subject, "grade": item.grade.value, "sentence": item.sentence} for item in findings]
        print_json({"ok": not failed, "checks": checks})
    else:
        for item in findings:
            line = Text.assemble((f"{item.grade.value:<5}", _COLOURS[item.grade]), (f"{item.subject:<14}", "bold"))
            say(line.append_text(foreign(item.sentence)))
    if failed:
        raise Failure(f"{', '.join(failed)} cannot be used as configured.")


async def examine(data_dir: Path) -> list[Finding]:
    """Every finding, in the order in which things are needed; without usable settings there is only one."""
    try:
        settings = load_settings()
    except SettingsError as error:
        return [Finding(Grade.FAIL, "configuration", str(error))]
    checks: list[tuple[str, Callable[[], Awaitable[list[Finding]]]]] = [
        ("Temporal", lambda: _temporal(data_dir)),
        ("ClickHouse", lambda: _clickhouse(settings, data_dir)),
        ("Slack", lambda: _slack(settings)),
        ("Kubernetes", lambda: _kubernetes(settings)),
        ("runbooks", lambda: _runbooks(settings)),
    ]
    found = await asyncio.gather(*(_checked(subject, check) for subject, check in checks))
    return [_configuration(settings), *(finding for findings in found for finding in findings)]


async def _checked(subject: str, check: Callable[[], Awaitable[list[Finding]]]) -> list[Finding]:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT.total_seconds()):
            return await check()
    except TimeoutError:
        sentence = f"no answer within {CHECK_TIMEOUT.total_seconds():g} s"
    except (OrchestratorError, Failure) as error:
        sentence = str(error)
    return [Finding(Grade.FAIL, subject, sentence)]


def _configuration(settings: Settings) -> Finding:
    named = sorted(name.upper() for name in settings.model_fields_set)
    return Finding(Grade.OK, "configuration", f"set are {', '.join(named)}" if named else "nothing is set: the defaults hold")


async def _temporal(data_dir: Path) -> list[Finding]:
    client, where = await _temporal_client(data_dir)
    try:
        known = await client.operator_service.list_search_attributes(ListSearchAttributesRequest(namespace=client.namespace))
    except RPCError as error:
        return [Finding(Grade.FAIL, "Temporal", f"{where} answers, but not about its namespace ({error.status.name.lower()})")]
    missing = [key.name for key in search.ALL if key.name not in known.custom_attributes]
    if missing:
        sentence = f"{where} answers, but lacks the search attributes {', '.join(missing)}: start `infrasage worker` once"
        return [Finding(Grade.WARN, "Temporal", sentence)]
    return [Finding(Grade.OK, "Temporal", f"{where} answers, its search attributes are there")]


async def _temporal_client(data_dir: Path) -> tuple[Client, str]:
    """The Temporal that TEMPORAL_* name; where they name none, that of the local stack. Raises: Failure."""
    stack = local_stack.running_stack(data_dir)
    if stack is None or os.environ.get("TEMPORAL_ADDRESS") or os.environ.get("TEMPORAL_PROFILE"):
        client = await connect_temporal()
        return client, f"{client.service_client.config.target_host}, namespace {client.namespace},"
    try:
        return await Client.connect(stack.temporal), f"{stack.temporal}, of the local stack,"
    except RuntimeError:
        raise Failure(f"the local stack runs, but its Temporal at {stack.temporal} does not answer") from None


async def _clickhouse(settings: Settings, data_dir: Path) -> list[Finding]:
    if settings.clickhouse_host is None:
        if local_stack.running_stack(data_dir) is not None:
            return [Finding(Grade.OK, "ClickHouse", f"embedded, in use by the local stack on {data_dir}")]
        if not (data_dir / "clickhouse").is_dir():
            return [Finding(Grade.OK, "ClickHouse", f"embedded; `infrasage up` makes it in {data_dir}")]
    records = open_clickhouse(settings, data_dir)
    try:
        version = await records.ping()
        applied = await records.migrate()
    finally:
        await records.aclose()
    where = f"{settings.clickhouse_host}, database {settings.clickhouse_database}," if settings.clickhouse_host else "embedded,"
    tables = f"applied now: {', '.join(applied)}" if applied else "its tables are up to date"
    return [Finding(Grade.OK, "ClickHouse", f"{where} version {version}; {tables}")]


async def _slack(settings: Settings) -> list[Finding]:
    match settings.slack_mode:
        case SlackMode.BOT:
            return await _bot(settings)
        case SlackMode.WEBHOOK:
            webhook = open_webhook(settings)
            if webhook is not None:
                try:
                    await webhook.check()
                finally:
                    await webhook.aclose()
            return [Finding(Grade.OK, "Slack", "the webhook answers; approvals are on the command line")]
        case SlackMode.OFF:
            sentence = "not configured: alerts and approvals are on the command line"
            return [Finding(Grade.WARN, "Slack", sentence)]


async def _bot(settings: Settings) -> list[Finding]:
    bot = open_bot(settings)
    if bot is None:
        raise NotConfigured("SLACK_BOT_TOKEN and SLACK_CHANNEL must be set together")
    try:
        identity = await bot.check()
    finally:
        await bot.aclose()
    if identity.missing_scopes:
        missing = ", ".join(identity.missing_scopes)
        return [Finding(Grade.FAIL, "Slack", f"the token of {identity.bot_user} in {identity.team} lacks the scopes {missing}")]
    scopes = "its scopes suffice" if identity.scopes is not None else "Slack did not tell its scopes"
    return [
        Finding(Grade.OK, "Slack", f"{identity.bot_user} in {identity.team}, posting to {settings.slack_channel}; {scopes}"),
        Finding(
            Grade.WARN,
            "approvals",
            f"no approver policy exists: anyone who can reach the app in Slack ({settings.slack_channel}) may approve a step",
        ),
    ]


async def _kubernetes(settings: Settings) -> list[Finding]:
    cluster = open_cluster(settings)
    if cluster is None:
        return [Finding(Grade.WARN, "Kubernetes", "not configured: kubernetes steps are refused until KUBECONFIG is set")]
    try:
        return [Finding(Grade.OK, "Kubernetes", await cluster.check())]
    finally:
        await cluster.aclose()


async def _runbooks(settings: Settings) -> list[Finding]:
    runbooks, faults = await asyncio.to_thread(RunbookFiles(settings.runbooks_dir).load)
    found = [Finding(Grade.FAIL, "runbooks", fault) for fault in faults]
    if runbooks:
        found.append(Finding(Grade.OK, "runbooks", f"{len(runbooks)} in {settings.runbooks_dir} can be used"))
    elif not faults:
        found.append(Finding(Grade.WARN, "runbooks", f"there are none in {settings.runbooks_dir}"))
    return [*found, *(Finding(Grade.WARN, "runbooks", sentence) for sentence in _unready(runbooks, settings))]


def _unready(runbooks: tuple[Runbook, ...], settings: Settings) -> list[str]:
    """What the runbooks need and these settings do not give: such a step would be refused in the middle of an incident."""
    secrets = Secrets.from_environment(settings.runbook_secrets, os.environ)
    sentences: list[str] = []
    for runbook in runbooks:
        for number, step in enumerate(runbook.steps, start=1):
            where = f"{runbook.name} step {number}"
            match step:
                case HttpStep():
                    sentences += [f"{where}: {fault}" for fault in _missing_secrets(step, secrets)]
                case KubernetesStep() if settings.kubeconfig is None and IN_A_POD not in os.environ:
                    sentences.append(f"{where} needs a cluster: set KUBECONFIG")
                case ShellStep() if settings.runbook_shell_hosts is None:
                    sentences.append(f"{where} needs a host: set RUNBOOK_SHELL_HOSTS")
                case _:
                    continue
    return sentences


def _missing_secrets(step: HttpStep, secrets: Secrets) -> list[str]:
    names = dict.fromkeys(name for text in step.texts() for name in references(text))
    faults: list[str] = []
    for name in names:
        try:
            secrets.check(f"${name}")
        except NotConfigured as error:
            faults.append(str(error))
    return faults
