"""A Kubernetes API on loopback, for `make demo` and for the tests: no cluster, no extra process.

kmock parses the requests, serves discovery and `/version`. The objects are done here, because kmock knows no `/scale` and
no eviction, takes every PATCH for a merge patch, has no selectors and no dry run, and searches its whole history at each
request. This module judges requests; `simulated_workloads` and `simulated_nodes` hold what is stored.
"""

import copy
import secrets
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import kmock
import yaml
from aiohttp import web

from cli.simulated_answers import Denied, json_answer
from cli.simulated_deployment import JsonObject, PatchDenied, patched, scale_of
from cli.simulated_nodes import Nodes
from cli.simulated_workloads import ReplicaWrite, Workloads

__all__ = ["Denied", "SeenRequest", "SimulatedCluster", "json_answer"]

DEPLOYMENTS = kmock.resource("apps", "v1", "deployments")
REPLICA_SETS = kmock.resource("apps", "v1", "replicasets")
NODES = kmock.resource("", "v1", "nodes")
PODS = kmock.resource("", "v1", "pods")
ACCESS_REVIEWS = kmock.resource("authorization.k8s.io", "v1", "selfsubjectaccessreviews")

_SERVED = {
    DEPLOYMENTS: kmock.ResourceInfo(
        kind="Deployment", singular="deployment", namespaced=True, verbs={"get", "list", "patch"}, subresources={"scale"}
    ),
    REPLICA_SETS: kmock.ResourceInfo(kind="ReplicaSet", singular="replicaset", namespaced=True, verbs={"list"}),
    NODES: kmock.ResourceInfo(kind="Node", singular="node", namespaced=False, verbs={"get", "patch"}),
    PODS: kmock.ResourceInfo(kind="Pod", singular="pod", namespaced=True, verbs={"list"}, subresources={"eviction"}),
}


@dataclass(frozen=True)
class SeenRequest:
    """One request as it arrived, without its headers, which hold a credential."""

    method: str
    path: str
    query: Mapping[str, str]
    body: Any


class _Api(kmock.KubernetesScaffold):
    """kmock, asked only for what `answer` leaves to it by returning None."""

    def __init__(self, answer: Callable[[kmock.Request], Awaitable[web.StreamResponse | None]]) -> None:
        super().__init__()
        self._answer = answer

    async def _handle(self, request: kmock.Request) -> web.StreamResponse:
        answer = await self._answer(request)
        return await super()._handle(request) if answer is None else answer


