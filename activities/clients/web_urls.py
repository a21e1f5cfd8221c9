"""Read a URL into the parts that go on the wire, or refuse it: the one parser, so what is judged is what is connected to.

Stricter than RFC 3986 on purpose: a URL that two parsers could read differently is refused, not repaired.
"""

import re
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv4Address, IPv6Address, ip_address
from urllib.parse import quote

import idna

from activities.clients.addresses import Address
from activities.errors import InvalidStep, clip

URL_LIMIT_CHARACTERS = 8_000
"""Longest URL taken; RFC 9110 section 4.1 asks servers for this much and no more."""

HOST_LIMIT_CHARACTERS = 253
"""RFC 1035 section 2.3.4: 255 octets on the wire, two of which no text shows."""

DEFAULT_PORTS = {"http": 80, "https": 443}

_URL = re.compile(r"(?P<scheme>https?)://(?P<authority>[^/?]+)(?P<path>/[^?]*)?(?:\?(?P<query>.*))?", re.I | re.A)
_AUTHORITY = re.compile(r"(?P<host>\[[^\[\]]*\]|[^:\[\]]+)(?::(?P<port>[^:\[\]]*))?")
_PORT = re.compile(r"[0-9]{1,5}")
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
# A last label like these makes resolvers read the name as an IPv4 address (WHATWG URL, "ends in a number").
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")

_PATH_SAFE = "/%:@!$&'()*+,;=-._~"
_QUERY_SAFE = _PATH_SAFE + "?"


@dataclass(frozen=True)
class WebUrl:
    """A URL in normal form: `host` is ASCII, lower case, without brackets or a trailing dot; `port` is always set.

    The path and the query may hold secrets (a webhook's path is one), so `repr` and `origin` leave them out.
    """

    scheme: str
    host: str
    port: int
    path: str = field(default="/", repr=False)
    query: str | None = field(default=None, repr=False)

    @property
    def address(self) -> Address | None:
        """The IP address, where the host is one and not a name."""
        try:
            return ip_address(self.host)
        except ValueError:
            return None

    @property
    def authority(self) -> str:
        """What the Host header says: the port only where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        """The part that may be shown to anybody, like `https://api.example.com:8443`."""
        return f"{self.scheme}://{self.authority}"

    @property
    def target(self) -> str:
        """What the request line says: path and query, percent-encoded."""
        return self.path if self.query is None else f"{self.path}?{self.query}"


@dataclass(frozen=True)
class Target:
    """A URL with the addresses that were judged for it, best first; only these are ever connected to."""

    url: WebUrl
    addresses: tuple[Address, ...]


def parse_url(text: str) -> WebUrl:
    """Read a URL.

    Raises: InvalidStep with one sentence that names the host at most, never the user name, path or query.
    """
    _refuse_ambiguous(text)
    parts = _URL.fullmatch(text)
    if parts is None:
        raise InvalidStep("The URL of an http step must start with http:// or https:// and name a host.")
    scheme = parts["scheme"].lower()
    host, port = _host_and_port(parts["authority"], DEFAULT_PORTS[scheme])
    query = parts["query"]
    return WebUrl(
        scheme=scheme,
        host=host,
        port=port,
        path=quote(parts["path"] or "/", safe=_PATH_SAFE),
        query=None if query is None else quote(query, safe=_QUERY_SAFE),
    )


def _refuse_ambiguous(text: str) -> None:
    if len(text) > URL_LIMIT_CHARACTERS:
        raise InvalidStep(f"The URL of an http step may have at most {URL_LIMIT_CHARACTERS:,} characters.")
    if not text.isprintable() or " " in text or "\\" in text:
        raise InvalidStep("The URL of an http step may hold no space, control character or backslash.")
    if "#" in text:
        raise InvalidStep("The URL of an http step may hold no #; write %23 where the character itself is meant.")


def _host_and_port(authority: str, default_port: int) -> tuple[str, int]:
    if "@" in authority:
        raise InvalidStep("The URL of an http step may hold no user name or password; use an Authorization header.")
    parts = _AUTHORITY.fullmatch(authority)
    if parts is None:
        raise InvalidStep("The URL of an http step names no valid host; it is host or host:port, IPv6 in brackets.")
    try:
        host = normal_host(parts["host"])
    except ValueError as error:
        raise InvalidStep(f"The URL of an http step cannot use the host {clip(parts['host'], 100)!r}: {error}.") from None
    if parts["port"] is None:
        return host, default_port
    port = port_number(parts["port"])
    if port is None:
        raise InvalidStep(f"The URL of an http step gives {host} a port that is not a number from 1 to 65535.")
    return host, port


def port_number(text: str) -> int | None:
    """Read a TCP port, 1 to 65535 in ASCII digits; None for anything else."""
    port = int(text) if _PORT.fullmatch(text) else 0
    return port if 1 <= port <= 65_535 else None


def normal_host(text: str) -> str:
    """Bring a host to the one spelling that is matched, resolved, sent and verified.

    Names go through UTS 46 (NFKC, case, full-width dots) and IDNA 2008; one trailing dot is taken off; underscores, which
    container networks use, stay. An IPv4 address must be four plain decimal numbers, an IPv6 address stands in brackets.

    Raises: ValueError with the reason as half a sentence.
    """
    if text.startswith("["):
        return _ipv6(text)
    name = _ascii_name(text).removesuffix(".")
    labels = name.split(".")
    if len(name) > HOST_LIMIT_CHARACTERS or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError("it is neither a host name nor an address")
    if _NUMBER.fullmatch(labels[-1]):
        return _ipv4(name, written=text)
    _refuse_false_punycode(labels)
    return name


def _ipv6(text: str) -> str:
    if "%" in text:
        raise ValueError("an IPv6 zone is not allowed")
    try:
        return str(IPv6Address(text.removeprefix("[").removesuffix("]")))
    except AddressValueError:
        raise ValueError("it is not an IPv6 address") from None


def _ipv4(name: str, *, written: str) -> str:
    try:
        address = str(IPv4Address(name))
    except AddressValueError:
        address = ""
    if not address or not written.isascii():
        raise ValueError("an IPv4 address is written as four decimal numbers, like 192.168.10.20")
    return address


def _ascii_name(text: str) -> str:
    if text.isascii():
        return text.lower()
    try:
        return idna.encode(text, uts46=True, std3_rules=True).decode("ascii")
    except idna.IDNAError:
        raise ValueError("it is not an international domain name") from None


def _refuse_false_punycode(labels: list[str]) -> None:
    try:
        for label in labels:
            if label.startswith("xn--"):
                idna.ulabel(label)
    except idna.IDNAError:
        raise ValueError("it holds an xn-- label that is not an international domain name") from None
