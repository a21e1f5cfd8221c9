"""A Kubernetes API on loopback that holds Deployments, for `make demo` and for the tests: no cluster, no extra process.

kmock parses the requests, serves discovery and `/version`. The Deployments are done here, because kmock knows no
`/scale`, takes every PATCH for a merge patch, has no dry run, and searches its whole history at each request.
The pods are arithmetic: after a change of the spec the status follows within `rollout`, computed when it is read.
"""

import copy
import json
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

from cli.simulated_deployment import JsonObject, PatchDenied, new_deployment, patched, scale_of, status_of

DEPLOYMENTS = kmock.resource("apps", "v1", "deployments")
ACCESS_REVIEWS = kmock.resource("authorization.k8s.io", "v1", "selfsubjectaccessreviews")

OBSERVED_AFTER = 0.1
"""Share of the rollout after which the simulated controller notices a change."""


@dataclass(frozen=True)
class ReplicaWrite:
    """One change of a replica count that was stored; refused requests and dry runs are none."""

    namespace: str
    deployment: str
    before: int
    after: int
    field_manager: str


@dataclass(frozen=True)
class SeenRequest:
    """One request as it arrived, without its headers, which hold a credential."""

    method: str
    path: str
    query: Mapping[str, str]
    body: Any


class Denied(Exception):
    """An answer other than success, as the `Status` object of the Kubernetes API."""

    def __init__(self, code: int, reason: str, message: str, *, details: JsonObject | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.status: JsonObject = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": reason,
            "details": details or {},
            "code": code,
        }


