"""Reading signals: one that cannot be decoded is reported to its workflow, where the SDK alone would drop it silently."""

from typing import TypeVar

from temporalio import workflow
from temporalio.common import RawValue
from temporalio.exceptions import FailureError

from domain.base import Durable

SignalModel = TypeVar("SignalModel", bound=Durable)


def read_signal(raw: RawValue, model: type[SignalModel]) -> SignalModel | None:
    """Decode the argument of a signal. Returns: None if it does not fit `model`; the caller notes that."""
    try:
        return workflow.payload_converter().from_payload(raw.payload, model)
    except FailureError:
        return None
