"""Read `RUNBOOK_HTTP_ALLOW` and say whether a runbook may talk to a host, and then to an address; closed by default.

One entry is `host[:port][@CIDR]`:

- `host` is a name, an address (IPv6 in brackets), or a glob. `*` and `?` stay within one label, a leading `*.` stands for
  one or more labels, and a lone `*` is every host. An address in a URL is matched by that address or a lone `*` only.
- Without `port`, the scheme's own port is meant (80 for http, 443 for https); `host:*` is every port.
- A host may only have public addresses, and one that is not refuses the host. An internal host needs its range behind an
  `@`: `*.svc.cluster.local:8080@10.96.0.0/12`. Two ranges are two entries. An entry that is an address opens that address,
  and the entry `localhost` opens 127.0.0.0/8 and ::1.
- Link-local and cloud metadata addresses are opened by an entry that is that very address and by no range. Unspecified and
  multicast addresses stay closed.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network

from activities.clients.addresses import LOOPBACK, Address, Network, Reach, obstacle
from activities.clients.web_urls import DEFAULT_PORTS, WebUrl, normal_host, port_number
from activities.errors import InvalidStep, NotConfigured, clip

SETTING = "RUNBOOK_HTTP_ALLOW"

LOOPBACK_ENTRIES = ("localhost:*", "127.0.0.1:*", "[::1]:*")
"""What the embedded stack allows by itself."""

_ENTRY = re.compile(r"(?P<host>\[[^\[\]]*\]|[^:\[\]@/]+)(?::(?P<port>[^:@/]+))?(?:@(?P<range>[^@]+))?")
_GLOB = re.compile(r"(?:\*\.)?[a-z0-9_*?-]+(?:\.[a-z0-9_*?-]+)*")
_ADDRESS_GLOB = re.compile(r"[0-9.*?]*[0-9][0-9.*?]*")


@dataclass(frozen=True)
class AllowEntry:
    """One entry, read: `port` None means the scheme's own; `address` is set where the entry is an address."""

    host: re.Pattern[str]
    port: int | None
    any_port: bool
    any_host: bool
    address: Address | None
    opened: tuple[Network, ...]

    def matches_host(self, url: WebUrl) -> bool:
        """Whether the entry is about the URL's host, whatever the port."""
        if self.any_host:
            return True
        if self.address is not None or url.address is not None:
            return self.address == url.address
        return self.host.fullmatch(url.host) is not None

    def matches_port(self, url: WebUrl) -> bool:
        """Whether the entry is about the URL's port."""
        return self.any_port or url.port == (self.port or DEFAULT_PORTS[url.scheme])


@dataclass(frozen=True)
class Permit:
    """What the allow-list grants to one host: public addresses, and the ranges opened for it."""

    host: str
    opened: tuple[Network, ...] = ()
    named: frozenset[Address] = field(default_factory=frozenset[Address])

    def require(self, addresses: Iterable[Address]) -> None:
        """Refuse the host for the first address that is not public and was not opened.

        Raises: InvalidStep naming the host, the address and what would open it.
        """
        for address in addresses:
            obstructing = obstacle(address, self.opened, named=address in self.named)
            if obstructing is not None:
                where = "is" if self.host == str(address) else f"is at {address},"
                raise InvalidStep(
                    f"{_bracketed(self.host)} {where} {obstructing.kind}, which a runbook may not reach: "
                    f"{_remedy(self.host, address, obstructing.reach)}."
                )


def _remedy(host: str, address: Address, reach: Reach) -> str:
    if reach is Reach.NEVER:
        return "no setting opens it"
    if reach is Reach.BY_ADDRESS:
        return f"only an entry of {SETTING} that is this address opens it"
    opening = _bracketed(host) if host == str(address) else f"{host}@{address}"
    return f"where it is meant, write {opening} in {SETTING}"


class AllowList:
    """The entries of `RUNBOOK_HTTP_ALLOW`, and in the embedded stack those of loopback."""

    def __init__(self, entries: Sequence[str], *, allow_loopback: bool = False) -> None:
        """Read the entries; blank ones are passed over.

        Raises: NotConfigured naming the setting, the entry that cannot be read and what is allowed.
        """
        implied = LOOPBACK_ENTRIES if allow_loopback else ()
        self._entries = tuple(_parse(entry.strip()) for entry in (*entries, *implied) if entry.strip())

    def permit(self, url: WebUrl) -> Permit:
        """Say what the list grants to the URL's host and port, without asking DNS.

        Raises: NotConfigured when the list is empty, InvalidStep when the host or its port is not on it.
        """
        if not self._entries:
            raise NotConfigured(f"http steps are off: {SETTING} does not name {_bracketed(url.host)} or any other host.")
        for_host = [entry for entry in self._entries if entry.matches_host(url)]
        if not for_host:
            raise InvalidStep(f"{_bracketed(url.host)} is not among the hosts that {SETTING} allows.")
        matching = [entry for entry in for_host if entry.matches_port(url)]
        if not matching:
            raise InvalidStep(f"{SETTING} allows {_bracketed(url.host)}, but not on port {url.port}.")
        return Permit(
            host=url.host,
            opened=tuple(network for entry in matching for network in entry.opened),
            named=frozenset(entry.address for entry in matching if entry.address is not None),
        )


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _parse(text: str) -> AllowEntry:
    try:
        return _entry(text)
    except ValueError as error:
        raise NotConfigured(
            f"{SETTING} has the entry {clip(text, 100)!r}, in which {error}; an entry is host, host:port or host:*, the host "
            "with * and ? as wildcards, and @CIDR at the end for an internal host."
        ) from None


def _entry(text: str) -> AllowEntry:
    parts = _ENTRY.fullmatch(text)
    if parts is None:
        raise ValueError("no host can be read")
    host = _host(parts["host"])
    address = _address(host)
    return AllowEntry(
        host=_pattern(host),
        port=_port(parts["port"]),
        any_port=parts["port"] == "*",
        any_host=host == "*",
        address=address,
        opened=_opened(host, parts["range"]),
    )


def _host(text: str) -> str:
    if "*" not in text and "?" not in text:
        return normal_host(text)
    stem = text.removeprefix("*.")
    if stem != text and "*" not in stem and "?" not in stem:
        return f"*.{_name(stem)}"
    glob = text.lower()
    if not _GLOB.fullmatch(glob):
        raise ValueError("the host is not a name with wildcards")
    if _ADDRESS_GLOB.fullmatch(glob):
        raise ValueError("an address has wildcards; a range is written like *@10.0.0.0/8")
    return glob


def _name(text: str) -> str:
    host = normal_host(text)
    if _address(host) is not None:
        raise ValueError("an address has wildcards; a range is written like *@10.0.0.0/8")
    return host


def _address(host: str) -> Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _pattern(host: str) -> re.Pattern[str]:
    stem = host.removeprefix("*.")
    labels = re.escape(stem).replace(r"\*", "[^.]*").replace(r"\?", "[^.]")
    return re.compile(labels if stem == host else rf"(?:[^.]+\.)+{labels}")


def _port(text: str | None) -> int | None:
    if text is None or text == "*":
        return None
    port = port_number(text)
    if port is None:
        raise ValueError("the port is neither a number from 1 to 65535 nor *")
    return port


def _opened(host: str, text: str | None) -> tuple[Network, ...]:
    implied = LOOPBACK if host == "localhost" else ()
    if text is None:
        return implied
    try:
        return (*implied, ip_network(text))
    except ValueError:
        raise ValueError("what follows the @ is not a range like 10.0.0.0/8") from None
