"""What vLLM itself creates on one rank: names, shapes and bytes of parameters and buffers, without any memory.

Run in an environment with vLLM's CPU build, never in the project's own; it imports nothing from this project:

    python parameter_bytes.py FOLDER '{"tensor_parallel_size": 2, "stage": 0}' [--names]

FOLDER holds a config.json. The model is built on torch's meta device inside a pretended process group, and one
line of JSON is printed; `--names` prints every tensor before it. `regenerate.py` keeps such lines in `golden/`.
"""

# mypy: ignore-errors
from __future__ import annotations

import json
import os
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("VLLM_DIST_IDENT", "oracle")

import torch
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore
from vllm import __version__
from vllm.config import set_current_vllm_config
from vllm.distributed import parallel_state
from vllm.distributed.device_communicators import cpu_communicator, shm_broadcast
from vllm.engine.arg_utils import EngineArgs
from vllm.model_executor.model_loader.utils import initialize_model
from vllm.utils.torch_utils import set_default_torch_dtype


def main(folder: str, layout: dict, names: bool) -> None:
    tp, pp = layout.get("tensor_parallel_size", 1), layout.get("pipeline_parallel_size", 1)
    stage = layout.get("stage", 0)
    overrides = {"quantization_config": None} if layout.get("without_quantization") else {}
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
        hf_overrides=overrides,
    )
    config = arguments.create_engine_config()
    pretend_process_group(tp * pp, stage * tp)
    with set_current_vllm_config(config):
        parallel_state.init_distributed_environment(tp * pp, stage * tp, "tcp://127.0.0.1:1", 0, "gloo")
        parallel_state.initialize_model_parallel(tp, pp)
        with set_default_torch_dtype(config.model_config.dtype), torch.device("meta"):
            model = initialize_model(config)
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
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


def pretend_process_group(world_size: int, rank: int) -> None:
    """Let one process believe that it has peers: group creation succeeds, nothing is ever sent."""
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=world_size)
    make = dist.new_group
    dist.new_group = lambda ranks=None, backend=None, **kwargs: make(ranks, backend="fake")
    parallel_state.in_the_same_node_as = lambda group, source_rank=0: [True] * world_size
    cpu_communicator.CpuCommunicator._all_group_ranks_share_shm_group_name = lambda self: False
    shm_broadcast.MessageQueue.create_from_process_group = staticmethod(lambda *args, **kwargs: None)


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]), "--names" in sys.argv)
