"""The hosts that shell steps may reach, and what may be run there: the content of the file `RUNBOOK_SHELL_HOSTS`.

    prod-host-01:
      address: 10.0.0.7
      user: deploy
      key_file: keys/prod-host-01
      host_key: ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI…
      allowed_commands:
        - uptime
        - systemctl restart {unit:[a-z][a-z0-9-]{0,40}}

A host is known by its one pinned key and by nothing else, and runs what its list names and nothing else.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, cast

from pydantic import AfterValidator, Field, StringConstraints, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from domain.base import Edge, in_words, one_line
from domain.documents import DocumentTooLarge, unsayable
from domain.expressions import Scalar
from domain.faults import place_of, reason_of
from domain.shell_commands import AllowedCommand, command_line, parse_allowed
from domain.web_address import is_host

COMMANDS_LIMIT = 200

HOST_KEY_TYPES = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa")
"""Of plain host keys. DSA is no longer safe, and a certificate would trust more than one key."""

_HOST_KEY_IN_WORDS = (
    f"must be one OpenSSH public key line: a type ({', '.join(HOST_KEY_TYPES)}) and the key in base64, without a host before it"
)


class ShellHostsFaults(ValueError):
    """Everything wrong with one file; `faults` holds a sentence for each, with its place."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


class UnknownHost(ValueError):
    """No host has that alias; the text is one sentence that names those there are."""


@dataclass(frozen=True)
class HostKey:
    """A pinned public key."""

    line: str
    """Type and base64, without the comment."""

    @property
    def fingerprint(self) -> str:
        """As `ssh-keygen -l` shows it: `SHA256:` and the digest in base64 without padding."""
        digest = hashlib.sha256(base64.b64decode(self.line.split(" ")[1])).digest()
        return f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"


@dataclass(frozen=True)
class ShellHost:
    """One host, as it is reached."""

    alias: str
    address: str
    """A host name or an address, without a port."""
    port: int
    user: str
    key_file: Path
    """Private key; a relative path begins at the folder of the hosts file."""
    host_key: HostKey
    allowed: tuple[AllowedCommand, ...]
    """Never empty."""

    @property
    def target(self) -> str:
        """`deploy@10.0.0.7:22`."""
        address = f"[{self.address}]" if ":" in self.address else self.address
        return f"{self.user}@{address}:{self.port}"

    def command_line(self, command: str, names: Mapping[str, Scalar]) -> str:
        """The line to send for a step's command. Raises: NotAllowed, ExpressionError."""
        return command_line(command, names, self.allowed)


@dataclass(frozen=True)
class ShellHosts:
    """Every host of the file, by alias."""

    hosts: Mapping[str, ShellHost]

    def host(self, alias: str) -> ShellHost:
        """Raises: UnknownHost."""
        found = self.hosts.get(alias)
        if found is None:
            raise UnknownHost(f"'{alias[:100]}' is not a host of shell steps; known are {', '.join(sorted(self.hosts))}")
        return found


def load_shell_hosts(document: object) -> ShellHosts:
    """Check a parsed document strictly. Raises: ShellHostsFaults with every fault, its place and its reason."""
    if not isinstance(document, dict) or not document:
        raise ShellHostsFaults(["must be a mapping of host aliases, with one or more hosts"])
    try:
        faults = [_told(place, reason) for place, reason in unsayable(cast("object", document))]
    except DocumentTooLarge as error:
        raise ShellHostsFaults([str(error)]) from error
    if faults:
        raise ShellHostsFaults(faults)
    try:
        entries = _FILE.validate_json(json.dumps(document), strict=True)
    except ValidationError as error:
        raise ShellHostsFaults([_fault_of(item) for item in error.errors(include_url=False)]) from None
    return ShellHosts({alias: entry.to_host(alias) for alias, entry in entries.items()})


def _host_key(value: str) -> str:
    kind, _, rest = value.partition(" ")
    encoded = rest.strip().partition(" ")[0]
    try:
        blob = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(_HOST_KEY_IN_WORDS) from None
    # RFC 4253, 6.6: the key names its own type first, as a text with its length in four bytes.
    if kind not in HOST_KEY_TYPES or not blob.startswith(len(kind).to_bytes(4, "big") + kind.encode() + b"\0"):
        raise ValueError(_HOST_KEY_IN_WORDS)
    return f"{kind} {encoded}"


def _host(value: str) -> str:
    if not is_host(value):
        raise ValueError("must be a host name or address, without user and port (they are `user` and `port`)")
    return value


def _key_file(value: str) -> str:
    if value.startswith("~"):
        raise ValueError("must be a path, absolute or from the folder of this file; ~ is not read")
    return value


def _allowed(value: str) -> str:
    parse_allowed(value)
    return value


def _some(values: tuple[str, ...]) -> tuple[str, ...]:
    if not 1 <= len(values) <= COMMANDS_LIMIT:  # an empty list must never come to mean "all"
        raise ValueError(f"must have 1 to {COMMANDS_LIMIT} entries, not {len(values)}")
    return values


_Line = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=4_000), AfterValidator(one_line)]

Alias = Annotated[
    str,
    in_words(
        r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}",
        "must be 1 to 100 letters, digits and the characters . _ -, of which the first is a letter or digit",
    ),
]
User = Annotated[
    str,
    in_words(
        r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}",
        "must be a user name: 1 to 64 letters, digits and the characters _ . @ -, of which the first is a letter, digit or _",
    ),
]


class _Entry(Edge):
    """A host as the file has it."""

    address: Annotated[_Line, AfterValidator(_host)]
    port: Annotated[int, Field(ge=1, le=65_535)] = 22
    user: User
    key_file: Annotated[_Line, AfterValidator(_key_file)]
    host_key: Annotated[_Line, AfterValidator(_host_key)]
    allowed_commands: Annotated[tuple[Annotated[_Line, AfterValidator(_allowed)], ...], AfterValidator(_some)]

    def to_host(self, alias: str) -> ShellHost:
        return ShellHost(
            alias=alias,
            address=self.address,
            port=self.port,
            user=self.user,
            key_file=Path(self.key_file),
            host_key=HostKey(self.host_key),
            allowed=tuple(parse_allowed(text) for text in self.allowed_commands),
        )


_FILE: TypeAdapter[dict[Alias, _Entry]] = TypeAdapter(dict[Alias, _Entry])


def _fault_of(error: ErrorDetails) -> str:
    reason = reason_of(error)
    if error["type"] == "extra_forbidden":
        reason += f"; known are {', '.join(_Entry.model_fields)}"
    return _told(error["loc"], reason)


def _told(place: tuple[Any, ...], reason: str) -> str:
    return f"{place_of(place)}: {reason}" if place else reason
