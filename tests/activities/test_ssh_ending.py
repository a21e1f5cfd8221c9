"""Commands that are ended from here: their whole process group goes, or it is said that nobody knows."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from activities.clients import ssh
from activities.clients.ssh import SshClient, SshLimits
from activities.clients.ssh_connection import close_connection, open_connection
from activities.clients.ssh_ending import ProcessGroup, Unended
from activities.clients.ssh_messages import ShellOutcome, Stop
from activities.errors import OutcomeUnknown, Unreachable
from tests.activities.ssh_hosts import Leaver, Recorder, Tree, host_of, hosts_of, run
from tests.activities.steps import eventually
from tests.peers.http import tcp_peer
from tests.peers.sshd import SshServer, sshd

DASH = 'ForceCommand exec /bin/dash -c "$SSH_ORIGINAL_COMMAND"'
"""As if dash were the login shell: bash makes way for it."""


@pytest.fixture(scope="module", params=["", DASH], ids=["bash", "dash"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    with sshd(tmp_path_factory.mktemp("sshd"), extra=request.param) as running:
        yield running


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    grown = Tree(tmp_path)
    yield grown
    grown.kill()


@pytest.fixture
def stubborn(tmp_path: Path) -> Iterator[Tree]:
    grown = Tree(tmp_path, stubborn=True)
    yield grown
    grown.kill()


async def cancelled(server: SshServer, tree: Tree, *, times: int = 1) -> ShellOutcome:
    """Run the tree, and cancel as soon as it is grown."""
    running = asyncio.ensure_future(run(server, tree.command))
    await eventually(lambda: tree.is_grown)
    for _ in range(times):
        running.cancel()
        await asyncio.sleep(0)
    return await running


# What goes


async def test_a_command_that_is_not_over_in_time_is_ended_with_its_children_and_theirs(server: SshServer, tree: Tree) -> None:
    outcome = await run(server, tree.command, seconds=2)
    assert tree.is_grown, "2 s are too short for this machine"
    assert tree.alive() == []
    assert outcome.stopped is Stop.TIMEOUT
    assert outcome.signal == "TERM"


async def test_a_command_that_is_cancelled_is_ended_with_its_children_and_theirs(server: SshServer, tree: Tree) -> None:
    outcome = await cancelled(server, tree)
    assert tree.alive() == []
    assert outcome.stopped is Stop.CANCELLED


async def test_cancelling_again_does_not_save_the_command(server: SshServer, tree: Tree) -> None:
    outcome = await cancelled(server, tree, times=5)
    assert tree.alive() == []
    assert outcome.stopped is Stop.CANCELLED


async def test_children_that_do_not_heed_term_are_killed_even_after_their_shell_is_gone(server: SshServer, stubborn: Tree) -> None:
    outcome = await cancelled(server, stubborn)
    assert stubborn.alive() == []
    assert (outcome.stopped, outcome.signal) == (Stop.CANCELLED, "TERM")


async def test_the_control_closing_the_connection_ends_nothing(server: SshServer, tree: Tree) -> None:
    connection = await open_connection(host_of(server))
    process = await connection.create_process(tree.command)
    await eventually(lambda: tree.is_grown)
    process.close()
    await close_connection(connection)
    await eventually(lambda: "Close session" in server.log())
    assert len(tree.alive()) == 3


async def test_the_control_after_term_alone_the_stubborn_stay(server: SshServer, stubborn: Tree) -> None:
    running = asyncio.ensure_future(run(server, stubborn.command))
    await eventually(lambda: stubborn.is_grown)
    os.killpg(os.getpgid(stubborn.processes()[0]), signal.SIGTERM)
    assert (await running).signal == "TERM"
    assert len(stubborn.alive()) == 2


async def test_a_command_may_tidy_up_when_it_is_ended(server: SshServer, tmp_path: Path) -> None:
    note, ready = tmp_path / "note", tmp_path / "ready"
    command = f"trap 'echo tidied > {note}; exit 7' TERM; touch {ready}; while :; do sleep 0.05; done"
    running = asyncio.ensure_future(run(server, command))
    await eventually(ready.exists)
    running.cancel()
    outcome = await running
    assert note.read_text() == "tidied\n"
    assert (outcome.stopped, outcome.exit_code) == (Stop.CANCELLED, 7)


async def test_a_command_that_is_ended_ran_once_and_what_it_wrote_is_kept(server: SshServer, tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    running = asyncio.ensure_future(run(server, f"echo begun; echo why >&2; {recorder.command} once; sleep 300"))
    await eventually(lambda: len(recorder.executions()) == 1)
    running.cancel()
    outcome = await running
    assert (outcome.stopped, outcome.errors.head) == (Stop.CANCELLED, b"why\n")
    assert sorted(outcome.output.head.split()) == [b"begun", b"why"]
    assert len(recorder.executions()) == 1


async def test_a_command_that_is_over_in_time_was_not_ended_though_its_output_is_still_waited_for(
    server: SshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh, "LINGER", timedelta(seconds=60))
    note = tmp_path / "process"
    outcome = await run(server, f"sleep 300 & echo $! > {note}; echo ok", seconds=2)
    assert (outcome.stopped, outcome.exit_code, outcome.output.head) == (None, 0, b"ok\n")
    os.kill(int(note.read_text()), signal.SIGKILL)


async def test_another_command_on_the_same_host_is_left_alone(server: SshServer, tree: Tree, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    other = asyncio.ensure_future(run(server, f"touch {ready}; while [ -e {ready} ]; do sleep 0.05; done; echo unharmed"))
    await eventually(ready.exists)
    await cancelled(server, tree)
    ready.unlink()
    assert (await other).output.head == b"unharmed\n"


async def test_a_process_that_is_over_and_not_waited_for_does_not_count_and_one_that_left_the_group_is_not_reached(
    server: SshServer, tmp_path: Path
) -> None:
    leaver = Leaver(tmp_path)
    running = asyncio.ensure_future(run(server, leaver.command))
    await eventually(lambda: leaver.process is not None)
    running.cancel()
    assert (await running).stopped is Stop.CANCELLED
    assert leaver.process is not None
    os.kill(leaver.process, signal.SIGKILL)  # it is there


async def test_a_group_that_is_gone_already_was_not_ended_from_here(server: SshServer) -> None:
    connection = await open_connection(host_of(server))
    over = await connection.run("echo $$")
    assert await ProcessGroup(connection, int(str(over.stdout))).end(timedelta(seconds=1)) is False
    await close_connection(connection)


# When nobody knows


async def test_without_a_second_channel_it_is_not_said_that_the_command_is_over(tmp_path: Path, tree: Tree) -> None:
    told = pytest.raises(OutcomeUnknown, match="was cancelled and could not be ended: it may still run")
    with sshd(tmp_path / "sshd", extra="MaxSessions 1") as server, told:
        await cancelled(server, tree)


async def test_a_far_side_that_freezes_is_not_waited_for_and_its_command_may_still_run(tmp_path: Path, tree: Tree) -> None:
    with sshd(tmp_path / "sshd") as server:
        limits = SshLimits(ending=timedelta(seconds=0.5))
        client = SshClient(hosts_of(server), limits)
        running = asyncio.ensure_future(client.run(host_of(server), tree.command, timedelta(seconds=20)))
        await eventually(lambda: tree.is_grown)
        server.signal_connections(signal.SIGSTOP)
        running.cancel()
        with pytest.raises(OutcomeUnknown, match="could not be ended: it may still run"):
            await running
        assert len(tree.alive()) == 3


async def test_a_command_whose_shell_did_not_come_to_it_in_time_may_still_come_to_it(tmp_path: Path) -> None:
    with sshd(tmp_path / "sshd") as server:
        note = tmp_path / "process"
        (server.folder / "home" / ".bashrc").write_text(f"echo $$ > {note}; exec sleep 300\n")
        with pytest.raises(OutcomeUnknown, match="did not end in time and could not be ended"):
            await run(server, "echo ok", seconds=1)
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(note.read_text()), signal.SIGKILL)


NO_LEADER = 'ForceCommand /bin/dash -c "$SSH_ORIGINAL_COMMAND"; true'
"""The shell that runs the command is a child of the leader: its number names no process group."""


async def test_a_number_that_names_no_process_group_is_not_taken_for_a_group_that_is_gone(tmp_path: Path, tree: Tree) -> None:
    limits = SshLimits(ending=timedelta(seconds=1))
    with sshd(tmp_path / "sshd", extra=NO_LEADER) as server:
        client = SshClient(hosts_of(server), limits)
        running = asyncio.ensure_future(client.run(host_of(server), tree.command, timedelta(seconds=20)))
        await eventually(lambda: tree.is_grown)
        running.cancel()
        with pytest.raises(OutcomeUnknown, match="could not be ended: it may still run"):
            await running


OTHER_USER = (
    'ForceCommand case "$SSH_ORIGINAL_COMMAND" in *kill*) exec setpriv --reuid=65534 --regid=65534 --clear-groups '
    '/bin/sh -c "$SSH_ORIGINAL_COMMAND";; *) exec /bin/sh -c "$SSH_ORIGINAL_COMMAND";; esac'
)
"""The command belongs to a user who is not to be signalled from here, as behind sudo."""


async def test_what_another_user_runs_is_seen_to_go_on(tmp_path: Path, tree: Tree) -> None:
    with sshd(tmp_path / "sshd", extra=OTHER_USER) as server:
        connection = await open_connection(host_of(server))
        process = await connection.create_process(f"echo $$; {tree.command}")
        leader = int(await process.stdout.readline())
        await eventually(lambda: tree.is_grown)
        with pytest.raises(Unended, match="it was sent KILL and goes on"):
            await ProcessGroup(connection, leader).end(timedelta(seconds=0.2), killed_within=timedelta(seconds=0.2))
        assert len(tree.alive()) == 3
        await close_connection(connection)


async def test_a_cancellation_before_the_user_was_let_in_runs_nothing(server: SshServer) -> None:
    async def be_silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with tcp_peer(be_silent) as silent:
        running = asyncio.ensure_future(run(server, "echo ok", port=silent.port))
        await eventually(lambda: silent.connections == 1)
        running.cancel()
        with pytest.raises(Unreachable, match=r"the step was cancelled before .* let the user in: nothing was run"):
            await running
