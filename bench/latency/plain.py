"""A plain roofline, to be compared with: weights and cache over bandwidth or operations over peak, and nothing else.

What a spreadsheet does: no launches, exchanges, chunks or queues, and every peak reached. A model that is not better
than this in some cell has learnt nothing there.
"""

from __future__ import annotations

from stowage.performance.efficiencies import PERFECT
from stowage.performance.pace import Pace, pace_of
from stowage.performance.serving import Serving
from stowage.performance.step_parts import StepBatch
from stowage.performance.traffic import Traffic


def plain_roofline(serving: Serving, traffic: Traffic) -> tuple[float, float]:
    """Give TTFT and TPOT in seconds: a prompt alone, and a decode step of the whole batch."""
    ideal = pace_of(serving)
    pace = Pace(ideal.work, serving.gpu, serving.shape, True, serving.same_node, PERFECT)
    batch = float(traffic.concurrency or 1) / serving.shape.data_parallel_size
    batch = min(batch, serving.shape.max_num_seqs, max(1.0, serving.kv_tokens / traffic.mean_context_tokens))
    prompt = traffic.computed_prompt_tokens
    alone = StepBatch(prompt, prompt * (traffic.prompt_tokens - prompt / 2), 1)
    decode = StepBatch(decode_sequences=batch, decode_context=batch * traffic.mean_context_tokens)
    return _seconds(pace, alone), _seconds(pace, decode)


def _seconds(pace: Pace, batch: StepBatch) -> float:
    step = pace.step(batch)
    return step.weights + step.moe + step.attention + step.kv_read
