"""The manifest creates an app that fits this API: its addresses exist, and its scopes are those the bot needs."""

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from activities.clients.slack_web import REQUIRED_SCOPES
from tests.api.edge import COMMANDS, INTERACTIONS

MANIFEST = Path(__file__).parents[2] / "slack" / "manifest.yaml"


@pytest.fixture
def manifest() -> dict[str, Any]:
    return yaml.safe_load(MANIFEST.read_text(encoding="utf-8"))


def test_the_scopes_are_those_that_the_bot_needs(manifest: dict[str, Any]) -> None:
    assert sorted(manifest["oauth_config"]["scopes"]["bot"]) == sorted(REQUIRED_SCOPES)


def test_the_addresses_are_those_of_this_api(manifest: dict[str, Any]) -> None:
    command = manifest["features"]["slash_commands"][0]
    clicks = manifest["settings"]["interactivity"]
    assert command["command"] == "/infrasage" and clicks["is_enabled"] is True
    assert [urlsplit(address).path for address in (command["url"], clicks["request_url"])] == [COMMANDS, INTERACTIONS]
    assert all(urlsplit(address).scheme == "https" for address in (command["url"], clicks["request_url"]))


def test_texts_keep_within_slacks_limits(manifest: dict[str, Any]) -> None:
    """docs.slack.dev/reference/app-manifest: name 35 characters, description 140; of a command 2,000 and its hint 1,000."""
    shown = manifest["display_information"]
    assert len(shown["name"]) <= 35 and len(shown["description"]) <= 140
    assert len(manifest["features"]["slash_commands"][0]["usage_hint"]) <= 1_000
