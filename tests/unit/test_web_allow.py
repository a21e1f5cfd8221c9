"""RUNBOOK_HTTP_ALLOW: what an entry matches, and which addresses it opens."""

from ipaddress import ip_address

import pytest

from activities.clients.web_allow import AllowList
from activities.clients.web_urls import parse_url
from activities.errors import InvalidStep, NotConfigured


def allows(entries: list[str], url: str, *, allow_loopback: bool = False) -> bool:
    try:
        AllowList(entries, allow_loopback=allow_loopback).permit(parse_url(url))
    except InvalidStep:
        return False
    return True


def opens(entries: list[str], url: str, address: str, *, allow_loopback: bool = False) -> bool:
    permit = AllowList(entries, allow_loopback=allow_loopback).permit(parse_url(url))
    try:
        permit.require([ip_address(address)])
    except InvalidStep:
        return False
    return True


def test_an_empty_list_allows_nothing_and_names_the_setting() -> None:
    for entries in ([], [""], ["  "]):
        with pytest.raises(NotConfigured, match=r"http steps are off: RUNBOOK_HTTP_ALLOW"):
            AllowList(entries).permit(parse_url("https://api.example.com/"))


@pytest.mark.parametrize(
    ("entry", "url", "expected"),
    [
        ("api.example.com", "https://api.example.com/", True),
        ("API.Example.com.", "https://api.example.com/", True),
        ("api.example.com", "https://API.EXAMPLE.COM./", True),
        ("api.example.com", "https://evil-api.example.com/", False),
        ("api.example.com", "https://api.example.com.evil.test/", False),
        ("api.example.com", "https://apixexample.com/", False),
        ("bücher.example", "https://xn--bcher-kva.example/", True),
        ("*.bücher.example", "https://www.BÜCHER.example/", True),
        ("*.example.com", "https://a.example.com/", True),
        ("*.example.com", "https://a.b.example.com/", True),
        ("*.example.com", "https://example.com/", False),
        ("*.example.com", "https://aexample.com/", False),
        ("*.example.com", "https://a.example.com.evil.test/", False),
        ("api*.com", "https://api7.com/", True),
        ("api*.com", "https://api.evil.com/", False),
        ("api.*.com", "https://api.x.com/", True),
        ("api.*.com", "https://api.x.y.com/", False),
        ("*.eu-?.example.com", "https://a.b.eu-1.example.com/", True),
        ("*.eu-?.example.com", "https://a.eu-10.example.com/", False),
        ("*", "https://anything.example/", True),
        ("*", "https://93.184.216.34/", True),
        ("*.1", "https://93.184.216.1/", None),
        ("*.*", "https://93.184.216.34/", False),
        ("*.*", "https://h.example/", True),
        ("*.*", "https://[2606:4700::1111]/", False),
        ("93.184.216.34", "https://93.184.216.34/", True),
        ("93.184.216.34", "https://93.184.216.35/", False),
        ("[2606:4700::1111]", "https://[2606:4700:0::1111]/", True),
        ("[2606:4700::1111]:8443", "https://[2606:4700::1111]:8443/", True),
    ],
)
def test_an_entry_matches_the_normal_form_of_the_host(entry: str, url: str, expected: bool | None) -> None:
    if expected is None:
        with pytest.raises(NotConfigured):
            AllowList([entry])
    else:
        assert allows([entry], url) is expected


@pytest.mark.parametrize(
    ("entry", "url", "expected"),
    [
        ("h.example", "http://h.example/", True),
        ("h.example", "https://h.example/", True),
        ("h.example", "http://h.example:80/", True),
        ("h.example", "http://h.example:443/", False),
        ("h.example", "https://h.example:8443/", False),
        ("h.example:8443", "https://h.example:8443/", True),
        ("h.example:8443", "https://h.example/", False),
        ("h.example:*", "https://h.example:1/", True),
        ("*", "https://h.example:8080/", False),
        ("*:*", "https://h.example:8080/", True),
    ],
)
def test_without_a_port_an_entry_means_the_scheme_s_own(entry: str, url: str, expected: bool) -> None:
    assert allows([entry], url) is expected


def test_a_refusal_names_the_host_the_setting_and_what_is_wrong() -> None:
    with pytest.raises(InvalidStep, match=r"^evil\.example is not among the hosts that RUNBOOK_HTTP_ALLOW allows\.$"):
        AllowList(["h.example"]).permit(parse_url("https://evil.example/?token=s3cret"))
    with pytest.raises(InvalidStep, match=r"^RUNBOOK_HTTP_ALLOW allows h\.example, but not on port 81\.$"):
        AllowList(["h.example"]).permit(parse_url("http://h.example:81/"))


