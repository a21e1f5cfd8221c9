"""Read the file `RUNBOOK_SHELL_HOSTS` and the private keys that it names; every fault is told with its place in the file."""

import dataclasses
import os
import stat
from pathlib import Path
from typing import cast

import asyncssh
import yaml

from activities.errors import NotConfigured
from domain.shell_hosts import ShellHost, ShellHosts, ShellHostsFaults, load_shell_hosts

SETTING = "RUNBOOK_SHELL_HOSTS"

FILE_LIMIT_BYTES = 256 * 1024
KEY_LIMIT_BYTES = 64 * 1024

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def read_shell_hosts(file: Path) -> ShellHosts:
    """Read and check the file, the pinned keys in it and the private keys beside it. Blocking.

    Raises: NotConfigured naming the setting, the file and every fault.
    """
    try:
        found = load_shell_hosts(_parse(_read(file, FILE_LIMIT_BYTES).decode("utf-8-sig")))
    except UnicodeDecodeError as error:
        raise NotConfigured(f"{SETTING}: {file} is not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise NotConfigured(f"{SETTING}: {file} cannot be read ({error.strerror})") from None
    except (ShellHostsFaults, _Unusable) as error:
        raise NotConfigured(f"{SETTING}: {file}: {error}") from None
    hosts = {alias: _located(host, file.parent) for alias, host in found.hosts.items()}
    faults = [fault for host in hosts.values() for fault in _key_faults(host)]
    if faults:
        raise NotConfigured(f"{SETTING}: {file}: {'; '.join(faults)}")
    return ShellHosts(hosts)


def read_private_key(file: Path) -> asyncssh.SSHKey:
    """Read a private key that only its owner may read. Blocking. Raises: NotConfigured naming the file."""
    try:
        return asyncssh.import_private_key(_read(file, KEY_LIMIT_BYTES, forbidden_mode=_OTHERS))
    except OSError as error:
        reason = f"cannot be read ({error.strerror})"
    except _Unusable as error:
        reason = str(error)
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError, ValueError) as error:
        reason = "is not a private key in OpenSSH or PEM format"
        if "passphrase" in str(error).lower():  # the library tells it by its words alone
            reason = "is protected by a passphrase, which nobody could enter here"
    raise NotConfigured(f"the key file {file} {reason}")


class _Unusable(ValueError):
    """Why a file is of no use; completes a sentence about it."""


def _located(host: ShellHost, folder: Path) -> ShellHost:
    return dataclasses.replace(host, key_file=folder / host.key_file)


def _key_faults(host: ShellHost) -> list[str]:
    faults: list[str] = []
    try:
        asyncssh.import_public_key(host.host_key.line)
    except (asyncssh.KeyImportError, ValueError):
        faults.append(f"{host.alias}.host_key: is not a public key, though it begins like one")
    try:
        read_private_key(host.key_file)
    except NotConfigured as error:
        faults.append(f"{host.alias}.key_file: {error}")
    return faults


def _read(file: Path, limit_bytes: int, *, forbidden_mode: int = 0) -> bytes:
    """Read a file, judged as it is opened and not by its name. Raises: OSError, _Unusable."""
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe would be waited for without end
    with os.fdopen(descriptor, "rb") as opened:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _Unusable("is not a file")
        if status.st_mode & forbidden_mode:
            raise _Unusable(
                f"may be used by others than its owner (mode {stat.S_IMODE(status.st_mode):04o}): set it to 0600 or 0400"
            )
        content = opened.read(limit_bytes + 1)
    if len(content) > limit_bytes:
        raise _Unusable(f"has more than {limit_bytes:,} bytes")
    return content


# --- YAML ---------------------------------------------------------------------------------------------------------


def _parse(text: str) -> object:
    """Parse YAML in which each key is there once: of two, the one that wins silently may be the one that allows more."""
    try:
        # The pure loader: the one in C ends the process on 100,000 levels, this one raises RecursionError.
        _check_keys(cast("yaml.Node | None", yaml.compose(text, Loader=yaml.SafeLoader)))
        return yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise _Unusable(f"is not YAML: {error.problem or error.context}{where}") from None
    except yaml.YAMLError as error:
        raise _Unusable(f"is not YAML: {' '.join(str(error).split())[:200]}") from None
    except RecursionError:
        raise _Unusable("is nested too deep") from None
    except (ValueError, OverflowError) as error:
        if isinstance(error, _Unusable):
            raise
        raise _Unusable("holds a date or a number that does not exist") from None


def _check_keys(root: yaml.Node | None) -> None:
    waiting = [root] if root is not None else []
    visited: set[int] = set()
    while waiting:
        node = waiting.pop()
        if id(node) in visited:  # an alias
            continue
        visited.add(id(node))
        if isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key, value in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    raise _Unusable(f"has a key that is not a text in line {key.start_mark.line + 1}")
                if key.value in seen:
                    raise _Unusable(f"has the key '{key.value[:60]}' twice in one mapping, line {key.start_mark.line + 1}")
                seen.add(key.value)
                waiting.append(value)
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value
