"""Runbooks from files: `RUNBOOKS_DIR` read anew each time, every fault told with its file, its place in the file and the reason.

A file that has a fault is not used, and never hides the others. Parsing is strict where YAML and JSON are forgiving: a key that is
there twice is a fault, because the one that wins silently may be the one that asks for approval.
"""

import json
import stat
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml

from domain.runbook import Runbook, RunbookFault, RunbookFaults, load_runbook

SUFFIXES = frozenset({".yaml", ".yml", ".json"})

FILE_LIMIT_BYTES = 256 * 1024
"""A definition travels inside its run; nobody writes a tenth of it."""


@dataclass(frozen=True)
class FileFault:
    """One fault of one file; `str()` is the sentence."""

    file: Path
    path: str
    """Place in the file (`steps[1].replicas`), empty when it is about the whole file."""
    reason: str

    def __str__(self) -> str:
        return f"{self.file}: {self.path}: {self.reason}" if self.path else f"{self.file}: {self.reason}"


def read_runbook(file: Path) -> Runbook:
    """Read and check one file. Raises RunbookFaults with everything that is wrong with it; blocking."""
    return load_runbook(_parse(_text(file), file.suffix == ".json"))


class RunbookFiles:
    """The runbooks of one directory, without its subdirectories; names that begin with a dot are not looked at.

    A file is parsed again only after it changed (time, size or inode): an anomaly costs a directory listing, not a parser.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._parsed: dict[Path, tuple[tuple[int, ...], Runbook | RunbookFaults]] = {}
        self._lock = threading.Lock()

    def load(self) -> tuple[tuple[Runbook, ...], tuple[str, ...]]:
        """Returns: the usable runbooks by name, and one sentence for each fault. Blocking; safe in several threads at once."""
        runbooks, faults = self.check()
        return runbooks, tuple(str(fault) for fault in faults)

    def check(self) -> tuple[tuple[Runbook, ...], tuple[FileFault, ...]]:
        """As `load`, with the faults in parts."""
        try:
            files = sorted(file for file in self._directory.iterdir() if _is_runbook_file(file))
        except OSError as error:
            reason = f"RUNBOOKS_DIR cannot be read ({error.strerror}): no runbook is loaded"
            return (), (FileFault(self._directory, "", reason),)
        with self._lock:
            self._parsed = {file: self._parsed[file] for file in files if file in self._parsed}
            read = [(file, self._read(file)) for file in files]
        return _collected(read)

    def _read(self, file: Path) -> Runbook | RunbookFaults:
        try:
            status = file.stat()
            state = (status.st_mtime_ns, status.st_size, status.st_ino)
        except OSError as error:
            return _whole(f"cannot be read ({error.strerror})")
        known = self._parsed.get(file)
        if known is None or known[0] != state:
            known = (state, _read_or_faults(file))
            self._parsed[file] = known
        return known[1]


def check_runbook_files(files: Iterable[Path]) -> tuple[tuple[Runbook, ...], tuple[FileFault, ...]]:
    """Check named files as `RunbookFiles` checks a directory, names that two of them share included. Blocking."""
    return _collected([(file, _read_or_faults(file)) for file in files])


def _collected(read: list[tuple[Path, Runbook | RunbookFaults]]) -> tuple[tuple[Runbook, ...], tuple[FileFault, ...]]:
    """Take the usable ones; where two files have one name, neither is used: which one was meant cannot be known."""
    refused = [(file, result) for file, result in read if isinstance(result, RunbookFaults)]
    faults = [FileFault(file, fault.path, fault.reason) for file, result in refused for fault in result.faults]
    by_name: dict[str, list[tuple[Path, Runbook]]] = {}
    for file, result in read:
        if isinstance(result, Runbook):
            by_name.setdefault(result.name, []).append((file, result))
    for name, found in by_name.items():
        for file, _ in found if len(found) > 1 else ():
            others = ", ".join(str(other) for other, _ in found if other != file)
            faults.append(FileFault(file, "name", f"'{name}' is also the name in {others}; none of them is used"))
    usable = [found[0][1] for found in by_name.values() if len(found) == 1]
    return tuple(sorted(usable, key=lambda runbook: runbook.name)), tuple(sorted(faults, key=lambda fault: str(fault.file)))


def _is_runbook_file(file: Path) -> bool:
    return file.suffix in SUFFIXES and not file.name.startswith(".")


def _read_or_faults(file: Path) -> Runbook | RunbookFaults:
    try:
        return read_runbook(file)
    except RunbookFaults as faults:
        return faults


def _whole(reason: str) -> RunbookFaults:
    return RunbookFaults([RunbookFault(path="", reason=reason)])


def _text(file: Path) -> str:
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for without end
            raise _whole("is not a file")
        if status.st_size > FILE_LIMIT_BYTES:
            raise _whole(f"has {status.st_size:,} bytes; allowed are {FILE_LIMIT_BYTES:,}")
        with file.open("rb") as opened:
            content = opened.read(FILE_LIMIT_BYTES + 1)
    except OSError as error:
        raise _whole(f"cannot be read ({error.strerror})") from error
    if len(content) > FILE_LIMIT_BYTES:  # it grew meanwhile
        raise _whole(f"has more than {FILE_LIMIT_BYTES:,} bytes")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _whole(f"is not UTF-8 text (byte {error.start})") from error


def _parse(text: str, is_json: bool) -> object:
    try:
        return _parse_json(text) if is_json else _parse_yaml(text)
    except RecursionError as error:
        raise _whole("is nested too deep") from error


def _parse_json(text: str) -> object:
    try:
        return json.loads(text, object_pairs_hook=_mapping)
    except json.JSONDecodeError as error:
        raise _whole(f"is not JSON: {error.msg}, line {error.lineno}, column {error.colno}") from error
    except ValueError as error:  # an integer beyond what Python reads (sys.set_int_max_str_digits)
        if isinstance(error, RunbookFaults):
            raise
        raise _whole("holds a number that is too large") from error


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _whole(f"has the key '{twice[:60]}' twice in one mapping")
    return mapping


_MERGE = "tag:yaml.org,2002:merge"
"""The key `<<`, which takes over the keys of another mapping; what stands beside it wins."""


class _StrictLoader(yaml.SafeLoader):
    """Plain values only, and each key of a mapping once."""


def _construct_mapping(loader: _StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[object] = set()
    for key_node, _ in node.value:
        key = cast("object", "<<" if key_node.tag == _MERGE else loader.construct_object(key_node, deep=True))
        if isinstance(key, list | dict | set):
            raise yaml.constructor.ConstructorError(None, None, "a key must be a text", key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"the key '{str(key)[:60]}' is there twice", key_node.start_mark)
        seen.add(key)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


_StrictLoader.add_constructor("tag:yaml.org,2002:map", _construct_mapping)


def _parse_yaml(text: str) -> object:
    try:
        # The pure loader: the one in C ends the process on 100,000 levels, this one raises RecursionError.
        return yaml.load(text, Loader=_StrictLoader)  # noqa: S506 a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise _whole(f"is not a runbook in YAML: {error.problem or error.context}{where}") from error
    except yaml.YAMLError as error:
        raise _whole(f"is not YAML: {' '.join(str(error).split())[:200]}") from error
    except (ValueError, OverflowError) as error:  # a date such as 2026-02-30, an integer of 5,000 digits
        raise _whole("holds a date or a number that does not exist") from error
