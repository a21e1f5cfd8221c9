"""Runbooks from files: a broken file is told with its place and its reason, is not used, and hides nothing."""

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from activities.clients.runbook_files import FILE_LIMIT_BYTES, FileFault, RunbookFiles, check_runbook_files, read_runbook
from domain.runbook import RunbookFaults

GOOD = """
name: {name}
trigger: {{service_id: payment-api}}
steps:
  - type: slack
    message: hello
"""


def write(folder: Path, name: str, content: str | bytes) -> Path:
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def names(source: RunbookFiles) -> list[str]:
    return [runbook.name for runbook in source.load()[0]]


def test_yaml_and_json_files_are_read_by_name_and_nothing_else_is(tmp_path: Path) -> None:
    write(tmp_path, "z.yaml", GOOD.format(name="b"))
    write(tmp_path, "y.yml", "\ufeff" + GOOD.format(name="a"))
    write(tmp_path, "x.json", json.dumps({"name": "c", "steps": [{"type": "slack", "message": "hello"}]}))
    for name in ("README.md", "a.yaml.bak", ".hidden.yaml", "values.toml"):
        write(tmp_path, name, "[")
    (tmp_path / "deeper").mkdir()
    write(tmp_path / "deeper", "d.yaml", GOOD.format(name="d"))
    runbooks, faults = RunbookFiles(tmp_path).load()
    assert [runbook.name for runbook in runbooks] == ["a", "b", "c"]
    assert faults == ()


def test_the_example_of_the_documentation_loads_unchanged(tmp_path: Path) -> None:
    example: dict[str, Any] = {
        "name": "scale-out-payment-api",
        "description": "Scale up payment-api pods when CPU exceeds threshold",
        "trigger": {"service_id": "payment-api", "metric_name": "cpu_usage_percent", "condition": "anomaly_score > 0.7"},
        "steps": [
            {"type": "slack", "message": "Scaling payment-api from 3 to 5 pods", "channel": "#alerts", "require_approval": False},
            {
                **{"type": "kubernetes", "action": "scale", "namespace": "production", "deployment": "payment-api"},
                **{"replicas": 5, "require_approval": True, "approval_timeout_minutes": 10},
            },
        ],
        "rollback_on_failure": True,
        "dry_run": False,
    }
    runbook = read_runbook(write(tmp_path, "example.json", json.dumps(example)))
    assert (runbook.name, len(runbook.steps), runbook.steps[1].require_approval) == ("scale-out-payment-api", 2, True)


def test_a_fault_names_the_file_the_place_and_the_reason(tmp_path: Path) -> None:
    file = write(tmp_path, "bad.yaml", GOOD.format(name="bad") + "    chanel: '#ops'\n")
    write(tmp_path, "good.yaml", GOOD.format(name="good"))
    source = RunbookFiles(tmp_path)
    assert names(source) == ["good"]
    (fault,) = source.check()[1]
    assert (fault.file, fault.path) == (file, "steps[0].chanel")
    assert source.load()[1] == (f"{file}: steps[0].chanel: {fault.reason}",)


TWICE_JSON = '{"name": "x", "steps": [{"type": "slack", "message": "m", "require_approval": true, "require_approval": false}]}'
TWICE_YAML = GOOD.format(name="x") + "    require_approval: true\n    require_approval: false\n"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.yaml", TWICE_YAML, "the key 'require_approval' is there twice, line 8, column 5"),
        ("a.json", TWICE_JSON, "has the key 'require_approval' twice in one mapping"),
        ("a.yaml", "name: [1,\nsteps: }", "is not a runbook in YAML: expected the node content, but found '}', line 2, column 8"),
        ("a.json", '{"name": x}', "is not JSON: Expecting value, line 1, column 10"),
        ("a.yaml", "", "must be a mapping of keys"),
        ("a.json", "[]", "must be a mapping of keys"),
        ("a.yaml", "name: a\n---\nname: b\n", "found another document, line 2, column 1"),
        ("a.yaml", b"name: \xff\xfe", "is not UTF-8 text (byte 6)"),
        ("a.yaml", b"name: a\x00b", "is not YAML: unacceptable character"),
        ("a.yaml", "#" * (FILE_LIMIT_BYTES + 1), "has 262,145 bytes; allowed are 262,144"),
        ("a.yaml", "!!python/object/apply:os.system ['true']", "could not determine a constructor for the tag"),
        ("a.yaml", "? [a]\n: b", "a key must be a text"),
        ("a.yaml", "since: 2026-02-30", "holds a date or a number that does not exist"),
        ("a.yaml", "limit: " + "9" * 5_000, "holds a date or a number that does not exist"),
        ("a.json", '{"limit": ' + "9" * 5_000 + "}", "holds a number that is too large"),
        ("a.json", '{"name": NaN}', "must be a finite number"),
        ("a.yaml", "[" * 100_000, "is nested too deep"),
        ("a.json", "[" * 100_000, "is nested too deep"),
        ("a.yaml", "a: &a [*a]", "found unconstructable recursive node"),
        ("a.yaml", "a: &a {b: 1}\nc: {<<: *a, <<: *a}", "the key '<<' is there twice"),
    ],
)
def test_a_file_that_cannot_be_read_as_a_runbook_is_a_fault(tmp_path: Path, name: str, content: str | bytes, reason: str) -> None:
    file = write(tmp_path, name, content)
    write(tmp_path, "good.yaml", GOOD.format(name="good"))
    runbooks, faults = RunbookFiles(tmp_path).load()
    assert [runbook.name for runbook in runbooks] == ["good"]
    (sentence,) = faults
    assert sentence.startswith(f"{file}: ")
    assert reason in sentence


