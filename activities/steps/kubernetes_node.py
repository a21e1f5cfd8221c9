"""The actions `cordon` and `uncordon`: whether pods may be scheduled on a node, guarded by what the plan saw."""

from typing import Any, Literal

from activities.clients.cluster_objects import NodeState
from activities.errors import Conflict, InvalidStep, PlanChanged
from activities.steps.base import left_by, plan_of, read_as, step_of
from activities.steps.kubernetes_port import ClusterPort
from activities.steps.kubernetes_verb import answer_may_be_lost, cancellable, is_later_attempt, rehearse, titled
from domain import expressions
from domain.base import Durable
from domain.incident import StepRequest, UndoRequest
from domain.plan import Fact, StepPlan, StepResult, Undo
from domain.steps import KubernetesStep


class NodeRequest(Durable):
    """The resolved request of a step that acts on a node."""

    action: Literal["cordon", "uncordon", "drain"]
    node: str


class NodeObservation(Durable):
    """What the plan saw of a node."""

    is_schedulable: bool


class NodeUndo(Durable):
    """The request that takes a cordon or an uncordon back: `action` is what it does."""

    action: Literal["cordon", "uncordon"]
    node: str


class Cordon:
    """`cordon` or `uncordon`: target state, there are only two."""

    def __init__(self, action: Literal["cordon", "uncordon"]) -> None:
        self._action: Literal["cordon", "uncordon"] = action
        self._wished = action == "uncordon"

    def wish(self, step: KubernetesStep, request: StepRequest) -> NodeRequest:
        return node_request(step, request, self._action)

    async def plan(self, cluster: ClusterPort, request: StepRequest, wished: dict[str, Any]) -> StepPlan:
        wish = NodeRequest.model_validate(wished)
        now = await cluster.read_node(wish.node)
        moves = now.is_schedulable != self._wished
        if moves:
            await rehearse(cluster.set_schedulable(now, self._wished, dry_run=True))
        change = f"{_said(now.is_schedulable)} → {_said(self._wished)}" if moves else f"{_said(self._wished)}, nothing to change"
        return StepPlan(
            title=titled(step_of(request, KubernetesStep), node=wish.node),
            change=change,
            facts=(Fact(label="Node", value=wish.node),),
            request=wished,
            observed=NodeObservation(is_schedulable=now.is_schedulable).model_dump(mode="json"),
        )

    async def execute(self, cluster: ClusterPort, request: StepRequest) -> StepResult:
        plan = plan_of(request)
        wish = read_as(NodeRequest, plan.request, f"the plan of step {request.number}")
        seen = read_as(NodeObservation, plan.observed, f"the plan of step {request.number}").is_schedulable
        now = await cluster.read_node(wish.node)
        repeated = is_own_work(now, seen, self._wished)
        if seen == self._wished:
            return StepResult(summary=f"Node {wish.node} already is {_said(seen)}, nothing was changed")
        undo = undo_of(wish.node, seen)
        with cancellable(f"node {wish.node} was being {self._action}ed", undo), answer_may_be_lost(undo):
            if not repeated:
                await cluster.set_schedulable(now, self._wished)
        return StepResult(summary=f"Node {wish.node} {self._action}ed", undo=undo, repeated=repeated)

    async def undo(self, cluster: ClusterPort, request: UndoRequest) -> StepResult:
        return await undo_node(cluster, request)


def node_request(step: KubernetesStep, request: StepRequest, action: Literal["cordon", "uncordon", "drain"]) -> NodeRequest:
    """Resolve the name of the node; the client checks what it became. Raises: InvalidStep."""
    if step.node is None:
        raise InvalidStep(f"step {request.number} needs the key node")
    return NodeRequest(action=action, node=expressions.render(step.node, request.names))


def is_own_work(now: NodeState, seen: bool, wished: bool) -> bool:
    """Compare the node with the plan: on a later attempt, the wished state is an earlier attempt's own work.

    Raises: PlanChanged on the first attempt when the node is not as planned, Conflict on a later one.
    """
    if now.is_schedulable == seen:
        return False
    if not is_later_attempt():
        raise PlanChanged(f"node {now.name} is {_said(now.is_schedulable)}, the plan saw it otherwise: nothing was changed")
    if seen == wished:
        raise Conflict(f"node {now.name} became {_said(now.is_schedulable)} after the plan: nothing was changed")
    return True


def undo_of(node: str, was_schedulable: bool) -> Undo:
    """What gives a node the state back that the step found."""
    action: Literal["cordon", "uncordon"] = "uncordon" if was_schedulable else "cordon"
    return Undo(title=f"{action.capitalize()} node {node}", request=NodeUndo(action=action, node=node).model_dump(mode="json"))


async def undo_node(cluster: ClusterPort, request: UndoRequest) -> StepResult:
    """Give a node its state back; one that has it already is success."""
    back = read_as(NodeUndo, left_by(request).request, f"the undo of step {request.number}")
    wished = back.action == "uncordon"
    now = await cluster.read_node(back.node)
    repeated = now.is_schedulable == wished
    if not repeated:
        await cluster.set_schedulable(now, wished)
    return StepResult(summary=f"Node {back.node} {back.action}ed", repeated=repeated)


def _said(is_schedulable: bool) -> str:
    return "schedulable" if is_schedulable else "cordoned"
