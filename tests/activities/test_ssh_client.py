"""The SSH client against Debian's sshd: what is run, who is trusted, which key is used, and what failures mean."""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import ClassVar

import asyncssh
import pytest

from activities.clients.ssh_messages import CAPTURE_PART_BYTES
from activities.clients.ssh_session import AnnouncedSession
from activities.errors import InvalidStep, NotConfigured, OutcomeUnknown, Refused, Unreachable
from tests.activities.ssh_hosts import ALIAS, Recorder, a_client, host_of, run
from tests.activities.steps import eventually
from tests.peers.http import tcp_peer, unused_port
from tests.peers.sshd import SshServer, make_key, sshd


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    """An sshd that has a host key of each kind; `host_of` pins the first."""
    with sshd(tmp_path_factory.mktemp("sshd"), kinds=("ed25519", "ecdsa", "rsa")) as running:
        yield running


# What is run


async def test_a_command_is_run_once_and_its_output_and_exit_code_come_back(server: SshServer, tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    outcome = await run(server, f"{recorder.command} one; echo out; echo err >&2")
    assert (outcome.exit_code, outcome.signal, outcome.stopped, outcome.began) == (0, None, None, True)
    assert sorted(outcome.output.head.split()) == [b"err", b"out"]
    assert outcome.errors.head == b"err\n"
    assert recorder.executions() == [[b"one"]]
    assert timedelta(0) < outcome.elapsed < timedelta(seconds=20)


async def test_the_exit_code_of_a_failed_command_comes_back(server: SshServer) -> None:
    outcome = await run(server, "echo no >&2; exit 3")
    assert (outcome.exit_code, outcome.errors.head) == (3, b"no\n")


async def test_the_signal_that_ended_a_command_comes_back(server: SshServer) -> None:
    outcome = await run(server, "kill -9 $$")
    assert (outcome.exit_code, outcome.signal) == (None, "KILL")


async def test_standard_input_is_closed_and_there_is_no_terminal(server: SshServer) -> None:
    outcome = await run(server, "cat; test -t 0 || test -t 1 || echo none", seconds=10)
    assert outcome.output.head == b"none\n"


async def test_nothing_of_the_environment_here_arrives(server: SshServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_INFRASAGE", "here")
    outcome = await run(server, "echo ${LC_INFRASAGE-nothing}")
    assert outcome.output.head == b"nothing\n"


async def test_what_the_start_files_of_the_account_write_is_not_the_commands_output(server: SshServer) -> None:
    start_file = server.folder / "home" / ".bashrc"
    start_file.write_text("head -c 100000 /dev/zero | tr '\\0' w; echo; echo infrasage-shell; echo 'welcome back'; false\n")
    try:
        outcome = await run(server, "echo out")
    finally:
        start_file.unlink()
    assert (outcome.output.head, outcome.output.dropped_bytes) == (b"out\n", 0)


@pytest.mark.parametrize("piece_bytes", [1, 2, 7, 1_000])
async def test_the_announcement_of_the_command_is_found_however_it_is_cut_into_pieces(piece_bytes: int) -> None:
    session = AnnouncedSession()
    written = b"welcome\ninfrasage-shell \ninfrasage-shell 4711\nout\ninfrasage-shell 9\n"
    for at in range(0, len(written), piece_bytes):
        session.data_received(written[at : at + piece_bytes], None)
    assert (session.leader, session.output.head) == (4711, b"out\ninfrasage-shell 9\n")


async def test_output_without_end_is_kept_at_its_two_ends_only(server: SshServer) -> None:
    outcome = await run(server, "echo first; head -c 20000000 /dev/zero; echo; echo last", seconds=60)
    assert outcome.output.head.startswith(b"first\n")
    assert outcome.output.tail.endswith(b"\0\nlast\n")
    assert len(outcome.output.head) == len(outcome.output.tail) == CAPTURE_PART_BYTES
    assert outcome.output.dropped_bytes == 20_000_012 - 2 * CAPTURE_PART_BYTES


async def test_a_command_is_over_when_its_shell_is_whatever_it_leaves_in_the_background(server: SshServer, tmp_path: Path) -> None:
    note = tmp_path / "process"
    began_at = asyncio.get_running_loop().time()
    outcome = await run(server, f"sleep 300 & echo $! > {note}; echo ok")
    assert asyncio.get_running_loop().time() - began_at < 10
    assert (outcome.exit_code, outcome.output.head) == (0, b"ok\n")
    assert outcome.elapsed < timedelta(seconds=1)
    os.kill(int(note.read_text()), 9)


# Who is trusted


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
async def test_a_pinned_key_of_every_kind_is_the_one_that_is_asked_for(server: SshServer, kind: str) -> None:
    outcome = await run(server, "echo ok", host_key=server.host_keys[kind])
    assert outcome.output.head == b"ok\n"


async def test_a_host_with_another_key_is_refused_before_it_learns_who_asks(tmp_path: Path) -> None:
    other = make_key(tmp_path / "other")
    with sshd(tmp_path / "sshd") as server:
        with pytest.raises(Refused, match=r"does not hold the pinned host key SHA256:\S+") as caught:
            await run(server, "echo ok", host_key=other)
        assert "nothing was sent" in str(caught.value)
        assert (server.connections(), server.keys_offered(), server.sessions()) == (1, [], 0)

        # The control: this very host would have been taken by a client that asks for no key.
        connection = await asyncssh.connect(
            "127.0.0.1", server.port, username=server.user, client_keys=[str(server.client_key)], known_hosts=None, config=None
        )
        connection.close()
        await connection.wait_closed()
        await eventually(lambda: len(server.keys_offered()) == 1)


async def test_a_host_that_lacks_the_kind_of_the_pinned_key_is_refused(tmp_path: Path) -> None:
    with sshd(tmp_path / "sshd", kinds=("ed25519",)) as server:
        # Whoever of the two finds out first hangs up.
        with pytest.raises(
            (Unreachable, Refused), match=r"has it a host key ecdsa-sha2-nistp256\?|does not hold the pinned host key"
        ):
            await run(server, "echo ok", host_key=make_key(tmp_path / "other", "ecdsa"))
        assert server.keys_offered() == []


async def test_what_the_account_here_trusts_and_configures_changes_nothing(
    server: SshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_key(tmp_path / "other")
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "known_hosts").write_text(f"[127.0.0.1]:{server.port} {server.host_keys['ed25519']}\n")
    (tmp_path / ".ssh" / "config").write_text("Host *\n  StrictHostKeyChecking no\n  ProxyCommand false\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(Refused, match="does not hold the pinned host key"):
        await run(server, "echo ok", host_key=other)
    assert (await run(server, "echo ok")).exit_code == 0


# Which key is used


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An agent with one key, which is also the default identity of this account. Yields: the key's file."""
    (tmp_path / ".ssh").mkdir()
    identity = tmp_path / ".ssh" / "id_ed25519"
    make_key(identity)
    socket = tmp_path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.DEVNULL)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
    monkeypatch.setenv("HOME", str(tmp_path))
    try:
        added = None
        for _ in range(500):
            added = subprocess.run(["ssh-add", "-q", str(identity)], capture_output=True, timeout=10, check=False)
            if added.returncode == 0:
                break
        assert added is not None and added.returncode == 0, "the agent does not take the key"
        yield identity
    finally:
        process.terminate()
        process.wait(10)


async def test_a_key_of_the_agent_or_of_the_account_is_not_used(agent: Path, tmp_path: Path) -> None:
    with sshd(tmp_path / "sshd") as server:
        (server.folder / "authorized_keys").write_text(agent.with_name("id_ed25519.pub").read_text())
        configured = host_of(server)
        with pytest.raises(Refused, match="does not accept the key of that user: nothing was run"):
            await run(server, "echo ok")
        offered = asyncssh.read_private_key(configured.key_file).get_fingerprint()
        assert server.keys_offered() == [offered]

        # The control: left to itself, the library lets the account in.
        trusted = asyncssh.import_public_key(server.host_keys["ed25519"])
        connection = await asyncssh.connect("127.0.0.1", server.port, username=server.user, known_hosts=([trusted], [], []))
        connection.close()
        await connection.wait_closed()


async def test_a_user_whom_the_host_does_not_know_is_refused(server: SshServer) -> None:
    with pytest.raises(Refused, match="does not accept the key of that user"):
        await run(server, "echo ok", user="nobody-here")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda file: file.chmod(0o640), r"may be used by others than its owner \(mode 0640\)"),
        (lambda file: file.chmod(0o604), r"may be used by others than its owner \(mode 0604\)"),
        (lambda file: file.write_text("no key"), "is not a private key"),
        (lambda file: file.unlink(), r"cannot be read \(No such file or directory\)"),
    ],
)
async def test_a_key_file_that_went_bad_since_the_start_is_not_used(
    server: SshServer, tmp_path: Path, change: object, reason: str
) -> None:
    key = tmp_path / "key"
    key.write_bytes(server.client_key.read_bytes())
    key.chmod(0o600)
    before = server.connections()
    assert callable(change)
    change(key)
    with pytest.raises(NotConfigured, match=reason):
        await run(server, "echo ok", key_file=str(key))
    assert server.connections() == before