@dataclass
class _Rollout:
    """A change of the spec whose pods are still on their way."""

    started_at: float  # seconds of the cluster's clock
    ready_before: int


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

        rollout: how long new pods take to become ready; zero means at once.
        clock: seconds that only grow, by which rollouts advance.
        tls: serve https with this context, and trust whoever it lets in where it asks for a client certificate.
        """
        self.requests: list[SeenRequest] = []
        self.writes: list[ReplicaWrite] = []
        self.token = secrets.token_urlsafe(24)
        self._rollout_seconds = rollout.total_seconds()
        self._clock = clock
        self._tls = tls
        self._api = _Api(self.answer)
        self._api.resources[DEPLOYMENTS] = kmock.ResourceInfo(
            kind="Deployment",
            singular="deployment",
            namespaced=True,
            verbs={"get", "list", "patch"},
            subresources={"scale"},
        )
        self._runner: web.ServerRunner | None = None
        self._deployments: dict[tuple[str, str], JsonObject] = {}
        self._rollouts: dict[tuple[str, str], _Rollout] = {}
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

    def add_deployment(self, namespace: str, name: str, replicas: int, image: str = "example:1.0") -> None:
        """Add a Deployment whose pods are all ready."""
        version = self._next_resource_version()
        self._deployments[namespace, name] = new_deployment(namespace, name, replicas, image, version)

    def deployment(self, namespace: str, name: str) -> JsonObject:
        """Return a copy of the Deployment as the API would show it now. Raises: KeyError."""
        return copy.deepcopy(self._settled(namespace, name))

    def replicas(self, namespace: str, name: str) -> int:
        """Return the wished count, `spec.replicas`. Raises: KeyError."""
        return self._settled(namespace, name)["spec"]["replicas"]

    def set_replicas(self, namespace: str, name: str, replicas: int, *, field_manager: str = "kubectl") -> None:
        """Change the wished count as somebody else at this cluster would, without asking. Raises: KeyError."""
        deployment = self._settled(namespace, name)
        before = deployment["spec"]["replicas"]
        if replicas == before:
            return  # the API server stores no change that changes nothing
        ready = deployment["status"].get("readyReplicas", 0)
        self._rollouts[namespace, name] = _Rollout(self._clock(), ready)
        deployment["spec"]["replicas"] = replicas
        deployment["metadata"]["generation"] += 1
        deployment["metadata"]["resourceVersion"] = self._next_resource_version()
        self.writes.append(ReplicaWrite(namespace, name, before, replicas, field_manager))

    async def answer(self, request: kmock.Request) -> web.StreamResponse | None:
        """Answer one request; None leaves it to kmock. Tests override this to make trouble."""
        body = cast(object, request.data)
        self.requests.append(SeenRequest(request.method.value, request.url.path, request.params, body))
        try:
            self._authenticate(request)
            if request.resource == ACCESS_REVIEWS and request.method is kmock.method.POST:
                return json_answer({**cast(JsonObject, body), "status": {"allowed": True}}, 201)
            if request.resource != DEPLOYMENTS:
                return None
            return json_answer(self._serve_deployments(request))
        except Denied as denied:
            return json_answer(denied.status, denied.code)

    def _authenticate(self, request: kmock.Request) -> None:
        if self._tls is not None and self._tls.verify_mode is ssl.CERT_REQUIRED:
            return  # the handshake has proved the client certificate
        if not secrets.compare_digest(_header(request, "authorization").encode(), f"Bearer {self.token}".encode()):
            raise Denied(401, "Unauthorized", "Unauthorized")

    def _serve_deployments(self, request: kmock.Request) -> JsonObject:
        namespace, name = request.namespace, request.name
        match request.method.value, request.subresource:
            case "GET", None if name is None:
                found = [self._settled(*key) for key in self._deployments if namespace in (None, key[0])]
                return {"kind": "DeploymentList", "apiVersion": "apps/v1", "metadata": {}, "items": found}
            case "GET", None | "scale" if namespace and name:
                deployment = self._require(namespace, name)
                return scale_of(deployment) if request.subresource else deployment
            case "PATCH", "scale" if namespace and name:
                return self._patch_scale(request, self._require(namespace, name))
            case method, _:
                raise Denied(405, "MethodNotAllowed", f"{method} of {request.url.path} is not simulated")

    def _patch_scale(self, request: kmock.Request, deployment: JsonObject) -> JsonObject:
        dry_run = request.params.get("dryRun")
        if dry_run not in (None, "All"):
            raise Denied(422, "Invalid", f'PatchOptions.meta.k8s.io "" is invalid: dryRun: Unsupported value: "{dry_run}"')
        # Nothing awaits between here and the store: the test of a patch and its write are one step, as in etcd.
        try:
            scale = patched(scale_of(deployment), _header(request, "content-type"), cast(object, request.data))
        except PatchDenied as denied:
            raise Denied(denied.code, denied.reason, str(denied)) from denied
        wished = scale.get("spec", {}).get("replicas", 0)
        if type(wished) is not int or wished < 0:
            cause = {"reason": "FieldValueInvalid", "field": "spec.replicas", "message": f"Invalid value: {wished!r}"}
            name = deployment["metadata"]["name"]
            message = f'Scale.autoscaling "{name}" is invalid: spec.replicas: Invalid value: {wished!r}'
            raise Denied(422, "Invalid", message, details={"causes": [cause]})
        if dry_run is None:
            metadata = deployment["metadata"]
            manager = request.params.get("fieldManager", "unknown")
            self.set_replicas(metadata["namespace"], metadata["name"], wished, field_manager=manager)
        return scale_of(deployment, wished)

    def _require(self, namespace: str, name: str) -> JsonObject:
        if (namespace, name) not in self._deployments:
            details = {"group": "apps", "kind": "deployments", "name": name}
            raise Denied(404, "NotFound", f'deployments.apps "{name}" not found', details=details)
        return self._settled(namespace, name)

    def _settled(self, namespace: str, name: str) -> JsonObject:
        """Bring the status up to now and return the stored Deployment itself."""
        deployment = self._deployments[namespace, name]
        rollout = self._rollouts.get((namespace, name))
        if rollout is None:
            return deployment
        passed = self._clock() - rollout.started_at
        share = 1.0 if passed >= self._rollout_seconds else passed / self._rollout_seconds
        if share >= OBSERVED_AFTER:
            wished = deployment["spec"]["replicas"]
            started = rollout.ready_before + int((wished - rollout.ready_before) * share)
            generation = deployment["metadata"]["generation"]
            deployment["status"] = status_of(generation=generation, wished=wished, ready=min(wished, started))
        if share >= 1:
            del self._rollouts[namespace, name]
        return deployment

    def _next_resource_version(self) -> str:
        self._resource_version += 1
        return str(self._resource_version)


def json_answer(document: JsonObject, code: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """Answer as the API server does, whose Content-Type names no charset: some clients compare it letter by letter."""
    content_type = {"Content-Type": "application/json"}
    return web.Response(body=json.dumps(document).encode(), status=code, headers={**content_type, **(headers or {})})


def _header(request: kmock.Request, name: str) -> str:
    return {key.lower(): value for key, value in request.headers.items()}.get(name, "")
