"""How a worker reaches its Kubernetes cluster: a kubeconfig file, or the service account of the pod it runs in.

Both hold credentials, and a YAML or certificate error quotes what it read. So no sentence from here quotes a file, and
no error from here has a cause or a context.
"""

import os
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import yaml
from lightkube import AsyncClient, ConfigError, KubeConfig, SingleConfig

from activities.errors import NotConfigured

FIELD_MANAGER = "infrasage"
"""Owner of our writes in an object's `managedFields`."""

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds its credentials (kubernetes.io/docs/tasks/run-application/access-api-from-pod)."""

PLUGIN_VERSIONS = ("client.authentication.k8s.io/v1alpha1", "client.authentication.k8s.io/v1beta1")
"""Credential plugins that lightkube 1.0 can run; it would refuse another one only at the first call."""


LOOPBACK = ("127.0.0.1", "::1", "localhost")


def find_cluster(kubeconfig: Path | None, service_account: Path) -> tuple[SingleConfig, str]:
    """Choose the kubeconfig where one is set, else the pod's own service account.

    `~/.kube/config` is not looked for: a runbook must not act on whichever cluster a person used last.
    Returns: the cluster with the credentials, and what to call their source in a sentence.
    Raises: NotConfigured.
    """
    if kubeconfig is not None:
        return _read_kubeconfig(kubeconfig), f"the KUBECONFIG file {kubeconfig}"
    if os.environ.get("KUBERNETES_SERVICE_HOST") and (service_account / "token").is_file():
        return _read_service_account(service_account), f"the service account in {service_account}"
    raise NotConfigured(
        "kubernetes steps need a cluster: set KUBECONFIG to the path of a kubeconfig file, or run in a pod with a service account"
    )


def connect(config: SingleConfig, source: str, timeout: timedelta) -> AsyncClient:
    """Build the client; it opens its first connection at its first call.

    Raises: NotConfigured when the address, the certificates or the kind of authentication cannot be used.
    """
    try:
        return AsyncClient(
            config,
            timeout=httpx2.Timeout(timeout.total_seconds()),
            field_manager=FIELD_MANAGER,
            # Like kubectl: HTTPS_PROXY and NO_PROXY count, but nobody proxies loopback.
            trust_env=httpx2.URL(config.cluster.server).host not in LOOPBACK,
        )
    except (ConfigError, OSError, TypeError, ValueError, httpx2.InvalidURL):  # OSError includes ssl.SSLError
        fault = f"{source} cannot be used: its server address, certificates or kind of authentication cannot be loaded"
    raise NotConfigured(fault)


def address(config: SingleConfig) -> str:
    """Name the server for a sentence, without the credentials that an address can hold."""
    url = httpx2.URL(config.cluster.server)
    return f"{url.scheme}://{url.netloc.decode()}"


def _read_kubeconfig(path: Path) -> SingleConfig:
    if os.pathsep in str(path) and not path.exists():
        raise NotConfigured(f"KUBECONFIG names several files ({path}): allowed is one")
    if not path.is_file():
        raise NotConfigured(f"KUBECONFIG names {path}, which is not a file")
    try:
        config = KubeConfig.from_file(path).get()
        fault = _fault_of(config)
    except yaml.YAMLError:
        config, fault = None, "is not YAML"
    except (ConfigError, AttributeError, LookupError, OSError, TypeError, ValueError):
        config, fault = None, "needs clusters, contexts, users and a current-context that names one of each"
    if config is not None and fault is None:
        return config
    raise NotConfigured(f"the KUBECONFIG file {path} cannot be used: it {fault}")


def _fault_of(config: SingleConfig | None) -> str | None:
    """Say what lightkube would trip over only at the first call, or nothing."""
    if config is None or config.user is None:
        return "names no user in its current context"
    server = urlsplit(config.cluster.server)
    if server.scheme != "https" and not (server.scheme == "http" and server.hostname in LOOPBACK):
        # kubectl, too, sends no token over http.
        return "names a server that is not an https:// address (http:// is allowed on this machine alone)"
    if config.user.exec is not None and config.user.exec.apiVersion not in PLUGIN_VERSIONS:
        return f"names a credential plugin of a version other than {' or '.join(PLUGIN_VERSIONS)}"
    return None


def _read_service_account(folder: Path) -> SingleConfig:
    try:
        config = KubeConfig.from_service_account(folder).get()
    except (ConfigError, LookupError, OSError, ValueError):
        config = None
    if config is None:
        raise NotConfigured(
            f"the service account in {folder} cannot be used: it needs the files token, namespace and ca.crt, and the"
            " variables KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT; or set KUBECONFIG"
        )
    return config