async def test_a_check_logs_in_and_runs_nothing(server: SshServer) -> None:
    sessions, connections = server.sessions(), server.connections()
    told = await a_client(server).check(ALIAS)
    assert told == f"prod-host-01 ({server.user}@127.0.0.1:{server.port}) holds the pinned key and lets the user in"
    assert (server.sessions(), server.connections()) == (sessions, connections + 1)


async def test_a_check_of_a_host_that_is_not_there_names_those_that_are(server: SshServer) -> None:
    with pytest.raises(InvalidStep, match="'web-9' is not a host of shell steps; known are prod-host-01"):
        await a_client(server).check("web-9")


# What failures mean


async def test_a_port_where_nobody_listens_is_unreachable(server: SshServer) -> None:
    with pytest.raises(Unreachable, match=r"cannot be reached \(.*\): nothing was run"):
        await run(server, "echo ok", port=unused_port())


async def test_a_name_that_does_not_exist_is_unreachable(server: SshServer) -> None:
    with pytest.raises(Unreachable, match="nothing was run"):
        await run(server, "echo ok", address="no-such-host.invalid")


async def test_a_far_side_that_says_nothing_is_given_up(server: SshServer) -> None:
    async def be_silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with tcp_peer(be_silent) as silent:
        with pytest.raises(Unreachable, match="did not let the user in in time: nothing was run"):
            await run(server, "echo ok", port=silent.port, seconds=0.3)


