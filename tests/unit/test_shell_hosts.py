"""The content of the hosts file: read strictly, every fault with its place and its reason."""

import base64
from typing import Any

import pytest

from domain.shell_commands import NotAllowed
from domain.shell_hosts import COMMANDS_LIMIT, ShellHost, ShellHostsFaults, UnknownHost, load_shell_hosts


def key_line(kind: str = "ssh-ed25519", said: str | None = None) -> str:
    """A line in the form of a public key; `said` is the type that the key itself names."""
    name = (said or kind).encode()
    blob = len(name).to_bytes(4, "big") + name + (32).to_bytes(4, "big") + bytes(range(32))
    return f"{kind} {base64.b64encode(blob).decode()}"


HOST: dict[str, Any] = {
    "address": "10.0.0.7",
    "user": "deploy",
    "key_file": "keys/prod-host-01",
    "host_key": key_line(),
    "allowed_commands": ["uptime", "systemctl restart {unit:[a-z]+}"],
}


def loaded(**changes: Any) -> ShellHost:
    return load_shell_hosts({"prod-host-01": {**HOST, **changes}}).host("prod-host-01")


def faults(document: object) -> list[str]:
    with pytest.raises(ShellHostsFaults) as caught:
        load_shell_hosts(document)
    assert str(caught.value) == "; ".join(caught.value.faults)
    return caught.value.faults


def test_a_host_is_read_with_everything_that_the_file_says() -> None:
    host = loaded(port=2222)
    assert (host.alias, host.address, host.port, host.user, str(host.key_file)) == (
        "prod-host-01",
        "10.0.0.7",
        2222,
        "deploy",
        "keys/prod-host-01",
    )
    assert host.target == "deploy@10.0.0.7:2222"
    assert host.command_line("uptime", {}) == "uptime"
    assert host.command_line("systemctl restart {{ service_id }}", {"service_id": "web"}) == "systemctl restart web"
    with pytest.raises(NotAllowed):
        host.command_line("reboot", {})


def test_the_port_of_ssh_is_the_default() -> None:
    assert loaded().port == 22


@pytest.mark.parametrize(
    ("address", "target"),
    [
        ("web-1.example.com", "deploy@web-1.example.com:22"),
        ("fd00::7", "deploy@[fd00::7]:22"),
        ("localhost", "deploy@localhost:22"),
    ],
)
def test_names_and_addresses_are_taken(address: str, target: str) -> None:
    assert loaded(address=address).target == target


@pytest.mark.parametrize("kind", ["ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa"])
def test_a_host_key_of_each_kind_is_taken_without_its_comment(kind: str) -> None:
    assert loaded(host_key=f"  {key_line(kind)} root@prod-host-01 of 2026\n").host_key.line == key_line(kind)


def test_the_fingerprint_is_the_one_that_ssh_keygen_shows() -> None:
    line = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"  # GitHub's, as published
    assert loaded(host_key=line).host_key.fingerprint == "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU"


def test_an_unknown_alias_is_refused_by_naming_those_there_are() -> None:
    hosts = load_shell_hosts({"b": HOST, "a": HOST})
    with pytest.raises(UnknownHost, match=r"^'c' is not a host of shell steps; known are a, b$"):
        hosts.host("c")


_NO_KEY = "must be one OpenSSH public key line"
_NO_HOST = "must be a host name or address, without user and port (they are `user` and `port`)"


