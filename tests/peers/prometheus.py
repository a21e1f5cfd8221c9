"""Debian's own Prometheus on a loopback port, scraping itself every second."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import httpx

from tests.peers.http import unused_port

START_SECONDS = 60
PACKAGE = "prometheus"
"""Debian's package and its program (2.42 in Debian 12)."""

CONFIG = """
global:
  scrape_interval: 1s
  scrape_timeout: 1s
scrape_configs:
  - job_name: prometheus
    static_configs:
      - targets: ["127.0.0.1:{port}"]
        labels: {{service: payment-api}}
  - job_name: absent
    static_configs:
      - targets: ["127.0.0.1:{closed}"]
        labels: {{service: checkout-service}}
"""


def find_binary() -> str:
    """The program, installed if it is missing. Raises: RuntimeError with apt's own words where that fails."""
    found = shutil.which(PACKAGE)
    if found is None:
        _install()
        found = shutil.which(PACKAGE)
    if found is None:
        raise RuntimeError(f"the tests need {PACKAGE}: it was installed, and is not on the PATH")
    return found


def _install() -> None:
    apt = [*(["sudo", "-n"] if os.geteuid() != 0 else []), "apt-get", "-o", "DPkg::Lock::Timeout=120"]
    if shutil.which("apt-get") is None:
        raise RuntimeError(f"the tests need {PACKAGE}, and there is no apt-get to install it: put it on the PATH")
    # RUNLEVEL keeps the package from starting a service of its own.
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    for arguments in (["update"], ["install", "--yes", "--no-install-recommends", PACKAGE]):
        done = subprocess.run([*apt, *arguments], env=environment, capture_output=True, text=True, check=False, timeout=150)
        if done.returncode != 0:
            raise RuntimeError(f"{PACKAGE} could not be installed, install it by hand: {done.stderr[-1_000:]}")


@dataclass
class PrometheusServer:
    """A running server; `up` is 1 for the job `prometheus` and 0 for the job `absent`."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@asynccontextmanager
async def prometheus_server(folder: Path) -> AsyncIterator[PrometheusServer]:
    """A server that has scraped both of its targets; its data goes to `folder`, and it ends with the context."""
    binary = await asyncio.to_thread(find_binary)
    port = unused_port()
    config = folder / "prometheus.yml"
    config.write_text(CONFIG.format(port=port, closed=unused_port()), encoding="utf-8")
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            binary,
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            stdout=log,
            stderr=log,
        )
    try:
        server = PrometheusServer(port)
        await _scraped(server, process, folder / "log")
        yield server
    finally:
        if process.returncode is None:
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), 20)
        except TimeoutError:
            process.kill()
            await process.wait()


async def _scraped(server: PrometheusServer, process: asyncio.subprocess.Process, log: Path) -> None:
    """Wait until `up` has both series."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + START_SECONDS
    async with httpx.AsyncClient(trust_env=False, timeout=timedelta(seconds=5).total_seconds()) as client:
        while True:
            try:
                answer = await client.get(f"{server.url}/api/v1/query", params={"query": "count(up)"})
                result = answer.json()["data"]["result"] if answer.status_code == 200 else []
                if result and result[0]["value"][1] == "2":
                    return
            except (httpx.TransportError, ValueError):
                pass  # it is not listening yet
            assert process.returncode is None, f"it ended by itself: see {log}"
            assert loop.time() < deadline, f"it is not ready in time: see {log}"
            await asyncio.sleep(0.05)
