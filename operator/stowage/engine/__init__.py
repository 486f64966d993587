"""The whole operator as one pure function: `reconcile(World, now) -> Outcome`.

Everything that Stowage decides about an LLMDeployment is decided here, from a snapshot. Nothing in this package may
read a clock, do IO, or remember anything between two calls: what must be remembered is recorded on the Deployment.
"""

from __future__ import annotations

from stowage.engine.reconcile import reconcile

__all__ = ["reconcile"]
