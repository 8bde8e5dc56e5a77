"""The choice of a weight, or of a mixture of the path, without the true picture; and the plan of a path."""

from aipo.selection.plans import Plan, Weight, plan

__all__ = ["Plan", "Weight", "plan"]
