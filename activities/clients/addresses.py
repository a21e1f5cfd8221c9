"""Say which IP addresses are public, and which others an operator may open and how; pure, never asks the network.

The table is our own and not `ipaddress.is_global`, whose answers differ between Python patch releases. Sources: the IANA
IPv4 and IPv6 Special-Purpose Address Registries (RFC 6890), and the clouds' pages for their metadata servers.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

_LOW_32_BITS = 0xFFFF_FFFF


class Reach(Enum):
    """What it takes before a runbook may connect to an address."""

    PUBLIC = "nothing more than an allowed host"
    INTERNAL = "the operator opened its range, or named the address itself"
    BY_ADDRESS = "the operator named the address itself"
    NEVER = "nothing: no web server can stand there"


@dataclass(frozen=True)
class AddressRange:
    """One row of the table.

    `carries` says where an IPv6 address of this range holds an IPv4 address that a gateway will really connect to:
    pairs of (bits to shift right, mask to xor with); Teredo stores the client's address inverted.
    """

    network: Network
    reach: Reach
    kind: str
    carries: tuple[tuple[int, int], ...] = ()


def _row(network: str, reach: Reach, kind: str, *carries: tuple[int, int]) -> AddressRange:
    return AddressRange(ip_network(network), reach, kind, carries)


_ROWS = (
    # Metadata servers hand out the machine's own credentials.
    _row("169.254.169.254/32", Reach.BY_ADDRESS, "a cloud metadata address"),
    _row("100.100.100.200/32", Reach.BY_ADDRESS, "a cloud metadata address (Alibaba)"),
    _row("168.63.129.16/32", Reach.BY_ADDRESS, "a cloud metadata address (Azure)"),
    _row("192.0.0.192/32", Reach.BY_ADDRESS, "a cloud metadata address (Oracle)"),
    _row("fd00:ec2::/32", Reach.BY_ADDRESS, "a cloud metadata address (AWS)"),
    _row("fd20:ce::254/128", Reach.BY_ADDRESS, "a cloud metadata address (Google)"),
    _row("fd00:c1::a9fe:a9fe/128", Reach.BY_ADDRESS, "a cloud metadata address (Oracle)"),
    # Linux connects 0.0.0.0 and :: to itself.
    _row("0.0.0.0/8", Reach.NEVER, "an unspecified address"),
    _row("::/128", Reach.NEVER, "an unspecified address"),
    _row("224.0.0.0/4", Reach.NEVER, "a multicast address"),
    _row("ff00::/8", Reach.NEVER, "a multicast address"),
    _row("255.255.255.255/32", Reach.NEVER, "a broadcast address"),
    _row("169.254.0.0/16", Reach.BY_ADDRESS, "a link-local address"),
    _row("fe80::/10", Reach.BY_ADDRESS, "a link-local address"),
    _row("127.0.0.0/8", Reach.INTERNAL, "a loopback address"),
    _row("::1/128", Reach.INTERNAL, "a loopback address"),
    _row("10.0.0.0/8", Reach.INTERNAL, "a private address"),
    _row("172.16.0.0/12", Reach.INTERNAL, "a private address"),
    _row("192.168.0.0/16", Reach.INTERNAL, "a private address"),
    _row("fc00::/7", Reach.INTERNAL, "a private address"),
    _row("fec0::/10", Reach.INTERNAL, "a site-local address"),
    _row("100.64.0.0/10", Reach.INTERNAL, "a carrier-grade NAT address"),
    _row("192.0.0.0/24", Reach.INTERNAL, "a protocol address"),
    _row("192.0.2.0/24", Reach.INTERNAL, "a documentation address"),
    _row("192.31.196.0/24", Reach.INTERNAL, "an AS112 address"),
    _row("192.52.193.0/24", Reach.INTERNAL, "a multicast relay address"),
    _row("192.88.99.0/24", Reach.INTERNAL, "a 6to4 relay address"),
    _row("192.175.48.0/24", Reach.INTERNAL, "an AS112 address"),
    _row("198.18.0.0/15", Reach.INTERNAL, "a benchmarking address"),
    _row("198.51.100.0/24", Reach.INTERNAL, "a documentation address"),
    _row("203.0.113.0/24", Reach.INTERNAL, "a documentation address"),
    _row("240.0.0.0/4", Reach.INTERNAL, "a reserved address"),
    _row("::/96", Reach.INTERNAL, "an IPv4-compatible address", (0, 0)),
    _row("::ffff:0:0/96", Reach.INTERNAL, "an IPv4-mapped address", (0, 0)),
    _row("::ffff:0:0:0/96", Reach.INTERNAL, "an IPv4-translated address", (0, 0)),
    _row("64:ff9b::/96", Reach.INTERNAL, "a NAT64 address", (0, 0)),
    # RFC 8215 leaves open where in these addresses the IPv4 address lies, so a range cannot be judged.
    _row("64:ff9b:1::/48", Reach.BY_ADDRESS, "a local NAT64 address"),
    _row("2001::/32", Reach.INTERNAL, "a Teredo address", (64, 0), (0, _LOW_32_BITS)),
    _row("2001::/23", Reach.INTERNAL, "a protocol address"),
    _row("2001:db8::/32", Reach.INTERNAL, "a documentation address"),
    _row("2002::/16", Reach.INTERNAL, "a 6to4 address", (80, 0)),
    _row("2620:4f:8000::/48", Reach.INTERNAL, "an AS112 address"),
    _row("3fff::/20", Reach.INTERNAL, "a documentation address"),
    _row("0.0.0.0/0", Reach.PUBLIC, "a public address"),
    # RFC 4291 section 2.4: IANA gives out global unicast from 2000::/3 alone; the rest is closed until it does otherwise.
    _row("2000::/3", Reach.PUBLIC, "a public address"),
    _row("::/0", Reach.INTERNAL, "an address outside the public part of IPv6"),
)

RANGES: tuple[AddressRange, ...] = tuple(sorted(_ROWS, key=lambda row: row.network.prefixlen, reverse=True))
"""The table, narrowest range first: the first that holds an address decides."""

LOOPBACK: tuple[Network, ...] = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


def range_of(address: Address) -> AddressRange:
    """Return the narrowest row that holds the address; every address has one."""
    return next(row for row in RANGES if address in row.network)


def faces(address: Address) -> tuple[Address, ...]:
    """Return the address and every IPv4 address that it carries inside: a gateway connects to those."""
    value = int(address)
    carried = (IPv4Address((value >> shift ^ mask) & _LOW_32_BITS) for shift, mask in range_of(address).carries)
    return (address, *carried)


def obstacle(address: Address, opened: Iterable[Network] = (), *, named: bool = False) -> AddressRange | None:
    """Return the range that forbids connecting to the address, or None when a runbook may connect.

    `opened` are the ranges that the operator opened for the host; `named` says that the operator wrote this very address.
    An address must pass with each of its faces: opening the NAT64 range does not open 127.0.0.1 behind it.
    """
    ranges = tuple(opened)
    return next((range_of(face) for face in faces(address) if not _passes(face, ranges, named)), None)


def _passes(face: Address, opened: tuple[Network, ...], named: bool) -> bool:
    match range_of(face).reach:
        case Reach.PUBLIC:
            return True
        case Reach.INTERNAL:
            return named or any(face in network for network in opened)
        case Reach.BY_ADDRESS:
            return named
        case Reach.NEVER:
            return False
