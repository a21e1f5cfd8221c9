"""The JSON Schema of the runbook format, for editors: generated from the models, so that both say the same."""

from typing import Any

from domain.runbook import Runbook

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def runbook_schema() -> dict[str, Any]:
    """What a runbook file may look like. Rules that span keys are checked by the loader alone."""
    return {"$schema": DIALECT, **Runbook.model_json_schema(), "title": "InfraSage runbook", "additionalProperties": False}
