"""What vLLM itself creates on one rank: names, shapes and bytes of parameters and buffers, without any memory.

Run in an environment with vLLM's CPU build, never in the project's own; it imports nothing from this project:

    python parameter_bytes.py FOLDER '{"tensor_parallel_size": 2, "stage": 0}' [--names]
    python parameter_bytes.py --serve

FOLDER holds a config.json. The model is built on torch's meta device inside a pretended process group, and one
line of JSON is printed; `--names` prints every tensor before it. `--serve` loads vLLM once and answers a question
from each line of standard input. `regenerate.py` keeps such answers in `golden/`.
"""

# mypy: ignore-errors
from __future__ import annotations

import json
import os
import sys
import tempfile
import traceback
from types import SimpleNamespace

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("VLLM_DIST_IDENT", "oracle")

import pretend_kernels
import torch
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore
from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig
from vllm import __version__
from vllm.config import set_current_vllm_config
from vllm.distributed import parallel_state
from vllm.distributed.device_communicators import cpu_communicator, shm_broadcast
from vllm.engine.arg_utils import EngineArgs
from vllm.model_executor.layers.attention.mla_attention import MLAAttention
from vllm.model_executor.layers.fused_moe.expert_map_manager import ExpertMapManager
from vllm.model_executor.model_loader.utils import initialize_model
from vllm.multimodal.processing.context import InputProcessingContext
from vllm.multimodal.registry import MultiModalRegistry
from vllm.transformers_utils.config import _CONFIG_REGISTRY
from vllm.utils.torch_utils import set_default_torch_dtype


def main(folder: str, layout: dict, names: bool) -> None:
    tp, pp = layout.get("tensor_parallel_size", 1), layout.get("pipeline_parallel_size", 1)
    stage = layout.get("stage", 0)
    overrides = {"quantization_config": None} if layout.get("without_quantization") else {}
    know_model_type(folder)
    # InternVL looks for a video token in the vocabulary, which the folder does not have.
    InputProcessingContext.get_tokenizer = lambda self: SimpleNamespace(get_vocab=dict)
    do_without_processors()
    arguments = EngineArgs(
        model=folder,
        load_format="dummy",
        skip_tokenizer_init=True,
        enforce_eager=True,
        tensor_parallel_size=tp,
        pipeline_parallel_size=pp,
        enable_expert_parallel=layout.get("expert_parallel", False),
        distributed_executor_backend="mp" if tp * pp > 1 else None,
        kv_cache_memory_bytes=1 << 30,
        allow_deprecated_quantization=True,
        hf_overrides=overrides,
    )
    config = arguments.create_engine_config()
    pretend_process_group(tp * pp, stage * tp)
    pretend_sparse_attention()
    stay_on_meta()
    read_zeros_from_meta()
    pretend_kernels.install()
    # Only for a log line, and it would read values, which the meta device has not.
    ExpertMapManager.get_compressed_map_string = lambda self: ""
    with set_current_vllm_config(config):
        parallel_state.init_distributed_environment(tp * pp, stage * tp, "tcp://127.0.0.1:1", 0, "gloo")
        parallel_state.initialize_model_parallel(tp, pp)
        with set_default_torch_dtype(config.model_config.dtype), torch.device("meta"):
            model = initialize_model(config)
            if layout.get("lm_head_bias") and stage == pp - 1:
                # The Transformers backend adds it while it loads, if the checkpoint has one.
                model.lm_head._register_bias()
    tensors = once_per_storage({**dict(model.named_parameters()), **dict(model.named_buffers())})
    if names:
        for name, tensor in tensors.items():
            print(name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
    answer = {
        "vllm": __version__,
        "tensors": len(tensors),
        "bytes": sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()),
        "dtype": str(config.model_config.dtype).removeprefix("torch."),
        "max_model_len": config.model_config.max_model_len,
        "sliding_window": config.cache_config.sliding_window,
    }
    print(json.dumps(answer))


def serve() -> None:
    """Answer questions, [FOLDER, LAYOUT] in a line each, by {"answer": {…}} or {"error": "…"} in a line each.

    Each is answered in a copy of this process, since building a model leaves its marks on vLLM.
    """
    for line in sys.stdin:
        with tempfile.TemporaryFile("w+") as answer, tempfile.TemporaryFile("w+") as problem:
            child = os.fork()
            if not child:
                answer_in_copy(*json.loads(line), answer, problem)
            failed = os.waitpid(child, 0)[1]
            said = last_line(problem if failed else answer)
        print(json.dumps({"error": said} if failed else {"answer": json.loads(said)}), flush=True)


