"""Imports run one way only, vendor libraries stay in their rooms, and a violation of either would be noticed."""

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("domain", "activities", "workflows", "api", "cli")


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run `lint-imports` in a checkout, with the packages of that checkout and not of any other."""
    command = Path(sys.executable).with_name("lint-imports")
    return subprocess.run([str(command), "--no-cache"], cwd=folder, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A copy of the packages that may be violated."""
    for room in ROOMS:
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__", "static", "templates"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_contracts_hold() -> None:
    linted = lint(ROOT)
    assert linted.returncode == 0, linted.stdout + linted.stderr


VIOLATIONS = [
    ("domain.first", "activities.errors"),
    ("domain.second", "temporalio"),
    ("activities.first", "workflows.ids"),
    ("activities.errors", "httpx"),
    ("workflows.first", "api.problems"),
    ("workflows.second", "httpx"),
    ("api.first", "cli"),
]


def test_every_import_against_the_grain_is_noticed(copied: Path) -> None:
    for importer, imports in VIOLATIONS:
        target = copied / (importer.replace(".", "/") + ".py")
        before = target.read_text(encoding="utf-8") if target.exists() else ""
        target.write_text(f"import {imports}\n{before}", encoding="utf-8")
    linted = lint(copied)
    assert linted.returncode == 1
    assert "Contracts: 0 kept, 4 broken." in linted.stdout, linted.stdout + linted.stderr
    unnoticed = [violation for violation in VIOLATIONS if " -> ".join(violation) not in linted.stdout]
    assert unnoticed == []


def test_every_contract_is_about_modules_that_exist(copied: Path) -> None:
    """The linter stops at a module that is gone, so that a contract cannot go blind by a renaming."""
    (copied / "activities" / "errors.py").rename(copied / "activities" / "failures.py")
    linted = lint(copied)
    assert linted.returncode != 0
    assert "activities.errors" in linted.stdout + linted.stderr


VENDORS: dict[str, tuple[str, ...]] = {
    "chdb": ("activities/clients/",),
    "clickhouse_connect": ("activities/clients/",),
    "lightkube": ("activities/clients/",),
    "httpx": ("activities/clients/", "cli/"),
    "aiohttp": ("activities/clients/", "cli/"),
    "slack_sdk": ("activities/clients/", "activities/messages/", "api/slack/"),
    "slack_bolt": ("api/slack/",),
    "fastapi": ("api/", "cli/"),
    "starlette": ("api/",),
    "uvicorn": ("cli/",),
    "typer": ("cli/",),
    "rich": ("cli/",),
    "kmock": ("cli/",),
    "temporalio": ("activities/", "workflows/", "api/", "cli/"),
    "pydantic_settings": ("domain/settings.py", "cli/"),
    "simpleeval": ("domain/conditions.py",),
}
"""Library → where it may be imported. The linter's contracts name modules; this table also holds for those that come later."""


def imported(source: str) -> Iterator[str]:
    """The top-level packages that a module imports anywhere in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def strays(folder: Path) -> set[str]:
    """`module: library` for each vendor library imported outside of its rooms."""
    modules = [module for room in ROOMS for module in (folder / room).rglob("*.py")]
    assert len(modules) > 20
    return {
        f"{place}: {library}"
        for module in modules
        for library in imported(module.read_text(encoding="utf-8"))
        if not (place := module.relative_to(folder).as_posix()).startswith(VENDORS.get(library, ("",)))
    }


def test_vendor_libraries_stay_in_their_rooms() -> None:
    assert strays(ROOT) == set()


@pytest.mark.parametrize(
    ("module", "line", "stray"),
    [
        ("activities/violation.py", "import httpx", "activities/violation.py: httpx"),
        (
            "activities/steps/violation.py",
            "def f():\n    from lightkube.core import client",
            "activities/steps/violation.py: lightkube",
        ),
        ("api/violation.py", "from slack_sdk.web import client", "api/violation.py: slack_sdk"),
        ("workflows/violation.py", "import clickhouse_connect as c", "workflows/violation.py: clickhouse_connect"),
        ("domain/violation.py", "import temporalio.workflow", "domain/violation.py: temporalio"),
    ],
)
def test_a_vendor_library_outside_its_rooms_is_noticed(copied: Path, module: str, line: str, stray: str) -> None:
    (copied / module).write_text(line, encoding="utf-8")
    assert strays(copied) - strays(ROOT) == {stray}
