"""What vLLM's own KV cache manager makes of layers that are written down by hand: blocks, tokens, concurrency.

Run in an environment with vLLM's CPU build, never in the project's own; it imports nothing from this project:

    python kv_capacity.py CASES.json [--tree FOLDER RELEASE]

`CASES.json` lists models by the caches of their layers (`order`, by the names in `kinds`; a word of several
letters is a layer with several caches) and the settings that matter; `since` and `until` are the releases
that have the feature. With `--tree` the manager of another release is asked: FOLDER holds the
unpacked `vllm` package of that release's wheel. Releases before 0.24 are not imported whole, as they need other
libraries; only their manager and its specifications are, with the rest of the package pretended.
"""

# mypy: ignore-errors
from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.abc
import importlib.machinery
import json
import logging
import os
import re
import sys
import types
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "INFO")

import torch

_REAL = ("vllm.v1.core.kv_cache_utils", "vllm.v1.kv_cache_interface")
_LINES: list[str] = []


class AnyName(type):
    """Lets a stand-in class have every attribute."""

    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return name


class Anything(metaclass=AnyName):
    """Stands in for every class, function and constant that the manager imports and does not use here."""

    def __init__(self, *args, **kwargs):
        pass

    def __class_getitem__(cls, item):
        return cls

    def __call__(self, *args, **kwargs):
        return args[0] if args and callable(args[0]) else self


