"""README and docs: pictures, tables, links and examples are held against what they speak of.

Run as a program, this module writes the pictures and the table of settings anew:

    .venv/bin/python -m tests.unit.test_readme
"""

import ast
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast, get_args

import kubernetes_validate
import pytest
import typer.main
import yaml
from fastapi.routing import iter_route_contexts

from activities.clients.cluster import KubernetesCluster
from activities.messages.alert import alert_message
from activities.messages.approval import approval_message
from activities.messages.parts import Surroundings
from activities.messages.terminal import to_text
from api.app import create_app
from api.metrics import Metrics
from cli.main import app
from cli.simulated_cluster import SimulatedCluster
from domain.anomaly import AnomalyReport
from domain.approval import ApprovalStatus
from domain.incident import EscalationKind
from domain.runbook import Input, Runbook, RunbookFaults, Step, StepBase, Trigger, load_runbook
from domain.settings import Settings
from tests.peers.slack_samples import CONSOLE, JANE, sample_alert, sample_card
from tests.unit import compose_file, env_example

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
PAGES = (README, *sorted((ROOT / "docs").glob("*.md")))
OPERATIONS = ROOT / "docs" / "operations.md"
RUNBOOKS = ROOT / "docs" / "runbooks.md"


def page(file: Path) -> str:
    return file.read_text(encoding="utf-8")


# --- what is generated --------------------------------------------------------------------------------------------

BOT = Surroundings(CONSOLE, interactive=True, offers=frozenset[EscalationKind]())


def _alert() -> str:
    return to_text(alert_message(sample_alert(), BOT).blocks)


def _approval() -> str:
    opened = sample_card().model_copy(update={"deadline_at": datetime(2026, 4, 10, 12, 10, 8, tzinfo=UTC)})
    return to_text(approval_message(opened, BOT).blocks)


def _outcome() -> str:
    decided_at = datetime(2026, 4, 10, 12, 1, 10, tzinfo=UTC)
    decided = sample_card().model_copy(update={"status": ApprovalStatus.APPROVED, "decided_by": JANE, "decided_at": decided_at})
    return to_text(approval_message(decided, BOT).blocks)


def _picture(draw: Callable[[], str]) -> Callable[[], str]:
    return lambda: f"```text\n{draw()}\n```"


def _settings() -> str:
    """The table: what `.env.example` says of each setting."""
    fields = {name.upper() for name in Settings.model_fields}
    rows = [
        f"| `{variable.name}` | {f'`{variable.default}`' if variable.default else '–'} | {variable.comment} |"
        for variable in env_example.read(page(env_example.FILE))
        if variable.name in fields
    ]
    return "\n".join(["| variable | default | meaning |", "|---|---|---|", *rows])


GENERATED: dict[str, Callable[[], str]] = {
    "<!-- picture: alert -->": _picture(_alert),
    "<!-- picture: approval -->": _picture(_approval),
    "<!-- picture: outcome -->": _picture(_outcome),
    "<!-- settings -->": _settings,
}
END = "<!-- end -->"


def generated(text: str) -> str:
    """The page with every generated part written anew. Raises: ValueError when a part has no place in it."""
    for mark, draw in GENERATED.items():
        before, found, rest = text.partition(mark)
        if not found:
            raise ValueError(f"the page has no {mark}")
        text = f"{before}{mark}\n\n{draw()}\n\n{END}{rest.partition(END)[2]}"
    return text


def test_pictures_and_settings_are_those_of_today() -> None:
    """Red: `.venv/bin/python -m tests.unit.test_readme` writes them anew."""
    assert page(README) == generated(page(README))


def test_a_word_that_is_another_in_a_picture_is_noticed() -> None:
    changed = page(README).replace("Blast radius: user-service", "Blast radius: users")
    assert changed != page(README)
    assert generated(changed) == page(README)


# --- links --------------------------------------------------------------------------------------------------------

TEST_LINK = re.compile(r"\[`(test_\w+)`\]\((tests/[\w/]+\.py)\)")
LINK = re.compile(r"\]\((?!https?://|#)([^)\s]+)\)")


