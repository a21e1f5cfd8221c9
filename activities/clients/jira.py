"""Jira Cloud, REST API v3: find a ticket by its label, and create one.

https://developer.atlassian.com/cloud/jira/platform/rest/v3/api-group-issue-search/ (the search without `/jql` is gone since 2025)
and …/api-group-issues/. The token travels in the Authorization header and nowhere else.
"""

from collections.abc import Mapping
from typing import Any, cast

from pydantic import SecretStr

from activities.clients.json_service import JsonAnswer, JsonService, slowed_down
from activities.errors import OrchestratorError, OutcomeUnknown, Refused, Unreachable, clip
from domain.tickets import Ticket, TicketDraft

SAID_CHARACTERS = 300
FOUND_LIMIT = 10
"""Tickets of one label that are looked at; there is one."""


class Jira:
    """One project of the site at JIRA_URL."""

    def __init__(self, url: str, *, user: str, token: SecretStr, project_key: str, issue_type: str = "Task") -> None:
        self._url = url
        self._token = token
        self._project_key = project_key
        self._issue_type = issue_type
        self._service = JsonService("Jira", url, basic=(user, token.get_secret_value()))

    @property
    def project_key(self) -> str:
        return self._project_key

    async def find(self, label: str) -> Ticket | None:
        """The oldest ticket with the label. The search lags behind: a ticket made some seconds ago may not be found yet.

        Raises: Unreachable, RateLimited, Refused. Safe to call twice.
        """
        body = {
            "jql": f'project = "{self._project_key}" AND labels = "{label}" ORDER BY created ASC',
            "fields": ["labels"],
            "maxResults": FOUND_LIMIT,
        }
        try:
            answer = await self._service.call("POST", "/rest/api/3/search/jql", json=body)
        except OutcomeUnknown as error:
            raise Unreachable(str(error)) from None
        if answer.status >= 500:
            raise Unreachable(f"{self._service.where} could not search at this moment (HTTP {answer.status})")
        issues = answer.fields.get("issues")
        if answer.status != 200 or not isinstance(issues, list):
            raise self._failure(answer, "the search")
        # Compared here too: how JQL compares labels (letter case) is not for us to rely on.
        keys = (str(issue["key"]) for issue in cast("list[Mapping[str, Any]]", issues) if label in _labels(issue))
        return next((self._ticket(key) for key in keys), None)

    async def create(self, draft: TicketDraft) -> Ticket:
        """Create a ticket. Not safe to call twice.

        Raises: Unreachable, RateLimited, Refused when none was made; OutcomeUnknown when that is not known.
        """
        fields = {
            "project": {"key": self._project_key},
            "issuetype": {"name": self._issue_type},
            "summary": draft.summary,
            "description": draft.description,
            "labels": [draft.label],
        }
        answer = await self._service.call("POST", "/rest/api/3/issue", json={"fields": fields})
        key = answer.fields.get("key")
        if answer.status == 201 and isinstance(key, str):
            return self._ticket(key)
        if answer.status >= 500 or 200 <= answer.status < 300:
            raise OutcomeUnknown(f"{self._service.where} answered HTTP {answer.status} and named no ticket: one may have been made")
        raise self._failure(answer, "the ticket")

    async def aclose(self) -> None:
        await self._service.aclose()

    def _ticket(self, key: str) -> Ticket:
        return Ticket(key=key, url=f"{self._url}/browse/{key}")

    def _failure(self, answer: JsonAnswer, what: str) -> OrchestratorError:
        where, said = self._service.where, self._said(answer)
        match answer.status:
            case 429:
                return slowed_down(where, answer)
            case 401:
                return Refused(f"{where} does not let this user in: check JIRA_USER and JIRA_API_TOKEN")
            case 403:
                return Refused(f"{where} denies this user {what}{said}: check the permissions in {self._project_key}")
            case 400:
                return Refused(f"{where} refused {what}{said}: check JIRA_PROJECT_KEY and JIRA_ISSUE_TYPE")
            case status:
                return Refused(f"{where} answered HTTP {status}{said}, and not as Jira Cloud does: check JIRA_URL")

    def _said(self, answer: JsonAnswer) -> str:
        """Jira's own words, in brackets; nothing where it said none."""
        messages, errors = answer.fields.get("errorMessages"), answer.fields.get("errors")
        texts = [str(text) for text in cast("list[Any]", messages)] if isinstance(messages, list) else []
        if isinstance(errors, dict):
            texts += [f"{name}: {text}" for name, text in cast("dict[str, Any]", errors).items()]
        words = " ".join("; ".join(texts).split()).replace(self._token.get_secret_value(), "[hidden]")
        return f" ({clip(words, SAID_CHARACTERS)})" if words else ""


def _labels(issue: Mapping[str, Any]) -> list[str]:
    fields: Any = issue.get("fields")
    labels = cast("Mapping[str, Any]", fields).get("labels") if isinstance(fields, dict) else None
    return [str(label) for label in cast("list[Any]", labels)] if isinstance(labels, list) else []
