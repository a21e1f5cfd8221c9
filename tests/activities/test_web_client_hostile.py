"""Hostile URLs, names and redirects against canaries: a runbook reaches nothing that the operator did not allow."""

import asyncio
import itertools
import socket
from collections.abc import Sequence

import httpx
import pytest

from activities.clients.addresses import Address
from activities.clients.web import HttpRequest, Target, WebClient
from activities.clients.web_allow import Permit
from activities.errors import InvalidStep, NotConfigured
from tests.peers.http import Canary, answer, canary, has_ipv6, http_peer

PUBLIC = "93.184.216.34"
MOST_PERMISSIVE = ("*:*", "allowed.example:*")

ODD_NUMBERS = (
    "2130706433",
    "0x7f000001",
    "0X7F000001",
    "017700000001",
    "127.1",
    "127.0.1",
    "0177.0.0.1",
    "0177.0.0.01",
    "0x7f.0.0.1",
    "0x7f.1",
    "127.0.0.01",
    "127.000.000.001",
)
"""What the system's resolver takes for 127.0.0.1."""

UNICODE_NUMBERS = (
    "①②⑦.0.0.1",
    "①②⑦.⓪.⓪.①",
    "１２７.0.0.1",
    "127。0。0。1",
    "127．0．0．1",
    "１２７．１",
    "𝟙𝟚𝟟.0.0.1",
    "²¹³0706433",
)

LOOPBACK_HOSTS = (
    "127.0.0.1",
    "127.0.0.1.",
    "localhost",
    "LocalHost",
    "localhost.",
    "ｌｏｃａｌｈｏｓｔ",
    "localhost.localdomain",
    "127.0.0.1.nip.example",
    "allowed.example",
    "evil。example",
    "bücher.example",
    "xn--bcher-kva.example",
    "my_service",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[0000::0001]",
)
"""What only the judgement of the address stops: names are resolved to loopback here."""

OTHER_HOSTS = (
    "0",
    "0x0",
    "0.0.0.0",
    "127.0.0.1..",
    "%31%32%37.0.0.1",
    "127.0.0.1%00",
    "127.0.0.1%2f",
    "127.0.0.1%20",
    "127.0.0.1\\",
    "127.0.0.1\t",
    "127.0.0.1\n",
    "loc\u00adalhost",
    "local\u200bhost",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::FFFF:127.0.0.1]",
    "[::127.0.0.1]",
    "[::ffff:0:127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b:1::7f00:1]",
    "[2002:7f00:1::]",
    "[2001:0:7f00:1::]",
    "[fec0::1]",
    "[fd00::1]",
    "[fd00:ec2::254]",
    "[fe80::1]",
    "[fe80::1%25lo]",
    "[::1%25lo]",
    "[::1%lo]",
    "[ff02::1]",
    "[127.0.0.1]",
    "[localhost]",
    "[::1].example",
    "::1",
    "169.254.169.254",
    "100.100.100.200",
    "168.63.129.16",
    "10.0.0.1",
    "192.168.0.1",
    "172.16.0.1",
    "100.64.0.1",
    "198.18.0.1",
    "192.0.2.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
)

USER_INFORMATION = (
    "allowed.example@",
    "allowed.example:80@",
    "allowed.example:word@",
    "allowed.example%40",
    "allowed.example#@",
    "allowed.example?@",
    "allowed.example/@",
    "allowed.example\\@",
    "allowed.example;@",
    "@",
    "a@b@",
)

FORMS = (
    "http://{host}:{port}/",
    "https://{host}:{port}/",
    "HTTP://{host}:{port}",
    "http://{host}:{port}/path?query=1",
)

BROKEN_FORMS = (
    "http:{host}:{port}/",
    "http:/{host}:{port}/",
    "http:///{host}:{port}/",
    "http:////{host}:{port}/",
    "http:\\\\{host}:{port}\\",
    "//{host}:{port}/",
    "{host}:{port}",
    " http://{host}:{port}/",
    "http://\t{host}:{port}/",
    "ht\ntp://{host}:{port}/",
    "http://{host}:{port}/\r\nHost: allowed.example",
    "http://{host}:0{port}0/",
    "http://{host}:+{port}/",
    "http://{host}:{port}#",
    "ftp://{host}:{port}/",
    "file://{host}:{port}/etc/passwd",
    "gopher://{host}:{port}/_GET",
    "ws://{host}:{port}/",
    "dict://{host}:{port}/info",
    "http+unix://{host}:{port}/",
    "jar:http://{host}:{port}/!/",
    "view-source:http://{host}:{port}/",
    "httpſ://{host}:{port}/",
)


