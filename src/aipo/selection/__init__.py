"""Which weight, or which mixture of the path, without the true picture; and how a path is followed."""

from aipo.selection.plans import Plan, Weight, plan

__all__ = ["Plan", "Weight", "plan"]
