"""Jira Cloud's REST API v3 on loopback: it checks what the real one checks, and its search lags behind like the real one's."""

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.peers.http import HttpPeer, Received, answer, http_peer

USER, TOKEN = "bot@example.com", "plover-token/7f3d+AA=="
PROJECT = "OPS"

_JQL = re.compile(r'project = "(?P<project>[^"\\]+)" AND labels = "(?P<label>[^"\\]+)" ORDER BY created ASC')

_CONTENT_OF = {
    "doc": {"paragraph", "orderedList"},
    "orderedList": {"listItem"},
    "listItem": {"paragraph"},
    "paragraph": {"text"},
}
_MARKS = {"strong", "link"}


def faults_of(node: Any, expected: frozenset[str] | set[str] = frozenset({"doc"})) -> Iterator[str]:
    """What is wrong with a document, of the node types that we use, as the documentation of ADF gives them."""
    if not isinstance(node, dict) or node.get("type") not in expected:
        yield f"not one of {sorted(expected)}: {str(node)[:80]}"
        return
    kind = node["type"]
    if kind == "doc" and node.get("version") != 1:
        yield "a doc needs version 1"
    if kind == "text":
        if not isinstance(node.get("text"), str) or not node["text"] or "\n" in node["text"]:
            yield "a text needs characters, and none of them a line break"
        for mark in node.get("marks", []):
            if mark.get("type") not in _MARKS:
                yield f"no mark: {mark}"
            if mark.get("type") == "link" and not mark.get("attrs", {}).get("href", "").startswith("http"):
                yield "a link needs attrs.href"
        if not set(node) <= {"type", "text", "marks"}:
            yield f"unknown keys: {sorted(node)}"
        return
    if not set(node) <= {"type", "version", "content"}:
        yield f"unknown keys: {sorted(node)}"
    content = node.get("content")
    if not isinstance(content, list) or (kind in ("orderedList", "listItem") and not content):
        yield f"a {kind} needs content"
        return
    for child in content:
        yield from faults_of(child, _CONTENT_OF[kind])


@dataclass
class JiraPeer:
    """A site with one project; `issues` are in the order of their making."""

    http: HttpPeer
    issues: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    searches: int = 0
    lag: int = 0
    """How many searches after a create do not find it yet."""
    throttled: str = ""
    """`search` or `create`: which of both is answered with 429, until it is empty."""
    broken: str = ""
    """Which is answered with 500; a create then makes no ticket."""
    lost: int = 0
    """How many of the next creates are done, and never answered."""
    ignores_case: bool = False
    """Whether a search compares labels without their case, as some fields of Jira do."""

    @property
    def url(self) -> str:
        return self.http.url("").rstrip("/")

    def take(self, request: Received) -> tuple[int, Any]:
        """Judge a request as the documentation says. Status 0: no answer at all."""
        credentials = base64.b64encode(f"{USER}:{TOKEN}".encode()).decode()
        if request.headers.get("authorization") != f"Basic {credentials}":
            return 401, "Client must be authenticated to access this resource."
        operation = {"/rest/api/3/search/jql": "search", "/rest/api/3/issue": "create"}.get(request.target)
        if request.target == "/rest/api/3/search":
            return 410, {"errorMessages": ["The requested API has been removed. Please migrate to the /rest/api/3/search/jql API."]}
        if operation is None or request.method != "POST":
            return 404, {"errorMessages": ["null for uri"]}
        if self.throttled == operation:
            return 429, {"errorMessages": ["Rate limit exceeded"]}
        if self.broken == operation:
            return 500, {"errorMessages": ["Internal server error"]}
        if not request.headers.get("content-type", "").startswith("application/json"):
            return 415, None
        body = json.loads(request.body)
        return self._search(body) if operation == "search" else self._create(body)

    def _search(self, body: dict[str, Any]) -> tuple[int, Any]:
        self.searches += 1
        query = _JQL.fullmatch(body.get("jql", ""))
        if query is None:
            return 400, {"errorMessages": ["Error in the JQL Query: it could not be parsed."]}
        if query["project"] != PROJECT:
            return 400, {"errorMessages": [f"The value '{query['project']}' does not exist for the field 'project'."]}
        if self.lag:
            self.lag -= 1
            return 200, {"issues": [], "isLast": True}

        def fold(text: str) -> str:
            return text.casefold() if self.ignores_case else text

        found = [issue for issue in self.issues if fold(query["label"]) in map(fold, issue["fields"]["labels"])]
        wanted = body.get("fields", [])  # without them, only ids come back
        shown = [
            {"id": issue["id"], "key": issue["key"], "fields": {name: issue["fields"][name] for name in wanted}}
            if wanted
            else {"id": issue["id"]}
            for issue in found
        ]
        return 200, {"issues": shown[: body.get("maxResults", 50)], "isLast": True}

    def _create(self, body: dict[str, Any]) -> tuple[int, Any]:
        fields = body["fields"]
        errors: dict[str, str] = {}
        if fields.get("project") != {"key": PROJECT}:
            errors["project"] = "valid project is required"
        if fields.get("issuetype") not in ({"name": "Task"}, {"name": "Incident"}):
            errors["issuetype"] = "Specify a valid issue type"
        summary = fields.get("summary", "")
        if not summary or len(summary) > 255 or "\n" in summary:
            errors["summary"] = "You must specify a summary of the issue, of one line and less than 255 characters."
        faults = list(faults_of(fields.get("description")))
        if faults or len(json.dumps(fields.get("description"))) > 256_000:
            errors["description"] = f"Operation value must be an Atlassian Document ({faults})"
        if any(" " in label or len(label) > 255 for label in fields.get("labels", [])):
            errors["labels"] = "The label can't contain spaces."
        if errors:
            return 400, {"errorMessages": [], "errors": errors}
        number = len(self.issues) + 123
        issue = {"id": str(10_000 + number), "key": f"{PROJECT}-{number}", "fields": fields}
        self.issues.append(issue)
        if self.lost:
            self.lost -= 1
            return 0, None
        return 201, {"id": issue["id"], "key": issue["key"], "self": f"{self.url}/rest/api/3/issue/{issue['id']}"}


@asynccontextmanager
async def jira() -> AsyncIterator[JiraPeer]:
    """A site without tickets."""

    async def reply(request: Received, writer: asyncio.StreamWriter) -> None:
        status, body = peer.take(request)
        if status:
            headers = {"content-type": "application/json", **({"retry-after": "11"} if status == 429 else {})}
            await answer(status, json.dumps(body).encode(), headers)(request, writer)

    async with http_peer(reply) as http:
        peer = JiraPeer(http)
        yield peer
