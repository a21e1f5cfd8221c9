"""A real Prometheus Alertmanager on loopback: Debian's own binary, with a configuration that notifies one webhook.

    async with Alertmanager("http://127.0.0.1:9093/api/v1/alertmanager", key) as alertmanager:
        await alertmanager.post(alertmanager.alert(alertname="HighCpu", service="payment-api", severity="critical"))

The program is the one on the PATH; where there is none, Debian's package is installed through apt, its daemon not started.
"""

import asyncio
import os
import shutil
import subprocess
import threading
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import httpx

from cli.embedded import free_port

PACKAGE = "prometheus-alertmanager"
READY = timedelta(seconds=20)

_INSTALLING = threading.Lock()


class Alertmanager:
    """One Alertmanager without a cluster. It groups everything into one group, which it flushes every second."""

    def __init__(self, webhook_url: str, key: str, *, repeat: timedelta = timedelta(hours=1)) -> None:
        """`key` is sent as `Authorization: Bearer`. `repeat`: after how long a group that still fires is sent again."""
        self._webhook_url = webhook_url
        self._key = key
        self._repeat = repeat
        self._port = free_port()
        self._folder = TemporaryDirectory(prefix="infrasage-alertmanager-")
        self._process: subprocess.Popen[bytes] | None = None
        self._http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{self._port}", timeout=5, trust_env=False)

    async def __aenter__(self) -> Self:
        try:
            self._process = await asyncio.to_thread(self._start)
            await self._ready()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()
        if self._process is not None:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)
        self._folder.cleanup()

    def _start(self) -> "subprocess.Popen[bytes]":
        folder = Path(self._folder.name)
        (folder / "alertmanager.yml").write_text(self._configuration())
        arguments = [
            str(find_binary()),
            f"--config.file={folder / 'alertmanager.yml'}",
            f"--storage.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self._port}",
            "--cluster.listen-address=",
        ]
        with (folder / "log").open("wb") as log:
            return subprocess.Popen(arguments, stdout=log, stderr=log)

    @property
    def log(self) -> str:
        return (Path(self._folder.name) / "log").read_text(errors="replace")

    def alert(
        self, *, started: datetime | None = None, annotations: Mapping[str, str] | None = None, **labels: str
    ) -> dict[str, Any]:
        """An alert that fires, as Prometheus posts it."""
        return {
            "labels": labels,
            "annotations": dict(annotations or {}),
            "startsAt": datetime.now(UTC).isoformat(),
            "generatorURL": "http://prometheus.internal/graph",
        }

    async def post(self, *alerts: Mapping[str, Any]) -> None:
        """Report alerts. One that has an `endsAt` in the past is resolved."""
        answer = await self._http.post("/api/v2/alerts", json=list(alerts))
        answer.raise_for_status()

    async def resolve(self, *alerts: Mapping[str, Any]) -> None:
        """Report that alerts are over."""
        now = datetime.now(UTC).isoformat()
        await self.post(*({**alert, "endsAt": now} for alert in alerts))

    def _configuration(self) -> str:
        return f"""
route:
  receiver: infrasage
  group_by: [nothing]
  group_wait: 1s
  group_interval: 1s
  repeat_interval: {max(int(self._repeat.total_seconds()), 1)}s
receivers:
  - name: infrasage
    webhook_configs:
      - url: {self._webhook_url}
        send_resolved: true
        http_config:
          authorization:
            type: Bearer
            credentials: {self._key}
"""

    async def _ready(self) -> None:
        deadline = asyncio.get_running_loop().time() + READY.total_seconds()
        while True:
            try:
                if (await self._http.get("/-/ready")).status_code == 200:
                    return
            except httpx.TransportError:
                pass  # not listening yet
            if self._process is None or self._process.poll() is not None or asyncio.get_running_loop().time() > deadline:
                raise RuntimeError(f"Alertmanager did not start: {self.log[-2_000:]}")
            await asyncio.sleep(0.05)


def find_binary() -> Path:
    """The program, installed if need be. Raises RuntimeError with apt's own words where that fails."""
    with _INSTALLING:
        found = _on_the_path()
        if found is None:
            _install()
            found = _on_the_path()
    if found is None:
        raise RuntimeError(f"{PACKAGE} was installed, but is not on the PATH")
    return found


def _on_the_path() -> Path | None:
    program = shutil.which(PACKAGE) or shutil.which("alertmanager")
    return Path(program) if program else None


def _install() -> None:
    """Install the package of this distribution, without starting its daemon."""
    apt = ["apt-get", "-o", "DPkg::Lock::Timeout=120"]
    if not shutil.which("apt-get"):
        raise RuntimeError(f"the tests need {PACKAGE}, and there is no apt-get to install it: put it on the PATH")
    if os.geteuid() != 0:
        apt = ["sudo", "-n", *apt]
    # RUNLEVEL: what Debian's invoke-rc.d takes for a system that is not to start services now.
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    for arguments in (["update"], ["install", "-y", "--no-install-recommends", PACKAGE]):
        done = subprocess.run([*apt, *arguments], env=environment, capture_output=True, text=True, check=False, timeout=150)
        if done.returncode != 0:
            raise RuntimeError(f"{PACKAGE} could not be installed, install it by hand: {done.stderr[-1_000:]}")
