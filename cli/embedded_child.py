"""Run as a script between the supervisor and the Temporal server: ties the server's life to its parent's, then becomes it.

    python -I -S embedded_child.py PARENT_PID PID_FILE_DESCRIPTOR COMMAND ARGUMENT...

A script and not a `preexec_fn`: that runs in a forked copy of a threaded process and may deadlock there.
Imports nothing but the standard library; what it prints goes to the server's log.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # prctl(2), Linux


def die_with_parent(parent_pid: int) -> None:
    """Have the kernel send SIGKILL to this process when its parent ends; kept across exec. Without effect outside Linux.

    SIGKILL and not SIGTERM: a restart need not wait for a shutdown, and the database is safe against it.
    Elsewhere the leftover server is found by its pid file at the next start.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
            sys.exit(f"prctl(PR_SET_PDEATHSIG) failed: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent_pid:  # it ended before the line above took effect
        sys.exit("The supervisor ended before the Temporal server was started.")


def main() -> None:
    """Tie, record the pid in the inherited pid file, and become the command. Exits 127 if it cannot be run."""
    parent_pid, pid_file, *command = sys.argv[1:]
    die_with_parent(int(parent_pid))
    descriptor = int(pid_file)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    try:
        # No shell: the command is the absolute path that the supervisor found.
        os.execv(command[0], command)  # noqa: S606
    except OSError as error:
        print(f"Error: {command[0]} cannot be run: {error.strerror}", file=sys.stderr)
        sys.exit(127)


if __name__ == "__main__":
    main()
