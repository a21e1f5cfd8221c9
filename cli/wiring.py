"""The composition root: every client is built here from the settings, handed to who uses it, and closed in reverse order."""

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from temporalio.client import Client
from temporalio.service import RPCError

from activities.clients.clickhouse import ClickHouse, open_clickhouse
from activities.clients.cluster import KubernetesCluster
from activities.clients.jira import Jira
from activities.clients.pagerduty import PagerDuty
from activities.clients.prometheus import Prometheus
from activities.clients.runbook_files import RunbookFiles
from activities.clients.slack_web import SlackBot, SlackWebhook
from activities.clients.ssh import SshClient
from activities.clients.web import WebClient
from activities.errors import NotConfigured, OrchestratorError, TransientError
from activities.messages.parts import Surroundings
from activities.records import RecordsActivities
from activities.secrets import Secrets
from activities.slack import SlackActivities
from activities.steps import StepActivities, build_step_types
from activities.steps.page import PagingActivities
from activities.triage import TriageActivities
from api.app import create_app
from api.auth import KeyRing
from api.temporal import TemporalAccess
from cli.output import Failure
from domain.audit import AuditEvent
from domain.settings import Settings
from workflows import search
from workflows.connection import LOCAL_TEMPORAL, connect, ensure_search_attributes

MIGRATION_PAUSE = timedelta(seconds=5)
"""Between tries at a ClickHouse that does not answer yet; runbooks run meanwhile, their records wait in Temporal."""

NO_DATA_DIR = Path("/nonexistent")
"""A part of its own has no data directory: its ClickHouse is a server."""

IN_A_POD = "KUBERNETES_SERVICE_HOST"
"""Set by Kubernetes in every container (kubernetes.io/docs/tasks/run-application/access-api-from-pod)."""

CONNECT_TIMEOUT = timedelta(seconds=20)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class World:
    """The clients of one process, and what they were built from."""

    settings: Settings
    records: ClickHouse
    runbooks: RunbookFiles
    secrets: Secrets
    bot: SlackBot | None
    webhook: SlackWebhook | None
    web: WebClient
    cluster: KubernetesCluster | None
    shell: SshClient | None
    prometheus: Prometheus | None
    pager: PagerDuty
    jira: Jira | None

    def activities(self) -> list[Callable[..., Any]]:
        """Every activity of the orchestrator, for one worker."""
        slack = self.bot or self.webhook
        step_types = build_step_types(
            slack=slack,
            web=self.web,
            cluster=self.cluster,
            secrets=self.secrets,
            prometheus=self.prometheus,
            clickhouse=self.records,
            shell=self.shell,
            pager=self.pager,
            routes=self.settings.routes,
            tracker=self.jira,
            console_url=self.settings.infrasage_url,
        )
        triage = TriageActivities(self.settings, self.records, self.runbooks)
        records = RecordsActivities(self.records)
        messages = SlackActivities(self.settings.infrasage_url, offers=self.settings.offers, bot=self.bot, webhook=self.webhook)
        paging = PagingActivities(self.pager, self.settings.routes)
        steps = StepActivities(step_types, self.secrets)
        return [triage.triage, records.append, records.remember, messages.deliver, *paging.all, *steps.all]

    def app(self, temporal: Client, keys: KeyRing | None = None) -> FastAPI:
        """The HTTP edge on the same clients."""
        return create_app(
            self.settings,
            TemporalAccess(temporal),
            self.records,
            self.runbooks,
            surroundings=surroundings_of(self.settings),
            bot=self.bot,
            keys=keys,
        )


@contextlib.asynccontextmanager
async def open_world(settings: Settings, data_dir: Path, *, allow_loopback: bool = False) -> AsyncGenerator[World]:
    """Build the clients; nothing is connected before its first call. Raises: NotConfigured naming the setting.

    data_dir: of the embedded ClickHouse, where no server is configured.
    allow_loopback: http steps may reach this machine, as in the embedded stack.
    """
    async with contextlib.AsyncExitStack() as stack:
        records = open_clickhouse(settings, data_dir)
        stack.push_async_callback(records.aclose)
        bot, webhook = open_bot(settings), open_webhook(settings)
        for slack in (bot, webhook):
            if slack is not None:
                stack.push_async_callback(slack.aclose)
        web = WebClient(settings.runbook_http_allow, allow_loopback=allow_loopback)
        stack.push_async_callback(web.aclose)
        cluster = open_cluster(settings)
        if cluster is not None:
            stack.push_async_callback(cluster.aclose)
        prometheus = Prometheus(settings.prometheus_url) if settings.prometheus_url else None
        pager, jira = PagerDuty(settings.pagerduty_events_url), open_jira(settings)
        for service in (prometheus, pager, jira):
            if service is not None:
                stack.push_async_callback(service.aclose)
        yield World(
            settings=settings,
            records=records,
            runbooks=RunbookFiles(settings.runbooks_dir),
            secrets=Secrets.from_environment(settings.runbook_secrets, os.environ),
            bot=bot,
            webhook=webhook,
            web=web,
            cluster=cluster,
            prometheus=prometheus,
            pager=pager,
            jira=jira,
            shell=await open_shell(settings),
        )


