"""The documents of the simulated cluster: a Deployment, its Scale, its ReplicaSets, its status, and a patch applied to one.

Pure functions on JSON objects, in the shapes that Kubernetes 1.37 writes. No pods exist: `status_of` says what a
Deployment would show with so many of them ready.
"""

import copy
import hashlib
import json
import uuid
from datetime import UTC, datetime
from typing import Any, cast

import jsonpatch

JsonObject = dict[str, Any]

REVISION = "deployment.kubernetes.io/revision"
TEMPLATE_HASH = "pod-template-hash"


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
            "creationTimestamp": now_as_text(),
            "labels": labels,
            "annotations": {REVISION: "1"},
        },
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template},
        "status": status_of(generation=1, wished=replicas, ready=replicas),
    }


def now_as_text() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def new_replica_set(deployment: JsonObject, revision: int, resource_version: str) -> JsonObject:
    """Make the ReplicaSet in which the controller keeps the template that a Deployment has now."""
    metadata, spec = deployment["metadata"], deployment["spec"]
    digest = hashlib.sha256(json.dumps(spec["template"], sort_keys=True).encode()).hexdigest()[:10]
    template = copy.deepcopy(spec["template"])
    template["metadata"]["labels"][TEMPLATE_HASH] = digest
    labels = template["metadata"]["labels"]
    owner = {"apiVersion": "apps/v1", "kind": "Deployment", "name": metadata["name"], "uid": metadata["uid"]}
    return {
        "kind": "ReplicaSet",
        "apiVersion": "apps/v1",
        "metadata": {
            "name": f"{metadata['name']}-{digest}",
            "namespace": metadata["namespace"],
            "uid": str(uuid.uuid4()),
            "resourceVersion": resource_version,
            "generation": 1,
            "creationTimestamp": now_as_text(),
            "labels": labels,
            "annotations": {**metadata["annotations"], REVISION: str(revision)},
            "ownerReferences": [{**owner, "controller": True, "blockOwnerDeletion": True}],
        },
        "spec": {
            "replicas": spec["replicas"],
            "selector": {"matchLabels": {**spec["selector"]["matchLabels"], TEMPLATE_HASH: digest}},
            "template": template,
        },
        "status": {"replicas": spec["replicas"]},
    }


def template_in(replica_set: JsonObject) -> JsonObject:
    """Return the template that a ReplicaSet keeps, as the Deployment had it."""
    template = copy.deepcopy(replica_set["spec"]["template"])
    del template["metadata"]["labels"][TEMPLATE_HASH]
    return template


def status_of(*, generation: int, wished: int, ready: int, updated: int | None = None) -> JsonObject:
    """Say what the controller reports with `ready` of `wished` pods ready.

    updated: how many are of the newest revision, while others run beside them; None when all are.
    """
    is_done = updated is None and ready == wished
    counts = {
        "replicas": wished if updated is None else wished + 1,
        "updatedReplicas": wished if updated is None else updated,
        "readyReplicas": ready,
        "availableReplicas": ready,
        "unavailableReplicas": wished - ready if updated is None else 1,
    }
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
    """Apply a JSON patch (RFC 6902), a merge patch (RFC 7396) or a strategic merge patch to a copy of `document`.

    A strategic merge patch without lists does what a merge patch does; one with lists is not simulated.

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
        case "application/strategic-merge-patch+json" if _holds_a_list(body):
            raise PatchDenied(400, "BadRequest", "a list in a strategic merge patch is not simulated")
        case "application/merge-patch+json" | "application/strategic-merge-patch+json" if isinstance(body, dict):
            return _merged(document, cast(JsonObject, body))
        case "application/json-patch+json" | "application/merge-patch+json" | "application/strategic-merge-patch+json":
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


def _holds_a_list(value: object) -> bool:
    if isinstance(value, dict):
        return any(_holds_a_list(one) for one in cast(JsonObject, value).values())
    return isinstance(value, list)