def hostile_urls(port: int) -> list[str]:
    """Every spelling in every form that could lead to a listener on loopback, or to another place that is closed."""
    hosts = (*ODD_NUMBERS, *UNICODE_NUMBERS, *LOOPBACK_HOSTS, *OTHER_HOSTS)
    spelled = [form.format(host=host, port=port) for form, host in itertools.product(FORMS, hosts)]
    disguised = [f"http://{user}127.0.0.1:{port}/" for user in USER_INFORMATION]
    broken = [form.format(host=host, port=port) for form, host in itertools.product(BROKEN_FORMS, ("127.0.0.1", "localhost"))]
    return spelled + disguised + broken


class LoopbackResolver:
    """Answers loopback to every name: alone, behind a public address, or before one."""

    def __init__(self) -> None:
        self.answers = itertools.cycle((["127.0.0.1"], [PUBLIC, "127.0.0.1"], ["127.0.0.1", PUBLIC], ["::1"], [PUBLIC, "::1"]))

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        return next(self.answers)


class OnlyLoopbackResolver:
    async def __call__(self, host: str, port: int) -> Sequence[str]:
        return ["127.0.0.1"]


class RebindingResolver:
    """Answers each question with the next of its answers, and the last one for ever."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.questions = 0

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.questions += 1
        return [self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]]


class UnjudgedClient(WebClient):
    """The client with its judgement of addresses taken out."""

    def _judge_addresses(self, permit: Permit, addresses: Sequence[Address]) -> None:
        return


class TwiceResolvingClient(WebClient):
    """The client as it would be if the connection asked DNS again after the judgement."""

    async def check(self, url: str) -> Target:
        judged = await super().check(url)
        return Target(judged.url, await self._addresses(judged.url))


async def refusals(web: WebClient, urls: Sequence[str]) -> list[str]:
    """Send to every URL; return those that were refused before anything was sent."""
    refused: list[str] = []
    for url in urls:
        try:
            await web.send(HttpRequest("GET", url))
        except InvalidStep:
            refused.append(url)
    return refused


async def test_no_hostile_url_reaches_a_canary_whatever_the_allow_list_s_globs_say() -> None:
    async with canary() as bird:
        urls = hostile_urls(bird.port)
        assert len(set(urls)) >= 350
        assert await refusals(WebClient(MOST_PERMISSIVE, resolver=LoopbackResolver()), urls) == urls
        assert await bird.hits() == 0


async def test_the_same_urls_are_refused_when_planned() -> None:
    web = WebClient(MOST_PERMISSIVE, resolver=LoopbackResolver())
    for url in hostile_urls(8080):
        with pytest.raises(InvalidStep):
            await web.check(url)


async def test_without_the_judgement_of_addresses_the_canary_would_be_hit() -> None:
    async with canary() as bird:
        urls = [f"http://{host}:{bird.port}/" for host in LOOPBACK_HOSTS if not host.startswith("[")]
        assert await refusals(UnjudgedClient(MOST_PERMISSIVE, resolver=OnlyLoopbackResolver()), urls) == []
        assert await bird.hits() == len(urls)


@pytest.mark.parametrize("host", ODD_NUMBERS)
async def test_without_the_strict_parser_the_system_takes_an_odd_number_for_loopback(host: str) -> None:
    found = socket.getaddrinfo(host, 80, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    assert {place[4][0] for place in found} == {"127.0.0.1"}


async def test_a_name_with_one_bad_address_is_refused_in_whatever_order_they_come() -> None:
    async with canary() as bird:
        for answers in itertools.permutations((PUBLIC, "2606:4700::1111", "127.0.0.1")):

            async def mixed(host: str, port: int, answers: Sequence[str] = answers) -> Sequence[str]:
                return answers

            with pytest.raises(InvalidStep, match=r"mixed\.example is at 127\.0\.0\.1, a loopback address"):
                await WebClient(["*:*"], resolver=mixed).send(HttpRequest("GET", f"http://mixed.example:{bird.port}/"))
        assert await bird.hits() == 0


async def test_a_host_that_is_not_allowed_is_not_even_resolved() -> None:
    resolver = RebindingResolver("127.0.0.1")
    web = WebClient(["allowed.example"], resolver=resolver)
    for url in ("http://secret-name.evil.example/", "http://allowed.example:8080/", "http://127.0.0.1/"):
        with pytest.raises(InvalidStep, match="RUNBOOK_HTTP_ALLOW"):
            await web.check(url)
    with pytest.raises(NotConfigured, match="http steps are off"):
        await WebClient([], resolver=resolver).check("http://allowed.example/")
    assert resolver.questions == 0


async def test_a_name_that_was_public_when_planned_and_is_loopback_when_sent_is_refused() -> None:
    async with canary() as bird:
        web = WebClient(["rebind.example:*"], resolver=RebindingResolver(PUBLIC, "127.0.0.1"))
        url = f"http://rebind.example:{bird.port}/"
        assert [str(address) for address in (await web.check(url)).addresses] == [PUBLIC]
        with pytest.raises(InvalidStep, match="loopback"):
            await web.send(HttpRequest("GET", url))
        assert await bird.hits() == 0


async def rebound(kind: type[WebClient], bird: Canary) -> tuple[bytes, int]:
    """Send once to a name that is 127.0.0.3 when first asked and the canary's address afterwards."""
    resolver = RebindingResolver("127.0.0.3", "127.0.0.1")
    async with http_peer(answer(200, b"judged"), host="127.0.0.3", port=bird.port):
        web = kind(["rebind.example:*@127.0.0.3/32"], resolver=resolver)
        got = await web.send(HttpRequest("GET", f"http://rebind.example:{bird.port}/"))
    return got.body, resolver.questions