def surroundings_of(settings: Settings) -> Surroundings:
    """What alerts refer to: the console, and the buttons that work."""
    return Surroundings(settings.infrasage_url, interactive=settings.slack_bot_token is not None, offers=settings.offers)


def open_bot(settings: Settings) -> SlackBot | None:
    """The Slack bot, if a token is set; the settings see to it that a channel is."""
    if settings.slack_bot_token is None or settings.slack_channel is None:
        return None
    return SlackBot(settings.slack_bot_token, settings.slack_channel, api_url=settings.slack_api_url)


async def open_shell(settings: Settings) -> SshClient | None:
    """The hosts of RUNBOOK_SHELL_HOSTS, if it is set. Raises: NotConfigured naming every fault of the file and of its keys."""
    if settings.runbook_shell_hosts is None:
        return None
    return await asyncio.to_thread(SshClient.from_file, settings.runbook_shell_hosts)


def open_webhook(settings: Settings) -> SlackWebhook | None:
    """The webhook, if one is set and no bot does its work."""
    if settings.slack_webhook_url is None or settings.slack_bot_token is not None:
        return None
    return SlackWebhook(settings.slack_webhook_url, settings.slack_channel)


def open_jira(settings: Settings) -> Jira | None:
    """Jira, if it is configured; the settings see to it that it is whole."""
    url, user, token, project_key = settings.jira_url, settings.jira_user, settings.jira_api_token, settings.jira_project_key
    if url is None or user is None or token is None or project_key is None:
        return None
    return Jira(url, user=user, token=token, project_key=project_key, issue_type=settings.jira_issue_type)


def open_cluster(settings: Settings) -> KubernetesCluster | None:
    """The cluster of KUBECONFIG or of this pod; None when there is neither. Raises: NotConfigured for a KUBECONFIG of no use."""
    try:
        return KubernetesCluster.from_environment(settings.kubeconfig)
    except NotConfigured as error:
        if settings.kubeconfig is not None:
            raise
        if IN_A_POD in os.environ:
            log.warning("%s", error)
        return None


@contextlib.asynccontextmanager
async def migrated(records: ClickHouse) -> AsyncGenerator[None]:
    """Have the tables before the work begins. A ClickHouse that does not answer is tried again beside the work.

    Raises: the error of a ClickHouse that says no.
    """
    task: asyncio.Task[None] | None = None
    try:
        await _migrate(records)
    except TransientError as error:
        log.warning("%s; what is to be recorded waits until it answers", error)
        task = asyncio.create_task(_migrate_later(records))
    try:
        yield
    finally:
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)  # cancelled, or its failure is in the log


async def _migrate(records: ClickHouse) -> None:
    for name in await records.migrate():
        log.info("ClickHouse: applied the migration “%s”", name)


async def _migrate_later(records: ClickHouse) -> None:
    while True:
        await asyncio.sleep(MIGRATION_PAUSE.total_seconds())
        try:
            await _migrate(records)
            return
        except OrchestratorError as error:
            log.warning("ClickHouse cannot be migrated yet: %s", error)


class NoRecords:
    """The audit log of an API process without a ClickHouse server: the embedded one is another process's."""

    async def audit_rows(self, incident_id: str | None, limit: int) -> list[AuditEvent]:
        """Raises: NotConfigured."""
        raise NotConfigured(
            "CLICKHOUSE_HOST is not set for this API, and the embedded ClickHouse can be read by `infrasage up` alone"
        )

    async def aclose(self) -> None:
        """There is nothing to close."""


def records_reader(settings: Settings) -> ClickHouse | NoRecords:
    """Where an API process of its own reads the audit log."""
    return NoRecords() if settings.clickhouse_host is None else open_clickhouse(settings, NO_DATA_DIR)


async def connect_temporal(*, lazy: bool = False) -> Client:
    """Connect as `TEMPORAL_*` say. Raises: Failure, one sentence. `lazy`: connect at the first call."""
    where = os.environ.get("TEMPORAL_ADDRESS") or LOCAL_TEMPORAL
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT.total_seconds()):
            return await connect(lazy=lazy)
    except TimeoutError:
        sentence = f"Temporal at {where} did not answer within {CONNECT_TIMEOUT.total_seconds():g} s"
    except (RuntimeError, RPCError):  # the client's own text is a chain of causes, several lines long
        sentence = f"Temporal cannot be reached at {where}"
    except (OSError, ValueError, TypeError, KeyError) as error:
        sentence = f"The TEMPORAL_* settings cannot be used ({type(error).__name__})"
    raise Failure(
        f"{sentence}: check TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE and the TEMPORAL_TLS_* variables, or start `infrasage up`."
    )


async def have_search_attributes(client: Client) -> None:
    """Register the search attributes, or say which have to be registered by somebody who may (as in Temporal Cloud)."""
    try:
        await ensure_search_attributes(client)
    except RPCError as error:
        names = ", ".join(key.name for key in search.ALL)
        log.warning(
            "the search attributes could not be registered (%s): the namespace %s needs the keywords %s",
            error.status.name.lower(),
            client.namespace,
            names,
        )
