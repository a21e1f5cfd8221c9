"""The documents of the simulated cluster: a Deployment, its Scale, its status, and a patch applied to one of them.

Pure functions on JSON objects, in the shapes that Kubernetes 1.37 writes. No pods exist: `status_of` says what a
Deployment would show with so many of them ready.
"""

import uuid
from datetime import UTC, datetime
from typing import Any, cast

import jsonpatch

JsonObject = dict[str, Any]


class PatchDenied(Exception):
    """A patch that the API server refuses; `code` and `reason` are those of its Status."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason


def new_deployment(namespace: str, name: str, replicas: int, image: str, resource_version: str) -> JsonObject:
    """Make a Deployment of one container whose pods are all ready."""
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": name, "image": image}]}}
    return {
        "kind": "Deployment",
        "apiVersion": "apps/v1",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": str(uuid.uuid4()),
            "resourceVersion": resource_version,
            "generation": 1,
            "creationTimestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "labels": labels,
        },
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template},
        "status": status_of(generation=1, wished=replicas, ready=replicas),
    }


def status_of(*, generation: int, wished: int, ready: int) -> JsonObject:
    """Say what the controller reports with `ready` of `wished` pods ready, all of the newest revision."""
    counts = {
        "replicas": wished,
        "updatedReplicas": wished,
        "readyReplicas": ready,
        "availableReplicas": ready,
        "unavailableReplicas": wished - ready,
    }
    is_done = ready == wished
    return {
        "observedGeneration": generation,
        **{name: count for name, count in counts.items() if count},  # omitempty, each of them
        "conditions": [
            {"type": "Available", "status": "True" if is_done else "False"},
            {
                "type": "Progressing",
                "status": "True",
                "reason": "NewReplicaSetAvailable" if is_done else "ReplicaSetUpdated",
            },
        ],
    }


def scale_of(deployment: JsonObject, replicas: int | None = None) -> JsonObject:
    """Show a Deployment as its `/scale`, with another wished count where `replicas` names one."""
    metadata, spec = deployment["metadata"], deployment["spec"]
    wished: int = spec["replicas"] if replicas is None else replicas
    copied = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {key: metadata[key] for key in copied},
        # k8s.io/api autoscaling/v1: `Replicas int32 json:"replicas,omitempty"`, so there is no 0 on the wire.
        "spec": {"replicas": wished} if wished else {},
        "status": {
            "replicas": deployment["status"].get("replicas", 0),
            "selector": ",".join(f"{key}={value}" for key, value in spec["selector"]["matchLabels"].items()),
        },
    }


def patched(document: JsonObject, content_type: str, body: object) -> JsonObject:
    """Apply a JSON patch (RFC 6902) or a merge patch (RFC 7396) to a copy of `document`.

    Raises: PatchDenied as k8s.io/apiserver refuses (endpoints/handlers/patch.go): a JSON patch that does not apply, a
    failed `test` included, is 422 with this very sentence and no detail.
    """
    match content_type.partition(";")[0]:
        case "application/json-patch+json" if isinstance(body, list):
            try:
                return cast(JsonObject, jsonpatch.apply_patch(document, cast(list[JsonObject], body)))
            except jsonpatch.JsonPatchException as error:
                sentence = "the server rejected our request due to an error in our request"
                raise PatchDenied(422, "Invalid", sentence) from error
        case "application/merge-patch+json" if isinstance(body, dict):
            return _merged(document, cast(JsonObject, body))
        case "application/json-patch+json" | "application/merge-patch+json":
            raise PatchDenied(400, "BadRequest", "error decoding patch")
        case other:
            sentence = f"the body of the request was in an unknown format: {other}"
            raise PatchDenied(415, "UnsupportedMediaType", sentence)


def _merged(document: JsonObject, patch: JsonObject) -> JsonObject:
    result = {key: value for key, value in document.items() if key not in patch}
    for key, value in patch.items():
        if isinstance(value, dict):
            below = document.get(key)
            result[key] = _merged(cast(JsonObject, below) if isinstance(below, dict) else {}, cast(JsonObject, value))
        elif value is not None:
            result[key] = value
    return result
