"""The pod template of a Deployment and its revisions: what `kubectl rollout restart` and `kubectl rollout undo` do, guarded.

Templates are read and written as plain JSON, because a typed model would drop the fields of a newer Kubernetes than it
knows, and the rollback would take them out of the Deployment.
"""

import copy
from typing import Any, cast

from lightkube.core.resource import ApiInfo, ResourceDef
from lightkube.generic_resource import GenericNamespacedResource
from lightkube.types import PatchType

from activities.clients.cluster_calls import ClusterCalls, deployment_call
from activities.clients.cluster_failures import NotApplied
from activities.clients.cluster_objects import JsonObject, Revision, TemplateState
from activities.errors import Conflict, Refused, Unreachable
from domain.base import sha256_of

RESTARTED_AT = "kubectl.kubernetes.io/restartedAt"
"""Annotation of the pod template that `kubectl rollout restart` sets (kubectl, pkg/polymorphichelpers/objectrestarter.go)."""

REVISION = "deployment.kubernetes.io/revision"
"""Annotation in which the Deployment controller counts the revisions, on the Deployment and on its ReplicaSets."""

TEMPLATE_HASH = "pod-template-hash"
"""Label that the controller adds to the template of a ReplicaSet."""

_OF_THE_DEPLOYMENT = frozenset(
    {
        "kubectl.kubernetes.io/last-applied-configuration",
        REVISION,
        "deployment.kubernetes.io/revision-history",
        "deployment.kubernetes.io/desired-replicas",
        "deployment.kubernetes.io/max-replicas",
        "deprecated.deployment.rollback.to",
    }
)
"""Annotations that a rollback leaves as they are; the others come from the ReplicaSet (kubectl, pkg/polymorphichelpers/
rollback.go)."""


class _RawDeployment(GenericNamespacedResource):
    _api_info = ApiInfo(ResourceDef("apps", "v1", "Deployment"), plural="deployments", verbs=["get", "patch"])


class _RawReplicaSet(GenericNamespacedResource):
    _api_info = ApiInfo(ResourceDef("apps", "v1", "ReplicaSet"), plural="replicasets", verbs=["list"])


class TemplateCalls(ClusterCalls):
    """Reads and guarded writes of pod templates."""

    async def read_template(self, namespace: str, deployment: str) -> TemplateState:
        """Read what the Deployment asks for.

        Raises: InvalidStep (bad name, or no such Deployment), Refused, NotConfigured, RateLimited, Unreachable.
        """
        call = deployment_call("get", "deployments.apps", namespace, deployment)

        async def read() -> TemplateState:
            return state_of(await self._client.get(_RawDeployment, deployment, namespace=namespace))

        return await self._call(call, read())

    async def read_revisions(self, namespace: str, of: TemplateState) -> tuple[Revision, ...]:
        """Read the revisions that are kept, newest first; same errors as `read_template`.

        Only ReplicaSets that the Deployment controls count: another one may have had its labels before.
        """
        call = deployment_call("list", "replicasets.apps", namespace, of.name)

        async def read() -> list[Revision]:
            found = self._client.list(_RawReplicaSet, namespace=namespace, labels=dict(of.selector))
            return [revision_of(one) async for one in found if _is_controlled_by(one, of.uid)]

        revisions = [one for one in await self._call(call, read()) if one.number]
        return tuple(sorted(revisions, key=lambda one: one.number, reverse=True))

    async def restart(self, namespace: str, at: TemplateState, stamp: str, *, dry_run: bool = False) -> None:
        """Replace every pod by writing `stamp` into the template, if the Deployment is still as `at` saw it.

        Raises: Conflict when the template is another one by now; Unreachable when only something else was written in that
        instant (a status, a replica count), so that the next attempt looks again. Nothing was written in both cases.
        Otherwise as `read_template`, where after Unreachable the change may be made.
        """
        call = deployment_call("patch", "deployments.apps", namespace, at.name)
        patch: JsonObject = {
            # A precondition of the API for every kind of merge patch: another version is answered with 409.
            "metadata": {"resourceVersion": at.version},
            "spec": {"template": {"metadata": {"annotations": {RESTARTED_AT: stamp}}}},
        }
        request = self._client.patch(_RawDeployment, at.name, patch, namespace=namespace, dry_run=dry_run)
        try:
            await self._call(call, request)
        except NotApplied as refusal:
            raise Refused(str(refusal)) from None
        except Conflict:
            pass
        else:
            return
        await self._require_unmoved(namespace, at)
        raise _disturbed(namespace, at)

    async def roll_back(self, namespace: str, at: TemplateState, to: Revision, *, dry_run: bool = False) -> None:
        """Give the Deployment the template of `to`, if it is still as `at` saw it; errors as `restart`.

        The guard is the revision and the generation, which no status update moves.
        """
        call = deployment_call("patch", "deployments.apps", namespace, at.name)
        request = self._client.patch(  # pyright: ignore[reportUnknownMemberType]  # lightkube types it as a bare list
            _RawDeployment,
            at.name,
            rollback_patch(at, to),
            namespace=namespace,
            patch_type=PatchType.JSON,
            dry_run=dry_run,
        )
        try:
            await self._call(call, request)
        except NotApplied as refusal:
            reason = str(refusal)
        else:
            return
        # A failed `test` and an invalid patch have the same code and reason.
        if (await self._require_unmoved(namespace, at)).generation != at.generation:
            raise _disturbed(namespace, at)
        raise Refused(reason)

    async def _require_unmoved(self, namespace: str, at: TemplateState) -> TemplateState:
        now = await self.read_template(namespace, at.name)
        if (now.uid, now.revision, now.digest) != (at.uid, at.revision, at.digest):
            raise Conflict(
                f"{at.name} in {namespace} was changed to revision {now.revision} ({now.image}) in the same instant:"
                " nothing was changed by us"
            )
        return now


