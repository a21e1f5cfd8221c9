"""What the local stack leaves in its data directory for the commands beside it: where it answers, and who may ask.

| file | holds |
|---|---|
| `operator.key` | an API key in clear, readable by its owner alone: with it the commands of this person act on the local stack |
| `api-keys.json` | the hashes of the keys that were made here; a key itself is shown once and kept nowhere |
| `stack.json` | where the API and Temporal of the running stack answer |
"""

import getpass
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import TypeAdapter, ValidationError

from cli.embedded_data_dir import LOCK_FILE, EmbeddedStackError
from cli.output import Failure
from domain.access import ApiKey, Role, Scope, generate_key, hash_key

DATA_DIR = Path(".infrasage")
DATA_DIR_VARIABLE = "INFRASAGE_DATA_DIR"

OPERATOR_KEY_FILE = "operator.key"
KEYS_FILE = "api-keys.json"
STACK_FILE = "stack.json"

LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})

_KEYS = TypeAdapter(tuple[ApiKey, ...])


@dataclass(frozen=True)
class RunningStack:
    """Where a stack answers."""

    url: str
    """Of the API."""
    temporal: str
    """`host:port` of Temporal's frontend."""


def data_dir() -> Path:
    """The data directory of the commands that are not told one: INFRASAGE_DATA_DIR, else `.infrasage`."""
    return Path(os.environ.get(DATA_DIR_VARIABLE) or DATA_DIR)


def running_stack(folder: Path) -> RunningStack | None:
    """The stack that runs on `folder` now, as it described itself; None when none does."""
    if _owner(folder) is None:
        return None
    try:
        fields = json.loads((folder / STACK_FILE).read_text())
        return RunningStack(url=str(fields["url"]), temporal=str(fields["temporal"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def announce(folder: Path, stack: RunningStack) -> None:
    """Write down where the stack answers."""
    write_private(folder / STACK_FILE, json.dumps(asdict(stack)) + "\n")


def retract(folder: Path) -> None:
    """The stack has stopped."""
    (folder / STACK_FILE).unlink(missing_ok=True)


def key_for(url: str, folder: Path) -> str | None:
    """The operator key of `folder`, if `url` is the stack that runs on it: the key goes nowhere else."""
    stack = running_stack(folder)
    asked = urlsplit(url)
    if stack is None or asked.hostname not in LOOPBACK_HOSTS or asked.port != urlsplit(stack.url).port:
        return None
    try:
        return (folder / OPERATOR_KEY_FILE).read_text().strip() or None
    except FileNotFoundError:
        return None
    except OSError:
        raise Failure(f"The key in {folder / OPERATOR_KEY_FILE} is not yours to read: set INFRASAGE_API_KEY.") from None


def operator_key(folder: Path) -> str:
    """The operator key of `folder`, made now if there is none. Raises: EmbeddedStackError."""
    path = folder / OPERATOR_KEY_FILE
    try:
        if path.exists() and (key := path.read_text().strip()):
            path.chmod(0o600)
            return key
        key = generate_key()
        write_private(path, key + "\n")
    except OSError as error:
        raise EmbeddedStackError(f"{path} cannot be used ({error.strerror}).") from None
    return key


def kept_keys(folder: Path) -> tuple[ApiKey, ...] | None:
    """The keys that were made here; None before the first start. Raises: EmbeddedStackError for a file that is not ours."""
    path = folder / KEYS_FILE
    try:
        return _KEYS.validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError):
        raise EmbeddedStackError(f"{path} cannot be read as a list of API keys: mend it, or remove it to get a new key.") from None


def keep_keys(folder: Path, keys: tuple[ApiKey, ...]) -> None:
    """Write the hashes down."""
    write_private(folder / KEYS_FILE, _KEYS.dump_json(keys, indent=2).decode() + "\n")


def named_key(key: str, name: str, role: Role, taken: tuple[ApiKey, ...]) -> ApiKey:
    """A full key under `name`, or under `name-local` where a configured key has that name already."""
    names = {other.name.casefold() for other in taken}
    return ApiKey(
        name=name if name.casefold() not in names else f"{name}-local", role=role, scope=Scope.FULL, key_sha256=hash_key(key)
    )


def person() -> str:
    """Who the local operator is in the audit log: the name this person has on this machine."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return "operator"


def write_private(path: Path, text: str) -> None:
    """Write a file whole or not at all, readable by its owner alone from its first byte on."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)


def _owner(folder: Path) -> int | None:
    """Process id of the stack that holds the directory; None when nobody does."""
    try:
        text = (folder / LOCK_FILE).read_text().strip()
        pid = int(text)
        os.kill(pid, 0)
    except PermissionError:
        return None  # somebody else's stack: its key is not ours either
    except (OSError, ValueError):
        return None
    return pid