async def test_the_address_that_was_judged_is_the_one_connected_to() -> None:
    async with canary() as bird:
        assert await rebound(WebClient, bird) == (b"judged", 1)
        assert await bird.hits() == 0


async def test_with_a_second_resolution_the_canary_would_be_hit() -> None:
    async with canary() as bird:
        assert await rebound(TwiceResolvingClient, bird) == (b"canary", 2)
        assert await bird.hits() == 1


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
@pytest.mark.parametrize("location", ["http://127.0.0.1:{port}/", "//127.0.0.1:{port}/", "http://localhost:{port}/"])
async def test_a_redirect_is_an_answer_and_is_not_followed(status: int, location: str) -> None:
    async with canary() as bird:
        target = location.format(port=bird.port)
        headers = {"Location": target, "Refresh": f"0; url={target}"}
        async with http_peer(answer(status, b"elsewhere", headers)) as peer:
            web = WebClient([f"127.0.0.1:{peer.port}"])
            got = await web.send(HttpRequest("POST", peer.url(), body=b"{}"))
            assert (got.status, got.headers["location"], len(peer.requests)) == (status, target, 1)
        assert await bird.hits() == 0


async def test_a_client_that_follows_redirects_hits_the_canary() -> None:
    async with canary() as bird, http_peer(answer(302, headers={"Location": f"http://127.0.0.1:{bird.port}/"})) as peer:
        async with httpx.AsyncClient(trust_env=False, follow_redirects=True) as following:
            assert (await following.get(peer.url())).text == "canary"
        assert await bird.hits() == 1


async def test_the_embedded_stack_reaches_loopback_under_its_three_names_and_no_other() -> None:
    async with canary() as bird:
        web = WebClient([], allow_loopback=True, resolver=OnlyLoopbackResolver())
        hosts = ("localhost", "127.0.0.1", "[::1]") if has_ipv6() else ("localhost", "127.0.0.1")
        for host in hosts:
            assert (await web.send(HttpRequest("GET", f"http://{host}:{bird.port}/"))).body == b"canary"
        assert await bird.hits() == len(hosts)
        for host in ("127.0.0.2", "127.1", "allowed.example", "[::ffff:127.0.0.1]", "127.0.0.1.nip.example"):
            with pytest.raises(InvalidStep):
                await web.send(HttpRequest("GET", f"http://{host}:{bird.port}/"))
        assert await bird.hits() == len(hosts)


async def test_many_requests_at_once_keep_their_hosts_apart() -> None:
    async def by_name(host: str, port: int) -> Sequence[str]:
        await asyncio.sleep(0)
        return [f"127.0.0.{host.removeprefix('h').partition('.')[0]}"]

    async with http_peer(host="127.0.0.4") as four, http_peer(host="127.0.0.5", port=four.port) as five:
        web = WebClient(["*.example:*@127.0.0.0/8"], resolver=by_name)
        urls = [f"http://h{number}.example:{four.port}/" for number in (4, 5)] * 20
        await asyncio.gather(*(web.send(HttpRequest("GET", url)) for url in urls))
    for peer, name in ((four, "h4.example"), (five, "h5.example")):
        assert [request.headers["host"] for request in peer.requests] == [f"{name}:{four.port}"] * 20
