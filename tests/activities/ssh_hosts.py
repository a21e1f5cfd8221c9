"""What the tests of SSH share: hosts that are the sshd of the test, and programs for its far side."""

import contextlib
import json
import os
import signal
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

from activities.clients.ssh import SshClient, SshLimits
from activities.clients.ssh_messages import ShellOutcome
from domain.shell_hosts import ShellHost, ShellHosts, load_shell_hosts
from tests.peers.sshd import SshServer, is_running

ALIAS = "prod-host-01"
QUICK_LIMITS = SshLimits(connect=timedelta(seconds=5), comply=timedelta(seconds=0.3), ending=timedelta(seconds=6))


def hosts_of(server: SshServer, *allowed: str, **changes: Any) -> ShellHosts:
    """The hosts file for a server of the tests: one host, which allows `allowed`, or `uptime`."""
    host = {
        "address": "127.0.0.1",
        "port": server.port,
        "user": server.user,
        "key_file": str(server.client_key),
        "host_key": next(iter(server.host_keys.values())),
        "allowed_commands": list(allowed) or ["uptime"],
    }
    return load_shell_hosts({ALIAS: {**host, **changes}})


def host_of(server: SshServer, *allowed: str, **changes: Any) -> ShellHost:
    return hosts_of(server, *allowed, **changes).host(ALIAS)


def a_client(server: SshServer, *allowed: str) -> SshClient:
    return SshClient(hosts_of(server, *allowed), QUICK_LIMITS)


async def run(server: SshServer, command: str, *, seconds: float = 20, **changes: Any) -> ShellOutcome:
    """Send `command` as it stands."""
    return await a_client(server).run(host_of(server, **changes), command, timedelta(seconds=seconds))


class Recorder:
    """A program for the far side that keeps the arguments of every one of its executions."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "executions"
        program = folder / "record.py"
        program.write_text(
            "import json, os, sys\n"
            f"with open({str(self._file)!r}, 'a') as kept:\n"
            "    kept.write(json.dumps([os.fsencode(argument).hex() for argument in sys.argv[1:]]) + '\\n')\n"
        )
        self.command = f"{sys.executable} -S -E {program}"

    def executions(self) -> list[list[bytes]]:
        """The arguments of each execution, in order."""
        if not self._file.exists():
            return []
        return [[bytes.fromhex(word) for word in json.loads(line)] for line in self._file.read_text().splitlines()]


class Leaver:
    """A program for the far side that leaves its process group, and leaves a child in it that is over and never waited for."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "left"
        program = folder / "leave.py"
        program.write_text(
            "import os, time\n"
            "if os.fork() == 0:\n"
            "    os._exit(0)\n"
            "os.setsid()\n"
            "for stream in (0, 1, 2):\n"
            "    os.close(stream)\n"
            f"with open({str(self._file)!r}, 'w') as kept:\n"
            "    kept.write(f'{os.getpid()}\\n')\n"
            "time.sleep(300)\n"
        )
        self.command = f"{sys.executable} -S -E {program}; true"

    @property
    def process(self) -> int | None:
        """Of the one that left; None until it has."""
        noted = self._file.read_text() if self._file.exists() else ""
        return int(noted) if noted.endswith("\n") else None


class Tree:
    """Processes of the far side: a shell, its child, its grandchild. Each notes its process id before it waits."""

    def __init__(self, folder: Path, *, stubborn: bool = False) -> None:
        """`stubborn`: the child and the grandchild do not heed TERM, and have nothing of the channel left open."""
        self._file = folder / "processes"
        program = folder / "tree.sh"
        program.write_text(
            'echo $$ >> "$1"\n'
            'if [ "$2" = 0 ]; then exec sleep 300; fi\n'
            + ("trap '' TERM\n" if stubborn else "")
            + f'sh "$0" "$1" $(($2 - 1)) {">/dev/null 2>&1 " if stubborn else ""}&\n'
            + ("trap - TERM\n" if stubborn else "")
            + "wait\n"
        )
        self.command = f"sh {program} {self._file} 2"

    def processes(self) -> list[int]:
        return [int(line) for line in self._file.read_text().split()] if self._file.exists() else []

    @property
    def is_grown(self) -> bool:
        return len(self.processes()) == 3

    def kill(self) -> None:
        for process in self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    def alive(self) -> list[int]:
        return [process for process in self.processes() if is_running(process)]