def answer_in_copy(folder: str, layout: dict, answer, problem) -> None:
    """Answer into these files and end the process."""
    os.dup2(answer.fileno(), 1)
    os.dup2(problem.fileno(), 2)
    status = 1
    try:
        main(folder, layout, names=False)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def last_line(file) -> str:
    file.seek(0)
    return (file.read().strip().splitlines() or ["ended without a word"])[-1]


def once_per_storage(tensors: dict) -> dict:
    """Leave out views of other tensors, which take no memory of their own (conv_weights of Mamba 2)."""
    owners = {tensor.untyped_storage()._cdata: name for name, tensor in reversed(tensors.items())}
    return {name: tensors[name] for name in tensors if owners[tensors[name].untyped_storage()._cdata] == name}


def know_model_type(folder: str) -> None:
    """Let a bare class stand in for a configuration class that only the model's own repository has."""
    with open(os.path.join(folder, "config.json")) as file:
        kind = json.load(file)["model_type"]
    if kind not in CONFIG_MAPPING and kind not in _CONFIG_REGISTRY:
        absent = {"rope_parameters": None, "max_position_embeddings": None}
        bare = type(
            "BareConfig", (PreTrainedConfig,), {"model_type": kind, "__init__": read_nested, **absent}
        )
        AutoConfig.register(kind, bare)


def read_nested(self, **fields) -> None:
    """Read a bare class's fields; nested objects become configurations, of their own class if it is known."""
    for name, value in fields.items():
        if name.endswith("_config") and isinstance(value, dict) and name != "quantization_config":
            known = CONFIG_MAPPING[value["model_type"]] if value.get("model_type") in CONFIG_MAPPING else None
            inner = {key: field for key, field in value.items() if key != "model_type" or known is None}
            fields[name] = (known or PreTrainedConfig)(**inner)
    if "block_configs" in fields:
        fields["block_configs"] = json.loads(json.dumps(fields["block_configs"]), object_hook=Block)
    if "num_layers" in fields:
        fields.setdefault("num_hidden_layers", fields["num_layers"])
    PreTrainedConfig.__init__(self, **fields)


class Block(dict):
    """A nested object whose fields are read as attributes, as the repository's own class has them (DeciLM)."""

    def __getattr__(self, name):
        if name not in self:
            raise AttributeError(name)
        return self[name]


def read_zeros_from_meta() -> None:
    """Let constructors read numbers off tensors that hold none: slopes of ALiBi, constants of activations."""
    item, tolist, cpu = torch.Tensor.item, torch.Tensor.tolist, torch.Tensor.cpu
    torch.Tensor.item = lambda self: 0.0 if self.is_meta else item(self)
    torch.Tensor.tolist = lambda self: [0.0] * self.numel() if self.is_meta else tolist(self)
    torch.Tensor.cpu = lambda self, *rest: (
        torch.zeros(self.shape, device="cpu") if self.is_meta else cpu(self, *rest)
    )


def pretend_process_group(world_size: int, rank: int) -> None:
    """Let one process believe that it has peers: group creation succeeds, nothing is ever sent."""
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=world_size)
    make = dist.new_group
    dist.new_group = lambda ranks=None, backend=None, **kwargs: make(ranks, backend="fake")
    parallel_state.in_the_same_node_as = lambda group, source_rank=0: [True] * world_size
    cpu_communicator.CpuCommunicator._all_group_ranks_share_shm_group_name = lambda self: False
    shm_broadcast.MessageQueue.create_from_process_group = staticmethod(lambda *args, **kwargs: None)


def pretend_sparse_attention() -> None:
    """Let the dense backend stand in for the sparse one that the CPU lacks: neither holds a tensor."""
    create = MLAAttention.__init__
    MLAAttention.__init__ = lambda self, *args, use_sparse=False, **kwargs: create(self, *args, **kwargs)


def do_without_processors() -> None:
    """Let a model be multimodal though its image processor is in its own repository only (Kimi K2.5)."""
    find = MultiModalRegistry.get_processing_info

    def found_or_pretended(self, *args, **kwargs):
        try:
            return find(self, *args, **kwargs)
        except OSError:
            return SimpleNamespace(supported_mm_limits={"image": None})

    MultiModalRegistry.get_processing_info = found_or_pretended


def stay_on_meta() -> None:
    """Let a module that asks for the real device (Kimi K2.5's tower) change its dtype only."""
    move = torch.nn.Module.to
    torch.nn.Module.to = lambda self, *args, dtype=None, **kwargs: move(self, dtype=dtype) if dtype else self


if __name__ == "__main__":
    if sys.argv[1] == "--serve":
        serve()
    else:
        main(sys.argv[1], json.loads(sys.argv[2]), "--names" in sys.argv)