def names_of_tests(file: Path) -> set[str]:
    return {
        node.name
        for node in ast.walk(ast.parse(page(file)))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


def missing_tests(text: str) -> list[str]:
    """The linked tests that do not exist."""
    return [
        f"{file}: {name}"
        for name, file in TEST_LINK.findall(text)
        if not (ROOT / file).exists() or name not in names_of_tests(ROOT / file)
    ]


def test_every_guarantee_is_held_by_a_test_that_exists() -> None:
    table = page(README).partition("## Guarantees")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ") and not line.startswith("| when")]
    assert len(rows) >= 20
    assert [row for row in rows if not TEST_LINK.search(row)] == []
    assert missing_tests(table) == []


def test_a_guarantee_whose_test_is_gone_is_noticed() -> None:
    link = "[`test_pigs_fly`](tests/unit/test_readme.py), [`test_pigs_fly`](tests/unit/test_pigs.py)"
    assert missing_tests(link) == ["tests/unit/test_readme.py: test_pigs_fly", "tests/unit/test_pigs.py: test_pigs_fly"]


def test_every_link_leads_somewhere() -> None:
    broken = [
        f"{file.name}: {target}" for file in PAGES for target in LINK.findall(page(file)) if not (file.parent / target).exists()
    ]
    assert broken == []


# --- what people type ---------------------------------------------------------------------------------------------

COMMAND = re.compile(r"(?<![\w/-])(?:\.venv/bin/)?infrasage ((?!api`? and)[a-z]+)\b")


def typed(text: str) -> list[str]:
    """Everything in code: blocks, indented or fenced, and spans."""
    fenced = re.findall(r"(?ms)^ *```\w*\n(.*?)^ *```", text)
    rest = re.sub(r"(?ms)^ *```\w*\n.*?^ *```", "", text)
    return [*fenced, *re.findall(r"(?m)^ {4}\S.*$", rest), *re.findall(r"`([^`\n]+)`", rest)]


def test_every_command_that_is_shown_exists() -> None:
    group: Any = typer.main.get_command(app)
    shown = {name for file in PAGES for code in typed(page(file)) for name in COMMAND.findall(code)}
    assert {"up", "api", "worker", "fire", "approve", "replay", "doctor"} <= shown
    assert shown - set(group.commands) == set()


def test_every_make_target_that_is_shown_exists() -> None:
    targets = set(re.findall(r"(?m)^([a-z-]+):", page(ROOT / "Makefile")))
    shown = {name for file in PAGES for code in typed(page(file)) for name in re.findall(r"\bmake ([a-z-]+)", code)}
    assert {"demo", "up"} <= shown
    assert shown - targets == set()


def test_every_metric_that_is_shown_is_counted() -> None:
    counted = Metrics()
    counted.forged.labels("test").inc()
    shown = {name for file in PAGES for name in re.findall(r"`(infrasage_\w+_total)`", page(file))}
    assert shown
    assert {name for name in shown if f"{name}{{" not in counted.text().decode()} == set()


API = ROOT / "docs" / "api.md"


def test_the_page_of_the_api_has_every_route_and_no_other() -> None:
    nobody = cast("Any", None)
    served = {
        (method, re.sub(r":path\b", "", str(route.path)))
        for route in iter_route_contexts(create_app(Settings(), nobody, nobody, nobody).routes)
        for method in route.methods or ()
    }
    assert set(re.findall(r"(?m)^\| `([A-Z]+) (/\S*)`", page(API))) == served


def test_the_page_of_the_api_has_every_key_of_an_anomaly() -> None:
    rows = re.findall(r"(?m)^\| ((?:`\w+`(?:, )?)+) \| (?:required|optional) \|", page(API))
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == set(AnomalyReport.model_fields)


# --- examples -----------------------------------------------------------------------------------------------------


def blocks(file: Path) -> list[str]:
    return re.findall(r"(?ms)^```yaml\n(.*?)^```", page(file))


def test_the_runbooks_of_the_reference_load() -> None:
    loaded = [load_runbook(yaml.safe_load(block)) for block in blocks(RUNBOOKS)]
    assert [runbook.name for runbook in loaded] == ["scale-out-payment-api", "restart-through-the-deploy-service"]
    with pytest.raises(RunbookFaults):
        load_runbook({**yaml.safe_load(blocks(RUNBOOKS)[0]), "step": []})


def keys_of(title: str) -> set[str]:
    """The keys in the table of a section of the reference."""
    section = page(RUNBOOKS).partition(f"\n{title}\n")[2]
    return set(re.findall(r"(?m)^\| `(\w+)` \|", re.split(r"\n##+ ", section)[0]))


STEP_TYPES: dict[str, type[StepBase]] = {
    get_args(step.model_fields["type"].annotation)[0]: step for step in get_args(get_args(Step)[0])
}


def test_the_reference_has_every_key_of_a_runbook_and_no_other() -> None:
    assert keys_of("## The runbook") == set(Runbook.model_fields)
    assert keys_of("### `trigger`") == set(Trigger.model_fields)
    assert keys_of("### `inputs`") == set(Input.model_fields)


@pytest.mark.parametrize("kind", STEP_TYPES)
def test_the_reference_has_every_key_of_a_step_and_no_other(kind: str) -> None:
    common = {*StepBase.model_fields, "type", "timeout_seconds"}
    assert keys_of("## Every step") == common
    assert keys_of(f"### `{kind}`") == set(STEP_TYPES[kind].model_fields) - common


@pytest.mark.timeout(400)
def test_the_second_compose_file_of_the_operations_page_adds_to_the_first(tmp_path: Path) -> None:
    (site,) = [block for block in blocks(OPERATIONS) if block.startswith("# docker-compose.site.yml")]
    second = tmp_path / "docker-compose.site.yml"
    second.write_text(site, encoding="utf-8")
    given = {**dict.fromkeys(compose_file.REQUIRED, "given"), "DEPLOY_TOKEN": "t"}
    worker = compose_file.config(given, compose_file.FILE, second)["services"]["worker"]
    assert worker["environment"]["KUBECONFIG"] == "/run/infrasage/kubeconfig"
    assert worker["environment"]["CLICKHOUSE_HOST"] == "clickhouse"
    assert len(worker["volumes"]) == 2


KUBERNETES_VERSION = "1.37"


def rbac() -> list[dict[str, Any]]:
    documents = [document for block in blocks(OPERATIONS) for document in yaml.safe_load_all(block)]
    return [document for document in documents if str(document.get("apiVersion")).startswith("rbac.")]


def granted(*kinds: str) -> set[tuple[str, str, str]]:
    return {
        (group, resource, verb)
        for document in rbac()
        if document["kind"] in kinds
        for rule in document["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_the_roles_of_the_operations_page_are_valid_for_kubernetes() -> None:
    assert [document["kind"] for document in rbac()] == ["Role", "RoleBinding", "ClusterRole", "ClusterRole"]
    for document in rbac():
        kubernetes_validate.validate(document, KUBERNETES_VERSION, strict=True)


PATH = re.compile(
    r"/(?:api|apis/(?P<group>[^/]+))/v\d+/(?:namespaces/[^/]+/)?(?P<resource>[a-z]+)(?:/(?P<name>[^/]+)(?P<sub>/[a-z]+)?)?"
)
VERBS = {"GET": "get", "PATCH": "patch", "POST": "create"}


def right(method: str, path: str) -> tuple[str, str, str] | None:
    """Group, resource and verb that Kubernetes asks for; None for discovery, which everybody may do."""
    match = PATH.fullmatch(path)
    if match is None:
        return None
    verb = "list" if method == "GET" and match["name"] is None else VERBS[method]
    return match["group"] or "", match["resource"] + (match["sub"] or ""), verb


async def test_the_rights_that_are_asked_for_are_those_that_are_used(tmp_path: Path) -> None:
    async with SimulatedCluster(rollout=timedelta(0)) as simulated:
        simulated.add_deployment("production", "payment-api", 3)
        simulated.set_image("production", "payment-api", "example:2.0")
        simulated.nodes.add("worker-7")
        simulated.nodes.add_pod("production", "payment-api-1", "worker-7")
        cluster = KubernetesCluster.from_environment(simulated.write_kubeconfig(tmp_path / "kubeconfig"))
        try:
            await cluster.check()
            now = await cluster.read_scale("production", "payment-api")
            await cluster.set_replicas("production", "payment-api", expected=now.replicas, target=5)
            await cluster.rollout_status("production", "payment-api")
            template = await cluster.read_template("production", "payment-api")
            revisions = await cluster.read_revisions("production", template)
            await cluster.restart("production", template, "2026-04-10T12:00:05Z")
            template = await cluster.read_template("production", "payment-api")
            await cluster.roll_back("production", template, revisions[0])
            await cluster.set_schedulable(await cluster.read_node("worker-7"), False)
            for pod in await cluster.list_pods("worker-7"):
                await cluster.evict(pod)
        finally:
            await cluster.aclose()
    used = {right(request.method, request.path.partition("?")[0]) for request in simulated.requests} - {None}
    assert used == granted("Role", "ClusterRole")


if __name__ == "__main__":
    README.write_text(generated(page(README)), encoding="utf-8")