class SimulatedCluster:
    """An API server of one's own: `async with SimulatedCluster() as cluster`."""

    def __init__(
        self,
        *,
        rollout: timedelta = timedelta(milliseconds=300),
        clock: Callable[[], float] = time.monotonic,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Prepare; nothing listens before `async with`.

        rollout: how long new pods take to become ready, and evicted ones to be gone; zero means at once.
        clock: seconds that only grow, by which rollouts advance.
        tls: serve https with this context, and trust whoever it lets in where it asks for a client certificate.
        """
        self.requests: list[SeenRequest] = []
        self.token = secrets.token_urlsafe(24)
        self.workloads = Workloads(rollout.total_seconds(), clock, self._next_resource_version)
        self.nodes = Nodes(rollout.total_seconds(), clock, self._next_resource_version)
        self._tls = tls
        self._api = _Api(self.answer)
        for resource, served in _SERVED.items():
            self._api.resources[resource] = served
        self._runner: web.ServerRunner | None = None
        self._resource_version = 0

    async def __aenter__(self) -> Self:
        # Not kmock.Server: that one also rewires aiohttp's resolver for the whole process and must be left in the
        # reverse order of entering, which two clusters, or a demo with its own Slack client, do not promise.
        await self._api.__aenter__()
        self._runner = web.ServerRunner(web.Server(self._api, access_log=None), shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._tls).start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        await self._api.__aexit__(kind, error, traceback)

    @property
    def url(self) -> str:
        """Address of the API server. Raises: RuntimeError outside of `async with`."""
        if self._runner is None:
            raise RuntimeError("the simulated cluster is not running")
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._runner.addresses[0][1]}"

    def write_kubeconfig(self, path: Path) -> Path:
        """Write a kubeconfig that reaches this cluster by its token, readable by its owner alone."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "simulated", "cluster": {"server": self.url}}],
            "users": [{"name": "infrasage", "user": {"token": self.token}}],
            "contexts": [{"name": "simulated", "context": {"cluster": "simulated", "user": "infrasage"}}],
            "current-context": "simulated",
        }
        path.touch(mode=0o600)
        path.write_text(yaml.safe_dump(config))
        return path

    @property
    def writes(self) -> list[ReplicaWrite]:
        """Every change of a replica count that was stored."""
        return self.workloads.writes

    def add_deployment(self, namespace: str, name: str, replicas: int, image: str = "example:1.0") -> None:
        """Add a Deployment of revision 1 whose pods are all ready."""
        self.workloads.add(namespace, name, replicas, image)

    def deployment(self, namespace: str, name: str) -> JsonObject:
        """Return a copy of the Deployment as the API would show it now. Raises: KeyError."""
        return copy.deepcopy(self.workloads.settled(namespace, name))

    def replicas(self, namespace: str, name: str) -> int:
        """Return the wished count, `spec.replicas`. Raises: KeyError."""
        return self.workloads.settled(namespace, name)["spec"]["replicas"]

    def set_replicas(self, namespace: str, name: str, replicas: int, *, field_manager: str = "kubectl") -> None:
        """Change the wished count as somebody else at this cluster would, without asking. Raises: KeyError."""
        changed = self.deployment(namespace, name)
        changed["spec"]["replicas"] = replicas
        self.workloads.store(changed, field_manager)

    def set_image(self, namespace: str, name: str, image: str, *, annotations: Mapping[str, str] | None = None) -> None:
        """Deploy another image, and annotate the Deployment, as somebody else would. Raises: KeyError."""
        changed = self.deployment(namespace, name)
        changed["spec"]["template"]["spec"]["containers"][0]["image"] = image
        changed["metadata"]["annotations"].update(annotations or {})
        self.workloads.store(changed, "kubectl")

    async def answer(self, request: kmock.Request) -> web.StreamResponse | None:
        """Answer one request; None leaves it to kmock. Tests override this to make trouble."""
        body = cast(object, request.data)
        self.requests.append(SeenRequest(request.method.value, request.url.path, request.params, body))
        try:
            self._authenticate(request)
            if request.resource == ACCESS_REVIEWS and request.method is kmock.method.POST:
                return json_answer({**cast(JsonObject, body), "status": {"allowed": True}}, 201)
            if request.resource == PODS and request.subresource == "eviction" and request.method is kmock.method.POST:
                return json_answer(self._evict(request), 201)
            if request.resource not in _SERVED:
                return None
            return json_answer(self._serve(request))
        except Denied as denied:
            return json_answer(denied.status, denied.code)

    def _authenticate(self, request: kmock.Request) -> None:
        if self._tls is not None and self._tls.verify_mode is ssl.CERT_REQUIRED:
            return  # the handshake has proved the client certificate
        if not secrets.compare_digest(_header(request, "authorization").encode(), f"Bearer {self.token}".encode()):
            raise Denied(401, "Unauthorized", "Unauthorized")

    def _serve(self, request: kmock.Request) -> JsonObject:
        resource, namespace, name = request.resource, request.namespace, request.name
        match request.method.value, request.subresource:
            case "GET", None if name is None and resource in (DEPLOYMENTS, REPLICA_SETS, PODS):
                return self._list(request)
            case "GET", None | "scale" if resource == DEPLOYMENTS and namespace and name:
                deployment = self._require(namespace, name)
                return scale_of(deployment) if request.subresource else deployment
            case "PATCH", "scale" if resource == DEPLOYMENTS and namespace and name:
                return self._patch_scale(request, self._require(namespace, name))
            case "PATCH", None if resource == DEPLOYMENTS and namespace and name:
                changed = self._patched(request, self._require(namespace, name))
                _judge_deployment(changed, self._require(namespace, name))
                return changed if _is_dry_run(request) else self.workloads.store(changed, _manager(request))
            case "GET", None if resource == NODES and name:
                return self.nodes.node(name)
            case "PATCH", None if resource == NODES and name:
                changed = self._patched(request, self.nodes.node(name))
                return changed if _is_dry_run(request) else self.nodes.store(changed, _manager(request))
            case method, _:
                raise Denied(405, "MethodNotAllowed", f"{method} of {request.url.path} is not simulated")

    def _list(self, request: kmock.Request) -> JsonObject:
        if request.resource == PODS:
            field, _, node = request.params.get("fieldSelector", "").partition("=")
            if field not in ("", "spec.nodeName"):
                raise Denied(400, "BadRequest", f"field label not supported: {field}")
            found = [one for one in self.nodes.pods(node or None) if request.namespace in (None, one["metadata"]["namespace"])]
            kind, version = "PodList", "v1"
        elif request.resource == REPLICA_SETS:
            selector = request.params.get("labelSelector", "")
            labels = dict(pair.split("=", 1) for pair in selector.split(",") if pair)
            found, kind, version = self.workloads.replica_sets(request.namespace, labels), "ReplicaSetList", "apps/v1"
        else:
            found, kind, version = self.workloads.deployments(request.namespace), "DeploymentList", "apps/v1"
        return {"kind": kind, "apiVersion": version, "metadata": {}, "items": found}

    def _evict(self, request: kmock.Request) -> JsonObject:
        eviction = cast(JsonObject, request.data)
        return self.nodes.evict(request.namespace or "", request.name or "", eviction, dry_run=_is_dry_run(request))

    def _patch_scale(self, request: kmock.Request, deployment: JsonObject) -> JsonObject:
        # Nothing awaits between here and the store: the test of a patch and its write are one step, as in etcd.
        scale = self._patched(request, scale_of(deployment))
        wished = scale.get("spec", {}).get("replicas", 0)
        if type(wished) is not int or wished < 0:
            raise _invalid_replicas("Scale.autoscaling", deployment["metadata"]["name"], wished)
        if not _is_dry_run(request):
            metadata = deployment["metadata"]
            self.set_replicas(metadata["namespace"], metadata["name"], wished, field_manager=_manager(request))
        return scale_of(deployment, wished)

    def _patched(self, request: kmock.Request, stored: JsonObject) -> JsonObject:
        _is_dry_run(request)
        try:
            changed = patched(stored, _header(request, "content-type"), cast(object, request.data))
        except PatchDenied as denied:
            raise Denied(denied.code, denied.reason, str(denied)) from denied
        for key in ("resourceVersion", "uid"):
            if changed["metadata"].get(key) != stored["metadata"][key]:
                message = (
                    f'Operation cannot be fulfilled on "{stored["metadata"]["name"]}": the object has been modified; '
                    "please apply your changes to the latest version and try again"
                )
                raise Denied(409, "Conflict", message)
        return changed

    def _require(self, namespace: str, name: str) -> JsonObject:
        if (namespace, name) not in self.workloads:
            details = {"group": "apps", "kind": "deployments", "name": name}
            raise Denied(404, "NotFound", f'deployments.apps "{name}" not found', details=details)
        return self.workloads.settled(namespace, name)

    def _next_resource_version(self) -> str:
        self._resource_version += 1
        return str(self._resource_version)