async def test_a_far_side_that_does_not_speak_ssh_is_unreachable(server: SshServer) -> None:
    async def speak_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()

    async with tcp_peer(speak_http) as peer:
        with pytest.raises(Unreachable, match="nothing was run"):
            await run(server, "echo ok", port=peer.port)


async def test_a_connection_that_is_cut_while_the_command_runs_leaves_its_outcome_unknown(tmp_path: Path) -> None:
    recorder, note = Recorder(tmp_path), tmp_path / "process"
    with sshd(tmp_path / "sshd") as server:
        running = asyncio.ensure_future(run(server, f"{recorder.command} one; echo $$ > {note}; exec sleep 300"))
        await eventually(lambda: note.exists() and bool(note.read_text()))
        server.signal_connections(9)
        with pytest.raises(OutcomeUnknown, match="was lost after the command was sent: it may have run, or still run"):
            await running
        assert len(recorder.executions()) == 1
        assert server.sessions() == 1
    os.kill(int(note.read_text()), 9)


class Whimsical(asyncssh.SSHServer):
    """A server that lets everybody in and then does as `mood` says."""

    mood = ""
    signals: ClassVar[list[str]] = []
    """What was asked to be sent to the command."""

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn

    def begin_auth(self, username: str) -> bool:
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        return True

    def session_requested(self) -> bool | asyncssh.SSHServerSession[bytes]:
        return False if self.mood == "no channel" else _Mood(self._connection, self.mood, self.signals)


