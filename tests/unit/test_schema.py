"""The published JSON Schema is current, and agrees with the loader about the samples."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from domain.runbook import RunbookFaults, load_runbook
from domain.schema import runbook_schema

ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT / "docs" / "runbook.schema.json"
SAMPLES = sorted(path for path in (ROOT / "runbooks").iterdir() if path.suffix in (".yaml", ".yml", ".json"))


def document(path: Path) -> Any:
    return json.loads(path.read_text()) if path.suffix == ".json" else yaml.safe_load(path.read_text())


def test_the_published_schema_is_what_the_models_say() -> None:
    assert json.loads(PUBLISHED.read_text()) == runbook_schema(), "run `infrasage runbooks schema > docs/runbook.schema.json`"


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_a_sample_fits_the_schema(path: Path) -> None:
    jsonschema.validate(document(path), runbook_schema())


@pytest.mark.parametrize("change", [{"steps": []}, {"steps": [{"type": "magic"}]}, {"name": 7}, {"nonsense": 1}])
def test_what_does_not_load_does_not_fit(change: dict[str, Any]) -> None:
    broken = {**document(ROOT / "runbooks" / "scale-out-payment-api.yaml"), **change}
    with pytest.raises(RunbookFaults):
        load_runbook(broken)
    if change != {"steps": []}:  # a length that only the loader checks
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, runbook_schema())