def _header(request: kmock.Request, name: str) -> str:
    return {key.lower(): value for key, value in request.headers.items()}.get(name, "")


def _is_dry_run(request: kmock.Request) -> bool:
    """Raises: Denied for a value other than All."""
    dry_run = request.params.get("dryRun")
    if dry_run not in (None, "All"):
        raise Denied(422, "Invalid", f'PatchOptions.meta.k8s.io "" is invalid: dryRun: Unsupported value: "{dry_run}"')
    return dry_run is not None


def _manager(request: kmock.Request) -> str:
    return request.params.get("fieldManager", "unknown")


def _judge_deployment(changed: JsonObject, stored: JsonObject) -> None:
    """Refuse what validation refuses, as far as it is simulated. Raises: Denied."""
    name, spec = stored["metadata"]["name"], changed["spec"]
    replicas = spec.get("replicas")
    if type(replicas) is not int or replicas < 0:
        raise _invalid_replicas("Deployment.apps", name, replicas)
    labels = spec["template"].get("metadata", {}).get("labels", {})
    if spec["selector"] != stored["spec"]["selector"] or not spec["selector"]["matchLabels"].items() <= labels.items():
        raise Denied(422, "Invalid", f'Deployment.apps "{name}" is invalid: `selector` does not match template `labels`')


def _invalid_replicas(kind: str, name: str, replicas: object) -> Denied:
    cause = {"reason": "FieldValueInvalid", "field": "spec.replicas", "message": f"Invalid value: {replicas!r}"}
    message = f'{kind} "{name}" is invalid: spec.replicas: Invalid value: {replicas!r}'
    return Denied(422, "Invalid", message, details={"causes": [cause]})
