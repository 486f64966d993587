"""Let vLLM create quantised layers whose kernels its CPU build does not have.

Parameters of a layer are made by Python code that is the same on every platform; only the choice of the kernel
that will compute with them looks at the device. Each of those choices is answered here by a stand-in that has
no tensors of its own. MXFP4 experts are padded for a kernel before they are created: the Marlin one is taken.
"""

# mypy: ignore-errors
from __future__ import annotations

import sys
from unittest.mock import MagicMock

import torch
import vllm.model_executor.layers.fused_moe.config as moe_config
import vllm.models.kimi_k3.nvidia.model as kimi
from vllm.model_executor.layers.fused_moe.oracle.fp8 import Fp8MoeBackend
from vllm.model_executor.layers.fused_moe.oracle.int8 import Int8MoeBackend
from vllm.model_executor.layers.fused_moe.oracle.int_wna16 import WNA16MoEBackend
from vllm.model_executor.layers.fused_moe.oracle.mxfp4 import Mxfp4MoeBackend
from vllm.model_executor.layers.fused_moe.oracle.nvfp4 import NvFp4MoeBackend
from vllm.model_executor.layers.fused_moe.oracle.unquantized import UnquantizedMoeBackend
from vllm.model_executor.layers.quantization import get_quantization_config


class AnyKernel:
    """A kernel of any kind: it can be made and asked, and holds nothing."""

    def __init__(self, *args, **kwargs):
        self.config = MagicMock()

    def input_quant_key(self):
        return None

    def process_weights_after_loading(self, layer):
        raise AssertionError("nothing is loaded here")


def _backend(kind, name):
    return lambda *args, **kwargs: (kind[name], None)


_ANSWERS = {
    "init_fp8_linear_kernel": AnyKernel,
    "init_int8_linear_kernel": AnyKernel,
    "init_mxfp4_linear_kernel": AnyKernel,
    "init_mxfp8_linear_kernel": AnyKernel,
    "init_nvfp4_linear_kernel": AnyKernel,
    "init_wfp8_a16_linear_kernel": AnyKernel,
    "choose_mp_linear_kernel": lambda *args, **kwargs: AnyKernel,
    "select_fp8_moe_backend": _backend(Fp8MoeBackend, "TRITON"),
    "select_int8_moe_backend": _backend(Int8MoeBackend, "TRITON"),
    "select_mxfp4_moe_backend": _backend(Mxfp4MoeBackend, "MARLIN"),
    "select_deepseek_v4_mxfp4_moe_backend": _backend(Mxfp4MoeBackend, "MARLIN"),
    "select_mxfp8_moe_backend": _backend(Fp8MoeBackend, "MARLIN"),
    "select_nvfp4_moe_backend": _backend(NvFp4MoeBackend, "MARLIN"),
    "select_unquantized_moe_backend": _backend(UnquantizedMoeBackend, "TRITON"),
    "select_wna16_moe_backend": _backend(WNA16MoEBackend, "MARLIN"),
    "verify_marlin_supported": lambda *args, **kwargs: None,
}


class OtherPlatform:
    """The platform as it is, but for one answer: it says that it runs experts without a gate (Nemotron-H)."""

    def __init__(self, real):
        self._real = real

    def __getattr__(self, name):
        return getattr(self._real, name)

    def is_xpu(self):
        return True


def pretend_streams() -> None:
    """Let Kimi-Linear ask for a second stream and for kernels that only a GPU build has."""
    torch.cuda.Stream = torch.cuda.Event = MagicMock()
    kimi.maybe_init_gemm_rs_ar = lambda *args, **kwargs: False
    kimi.enable_kimi_k3_low_latency_gemm = lambda *args, **kwargs: None


def install() -> None:
    """Replace every choice of a kernel, wherever it has been imported."""
    pretend_streams()
    moe_config.current_platform = OtherPlatform(moe_config.current_platform)
    get_quantization_config("fp8")  # imports the methods
    for name, module in list(sys.modules.items()):
        if name.startswith("vllm."):
            for function, answer in _ANSWERS.items():
                if hasattr(module, function):
                    setattr(module, function, answer)
