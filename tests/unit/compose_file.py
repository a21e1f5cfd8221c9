"""`docker-compose.temporal.yml` as data, its rules, and the program that reads it for good."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "docker-compose.temporal.yml"

REQUIRED = ("POSTGRES_PASSWORD", "CLICKHOUSE_PASSWORD", "INFRASAGE_URL", "INFRASAGE_API_KEYS")

Service = dict[str, Any]

_REFERENCE = re.compile(r"\$\{(?P<name>[A-Z_][A-Z0-9_]*)(?::(?P<kind>[?-])(?P<rest>[^}]*))?\}")
_SECRET = re.compile(r"PASSWORD|PWD|SECRET|TOKEN|API_KEYS|WEBHOOK_URL")
_PUBLISHED = "9093:9093"


class Refused(Exception):
    """The file cannot be used with this environment; the text says why."""


def services(text: str) -> dict[str, Service]:
    return yaml.safe_load(text)["services"]


def references(text: str) -> dict[str, str]:
    """Each `${NAME…}` of the file → `?` (required), `-` (with a default) or nothing."""
    return {match["name"]: match["kind"] or "" for match in _REFERENCE.finditer(text)}


def infrasage(text: str) -> dict[str, Service]:
    """The services that run our own image."""
    return {name: service for name, service in services(text).items() if service["image"].startswith("infrasage:")}


# --- rules --------------------------------------------------------------------------------------------------------


def faults(text: str) -> list[str]:
    """Every rule of ours that the file breaks, one sentence each."""
    document = yaml.safe_load(text)
    found = [f"{name} {fault}" for name, service in document["services"].items() for fault in _faults(service)]
    found += [f"{name} {fault}" for name, service in document["services"].items() for fault in _order(service, document)]
    mounted = {volume.partition(":")[0] for service in document["services"].values() for volume in service.get("volumes", ())}
    named = {volume for volume in mounted if not volume.startswith((".", "/"))}
    found += [f"the volume {name} is declared and not mounted" for name in sorted(set(document["volumes"]) - named)]
    found += [f"the volume {name} is mounted and not declared" for name in sorted(named - set(document["volumes"]))]
    return found


def is_job(service: Service) -> bool:
    """Whether it runs to its end: it is then tried again only when it failed."""
    return service.get("restart") == "on-failure"


def _faults(service: Service) -> Iterator[str]:
    repository, _, tag = service["image"].rpartition(":")
    if not repository or tag == "latest" or not re.search(r"\d+\.\d+", tag):
        yield "needs an image of a version"
    if service.get("user", "0").partition(":")[0] in ("0", "root"):
        yield "runs as root"
    if service.get("privileged") or service.get("cap_add") or service.get("network_mode") == "host" or service.get("pid"):
        yield "has rights beyond a container's"
    if any("docker.sock" in volume for volume in service.get("volumes", ())):
        yield "can command Docker"
    if "no-new-privileges:true" not in service.get("security_opt", ()):
        yield "may gain privileges"
    if service.get("restart") not in ("unless-stopped", "on-failure"):
        yield "is not restarted"
    if not is_job(service) and not service.get("healthcheck", {}).get("test"):
        yield "has no health check"
    if "max-size" not in service.get("logging", {}).get("options", {}):
        yield "has a log without bounds"
    for port in service.get("ports", ()):
        if not port.startswith("127.0.0.1:") and port != _PUBLISHED:
            yield f"publishes {port}"
    for name, value in service.get("environment", {}).items():
        reference = _REFERENCE.fullmatch(value)
        if _SECRET.search(name) and (reference is None or (reference["kind"] != "?" and reference["rest"])):
            yield f"has a secret in the file: {name}"


def _order(service: Service, document: Mapping[str, Any]) -> Iterator[str]:
    waits = service.get("depends_on", {})
    if not isinstance(waits, dict):
        yield "waits for the start of others and not for their health"
        return
    for name, wait in waits.items():
        needed = "service_completed_successfully" if is_job(document["services"][name]) else "service_healthy"
        if wait["condition"] != needed:
            yield f"waits for {name}, but not until {needed}"


# --- the real reader ----------------------------------------------------------------------------------------------


def config(environment: Mapping[str, str], *files: Path) -> dict[str, Any]:
    """What docker-compose makes of `files` with `environment` and nothing else. Raises: Refused with its words."""
    arguments = [argument for file in files for argument in ("-f", str(file))]
    read = subprocess.run(
        [*_docker_compose(), *arguments, "--project-directory", str(ROOT), "config"],
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **environment},
        cwd="/",  # away from a `.env` of the checkout
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if read.returncode:
        raise Refused(read.stdout + read.stderr)
    return yaml.safe_load(read.stdout)


@cache
def _docker_compose() -> tuple[str, ...]:
    """docker-compose, or the plugin of Docker; where there is neither, Debian's is installed. Raises: Refused."""
    if found := shutil.which("docker-compose"):
        return (found,)
    docker = shutil.which("docker")
    if docker and subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode == 0:
        return (docker, "compose")
    apt_get = shutil.which("apt-get")
    if apt_get is None or os.geteuid() != 0:
        raise Refused("docker-compose is needed to check docker-compose.temporal.yml: install it, or be root on Debian")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    update, install = [apt_get, "update"], [apt_get, "install", "--yes", "--no-install-recommends", "docker-compose"]
    subprocess.run(update, env=quiet, stdin=subprocess.DEVNULL, capture_output=True, timeout=120, check=False)  # install tells
    done = subprocess.run(install, env=quiet, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=150, check=False)
    found = shutil.which("docker-compose")
    if found is None:
        raise Refused(f"docker-compose could not be installed: {(done.stdout + done.stderr)[-500:]}")
    return (found,)
