"""Open an SSH connection that rests on the hosts file alone, and tell in one sentence why it could not be opened.

Nothing of the machine or of the account that the worker runs as takes part: no agent, no default keys, no `known_hosts`, no
configuration file, no password, no Kerberos, no forwarding. The far host is the one that holds the pinned key.
"""

import asyncio
import socket

import asyncssh

from activities.clients.ssh_hosts import read_private_key
from activities.errors import NotConfigured, OrchestratorError, Refused, Unreachable
from domain.shell_hosts import ShellHost

KEEPALIVE_SECONDS = 5
KEEPALIVES_MISSED = 3
"""A far side that is silent for so many keepalives is gone: about 20 s."""

CLOSE_SECONDS = 1.0
"""For a connection to close in good order, before it is cut."""


def named(host: ShellHost) -> str:
    """`prod-host-01 (deploy@10.0.0.7:22)`."""
    return f"{host.alias} ({host.target})"


async def open_connection(host: ShellHost) -> asyncssh.SSHClientConnection:
    """Connect, hold the far host's key against the pinned one, and authenticate with the host's key file.

    Raises: NotConfigured, Refused, Unreachable; in every case nothing was run.
    """
    key = await asyncio.to_thread(read_private_key, host.key_file)
    pinned = asyncssh.import_public_key(host.host_key.line)
    try:
        return await asyncssh.connect(
            host.address,
            host.port,
            username=host.user,
            # Trusted keys, authorities, revoked keys. Never None, which trusts everybody, and never empty, which asks ~/.ssh.
            known_hosts=([pinned], [], []),
            client_keys=[key],
            preferred_auth="publickey",
            agent_path=None,
            config=None,
            password_auth=False,
            kbdint_auth=False,
            host_based_auth=False,
            gss_host=None,
            gss_kex=False,
            gss_auth=False,
            x509_trusted_certs=None,
            agent_forwarding=False,
            x11_forwarding=False,
            keepalive_interval=KEEPALIVE_SECONDS,
            keepalive_count_max=KEEPALIVES_MISSED,
        )
    except (asyncssh.Error, OSError, ValueError) as error:
        failure = _failure(error, host)
    raise failure


async def close_connection(connection: asyncssh.SSHClientConnection) -> None:
    """Close, in good order if the far side goes along."""
    connection.close()
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await connection.wait_closed()
    except TimeoutError:
        connection.abort()


def _failure(error: Exception, host: ShellHost) -> OrchestratorError:
    where = named(host)
    match error:
        case asyncssh.HostKeyNotVerifiable() | asyncssh.KeyExchangeFailed():
            return Refused(
                f"{where} does not hold the pinned host key {host.host_key.fingerprint}, or agrees on no way to prove it: "
                "nothing was sent, not even the user's key"
            )
        case asyncssh.PermissionDenied() | asyncssh.IllegalUserName():
            return Refused(f"{where} does not accept the key of that user: nothing was run")
        case asyncssh.Error() | ConnectionResetError() | BrokenPipeError():
            # sshd just hangs up when it has no key of the only type that is asked for.
            kind = host.host_key.line.split(" ")[0]
            return Unreachable(f"{where} broke off before the user was let in (has it a host key {kind}?): nothing was run")
        case socket.gaierror():
            return Unreachable(f"{where} cannot be found in DNS: nothing was run")
        case OSError():
            return Unreachable(f"{where} cannot be reached ({error.strerror or type(error).__name__}): nothing was run")
        case _:  # asyncssh asks for the name of the local account, which a container may not have
            return NotConfigured(f"{where} was not connected to: {error}")
