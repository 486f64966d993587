"""How one release of the engine accounts for memory: a lookup in a table of sourced changes.

Defaults, equations and reporting rules changed many times between releases, some of them together, so every
prediction is keyed by version. A release newer than the table is treated like the newest known one and says
so; anything that is not a release number is refused.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any, Final

from stowage.api.reasons import Reason
from stowage.api.refusal import Refusal

_RELEASE: Final = re.compile(
    r"v?(0|[1-9]\d{0,3})\.(0|[1-9]\d{0,3})(?:\.(0|[1-9]\d{0,3}))?(?:\.\d{1,3})?"
    r"((?:a|b|rc)\d+)?(?:\.post\d+)?(?:\.dev\d+)?(?:\+[a-zA-Z0-9.]+)?"
)

Release = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class EngineVersion:
    """Memory accounting of one vLLM release.

    `engine` is "V1", or "V0" for the engine before it, which releases before 0.10 fall back to on devices
    below `v1_compute_capability`, and for recurrent layers and encoder-decoders (not `v1_serves_states`).

    `equation` names how the KV bytes come about ("device-used", "torch-peak", "total-consumed", see
    budget.py), `snapshot` what the first memory snapshot leaves out of the budget ("device": nothing,
    "before-nccl", "after-nccl"). `graphs_subtracted`: the CUDA-graph estimate comes out of the budget.
    `v2_architectures` run on the V2 model runner, and besides them what `v2_also` says (model_runner.py);
    that runner profiles towers only with `v2_profiles_encoders`, and estimates graphs with `v2_counts_graphs`.
    `capacity_report` is "blocks" or "concurrency". `assumed_from` is the release whose behaviour was taken
    because this one is newer than the table, else None. `long_context_tokens` is the batch limit that V0
    takes for contexts beyond 32,768 tokens (0: the whole context). `profile_keeps_cached`: what torch keeps
    cached after profiling counts as used. `indexer_logits_mib` is set aside for a sparse indexer.
    `pins_kv_bytes`: the option --kv-cache-memory-bytes exists. `experts_keep_workspace`: what experts compute in is
    one buffer that stays, beside what attention takes. `latent_as_heads`: the head size that latent attention is
    padded to where the release caches its keys and values (0: it caches the latent vectors).
    `fused_all_reduce` says in which shapes all-reduces are fused, `all_reduce_backend` by whose kernel
    (collectives.py); on compute capability 10.3 only with `fuses_on_ultra`.
    `capture_ceilings` are the largest captured sizes of architectures that set their own; with `full_graph_splits`
    graphs hold whole decode steps, and FlashAttention 3 may cut a context in so many parts there.
    `profiles_graphs`: what trial captures of CUDA graphs leave counts as growth outside the allocator.
    `multimodal_rope_factor` are the rows a position that multimodal rotary tables have in families whose
    positions never run ahead of the tokens.
    """

    version: str
    engine: str
    equation: str
    default_gpu_memory_utilization: float
    graphs_subtracted: bool
    snapshot: str
    v2_architectures: tuple[str, ...]
    v2_also: str
    v2_quantized: bool
    v2_profiles_encoders: bool
    v2_counts_graphs: bool
    capture_step_above_256: int
    blackwell_capture_ceiling: int
    capture_ceilings: Mapping[str, int]
    full_graph_splits: int
    null_block_reserved: bool
    capacity_report: str
    window_batches_in_flight: str
    allocator_split_limit_bytes: int | None
    sampler: str
    v1_compute_capability: tuple[int, int]
    v1_serves_states: bool
    small_defaults_on_a100: bool
    large_defaults_by: str
    small_num_seqs: int
    raises_batch_for_items: bool
    multimodal_batch_tokens: int
    largest_defaults_from_bytes: int | None
    long_context_tokens: int
    profile_keeps_cached: bool
    indexer_logits_mib: int
    pins_kv_bytes: bool
    fused_all_reduce: str
    fuses_on_ultra: bool
    all_reduce_backend: str
    profiles_graphs: bool
    experts_keep_workspace: bool
    latent_as_heads: int
    assumed_from: str | None = None
    multimodal_rope_factor: int = 1

    def __hash__(self) -> int:
        """Hash by the name: hashing every rule for each cache look-up is too slow."""
        return hash((self.version, self.engine))

    @property
    def note(self) -> str | None:
        """A sentence for people where the figures are those of another release."""
        if self.assumed_from is None:
            return None
        return f"vLLM {self.version} is newer than this table; figures are those of {self.assumed_from}."


@cache
def _table() -> dict[str, Any]:
    text = files("stowage.memory.release").joinpath("engine_versions.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def newest_engine_version() -> str:
    """Give the newest release that the table knows, as in "0.32.0"."""
    return str(_table()["newest"])


@lru_cache(maxsize=256)
def engine_version(name: str, engine: str | None = None) -> EngineVersion | Refusal:
    """Look a release up by its version string; a leading v and suffixes like .post1 or rc1 are understood.

    `engine` asks for "V0" or "V1" where a release has both; None: what the release starts by default.
    """
    table = _table()
    wanted, oldest, newest = _release(name), _release(table["oldest"]), _release(table["newest"])
    if wanted is None or oldest is None or newest is None:
        message = f"{name!r} is not a vLLM release."
        return Refusal(Reason.UNSUPPORTED_ENGINE_VERSION, message, f"Use one like {table['newest']}.")
    if wanted < oldest:
        message = f"vLLM {name} is older than {table['oldest']}, the first version that is sized here."
        return Refusal(
            Reason.UNSUPPORTED_ENGINE_VERSION, message, f"Use {table['oldest']} to {table['newest']}."
        )
    state = dict(table["initial"])
    for change in table["change"]:
        since = _release(change["since"])
        if since is not None and since <= wanted:
            state.update(change["set"])
    state["engine"] = engine or state["engine"]
    if state["engine"] == "V0":
        state.update(table["v0"]["set"])
    return _version(name.removeprefix("v"), state, table["newest"] if wanted > newest else None)


def engine_on(
    version: EngineVersion, compute_capability: tuple[int, int], keeps_states: bool = False
) -> EngineVersion:
    """Give the version as it behaves on a device: older releases fall back to V0 on old GPUs.

    They do so too for models that keep states besides attention, or an encoder's (`keeps_states`).
    """
    new_enough = compute_capability >= version.v1_compute_capability
    if version.engine == "V0" or (new_enough and (version.v1_serves_states or not keeps_states)):
        return version
    fallback = engine_version(version.version, "V0")
    return version if isinstance(fallback, Refusal) else fallback


def release_numbers(name: str) -> Release | None:
    """Give the three numbers of a version string, suffixes left out; None for anything else."""
    return _release(name)


@lru_cache(maxsize=1024)
def _release(name: str) -> Release | None:
    match = _RELEASE.fullmatch(name)
    return (int(match[1]), int(match[2]), int(match[3] or 0)) if match else None


def _version(name: str, state: dict[str, Any], assumed_from: str | None) -> EngineVersion:
    plain = {
        key: state[key]
        for key in EngineVersion.__dataclass_fields__
        if key in state and key not in ("v2_architectures", "v1_compute_capability")
    }
    return EngineVersion(
        version=name,
        v2_architectures=tuple(state["v2_architectures"]),
        v1_compute_capability=(state["v1_compute_capability"][0], state["v1_compute_capability"][1]),
        allocator_split_limit_bytes=state["allocator_split_limit_mib"] * 2**20 or None,
        largest_defaults_from_bytes=state["largest_defaults_from_gib"] * 2**30 or None,
        assumed_from=assumed_from,
        **plain,
    )
