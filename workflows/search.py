"""The typed search attributes: by them incidents and runs are listed and found in the Temporal UI."""

from temporalio.common import SearchAttributeKey

SERVICE = SearchAttributeKey.for_keyword("InfrasageService")
SEVERITY = SearchAttributeKey.for_keyword("InfrasageSeverity")
STATUS = SearchAttributeKey.for_keyword("InfrasageStatus")
RUNBOOK = SearchAttributeKey.for_keyword("InfrasageRunbook")

ALL = (SERVICE, SEVERITY, STATUS, RUNBOOK)
