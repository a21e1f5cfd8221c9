"""Search attributes as the API writes them and searches for them: what Temporal's visibility can store and compare."""

import json
from collections.abc import Mapping

from temporalio.common import SearchAttributeKey, SearchAttributePair

from api.problems import Fault, invalid
from workflows import search

UNQUOTABLE = frozenset({"'", '"', "\\"})

ATTRIBUTE_BYTES = 2_048
"""Of one search attribute as JSON (Temporal's `limit.searchAttributesSizeOfValue`)."""


def service_attribute(service_id: str) -> SearchAttributePair[str]:
    """The search attribute of a service. Raises Problem 422 for a name that Temporal could not store as one.

    Without this check such an incident could never be started, nor could its workflow start a run.
    """
    size = len(json.dumps(service_id))  # the SDK writes it so: 12 bytes for an emoji
    if size > ATTRIBUTE_BYTES:
        reason = f"takes {size} bytes when it is stored, {ATTRIBUTE_BYTES} are allowed: use fewer emoji or letters beyond ASCII"
        raise invalid([Fault(path="service_id", reason=reason)])
    return SearchAttributePair(search.SERVICE, service_id)


def visibility_query(kind: str, filters: Mapping[SearchAttributeKey[str], str]) -> str:
    """The query that finds at least what `filters` name, and no other kind than `kind`; the caller compares the values itself.

    A value with a quote or a backslash is left out: the server compares such values wrongly however they are quoted (tried with
    server 1.32), and so no text of a caller can reach the query's grammar.
    """
    clauses = [f"WorkflowType = {quoted(kind)}"]
    clauses += [f"{key.name} = {quoted(value)}" for key, value in filters.items() if not UNQUOTABLE & set(value)]
    return " AND ".join(clauses)


def quoted(value: str) -> str:
    """A string of the visibility query language. Raises ValueError for what cannot be one."""
    if UNQUOTABLE & set(value):
        raise ValueError("a value with a quote or a backslash cannot be searched for")
    return f"'{value}'"