@pytest.mark.parametrize(
    "entry",
    [
        "https://api.example.com",
        "api.example.com/path",
        "api.example.com:http",
        "api.example.com:0",
        "api.example.com:80-90",
        "10.0.0.0/8",
        "10.*",
        "10.0.0.*",
        "127.1",
        "2130706433",
        "0x7f000001",
        "①②⑦.0.0.1",
        "::1",
        "[::1",
        "[fe80::1%eth0]",
        "user@host@10.0.0.0/8",
        "h.example@",
        "h.example@10.0.0.1/8",
        "h.example@ten",
        "@10.0.0.0/8",
        ":80",
        "*.bü*.example",
        "**.-!",
        "a b",
        "api,example",
    ],
)
def test_an_entry_that_cannot_be_read_stops_the_start_with_one_sentence(entry: str) -> None:
    with pytest.raises(NotConfigured, match=r"^RUNBOOK_HTTP_ALLOW has the entry .*an entry is host, host:port or host:\*"):
        AllowList([entry])


def test_an_allowed_host_may_have_public_addresses_only() -> None:
    assert opens(["h.example"], "http://h.example/", "93.184.216.34")
    assert not opens(["h.example"], "http://h.example/", "10.0.0.5")
    assert not opens(["*"], "http://10.0.0.5/", "10.0.0.5")


def test_one_bad_address_refuses_the_whole_host() -> None:
    permit = AllowList(["h.example"]).permit(parse_url("http://h.example/"))
    with pytest.raises(InvalidStep, match=r"^h\.example is at 10\.0\.0\.5, a private address, .* h\.example@10\.0\.0\.5 in"):
        permit.require([ip_address("93.184.216.34"), ip_address("10.0.0.5"), ip_address("93.184.216.35")])


def test_a_range_opens_an_internal_host_for_itself_and_no_wider() -> None:
    entries = ["db.example:*@10.0.0.0/8", "other.example:*"]
    assert opens(entries, "http://db.example:8080/", "10.9.9.9")
    assert not opens(entries, "http://db.example:8080/", "192.168.0.1")
    assert not opens(entries, "http://other.example:8080/", "10.9.9.9")
    assert opens(["*@10.0.0.0/8"], "http://10.9.9.9/", "10.9.9.9")
    assert not opens(["*@10.0.0.0/8"], "http://192.168.0.1/", "192.168.0.1")


def test_the_ranges_of_all_entries_of_a_host_and_port_add_up() -> None:
    entries = ["db.example@10.0.0.0/8", "db.example@fd00::/8", "db.example:81@192.168.0.0/16"]
    assert opens(entries, "http://db.example/", "10.0.0.1")
    assert opens(entries, "http://db.example/", "fd00::1")
    assert not opens(entries, "http://db.example/", "192.168.0.1")


def test_an_entry_that_is_an_address_opens_it_and_no_name_that_points_there() -> None:
    assert opens(["10.0.0.5"], "http://10.0.0.5/", "10.0.0.5")
    assert not allows(["10.0.0.5"], "http://db.example/")
    assert not opens(["10.0.0.5", "db.example"], "http://db.example/", "10.0.0.5")


def test_the_metadata_address_is_opened_by_itself_alone() -> None:
    assert not opens(["*@0.0.0.0/0"], "http://169.254.169.254/", "169.254.169.254")
    assert not opens(["meta.example@169.254.169.254/32"], "http://meta.example/", "169.254.169.254")
    assert opens(["169.254.169.254"], "http://169.254.169.254/", "169.254.169.254")
    assert not opens(["*@::/0"], "http://[fd00:ec2::254]/", "fd00:ec2::254")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
def test_the_embedded_stack_allows_loopback_under_its_three_names_on_every_port(host: str) -> None:
    address = "::1" if host == "[::1]" else "127.0.0.1"
    assert opens([], f"http://{host}:8080/", address, allow_loopback=True)
    with pytest.raises(NotConfigured):
        AllowList([]).permit(parse_url(f"http://{host}:8080/"))


def test_the_embedded_stack_opens_loopback_for_no_other_host() -> None:
    assert not allows([], "http://h.example/", allow_loopback=True)
    assert not allows([], "http://127.0.0.2/", allow_loopback=True)
    assert not opens(["h.example"], "http://h.example/", "127.0.0.1", allow_loopback=True)
    assert not opens([], "http://localhost/", "10.0.0.1", allow_loopback=True)


def test_the_entry_localhost_means_loopback() -> None:
    assert opens(["localhost:8080"], "http://localhost:8080/", "127.0.0.1")
    assert not opens(["*:8080"], "http://localhost:8080/", "127.0.0.1")
