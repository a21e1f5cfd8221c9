"""One spelling of every URL, and a refusal for whatever two parsers could read differently."""

import re
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from activities.clients.web_urls import WebUrl, normal_host, parse_url
from activities.errors import InvalidStep

OCTETS = st.tuples(*[st.integers(0, 255)] * 4)

Speller = Callable[[tuple[int, ...]], str]


def whole(parts: tuple[int, ...]) -> int:
    return int(IPv4Address(bytes(parts)))


ODD_SPELLINGS: dict[str, Speller] = {
    "one decimal number": lambda p: str(whole(p)),
    "one hexadecimal number": lambda p: hex(whole(p)),
    "one hexadecimal number in capitals": lambda p: f"0X{whole(p):X}",
    "one octal number": lambda p: f"0{whole(p):o}",
    "two parts": lambda p: f"{p[0]}.{whole((0, *p[1:]))}",
    "three parts": lambda p: f"{p[0]}.{p[1]}.{p[2] << 8 | p[3]}",
    "octal parts": lambda p: ".".join(f"0{n:o}" for n in p),
    "hexadecimal parts": lambda p: ".".join(hex(n) for n in p),
    "mixed parts": lambda p: f"{p[0]}.{p[1]:#x}.0{p[2]:o}.{p[3]}",
    "parts with leading zeros": lambda p: ".".join(f"{n:04}" for n in p),
    "full-width digits": lambda p: "".join(chr(0xFF10 + int(c)) if c.isdigit() else c for c in str(IPv4Address(bytes(p)))),
    "full-width dots": lambda p: str(IPv4Address(bytes(p))).replace(".", "．"),
    "ideographic dots": lambda p: str(IPv4Address(bytes(p))).replace(".", "。"),
    "percent signs": lambda p: "".join(f"%{ord(c):02x}" for c in str(IPv4Address(bytes(p)))),
    "two trailing dots": lambda p: str(IPv4Address(bytes(p))) + "..",
    "five parts": lambda p: str(IPv4Address(bytes(p))) + ".1",
    "in brackets": lambda p: f"[{IPv4Address(bytes(p))}]",
}


@pytest.mark.parametrize("spelling", ODD_SPELLINGS.values(), ids=ODD_SPELLINGS)
@given(parts=OCTETS)
@example(parts=(127, 0, 0, 1))
@example(parts=(169, 254, 169, 254))
def test_an_ipv4_address_in_any_other_spelling_is_refused(spelling: Speller, parts: tuple[int, ...]) -> None:
    text = spelling(parts)
    assume(text != str(IPv4Address(bytes(parts))))
    with pytest.raises(InvalidStep):
        parse_url(f"http://{text}/")


@given(OCTETS)
def test_an_ipv4_address_in_its_plain_spelling_is_that_address(parts: tuple[int, ...]) -> None:
    address = IPv4Address(bytes(parts))
    assert parse_url(f"http://{address}/").address == address


@given(st.ip_addresses(v=6))
def test_every_spelling_of_an_ipv6_address_becomes_one(address: IPv6Address) -> None:
    for text in (address.exploded, address.compressed, address.exploded.upper()):
        url = parse_url(f"https://[{text}]:8443/")
        assert (url.host, url.address) == (str(address), address)
        assert url.authority == f"[{address}]:8443"


