"""The pure parts of the Kubernetes client: when a rollout is over, and what the scale patch does to a document."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lightkube.resources.apps_v1 import Deployment

from activities.clients.cluster import RolloutStatus, rollout_of, scale_patch
from cli.simulated_deployment import JsonObject, PatchDenied, new_deployment, patched, scale_of

JSON_PATCH = "application/json-patch+json"


def status(
    *,
    desired: int = 5,
    updated: int = 5,
    available: int = 5,
    total: int = 5,
    is_observed: bool = True,
    has_failed: bool = False,
) -> RolloutStatus:
    return RolloutStatus(
        name="payment-api",
        desired=desired,
        updated=updated,
        ready=available,
        available=available,
        total=total,
        is_observed=is_observed,
        has_failed=has_failed,
    )


@pytest.mark.parametrize(
    ("seen", "progress"),
    [
        (status(is_observed=False), "waiting for the cluster to notice the change"),
        (status(available=2, has_failed=True), "progress deadline exceeded with 2 of 5 replicas available"),
        (status(updated=2, total=6, available=1), "2 of 5 new replicas have been updated"),
        (status(total=7, available=1), "2 old replicas are pending termination"),
        (status(available=4), "4 of 5 updated replicas are available"),
        (status(), "rolled out, 5 of 5 replicas are available"),
        (status(desired=0, updated=0, available=0, total=0), "rolled out, 0 of 0 replicas are available"),
        (status(desired=3), "rolled out, 5 of 3 replicas are available"),
    ],
)
def test_progress_asks_in_the_order_of_kubectl(seen: RolloutStatus, progress: str) -> None:
    assert seen.progress == f"payment-api: {progress}"


COUNTS = st.integers(min_value=0, max_value=4)


@given(
    seen=st.builds(
        status,
        desired=COUNTS,
        updated=COUNTS,
        available=COUNTS,
        total=COUNTS,
        is_observed=st.booleans(),
        has_failed=st.booleans(),
    )
)
def test_a_rollout_is_complete_exactly_when_its_sentence_says_so(seen: RolloutStatus) -> None:
    assert seen.is_complete == ("rolled out" in seen.progress)


def deployment_with(status: JsonObject | None, generation: int = 2) -> RolloutStatus:
    document = new_deployment("production", "payment-api", 3, "payment-api:2.3.1", "1")
    document["metadata"]["generation"] = generation
    document.pop("status")
    return rollout_of(msgspec.convert(document if status is None else {**document, "status": status}, Deployment))


def test_counts_that_the_api_leaves_out_are_zero() -> None:
    seen = deployment_with({"observedGeneration": 2})
    assert (seen.desired, seen.updated, seen.ready, seen.available, seen.total) == (3, 0, 0, 0, 0)
    assert not seen.is_complete


def test_a_deployment_that_no_controller_has_seen_is_not_observed() -> None:
    assert not deployment_with(None).is_observed
    assert not deployment_with({"observedGeneration": 1, "replicas": 3, "updatedReplicas": 3}).is_observed
    assert deployment_with({"observedGeneration": 2}).is_observed


@pytest.mark.parametrize(
    ("condition", "has_failed"),
    [
        ({"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}, True),
        ({"type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated"}, False),
        ({"type": "Available", "status": "False", "reason": "MinimumReplicasUnavailable"}, False),
    ],
)
def test_only_the_progress_deadline_is_a_failed_rollout(condition: JsonObject, has_failed: bool) -> None:
    seen = deployment_with({"observedGeneration": 2, "conditions": [condition]})
    assert seen.has_failed == has_failed
    assert ("progress deadline exceeded" in seen.progress) == has_failed


@given(current=COUNTS, expected=COUNTS, target=COUNTS)
def test_the_scale_patch_applies_exactly_when_the_count_is_the_expected_one(current: int, expected: int, target: int) -> None:
    scale = scale_of(new_deployment("production", "payment-api", current, "payment-api:2.3.1", "1"))
    if current == expected:
        assert patched(scale, JSON_PATCH, scale_patch(expected, target))["spec"] == {"replicas": target}
    else:
        with pytest.raises(PatchDenied):
            patched(scale, JSON_PATCH, scale_patch(expected, target))


def test_a_test_for_zero_would_never_pass_because_the_api_leaves_a_zero_out() -> None:
    scale = scale_of(new_deployment("production", "payment-api", 0, "payment-api:2.3.1", "1"))
    naive = [
        {"op": "test", "path": "/spec/replicas", "value": 0},
        {"op": "replace", "path": "/spec/replicas", "value": 2},
    ]
    with pytest.raises(PatchDenied):
        patched(scale, JSON_PATCH, naive)
