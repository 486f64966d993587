"""The part of status.plan about a plan that would be better than the one in force: what it brings, how to take it.

A plan in force is kept while it fits, so this is never acted on by itself. Changes are in percent of the plan in
force; all of them are estimates. Like the rest of status.plan it is never read back as an input.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field

from stowage.api.base import Sentence, StatusModel, Word

Percent: TypeAlias = Annotated[int, Field(ge=-100, le=10**9)]
"""A change in percent of what it is now."""


class PlanBetter(StatusModel):
    """What a new plan would be, where the one in force is kept."""

    plan: Sentence = Field(description="The plan in words: GPUs, parallelism, precision.")
    brings: Sentence = Field(description="What it would change, in words; estimates.")
    take: Sentence | None = Field(None, description="What to do to have it.")
    replan: Word | None = Field(None, description="The value of spec.replan that asks for it.")
    cost_percent: Percent | None = Field(None, description="Change of the cost of an hour of all replicas.")
    ttft_percent: Percent | None = Field(None, description="Change of the mean time to first token.")
    tpot_percent: Percent | None = Field(None, description="Change of the mean time per output token.")
    throughput_percent: Percent | None = Field(
        None, description="Change of the output tokens per second of all replicas."
    )
