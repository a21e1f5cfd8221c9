"""Settings of the services that are asked and told beside Slack: Prometheus, PagerDuty and Jira."""

import re
from typing import Annotated

from pydantic import BaseModel, Field, SecretStr, field_validator, model_validator

from domain.base import one_line
from domain.incident import EscalationKind
from domain.paging import Routes, RoutingRule, one_secret
from domain.web_address import stays_private, web_address

_PROJECT_KEY = re.compile(r"[A-Z][A-Z0-9_]{0,254}")
"""https://support.atlassian.com/jira-cloud-administration/docs/edit-a-projects-details/."""


class ServiceSettings(BaseModel):
    """A part of `domain.settings.Settings`, with the same rules."""

    prometheus_url: str | None = None

    pagerduty_service_key: SecretStr | None = None
    pagerduty_routing_rules: tuple[RoutingRule, ...] = ()
    """JSON list of {service_pattern, service_key}; the first that matches wins."""
    pagerduty_events_url: str = "https://events.pagerduty.com/v2/enqueue"

    jira_url: str | None = None
    jira_user: str | None = None
    jira_api_token: SecretStr | None = None
    jira_project_key: str | None = None
    jira_issue_type: Annotated[str, Field(max_length=255)] = "Task"

    @field_validator("prometheus_url")
    @classmethod
    def _is_a_web_address(cls, value: str | None) -> str | None:
        return None if value is None else web_address(value)

    @field_validator("pagerduty_service_key", "jira_api_token")
    @classmethod
    def _is_a_key(cls, value: SecretStr | None) -> SecretStr | None:
        return None if value is None else one_secret(value)

    @field_validator("pagerduty_events_url", "jira_url")
    @classmethod
    def _keeps_a_secret(cls, value: str | None) -> str | None:
        if value is None:
            return None
        address = web_address(value)
        if not stays_private(address):
            raise ValueError("must be an https:// URL, or an http:// URL of this machine: a key travels with every request")
        return address

    @field_validator("jira_user")
    @classmethod
    def _is_a_user(cls, value: str | None) -> str | None:
        if value is not None and (":" in value or " " in value or not value.isprintable()):
            raise ValueError("must be the email address of an Atlassian account")
        return value

    @field_validator("jira_project_key")
    @classmethod
    def _is_a_project(cls, value: str | None) -> str | None:
        if value is not None and not _PROJECT_KEY.fullmatch(value):
            raise ValueError(
                "must be the key of a Jira project, such as OPS: capitals, digits and _, of which the first is a capital"
            )
        return value

    @field_validator("jira_issue_type")
    @classmethod
    def _is_one_line(cls, value: str) -> str:
        return one_line(value)

    @model_validator(mode="after")
    def _jira_is_whole(self) -> "ServiceSettings":
        needed = ("jira_url", "jira_user", "jira_api_token", "jira_project_key")
        missing = [name.upper() for name in needed if getattr(self, name) is None]
        if 0 < len(missing) < len(needed):
            raise ValueError(
                f"{' and '.join(missing)} must be set too: tickets need JIRA_URL, JIRA_USER, JIRA_API_TOKEN and JIRA_PROJECT_KEY"
            )
        return self

    @property
    def routes(self) -> Routes:
        """Who is paged for which service."""
        return Routes(rules=self.pagerduty_routing_rules, default_key=self.pagerduty_service_key)

    @property
    def offers(self) -> frozenset[EscalationKind]:
        """The escalations that are configured, for which an alert has buttons."""
        can_page = bool(self.pagerduty_service_key or self.pagerduty_routing_rules)
        configured = {EscalationKind.TICKET: self.jira_url is not None, EscalationKind.PAGE: can_page}
        return frozenset(kind for kind, is_configured in configured.items() if is_configured)