def test_a_kilobyte_that_stands_for_a_billion_values_is_refused(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]" for level in range(1, 10)]
    write(tmp_path, "bomb.yaml", "\n".join(lines))
    (sentence,) = RunbookFiles(tmp_path).load()[1]
    assert "holds more than 10,000 values" in sentence


def test_keys_may_be_taken_over_from_another_mapping_of_the_file(tmp_path: Path) -> None:
    content = GOOD.format(name="x").replace("- type", "- &first\n    type") + "  - {<<: *first, message: goodbye}\n"
    runbook = read_runbook(write(tmp_path, "a.yaml", content))
    assert [step.message for step in runbook.steps if step.type == "slack"] == ["hello", "goodbye"]


def test_of_two_files_with_one_name_neither_is_used_and_both_are_told(tmp_path: Path) -> None:
    first = write(tmp_path, "one.yaml", GOOD.format(name="same"))
    second = write(tmp_path, "two.yml", GOOD.format(name="same").replace("hello", "other"))
    write(tmp_path, "three.yaml", GOOD.format(name="else"))
    source = RunbookFiles(tmp_path)
    runbooks, faults = source.check()
    assert [runbook.name for runbook in runbooks] == ["else"]
    assert faults == (
        FileFault(first, "name", f"'same' is also the name in {second}; none of them is used"),
        FileFault(second, "name", f"'same' is also the name in {first}; none of them is used"),
    )
    second.unlink()
    assert names(source) == ["else", "same"]


def test_a_missing_directory_is_one_sentence(tmp_path: Path) -> None:
    missing = tmp_path / "none"
    expected = (f"{missing}: RUNBOOKS_DIR cannot be read (No such file or directory): no runbook is loaded",)
    assert RunbookFiles(missing).load() == ((), expected)
    file = write(tmp_path, "file", "")
    assert RunbookFiles(file).load()[1][0].startswith(f"{file}: RUNBOOKS_DIR cannot be read")


def a_pipe(file: Path) -> None:
    os.mkfifo(file)


def a_dangling_link(file: Path) -> None:
    file.symlink_to("nowhere")


@pytest.mark.parametrize(
    ("make", "reason"), [(a_pipe, "is not a file"), (Path.mkdir, "is not a file"), (a_dangling_link, "cannot be read")]
)
def test_what_is_not_a_file_is_told_and_not_waited_for(tmp_path: Path, make: Callable[[Path], None], reason: str) -> None:
    make(tmp_path / "odd.yaml")
    (sentence,) = RunbookFiles(tmp_path).load()[1]
    assert reason in sentence


def test_a_link_to_a_file_is_followed(tmp_path: Path) -> None:
    """Kubernetes mounts a ConfigMap as links."""
    (tmp_path / "..data").mkdir()
    write(tmp_path / "..data", "a.yaml", GOOD.format(name="a"))
    (tmp_path / "a.yaml").symlink_to(Path("..data") / "a.yaml")
    assert names(RunbookFiles(tmp_path)) == ["a"]


def test_an_edit_is_seen_at_the_next_load(tmp_path: Path) -> None:
    file = write(tmp_path, "a.yaml", GOOD.format(name="first"))
    source = RunbookFiles(tmp_path)
    assert names(source) == ["first"]
    write(tmp_path, "a.yaml", GOOD.format(name="other"))
    os.utime(file, ns=(1, 1))
    assert names(source) == ["other"]
    write(tmp_path, "a.yaml", "[")
    assert names(source) == []
    write(tmp_path, "b.yaml", GOOD.format(name="b"))
    file.unlink()
    assert names(source) == ["b"]


def test_a_file_that_did_not_change_is_not_parsed_again(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", GOOD.format(name="a"))
    source = RunbookFiles(tmp_path)
    (first,), (again,) = source.load()[0], source.load()[0]
    assert again is first


def test_threads_may_load_at_the_same_time(tmp_path: Path) -> None:
    for number in range(10):
        write(tmp_path, f"{number}.yaml", GOOD.format(name=f"r{number}"))
    source = RunbookFiles(tmp_path)
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(len(source.load()[0]))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [10] * 4


def test_named_files_are_checked_together(tmp_path: Path) -> None:
    good, bad = write(tmp_path, "a.yaml", GOOD.format(name="a")), write(tmp_path, "b.yaml", "[")
    same = write(tmp_path, "c.yaml", GOOD.format(name="a"))
    assert check_runbook_files([good])[1] == ()
    runbooks, faults = check_runbook_files([good, bad, same, tmp_path / "missing.yaml"])
    assert runbooks == ()
    assert [fault.file.name for fault in faults] == ["a.yaml", "b.yaml", "c.yaml", "missing.yaml"]
    with pytest.raises(RunbookFaults):
        read_runbook(bad)
