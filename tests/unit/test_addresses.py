"""Which addresses are public, and what opens the others."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from activities.clients.addresses import RANGES, Address, Reach, faces, obstacle, range_of

EVERYTHING = (ip_network("0.0.0.0/0"), ip_network("::/0"))

ipv4 = st.ip_addresses(v=4)
ipv6 = st.ip_addresses(v=6)


def carriers(address: IPv4Address) -> list[IPv6Address]:
    """Every IPv6 address by which a gateway or the kernel may reach an IPv4 address."""
    value = int(address)
    return [
        IPv6Address(value),  # IPv4-compatible
        IPv6Address(0xFFFF << 32 | value),  # IPv4-mapped
        IPv6Address(0xFFFF << 48 | value),  # IPv4-translated
        IPv6Address(0x64_FF9B << 96 | value),  # NAT64
        IPv6Address(0x64_FF9B_0001 << 80 | value),  # local NAT64
        IPv6Address(0x2002 << 112 | value << 80),  # 6to4
        IPv6Address(0x2001_0000 << 96 | value << 64 | 0xF7F7_F7F7),  # Teredo, the server
        IPv6Address(0x2001_0000 << 96 | 0x0808_0808 << 64 | (value ^ 0xFFFF_FFFF)),  # Teredo, the client
    ]


@given(st.one_of(ipv4, ipv6))
@example(ip_address("127.0.0.1"))
@example(ip_address("::1"))
@example(ip_address("fe80::1"))
def test_every_address_that_the_standard_library_calls_not_global_is_refused(address: Address) -> None:
    if not address.is_global or address.is_multicast:
        assert obstacle(address) is not None


@given(st.sampled_from([row for row in RANGES if row.reach is not Reach.PUBLIC and row.network.prefixlen]), st.data())
def test_every_address_of_every_special_range_is_refused(row, data: st.DataObject) -> None:
    offset = data.draw(st.integers(0, row.network.num_addresses - 1))
    assert obstacle(row.network[offset]) is not None


@pytest.mark.parametrize("row", [row for row in RANGES if row.reach is not Reach.PUBLIC], ids=lambda row: str(row.network))
def test_the_first_and_the_last_address_of_a_special_range_are_refused(row) -> None:
    assert obstacle(row.network[0]) is not None
    assert obstacle(row.network[-1]) is not None


@pytest.mark.parametrize("text", ["8.8.8.8", "1.1.1.1", "93.184.216.34", "172.15.255.255", "172.32.0.0", "2606:4700::1111"])
def test_a_public_address_needs_nothing_opened(text: str) -> None:
    assert obstacle(ip_address(text)) is None


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("127.8.8.8", "loopback"),
        ("::1", "loopback"),
        ("10.1.2.3", "private"),
        ("172.31.255.255", "private"),
        ("192.168.1.1", "private"),
        ("fd12::1", "private"),
        ("100.64.0.1", "carrier-grade NAT"),
        ("169.254.1.1", "link-local"),
        ("fe80::1", "link-local"),
        ("169.254.169.254", "metadata"),
        ("fd00:ec2::254", "metadata"),
        ("168.63.129.16", "metadata"),
        ("100.100.100.200", "metadata"),
        ("224.0.0.1", "multicast"),
        ("ff02::1", "multicast"),
        ("0.0.0.0", "unspecified"),
        ("0.1.2.3", "unspecified"),
        ("::", "unspecified"),
        ("255.255.255.255", "broadcast"),
        ("240.0.0.1", "reserved"),
        ("192.0.2.1", "documentation"),
        ("2001:db8::1", "documentation"),
        ("3fff::1", "documentation"),
        ("198.18.0.1", "benchmarking"),
        ("fec0::1", "site-local"),
        ("::ffff:8.8.8.8", "IPv4-mapped"),
        ("::8.8.8.8", "IPv4-compatible"),
        ("2002:808:808::1", "6to4"),
        ("64:ff9b::808:808", "NAT64"),
        ("64:ff9b:1::808:808", "local NAT64"),
        ("2001::1", "Teredo"),
        ("5f00::1", "outside the public part"),
    ],
)
def test_the_obstacle_names_the_kind_of_the_address(text: str, kind: str) -> None:
    found = obstacle(ip_address(text))
    assert found is not None
    assert kind in found.kind


@given(ipv4)
@example(IPv4Address("127.0.0.1"))
@example(IPv4Address("169.254.169.254"))
@example(IPv4Address("10.0.0.1"))
def test_opening_all_of_ipv6_does_not_open_what_hides_inside_an_ipv6_address(address: IPv4Address) -> None:
    for carrier in carriers(address):
        if obstacle(address) is not None:
            assert obstacle(carrier, [ip_network("::/0")]) is not None, carrier


def test_a_carried_address_that_is_public_is_reachable_where_its_range_is_opened() -> None:
    carrier = ip_address("64:ff9b::808:808")
    assert obstacle(carrier) is not None
    assert obstacle(carrier, [ip_network("64:ff9b::/96")]) is None


def test_without_its_faces_a_loopback_address_behind_nat64_would_pass() -> None:
    carrier = ip_address("64:ff9b::7f00:1")
    assert carrier in ip_network("64:ff9b::/96")  # the carrier alone is what the operator opened
    assert faces(carrier) == (carrier, ip_address("127.0.0.1"))
    assert obstacle(carrier, [ip_network("64:ff9b::/96")]) == range_of(ip_address("127.0.0.1"))


@pytest.mark.parametrize(
    "text",
    ["169.254.169.254", "169.254.1.1", "fe80::1", "fd00:ec2::254", "fd20:ce::254", "168.63.129.16", "100.100.100.200"],
)
def test_no_range_opens_a_link_local_or_metadata_address_but_naming_it_does(text: str) -> None:
    assert obstacle(ip_address(text), EVERYTHING) is not None
    assert obstacle(ip_address(text), named=True) is None


@pytest.mark.parametrize("text", ["0.0.0.0", "0.0.0.1", "::", "224.0.0.1", "ff02::1", "255.255.255.255", "::ffff:0.0.0.0"])
def test_nothing_opens_an_unspecified_or_multicast_address(text: str) -> None:
    assert obstacle(ip_address(text), EVERYTHING, named=True) is not None


@pytest.mark.parametrize("text", ["127.0.0.1", "::1", "10.0.0.1", "fd12::1", "100.64.0.1", "192.0.2.1", "240.0.0.1"])
def test_an_internal_address_is_opened_by_its_range_or_its_name_and_by_no_other(text: str) -> None:
    address = ip_address(text)
    other = ip_network("203.0.113.0/24")
    assert obstacle(address, [ip_network(text)]) is None
    assert obstacle(address, named=True) is None
    assert obstacle(address, [other]) is not None


@given(st.one_of(ipv4, ipv6))
def test_every_address_has_a_row_and_the_narrowest_one_decides(address: Address) -> None:
    found = range_of(address)
    holding = [row.network.prefixlen for row in RANGES if address in row.network]
    assert found.network.prefixlen == max(holding)
