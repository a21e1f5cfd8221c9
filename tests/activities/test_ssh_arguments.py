"""Arguments of every kind arrive at the far program as they were, through a real sshd and a real shell.

The far side keeps the bytes of each argument. Whatever a shell made of one on its way would be seen.
"""

from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from activities.clients.ssh_connection import close_connection, open_connection
from domain.shell_hosts import ShellHost
from tests.activities.ssh_hosts import Recorder, a_client, host_of
from tests.peers.sshd import SshServer, installed, sshd

DASH = 'ForceCommand exec /bin/dash -c "$SSH_ORIGINAL_COMMAND"'

CHARACTERS = "\t\n\r'\"\\`$!#~*?;|&<>=% é日😀\u202e\ufeff\x01\x7f\ue000\U0010ffff"
EXPANSIONS = (
    "$(touch pwned)",
    "`touch pwned`",
    "${HOME}",
    "$HOME",
    "$'\\n'",
    "&& touch pwned",
    "> pwned",
    "!!",
    "!#",
    "{a,b}",
    "[a]",
)
OTHERS = ("", "  ", "\r\n", "-rf", "--", "-o=x", "'\"'\"'", "\\'", "\\n", "\x1b[31m", "payment-api", "x" * 5_000, "'" * 300)
PARTS = (*CHARACTERS, *EXPANSIONS, *OTHERS)
"""Put together two and two, they make more than 2,000 arguments, of up to 10,000 characters."""

WORDS_A_COMMAND = 60
CHARACTERS_A_COMMAND = 30_000


def batches(words: Iterable[str]) -> Iterator[list[str]]:
    """As many words at a time as one line takes."""
    batch: list[str] = []
    for word in words:
        if batch and (len(batch) == WORDS_A_COMMAND or sum(map(len, batch)) + len(word) > CHARACTERS_A_COMMAND):
            yield batch
            batch = []
        batch.append(word)
    yield batch


def allowing_all(server: SshServer, recorder: Recorder, words: list[str]) -> tuple[ShellHost, str]:
    """A host that allows the recorder with any arguments, and the command of a step that names each."""
    kinds = [f"{{v{at}:{'-' if word.startswith('-') else ''}(?s:.*)}}" for at, word in enumerate(words)]
    template = " ".join([recorder.command, *(f"{{{{ v{at} }}}}" for at in range(len(words)))])
    return host_of(server, " ".join([recorder.command, *kinds])), template


@pytest.fixture(scope="module", params=["", DASH], ids=["bash", "dash"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    with sshd(tmp_path_factory.mktemp("sshd"), extra=request.param) as running:
        yield running


async def test_two_thousand_hostile_arguments_arrive_byte_for_byte(server: SshServer, tmp_path: Path) -> None:
    recorder, client = Recorder(tmp_path), a_client(server)
    words = [first + second for first in PARTS for second in PARTS]
    assert len(words) > 2_000
    sent = list(batches(words))
    for batch in sent:
        host, template = allowing_all(server, recorder, batch)
        line = host.command_line(template, {f"v{at}": word for at, word in enumerate(batch)})
        outcome = await client.run(host, line, timedelta(seconds=30))
        assert outcome.exit_code == 0, outcome.errors.tail
    assert recorder.executions() == [[word.encode() for word in batch] for batch in sent]
    assert not (server.folder / "home" / "pwned").exists()


async def test_the_longest_argument_arrives_whole(server: SshServer, tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    word = "ö'" * 14_000  # of which each quote takes 5 characters on its way
    host, template = allowing_all(server, recorder, [word])
    outcome = await a_client(server).run(host, host.command_line(template, {"v0": word}), timedelta(seconds=30))
    assert outcome.exit_code == 0
    assert recorder.executions() == [[word.encode()]]


@pytest.mark.parametrize("word", ["two words", "$HOME", "a;b", "it''s", "#", "a\nb"])
async def test_the_control_without_quotes_arguments_arrive_as_something_else(server: SshServer, tmp_path: Path, word: str) -> None:
    recorder = Recorder(tmp_path)
    await a_client(server).run(host_of(server), f"{recorder.command} {word}", timedelta(seconds=30))
    assert recorder.executions() != [[word.encode()]]


async def test_a_c_shell_which_would_not_keep_a_value_in_its_quotes_is_given_none(tmp_path: Path) -> None:
    word, marks = "a\ntouch {}\n", (tmp_path / "ours", tmp_path / "control")
    shell = installed("tcsh", "tcsh")
    with sshd(tmp_path / "sshd", extra=f'ForceCommand exec {shell} -c "$SSH_ORIGINAL_COMMAND"') as server:
        host = host_of(server, "echo {value:(?s:.*)}")
        ours, control = (host.command_line("echo {{ value }}", {"value": word.format(mark)}) for mark in marks)
        outcome = await a_client(server).run(host, ours, timedelta(seconds=30))
        assert (outcome.began, outcome.exit_code, marks[0].exists()) == (False, 1, False)

        connection = await open_connection(host)
        await connection.run(control)
        await close_connection(connection)
        assert marks[1].exists()