@pytest.mark.parametrize(
    ("written", "host"),
    [
        ("API.Example.COM", "api.example.com"),
        ("api.example.com.", "api.example.com"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("bu\u0308cher.example", "xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("ｌｏｃａｌｈｏｓｔ", "localhost"),
        ("evil。example", "evil.example"),
        ("my_service", "my_service"),
        ("127.0.0.1.", "127.0.0.1"),
    ],
)
def test_a_name_has_one_normal_spelling(written: str, host: str) -> None:
    assert parse_url(f"http://{written}/").host == host
    assert normal_host(host) == host


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.example.com",
        "//api.example.com/",
        "http:api.example.com",
        "http:/api.example.com",
        "http:///path",
        "http://",
        "http://?q",
        "ftp://api.example.com/",
        "file:///etc/passwd",
        "gopher://api.example.com/",
        "ws://api.example.com/",
        "httpſ://api.example.com/",
        "javascript:alert(1)",
        "http://user@api.example.com/",
        "http://user:word@api.example.com/",
        "http://@api.example.com/",
        "http://api.example.com@127.0.0.1/",
        "http://api.example.com:80@127.0.0.1/",
        "http://127.0.0.1\\@api.example.com/",
        "http://api.example.com\\.evil.example/",
        "http://api.example.com#@127.0.0.1/",
        "http://api.example.com/#part",
        "http://api.example.com/a b",
        " http://api.example.com/",
        "http://api.example.com/\n",
        "http://api.example.com/\r\nX: y",
        "http://api.exa\tmple.com/",
        "http://api.example.com/\x00",
        "http://api.example.com/\x7f",
        "http://api.example.com/\u0085",
        "http://api.example.com/\u2028",
        "http://api.exam\u00adple.com/",
        "http://api.exam\u200bple.com/",
        "http://api.example.com\u3000/",
        "http://api.example.com\ud800/",
        "http://api%2eexample%2ecom/",
        "http://api.example.com%00.evil.example/",
        "http://-api.example.com/",
        "http://api..example.com/",
        "http://.example.com/",
        "http://api.example.com../",
        "http://./",
        f"http://{'a' * 64}.example.com/",
        f"http://{'a.' * 127}com/",
        "http://xn--a/",
        "http://api.example.com:/",
        "http://api.example.com:0/",
        "http://api.example.com:65536/",
        "http://api.example.com:+80/",
        "http://api.example.com:８０/",
        "http://api.example.com:80:80/",
        "http://api.example.com:http/",
        "http://[::1/",
        "http://::1/",
        "http://[::1%25lo]/",
        "http://[fe80::1%eth0]/",
        "http://[v1.fe80]/",
        "http://[localhost]/",
        "http://[::1].example/",
        "http://x[::1]/",
        "http://" + "a" * 9_000,
    ],
)
def test_an_ambiguous_url_is_refused_with_one_sentence(url: str) -> None:
    with pytest.raises(InvalidStep) as refusal:
        parse_url(url)
    assert str(refusal.value).count("\n") == 0
    assert str(refusal.value).endswith(".")


@pytest.mark.parametrize(
    "url",
    [
        "http://name:s3cret@api.example.com/",
        "http://name:s3cret/@api.example.com/",
        "http://api.example.com/s3cret\n",
        "http://api.example.com/?token=s3cret#",
        "http://127.1/s3cret?token=s3cret",
        "ftp://api.example.com/?s3cret",
        "http://[::1%25s3cret/",
    ],
)
def test_a_refusal_quotes_no_user_name_path_or_query(url: str) -> None:
    with pytest.raises(InvalidStep) as refusal:
        parse_url(url)
    assert "s3cret" not in str(refusal.value)


def test_the_default_port_is_the_scheme_s_and_is_left_out_of_the_host_header() -> None:
    assert parse_url("http://api.example.com").authority == "api.example.com"
    assert parse_url("https://api.example.com:443/").authority == "api.example.com"
    assert parse_url("http://api.example.com:443/").authority == "api.example.com:443"


def test_path_and_query_are_percent_encoded_once() -> None:
    url = parse_url('https://api.example.com/ü/%41"?q=ß&r=%2F?')
    assert url.target == "/%C3%BC/%41%22?q=%C3%9F&r=%2F?"
    assert parse_url(url.origin + url.target) == url


def test_what_is_shown_of_a_url_leaves_out_path_and_query() -> None:
    url = parse_url("https://hooks.example.com/services/s3cret?token=s3cret")
    assert "s3cret" not in repr(url)
    assert url.origin == "https://hooks.example.com"


URLISH = st.text(st.sampled_from("aZ0.17x-_@:/?#[]%\\ \t\n&=;üß①。．:"), max_size=30)


@given(st.sampled_from(["http://", "https://", "HTTP://", ""]), URLISH)
def test_whatever_is_accepted_is_in_normal_form_and_the_standard_library_reads_the_same_host(start: str, rest: str) -> None:
    try:
        url = parse_url(start + rest)
    except InvalidStep:
        return
    assert parse_url(url.origin + url.target) == url
    assert re.fullmatch(r"[\x21-\x7e]+", url.origin + url.target)
    other = urlsplit(start + rest)
    assert other.username is None
    assert other.hostname is not None
    assert normal_host(f"[{other.hostname}]" if ":" in other.hostname else other.hostname) == url.host


@given(st.text(max_size=40))
def test_any_text_is_a_url_or_a_refusal_and_never_another_error(text: str) -> None:
    for url in (text, f"http://{text}", f"http://host.example/{text}"):
        try:
            assert isinstance(parse_url(url), WebUrl)
        except InvalidStep as refusal:
            assert len(str(refusal)) < 400


def test_a_host_that_is_a_name_has_no_address() -> None:
    assert parse_url("http://api.example.com/").address is None
    assert parse_url("http://[::1]/").address == ip_address("::1")