class _Mood(asyncssh.SSHServerSession[bytes]):
    def __init__(self, connection: asyncssh.SSHServerConnection, mood: str, signals: list[str]) -> None:
        self._connection, self._mood, self._signals = connection, mood, signals

    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        self._channel = chan

    def exec_requested(self, command: str) -> bool:
        if self._mood == "cut":
            self._connection.abort()
        if self._mood == "no answer":
            self._channel.abort()
        return self._mood in ("cut", "no answer", "no end", "bad leader", "hang")

    def signal_received(self, signal: str) -> None:
        self._signals.append(signal)

    def session_started(self) -> None:
        if self._mood == "no end":
            self._channel.close()
        if self._mood == "bad leader":
            self._channel.write(b"infrasage-shell 1\n")
            self._channel.exit(0)


@pytest.fixture
async def whimsical(tmp_path: Path) -> AsyncIterator[tuple[type[Whimsical], int, str]]:
    """Yields: the class whose `mood` counts, the port, the host key."""
    host_key = make_key(tmp_path / "host")

    class Serving(Whimsical):
        signals: ClassVar[list[str]] = []

    listener = await asyncssh.create_server(Serving, "127.0.0.1", 0, server_host_keys=[str(tmp_path / "host")], encoding=None)
    yield Serving, listener.get_port(), host_key
    listener.close()
    await listener.wait_closed()


@pytest.mark.parametrize(
    ("mood", "failure", "reason"),
    [
        ("no channel", Unreachable, "opened no channel for the command: nothing was run"),
        ("no command", Refused, "runs no command for that user: nothing was run"),
        ("cut", OutcomeUnknown, "was lost while the command was sent: it may have run"),
        ("no answer", OutcomeUnknown, "was lost while the command was sent: it may have run"),
        ("no end", OutcomeUnknown, "was lost after the command was sent: it may have run"),
        ("bad leader", OutcomeUnknown, "reports success and did not run the command through its shell"),
    ],
)
async def test_a_failure_around_the_start_is_certain_only_where_the_far_side_said_so(
    server: SshServer, whimsical: tuple[type[Whimsical], int, str], mood: str, failure: type[Exception], reason: str
) -> None:
    serving, port, host_key = whimsical
    serving.mood = mood
    with pytest.raises(failure, match=reason):
        await run(server, "echo ok", port=port, host_key=host_key)


async def test_a_far_side_that_never_comes_to_the_command_is_asked_to_kill_it_and_is_not_believed_to(
    server: SshServer, whimsical: tuple[type[Whimsical], int, str]
) -> None:
    serving, port, host_key = whimsical
    serving.mood = "hang"
    with pytest.raises(OutcomeUnknown, match="did not end in time and could not be ended: it may still run"):
        await run(server, "echo ok", port=port, host_key=host_key, seconds=0.5)
    await eventually(lambda: serving.signals == ["KILL"])


async def test_an_account_with_a_command_of_its_own_is_found_out(tmp_path: Path) -> None:
    told = pytest.raises(OutcomeUnknown, match=r"has the account a command of its own \(ForceCommand\)")
    with sshd(tmp_path / "sshd", extra="ForceCommand echo backed up") as server, told:
        await run(server, "echo ok")


async def test_an_account_that_may_run_nothing_did_not_run_it(tmp_path: Path) -> None:
    with sshd(tmp_path / "sshd", extra="ForceCommand echo go away; exit 1") as server:
        outcome = await run(server, "echo ok")
    assert (outcome.began, outcome.exit_code, outcome.output.head) == (False, 1, b"go away\n")
