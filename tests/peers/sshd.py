"""Debian's own sshd on loopback, with keys and a configuration of its own, and a log that tells what reached it."""

import contextlib
import functools
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

STARTS_WITHIN_SECONDS = 15
_SBIN = "/usr/sbin:/sbin"
_PRIVILEGE_SEPARATION_FOLDER = Path("/run/sshd")


@functools.cache
def installed(program: str, package: str) -> str:
    """The path of a program, whose package is installed if it is missing (Debian, as root)."""
    path = f"{os.environ['PATH']}:{_SBIN}"
    found = shutil.which(program, path=path)
    if found is None:
        # RUNLEVEL keeps a package from starting a service of its own.
        environment = {**os.environ, "PATH": path, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        for arguments in (["update"], ["install", "--yes", "--no-install-recommends", package]):
            subprocess.run(["apt-get", "-o", "DPkg::Lock::Timeout=120", *arguments], env=environment, check=True, timeout=300)
        found = shutil.which(program, path=path)
    assert found is not None, f"the package {package} brought no {program}"
    return found


def make_key(file: Path, kind: str = "ed25519", passphrase: str = "") -> str:
    """Make a pair of keys, the public one in `file`.pub. Returns: the public line, without a comment."""
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", "", "-f", str(file)], check=True, timeout=30)
    return file.with_name(f"{file.name}.pub").read_text().strip()


def is_running(process: int) -> bool:
    """Whether a process is there and not a zombie."""
    try:
        state = Path(f"/proc/{process}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def login_name() -> str:
    """The only user whom an sshd of this user can let in for sure."""
    return pwd.getpwuid(os.getuid()).pw_name


@dataclass
class SshServer:
    """A running sshd. It lets `user` in who holds the key `client_key`."""

    folder: Path
    user: str
    client_key: Path
    host_keys: Mapping[str, str]
    """Kind → public line."""
    process: subprocess.Popen[bytes]
    port: int
    _log: Path = field(repr=False)

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def connections(self) -> int:
        """How many connections came, whatever became of them."""
        return len(re.findall(r"^Connection from ", self.log(), re.MULTILINE))

    def keys_offered(self) -> list[str]:
        """The fingerprints of the keys that were tried, in order."""
        return re.findall(r"(?:Failed|Accepted) publickey for .* (SHA256:\S+)", self.log())

    def sessions(self) -> int:
        """How many commands were asked for."""
        return len(re.findall(r"^Starting session: ", self.log(), re.MULTILINE))

    def signal_connections(self, number: signal.Signals) -> None:
        """Signal the processes that serve the open connections, and not the commands that they started."""
        for child in _children(self.process.pid):
            for process in (child, *_children(child)):
                if _name(process).startswith("sshd"):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(process, number)


@contextlib.contextmanager
def sshd(folder: Path, *, kinds: tuple[str, ...] = ("ed25519",), extra: str = "") -> Iterator[SshServer]:
    """Run an sshd that keeps everything of its own in `folder`; `extra` are more lines of its configuration."""
    program = installed("sshd", "openssh-server")
    if os.geteuid() == 0:  # sshd confines itself there, and does not make the folder
        _PRIVILEGE_SEPARATION_FOLDER.mkdir(mode=0o755, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    host_keys = {kind: make_key(folder / f"host_{kind}", kind) for kind in kinds}
    client_key = folder / "client"
    (folder / "authorized_keys").write_text(make_key(client_key) + "\n")
    home = folder / "home"  # the start files of the account that runs the tests are not the tests' business
    home.mkdir()
    log = folder / "log"
    for _ in range(5):
        port = _free_port()
        configuration = folder / "sshd_config"
        configuration.write_text(
            "\n".join(
                [
                    f"Port {port}",
                    "ListenAddress 127.0.0.1",
                    *(f"HostKey {folder}/host_{kind}" for kind in kinds),
                    f"AuthorizedKeysFile {folder}/authorized_keys",
                    "PidFile none",
                    "StrictModes no",
                    "UsePAM no",
                    "PasswordAuthentication no",
                    "KbdInteractiveAuthentication no",
                    "PermitRootLogin yes",
                    "MaxStartups 100",
                    "LogLevel VERBOSE",
                    f"SetEnv HOME={home}",
                    extra,
                    "",
                ]
            )
        )
        with log.open("wb") as written:
            # Re-executed for each connection, sshd wants to be called by its whole path.
            process = subprocess.Popen([program, "-D", "-e", "-f", str(configuration)], stdin=subprocess.DEVNULL, stderr=written)
        server = SshServer(folder, login_name(), client_key, host_keys, process, port, log)
        if _listens(server):
            break
    else:
        raise AssertionError(f"sshd did not start: {log.read_text()}")
    try:
        yield server
    finally:
        server.signal_connections(signal.SIGKILL)
        process.terminate()
        process.wait(10)


def _listens(server: SshServer) -> bool:
    """Wait for it. Returns: False when somebody else had the port first."""
    deadline = time.monotonic() + STARTS_WITHIN_SECONDS
    while "Server listening on" not in server.log():
        if server.process.poll() is not None:
            assert "Address already in use" in server.log(), server.log()
            return False
        assert time.monotonic() < deadline, f"sshd does not listen: {server.log()}"
        time.sleep(0.01)
    return True


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def _children(parent: int) -> list[int]:
    found: list[int] = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            process, _, rest = file.read_text(errors="replace").partition(" ")
            if int(rest.rpartition(")")[2].split()[1]) == parent:  # after the name: state, parent
                found.append(int(process))
    return found


def _name(process: int) -> str:
    try:
        return Path(f"/proc/{process}/comm").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
