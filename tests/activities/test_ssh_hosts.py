"""The hosts file on disk, and the private keys that it names."""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from activities.clients.ssh import SshClient
from activities.clients.ssh_hosts import FILE_LIMIT_BYTES, KEY_LIMIT_BYTES, read_private_key, read_shell_hosts
from activities.errors import NotConfigured
from tests.peers.sshd import make_key

HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"


def a_host(**changes: Any) -> dict[str, Any]:
    host = {"address": "10.0.0.7", "user": "deploy", "key_file": "key", "host_key": HOST_KEY, "allowed_commands": ["uptime"]}
    return {**host, **changes}


@pytest.fixture
def key(tmp_path: Path) -> Path:
    make_key(tmp_path / "key")
    return tmp_path / "key"


def hosts_file(folder: Path, content: str | dict[str, Any]) -> Path:
    file = folder / "hosts.yaml"
    file.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return file


def refusal(read: Callable[[Path], object], file: Path) -> str:
    with pytest.raises(NotConfigured) as caught:
        read(file)
    return str(caught.value)


@pytest.mark.usefixtures("key")
def test_a_key_file_is_looked_for_beside_the_hosts_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    hosts = SshClient.from_file(hosts_file(tmp_path, {"web": a_host()})).hosts
    assert hosts.host("web").key_file == tmp_path / "key"


def test_a_key_file_may_be_named_by_its_whole_path(tmp_path: Path, key: Path) -> None:
    (tmp_path / "inner").mkdir()
    hosts = read_shell_hosts(hosts_file(tmp_path / "inner", {"web": a_host(key_file=str(key))}))
    assert hosts.host("web").key_file == key


def test_the_file_is_yaml_as_the_manual_shows_it(tmp_path: Path, key: Path) -> None:
    file = hosts_file(
        tmp_path,
        f"prod-host-01:\n  address: 10.0.0.7\n  user: deploy\n  key_file: {key}\n  host_key: {HOST_KEY} root@prod\n"
        "  allowed_commands:\n    - uptime\n    - systemctl restart {unit:[a-z][a-z0-9-]{0,40}}\n",
    )
    host = read_shell_hosts(file).host("prod-host-01")
    assert host.command_line("systemctl restart payment-api", {}) == "systemctl restart payment-api"


@pytest.mark.usefixtures("key")
def test_hosts_may_share_what_they_have_in_common(tmp_path: Path) -> None:
    shared = f"a: &a\n  address: 10.0.0.7\n  user: deploy\n  key_file: key\n  host_key: {HOST_KEY}\n  allowed_commands: [uptime]\n"
    hosts = read_shell_hosts(hosts_file(tmp_path, f"{shared}b:\n  <<: *a\n  address: 10.0.0.8\n"))
    assert hosts.host("b").target == "deploy@10.0.0.8:22"


@pytest.mark.usefixtures("key")
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"web": a_host(port=0)}, "web.port: must be 1 or more"),
        ({"web": a_host(port=0, user="-")}, "web.port: must be 1 or more; web.user: must be a user name"),
        ("web: [", "is not YAML: "),
        ("web: &a [*a]", ": is nested more than 50 levels deep"),
        ("a: !!python/object/apply:os.system ['true']", "is not YAML: could not determine a constructor"),
        ("web:\n  user: a\n  user: b\n", "has the key 'user' twice in one mapping, line 3"),
        ("web: {}\nweb: {}\n", "has the key 'web' twice in one mapping, line 2"),
        ("web: {[a]: b}", "has a key that is not a text in line 1"),
        ("web: 2026-02-30", "holds a date or a number that does not exist"),
        ("", "must be a mapping of host aliases, with one or more hosts"),
        ("- web", "must be a mapping of host aliases, with one or more hosts"),
        ("[" * 2_000, "is nested too deep"),
        ({"web": a_host(host_key="ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAAA==")}, "web.host_key: is not a public key, though it"),
        ({"web": a_host(key_file="other")}, "web.key_file: the key file {folder}/other cannot be read (No such file or directory)"),
        ("#" * (FILE_LIMIT_BYTES + 1), "has more than 262,144 bytes"),
    ],
)
def test_every_fault_is_told_with_the_setting_and_the_file(tmp_path: Path, content: str | dict[str, Any], reason: str) -> None:
    file = hosts_file(tmp_path, content)
    told = refusal(read_shell_hosts, file)
    assert told.startswith(f"RUNBOOK_SHELL_HOSTS: {file}")
    assert reason.replace("{folder}", str(tmp_path)) in told


def test_a_file_that_is_missing_or_no_file_or_no_text_is_told_by_the_setting(tmp_path: Path) -> None:
    assert (
        refusal(read_shell_hosts, tmp_path / "no")
        == f"RUNBOOK_SHELL_HOSTS: {tmp_path}/no cannot be read (No such file or directory)"
    )
    os.mkfifo(tmp_path / "pipe")
    assert refusal(read_shell_hosts, tmp_path / "pipe") == f"RUNBOOK_SHELL_HOSTS: {tmp_path}/pipe: is not a file"
    (tmp_path / "binary").write_bytes(b"web: \xff")
    assert refusal(read_shell_hosts, tmp_path / "binary") == f"RUNBOOK_SHELL_HOSTS: {tmp_path}/binary is not UTF-8 text (byte 5)"
    assert refusal(read_shell_hosts, tmp_path).startswith(f"RUNBOOK_SHELL_HOSTS: {tmp_path}")


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_a_key_that_is_its_owners_alone_is_taken(key: Path, mode: int) -> None:
    key.chmod(mode)
    assert read_private_key(key).get_algorithm() == "ssh-ed25519"


@pytest.mark.parametrize("other", [stat.S_IRGRP, stat.S_IWGRP, stat.S_IROTH, stat.S_IWOTH])
def test_a_key_that_others_may_use_is_refused_when_the_file_is_read(tmp_path: Path, key: Path, other: int) -> None:
    key.chmod(0o600 | other)
    told = refusal(read_shell_hosts, hosts_file(tmp_path, {"web": a_host()}))
    assert f"web.key_file: the key file {key} may be used by others than its owner (mode 0{0o600 | other:o})" in told


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_keys_of_every_kind_are_read(tmp_path: Path, kind: str) -> None:
    make_key(tmp_path / "key", kind)
    assert read_private_key(tmp_path / "key").get_algorithm().startswith(("ssh-", "ecdsa-"))


def test_a_key_behind_a_passphrase_is_refused(tmp_path: Path) -> None:
    make_key(tmp_path / "key", passphrase="hunter2-phrase")
    assert refusal(read_private_key, tmp_path / "key").endswith("is protected by a passphrase, which nobody could enter here")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is not a private key in OpenSSH or PEM format"),
        (b"\xff\x00", "is not a private key in OpenSSH or PEM format"),
        (b"-----BEGIN OPENSSH PRIVATE KEY-----\nhunter2\n-----END OPENSSH PRIVATE KEY-----\n", "is not a private key"),
        (b"x" * (KEY_LIMIT_BYTES + 1), "has more than 65,536 bytes"),
    ],
)
def test_what_is_no_key_is_refused_without_its_content(tmp_path: Path, content: bytes, reason: str) -> None:
    file = tmp_path / "key"
    file.write_bytes(content)
    file.chmod(0o600)
    told = refusal(read_private_key, file)
    assert told.startswith(f"the key file {file} {reason}")
    assert "hunter2" not in told


def test_a_public_key_is_not_a_private_one(key: Path) -> None:
    public = key.with_name("key.pub")
    public.chmod(0o600)
    assert "is not a private key" in refusal(read_private_key, public)