@pytest.mark.parametrize(
    ("changes", "place", "reason"),
    [
        ({"address": "root@10.0.0.7"}, "address", _NO_HOST),
        ({"address": "10.0.0.7:22"}, "address", _NO_HOST),
        ({"address": "-oProxyCommand=x"}, "address", _NO_HOST),
        ({"address": "a b"}, "address", _NO_HOST),
        ({"address": ""}, "address", "may not be empty"),
        ({"address": 7}, "address", "must be a text"),
        ({"port": 0}, "port", "must be 1 or more"),
        ({"port": 65_536}, "port", "must be 65535 or less"),
        ({"port": "22"}, "port", "must be a whole number"),
        ({"port": None}, "port", "must be a whole number"),
        ({"port": True}, "port", "must be a whole number"),
        ({"user": ""}, "user", "must be a user name"),
        ({"user": "-root"}, "user", "must be a user name"),
        ({"user": "a b"}, "user", "must be a user name"),
        ({"user": "root\n"}, "user", "must be a user name"),
        ({"key_file": "~/.ssh/id"}, "key_file", "must be a path, absolute or from the folder of this file; ~ is not read"),
        ({"key_file": ""}, "key_file", "may not be empty"),
        ({"key_file": "a\0b"}, "key_file", "may not contain the control or invisible character U+0000"),
        ({"host_key": f"prod-host-01 {key_line()}"}, "host_key", _NO_KEY),
        ({"host_key": f"@cert-authority * {key_line()}"}, "host_key", _NO_KEY),
        ({"host_key": f"{key_line()}\n{key_line()}"}, "host_key", "may not contain the control"),
        ({"host_key": key_line("ssh-ed25519", said="ssh-rsa")}, "host_key", _NO_KEY),
        ({"host_key": key_line("ssh-dss")}, "host_key", _NO_KEY),
        ({"host_key": key_line("ssh-ed25519-cert-v01@openssh.com")}, "host_key", _NO_KEY),
        ({"host_key": "ssh-ed25519"}, "host_key", _NO_KEY),
        ({"host_key": "ssh-ed25519 not-base64!"}, "host_key", _NO_KEY),
        ({"host_key": "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU"}, "host_key", _NO_KEY),
        ({"host_key": None}, "host_key", "must be a text"),
        ({"allowed_commands": []}, "allowed_commands", f"must have 1 to {COMMANDS_LIMIT} entries, not 0"),
        ({"allowed_commands": ["a"] * 201}, "allowed_commands", f"must have 1 to {COMMANDS_LIMIT} entries, not 201"),
        ({"allowed_commands": None}, "allowed_commands", "must be a list"),
        ({"allowed_commands": "uptime"}, "allowed_commands", "must be a list"),
        ({"allowed_commands": {"uptime": True}}, "allowed_commands", "must be a list"),
        ({"allowed_commands": [""]}, "allowed_commands[0]", "may not be empty"),
        ({"allowed_commands": ["a", "b\nc"]}, "allowed_commands[1]", "may not contain the control or invisible character U+000A"),
        ({"allowed_commands": [5]}, "allowed_commands[0]", "must be a text"),
        ({"allowed_commands": ["a {v:(}"]}, "allowed_commands[0]", "has the parameter 'v', whose regex is not valid"),
        ({"pasword": "x"}, "pasword", "is not a key that is known here; known are address, port, user, key_file, host_key"),
    ],
)
def test_a_fault_is_told_with_its_place_and_its_reason(changes: dict[str, Any], place: str, reason: str) -> None:
    (fault,) = faults({"prod-host-01": {**HOST, **changes}})
    assert fault.startswith(f"prod-host-01.{place}: ")
    assert reason in fault


@pytest.mark.parametrize("key", ["address", "user", "key_file", "host_key", "allowed_commands"])
def test_what_makes_a_host_cannot_be_left_out(key: str) -> None:
    assert faults({"web": {name: value for name, value in HOST.items() if name != key}}) == [f"web.{key}: is required"]


def test_every_fault_is_told_at_once() -> None:
    assert faults({"a": {**HOST, "port": 0, "user": "-"}, "b": None, "c d": HOST}) == [
        "a.port: must be 1 or more",
        "a.user: must be a user name: 1 to 64 letters, digits and the characters _ . @ -, "
        "of which the first is a letter, digit or _",
        "b: must be a mapping of keys",
        "['c d']: must be 1 to 100 letters, digits and the characters . _ -, of which the first is a letter or digit",
    ]


@pytest.mark.parametrize("document", [None, [], {}, "hosts", 5, [HOST]])
def test_a_file_without_hosts_is_a_fault_and_not_a_list_of_none(document: object) -> None:
    assert faults(document) == ["must be a mapping of host aliases, with one or more hosts"]


def test_what_is_too_big_to_be_meant_is_refused() -> None:
    nested: list[Any] = []
    for _ in range(60):
        nested = [nested]
    assert "nested more than" in faults({"a": nested})[0]
    assert "is a key that is not a text" in faults({5: HOST})[0]