def rollback_patch(at: TemplateState, to: Revision) -> list[JsonObject]:
    """Write the JSON patch of `kubectl rollout undo`, behind tests that fail when the Deployment is not the one that was seen."""
    kept = {key: value for key, value in at.annotations.items() if key in _OF_THE_DEPLOYMENT}
    restored = {key: value for key, value in to.annotations.items() if key not in _OF_THE_DEPLOYMENT}
    return [
        {"op": "test", "path": f"/metadata/annotations/{_escaped(REVISION)}", "value": at.annotations.get(REVISION)},
        {"op": "test", "path": "/metadata/generation", "value": at.generation},
        {"op": "replace", "path": "/spec/template", "value": to.template},
        {"op": "replace", "path": "/metadata/annotations", "value": {**kept, **restored}},
    ]


def state_of(deployment: JsonObject) -> TemplateState:
    """Read a Deployment of the API. Raises: LookupError or TypeError for what is none."""
    metadata, spec = deployment["metadata"], deployment["spec"]
    template = template_of(spec["template"])
    annotations = _mapping(metadata, "annotations")
    return TemplateState(
        name=metadata["name"],
        uid=metadata["uid"],
        revision=_number(annotations),
        digest=sha256_of(template),
        image=_image(template),
        restarted_at=_mapping(template["metadata"], "annotations").get(RESTARTED_AT),
        replicas=spec.get("replicas", 1),
        recreates=_mapping(spec, "strategy").get("type") == "Recreate",
        is_paused=bool(spec.get("paused")),
        is_observed=metadata["generation"] <= _mapping(deployment, "status").get("observedGeneration", 0),
        version=metadata["resourceVersion"],
        generation=metadata["generation"],
        selector=_mapping(spec["selector"], "matchLabels"),
        annotations=annotations,
    )


def revision_of(replica_set: JsonObject) -> Revision:
    """Read a ReplicaSet of the API."""
    template = template_of(replica_set["spec"]["template"])
    annotations = _mapping(replica_set["metadata"], "annotations")
    return Revision(_number(annotations), sha256_of(template), _image(template), template, annotations)


def template_of(template: JsonObject) -> JsonObject:
    """Copy a pod template without the hash by which the controller tells its ReplicaSets apart."""
    copied = copy.deepcopy(template)
    copied.setdefault("metadata", {}).get("labels", {}).pop(TEMPLATE_HASH, None)
    return copied


def _is_controlled_by(found: JsonObject, uid: str) -> bool:
    owners = cast(list[JsonObject], found["metadata"].get("ownerReferences") or [])
    return any(owner.get("controller") and owner.get("uid") == uid for owner in owners)


def _mapping(document: JsonObject, key: str) -> dict[str, Any]:
    return cast(dict[str, Any], document.get(key) or {})


def _number(annotations: dict[str, str]) -> int:
    text = annotations.get(REVISION, "")
    return int(text) if text.isascii() and text.isdecimal() else 0


def _image(template: JsonObject) -> str:
    return ", ".join(str(container.get("image", "")) for container in template["spec"]["containers"])


def _escaped(key: str) -> str:
    """Write a key as one part of a JSON pointer (RFC 6901)."""
    return key.replace("~", "~0").replace("/", "~1")


def _disturbed(namespace: str, at: TemplateState) -> Unreachable:
    return Unreachable(f"{at.name} in {namespace} was being written in the same instant: nothing was changed")
