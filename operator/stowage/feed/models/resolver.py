"""Reads what a model is from the Hub: commit, config.json, and the headers of its weight files.

A few small requests and never the weights themselves. Whatever fails ends as a refusal with a documented reason;
nothing is written to disk. HF_ENDPOINT is honoured as it stands when the question is asked.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from huggingface_hub import HfApi, get_session, hf_hub_url, hf_raise_for_status
from huggingface_hub.errors import NotASafetensorsRepoError, SafetensorsParsingError
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

from stowage.api.reason_docs import REASON_DOCS
from stowage.api.reasons import Reason
from stowage.api.refusal import Refusal
from stowage.feed.models.hub_refusals import HUB_FAILURES, hub_refusal
from stowage_runtime.contract import CheckpointSummary, ContractError, summarize

INDEX_NAME: Final = "model.safetensors.index.json"
CONFIG_NAME: Final = "config.json"
QUANTIZATION_NAME: Final = "hf_quant_config.json"

_TIMEOUT_SECONDS: Final = 15.0
_PARALLEL_REQUESTS: Final = 8

Header = dict[str, tuple[str, tuple[int, ...]]]


class Unusable(Exception):
    """Reading cannot go on; `refusal` says why."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


async def resolve(source: str, revision: str | None, token: str | None = None) -> CheckpointSummary | Refusal:
    """Summarise the checkpoint of an `hf://` source at a revision (default: the main branch).

    The summary's revision is the commit that the revision names now. Without a token the request is anonymous,
    whatever the machine has saved.
    """
    return await asyncio.to_thread(resolve_now, source, revision, token)


def resolve_now(source: str, revision: str | None, token: str | None = None) -> CheckpointSummary | Refusal:
    """Do the same as `resolve`, in the calling thread."""
    if source.partition("://")[0] != "hf":
        message = f"Only hf:// sources are read from the Hub, and this one is {source!r}."
        return Refusal(Reason.NOT_SUPPORTED, message, "Write it as hf://organisation/name.")
    repo_id = source.removeprefix("hf://")
    try:
        return _read(source, repo_id, revision, token)
    except Unusable as problem:
        return problem.refusal
    except HUB_FAILURES as error:
        return hub_refusal(error, repo_id, revision)


@dataclass(frozen=True, slots=True)
class _Repository:
    """One commit of a repository, and how to ask for its files."""

    api: HfApi
    repo_id: str
    commit: str
    names: frozenset[str]

    def json_file(self, name: str) -> Mapping[str, Any] | None:
        """Read a JSON object; None where there is no such file. Raises Unusable for anything else."""
        if name not in self.names:
            return None
        url = hf_hub_url(self.repo_id, name, revision=self.commit, endpoint=self.api.endpoint)
        headers = build_hf_headers(token=self.api.token)
        response = get_session().get(url, headers=headers, timeout=_TIMEOUT_SECONDS)
        hf_raise_for_status(response)
        return parse_object(response.content, name, self.repo_id)

    def header(self, name: str) -> Header:
        """Read the header of one weight file."""
        try:
            metadata = self.api.parse_safetensors_file_metadata(
                self.repo_id, name, revision=self.commit, timeout=_TIMEOUT_SECONDS
            )
        except (SafetensorsParsingError, NotASafetensorsRepoError) as error:
            message = f"{name} of {self.repo_id} has no readable safetensors header."
            raise Unusable(Refusal(Reason.INVALID_CHECKPOINT, message, str(error))) from None
        return {tensor: (info.dtype, tuple(info.shape)) for tensor, info in metadata.tensors.items()}


def _read(source: str, repo_id: str, revision: str | None, token: str | None) -> CheckpointSummary | Refusal:
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None, token=token or False)
    info = api.model_info(repo_id, revision=revision, timeout=_TIMEOUT_SECONDS)
    names = frozenset(sibling.rfilename for sibling in info.siblings or ())
    repository = _Repository(api, repo_id, info.sha or "", names)
    config = repository.json_file(CONFIG_NAME)
    if config is None:
        message = f"{repo_id} has no {CONFIG_NAME}."
        return Refusal(
            Reason.INVALID_MODEL_CONFIG, message, "Use a repository in the layout of transformers."
        )
    files = weight_files(names, repository.json_file(INDEX_NAME), repo_id)
    with ThreadPoolExecutor(max_workers=_PARALLEL_REQUESTS) as pool:
        headers = dict(zip(files, pool.map(repository.header, files), strict=True))
    return fold(source, repository.commit, config, headers, repository.json_file(QUANTIZATION_NAME))


def fold(
    source: str,
    revision: str | None,
    config: Mapping[str, Any],
    headers: Mapping[str, Header],
    quantization: Mapping[str, Any] | None,
) -> CheckpointSummary | Refusal:
    """Make the compact summary, or refuse headers that contradict each other."""
    try:
        return summarize(headers, source=source, revision=revision, config=config, quantization=quantization)
    except ContractError as error:
        return Refusal(Reason.INVALID_CHECKPOINT, str(error), "Repair the checkpoint's safetensors files.")


def weight_files(names: Collection[str], index: Mapping[str, Any] | None, model: str) -> list[str]:
    """Choose the safetensors files that the engine loads.

    Those that the index names; without one all at the top, less a second copy in Mistral's own layout. Raises
    Unusable where a file of the index is missing.
    """
    found = {name for name in names if name.endswith(".safetensors")}
    listed = index.get("weight_map") if index is not None else None
    if isinstance(listed, Mapping):
        wanted = {str(name) for name in listed.values()}
        if missing := wanted - found:
            message = f"{model} lacks {len(missing)} weight files that its index names, as {min(missing)}."
            raise Unusable(Refusal(Reason.INVALID_CHECKPOINT, message, "Complete the upload or the copy."))
        return sorted(wanted)
    top = {name for name in found if "/" not in name} or found
    return sorted({name for name in top if not name.startswith("consolidated")} or top)


def parse_object(content: bytes, name: str, model: str) -> Mapping[str, Any]:
    """Parse a JSON object of a model; raises Unusable where it is none."""
    reason = Reason.INVALID_CHECKPOINT if name == INDEX_NAME else Reason.INVALID_MODEL_CONFIG
    hint = REASON_DOCS[reason].hint
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Unusable(Refusal(reason, f"{name} of {model} is not JSON: {error}.", hint)) from None
    if not isinstance(value, dict):
        raise Unusable(Refusal(reason, f"{name} of {model} is not a JSON object.", hint))
    return value