class Pretended(types.ModuleType):
    """A module in which every name exists."""

    __path__ = ()

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Loads the manager and its specifications from a tree, and pretends the rest of the package."""

    def __init__(self, tree: Path):
        self.tree = tree

    def find_spec(self, name, path=None, target=None):
        if name != "vllm" and not name.startswith("vllm."):
            return None
        if name in _REAL:
            file = self.tree / (name.replace(".", "/") + ".py")
            return importlib.machinery.ModuleSpec(
                name, importlib.machinery.SourceFileLoader(name, str(file)), origin=str(file)
            )
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        module = Pretended(spec.name)
        for key, value in _helpers().items():
            setattr(module, key, value)
        return module

    def exec_module(self, module):
        pass


def _helpers():
    size = lambda dtype: torch.tensor([], dtype=dtype).element_size()  # noqa: E731
    return {
        "cdiv": lambda a, b: -(a // -b),
        "round_up": lambda a, b: -(a // -b) * b,
        "get_dtype_size": size,
        "GiB_bytes": 1 << 30,
        "format_gib": lambda b: f"{b / (1 << 30):.2f}",
        "init_logger": lambda name: Logger(),
        "KVCacheLayout": Anything,
    }


class Logger:
    """Keeps what the manager prints."""

    def info(self, text, *args, **kwargs):
        _LINES.append(text % args if args else text)

    info_once = warning = warning_once = debug = debug_once = error = info


class Handler(logging.Handler):
    """Keeps what a really imported manager prints."""

    def emit(self, record):
        _LINES.append(record.getMessage())


def load(tree: str | None, release: str | None):
    """Import the manager of the installed release, or of a tree."""
    if tree is not None and tuple(map(int, release.split(".")[:2])) < (0, 24):
        sys.meta_path.insert(0, Finder(Path(tree)))
    elif tree is not None:
        sys.path.insert(0, tree)
    utils = importlib.import_module(_REAL[0])
    interface = importlib.import_module(_REAL[1])
    logging.getLogger("vllm").addHandler(Handler())
    if release is None:
        release = importlib.import_module("vllm").__version__
    return utils, interface, release


class Asked:
    """One case, put to one release."""

    def __init__(self, utils, interface, release: str, case: dict):
        self.utils, self.interface, self.case = utils, interface, case
        self.release = tuple(int(number) for number in release.split(".")[:3])
        self.stages = case.get("pipeline_parallel_size", 1)
        batches = self._batches()
        tokens = case["max_num_batched_tokens"]
        layout = SimpleNamespace(
            is_block_outermost=False, is_layer_compact=True, is_block_compact=True, name="LBNHC"
        )
        with contextlib.suppress(ImportError, AttributeError):
            layout = importlib.import_module("vllm.v1.kv_cache_layout").KVCacheLayout.LBNHC
        self.config = SimpleNamespace(
            model_config=SimpleNamespace(
                max_model_len=case["max_model_len"],
                original_max_model_len=case["max_model_len"],
                hf_config=SimpleNamespace(model_type="none"),
                use_mla=False,
            ),
            scheduler_config=SimpleNamespace(
                max_num_batched_tokens=tokens,
                disable_hybrid_kv_cache_manager=case.get("hybrid_manager", True) is False,
                max_num_encoder_input_tokens=case.get("encoder_tokens", 0),
            ),
            cache_config=SimpleNamespace(
                num_gpu_blocks_override=None,
                block_size=case["block_size"],
                mamba_cache_mode=case.get("state_mode", "none"),
                enable_prefix_caching=True,
                prefix_cache_retention_interval=0,
                get_resolved_kv_cache_layout=lambda: layout,
                kv_cache_layout="LBNHC",
            ),
            parallel_config=SimpleNamespace(
                decode_context_parallel_size=case.get("decode_context_parallel_size", 1),
                prefill_context_parallel_size=1,
                tensor_parallel_size=case.get("tensor_parallel_size", 1),
                pipeline_parallel_size=self.stages,
            ),
            attention_config=SimpleNamespace(hisparse_config=None),
            device_config=SimpleNamespace(device_type="cuda"),
            speculative_config=None,
            kv_transfer_config=None,
            max_in_flight_tokens=batches * tokens,
            num_prefill_lookahead_tokens=0,
            num_speculative_tokens=case.get("drafts", 0),
        )

    def _batches(self) -> int:
        """Give config/vllm.py::max_concurrent_batches: the second runner from 0.29 on, asynchronous before."""
        if self.release >= (0, 29):
            return self.stages + 1
        return 2 if self.stages == 1 else self.stages

    def specs(self) -> list[dict]:
        """Give each stage's layers under names that vLLM would give."""
        order, kinds = self.case["order"], self.case["kinds"]
        bounds, start, stages = self.case.get("stage_layers", [len(order)]), 0, []
        for number in bounds:
            names = {}
            for index in range(start, start + number):
                for part, name in enumerate(order[index]):
                    names[f"layers.{index}.{part}"] = self._spec(kinds[name])
            stages.append(names)
            start += number
        return stages

    def _spec(self, kind: dict):
        make = getattr(self, "_" + kind["kind"])
        return make(kind)

    def _attention(self, cls, kind: dict, **more):
        ranks = self.case.get("tensor_parallel_size", 1)
        fields = {
            "block_size": self._block_size(kind),
            "num_kv_heads": max(1, kind["kv_heads"] // ranks),
            "head_size": kind["head_dim"],
            "head_size_v": kind.get("value_dim", kind["head_dim"]),
            "dtype": getattr(torch, kind.get("dtype", "bfloat16")),
            "use_mla": False,
            "indexes_kv_by_block_stride": True,
            **more,
        }
        return self._make(cls, fields)

    def _block_size(self, kind: dict) -> int:
        """Give the block size of a kind whose layers choose their own, as `[since, tokens]`, or the case's."""
        sizes = [tokens for since, tokens in kind.get("block_sizes", []) if _number(since) <= self.release]
        return sizes[-1] if sizes else self.case["block_size"]

    def _make(self, name: str, fields: dict):
        cls = getattr(self.interface, name)
        known = {field.name for field in dataclasses.fields(cls) if field.init}
        return cls(**{key: value for key, value in fields.items() if key in known})

    def _full(self, kind):
        return self._attention("FullAttentionSpec", kind)

    def _window(self, kind):
        return self._attention("SlidingWindowSpec", kind, sliding_window=kind["span"])

    def _chunk(self, kind):
        return self._attention("ChunkedLocalAttentionSpec", kind, attention_chunk_size=kind["span"])

    def _cross(self, kind):
        return self._attention("CrossAttentionSpec", kind)

    def _latent(self, kind):
        packed = kind.get("token_bytes")
        more = {
            "num_kv_heads": 1,
            "head_size_v": 0,
            "use_mla": True,
            "cache_dtype_str": "fp8_ds_mla" if packed else kind.get("cache_dtype", "auto"),
            "state_content_bytes": packed,
        }
        name = "MLAAttentionSpec" if hasattr(self.interface, "MLAAttentionSpec") else "FullAttentionSpec"
        return self._attention(name, {**kind, "kv_heads": 1}, **more)

    def _state(self, kind):
        aligned = self.case.get("state_mode", "none") != "none"
        size = kind["state_bytes"]
        return self._make(
            "MambaSpec",
            {
                "block_size": self.case["block_size"] if aligned else self.case["max_model_len"],
                "shapes": ((size,),),
                "dtypes": (torch.uint8,),
                "dtype": torch.uint8,
                "page_size_padded": kind.get("padded_bytes"),
                "num_speculative_blocks": self.case.get("drafts", 0),
                "mamba_cache_mode": self.case.get("state_mode", "none"),
                "num_prefill_checkpoint_blocks": kind.get("checkpoints", 0),
            },
        )

    def configs(self, memory: list[int]):
        """Ask for the cache of every stage."""
        del _LINES[:]
        self.config.model_config.max_model_len = self.case["max_model_len"]
        specs = self.specs()
        if hasattr(self.utils, "get_kv_cache_configs"):
            return self.utils.get_kv_cache_configs(self.config, specs, memory)
        each = [
            self.utils.get_kv_cache_config(self.config, spec, bytes_)
            for spec, bytes_ in zip(specs, memory, strict=True)
        ]
        return self.utils.unify_kv_cache_configs(each)

    def answer(self) -> dict:
        """Give what the release makes of the case's bytes, and the fewest bytes with which it starts."""
        memory = self.case["kv_bytes"]
        memory = memory if isinstance(memory, list) else [memory] * self.stages
        try:
            configs = self.configs(memory)
        except (ValueError, NotImplementedError, AssertionError) as problem:
            return {"refused": type(problem).__name__}
        tokens, concurrency = self._capacity(configs)
        return {
            "num_blocks": configs[0].num_blocks,
            "groups": len(configs[0].kv_cache_groups),
            "tokens": tokens,
            "max_concurrency": concurrency,
            "needed_bytes": self._needed(),
            "blocks_in_2_to_the_60_bytes": self.configs([1 << 60] * self.stages)[0].num_blocks,
        }

    def _capacity(self, configs) -> tuple[int, float]:
        length = self.case["max_model_len"]
        if hasattr(self.utils, "get_kv_cache_capacity"):
            scheduler = self.utils.generate_scheduler_kv_cache_config(configs)
            return self.utils.get_kv_cache_capacity(self.config, scheduler)
        found = [re.search(r"KV cache size: ([\d,]+) tokens", line) for line in _LINES]
        tokens = min(int(match[1].replace(",", "")) for match in found if match)
        concurrency = getattr(self.utils, "get_max_concurrency_for_kv_cache_config", None)
        return tokens, tokens / length if concurrency is None else concurrency(self.config, configs[0])

    def _needed(self) -> int:
        low, high = 0, 1 << 50
        while high - low > 1:
            middle = (low + high) // 2
            try:
                self.configs([middle] * self.stages)
                high = middle
            except ValueError:
                low = middle
        return high


def main() -> None:
    cases = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    tree, release = (sys.argv[3], sys.argv[4]) if "--tree" in sys.argv else (None, None)
    utils, interface, release = load(tree, release)
    answers = {}
    for case in cases:
        if _number(case.get("since", "0")) <= _number(release) <= _number(case.get("until", "99")):
            answers[case["name"]] = Asked(utils, interface, release, case).answer()
    print(json.dumps({"vllm": release, "answers": answers}, default=_plain))


def _number(release: str) -> tuple[int, ...]:
    return tuple(int(part) for part in release.split(".")[:3])


def _plain(value):
    return float(value) if isinstance(value, Fraction) else str(value)


if __name__ == "__main__":
    main()
