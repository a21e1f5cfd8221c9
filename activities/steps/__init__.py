"""Runbook steps: one module per step type, a registry, and the activities that keep the rules common to all of them."""

from activities.steps.base import StepType
from activities.steps.registry import build_step_types, register
from activities.steps.step_activities import StepActivities

__all__ = ["StepActivities", "StepType", "build_step_types", "register"]
