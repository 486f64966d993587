"""Which attention backend is picked, as far as block size and cache format go."""

from __future__ import annotations

import pytest

from stowage.api.refusal import Refusal
from stowage.memory.kv.attention_backend import (
    AttentionBackend,
    AttentionNeeds,
    Conditions,
    auto_kv_dtype,
    choose_backend,
    stated_kv_dtype,
)
from stowage.memory.kv.dtype import backend_table, known_kv_dtypes, kv_format

HEADS = AttentionNeeds("heads", 128, 32)
LATENT = AttentionNeeds("latent", 576, 16, nope_head_dim=128)
SINKS = AttentionNeeds("heads", 64, 8, sinks=True)
CROSS = AttentionNeeds("heads", 64, 8, cross=True)
SPARSE = AttentionNeeds("sparse", 576, 16, nope_head_dim=128)
INDEXED = AttentionNeeds("indexed", 128, 8)
COMPRESSED = AttentionNeeds("compressed", 512, 32, nope_head_dim=448)
TURING, AMPERE, ADA, HOPPER, BLACKWELL, CONSUMER = (7, 5), (8, 0), (8, 9), (9, 0), (10, 0), (12, 0)


def chosen(
    needs: AttentionNeeds,
    capability: tuple[int, int] | None,
    kv_dtype: str = "auto",
    release: str = "0.32.0",
    block_size: int | None = None,
) -> AttentionBackend | None:
    """Give the choice, None for a refusal."""
    where = Conditions(release, capability, "NVIDIA-Test", "bfloat16", kv_dtype, block_size)
    found = choose_backend(needs, where)
    return None if isinstance(found, Refusal) else found


@pytest.mark.parametrize(
    ("needs", "capability", "kv_dtype", "release", "name", "block_size"),
    [
        pytest.param(HEADS, AMPERE, "auto", "0.32.0", "FLASH_ATTN", 16, id="FlashAttention from Ampere on"),
        pytest.param(HEADS, TURING, "auto", "0.32.0", "TRITON_ATTN", 16, id="Triton before"),
        pytest.param(HEADS, BLACKWELL, "auto", "0.32.0", "FLASHINFER", 16, id="FlashInfer on Blackwell"),
        pytest.param(HEADS, HOPPER, "fp8", "0.32.0", "FLASH_ATTN", 16, id="fp8 with FlashAttention 3"),
        pytest.param(HEADS, HOPPER, "fp8_e5m2", "0.32.0", "FLASHINFER", 16, id="five exponent bits need FlashInfer"),
        pytest.param(HEADS, AMPERE, "fp8", "0.32.0", "FLASHINFER", 16, id="fp8 moves Ampere to FlashInfer"),
        pytest.param(HEADS, ADA, "int8_per_token_head", "0.32.0", "TRITON_ATTN", 16, id="scales of tokens need Triton"),
        pytest.param(HEADS, AMPERE, "nvfp4", "0.32.0", "FLASHINFER", 16, id="four bits on Ampere from 0.32 on"),
        pytest.param(AttentionNeeds("heads", 80, 32), AMPERE, "fp8", "0.32.0", "TRITON_ATTN", 16, id="odd head sizes"),
        pytest.param(AttentionNeeds("heads", 512, 8), AMPERE, "auto", "0.32.0", "FLASHINFER", 16, id="large heads"),
        pytest.param(AttentionNeeds("heads", 512, 8), HOPPER, "auto", "0.32.0", "FLASH_ATTN", 16, id="large on Hopper"),
        pytest.param(AttentionNeeds("heads", 512, 8), AMPERE, "auto", "0.19.0", "TRITON_ATTN", 16, id="before 0.20"),
        pytest.param(SINKS, AMPERE, "auto", "0.32.0", "TRITON_ATTN", 16, id="sinks"),
        pytest.param(SINKS, HOPPER, "auto", "0.32.0", "FLASH_ATTN", 16, id="sinks on Hopper"),
        pytest.param(CROSS, BLACKWELL, "auto", "0.32.0", "FLASH_ATTN", 16, id="cross attention"),
        pytest.param(LATENT, HOPPER, "auto", "0.32.0", "FLASH_ATTN_MLA", 16, id="latents on Hopper"),
        pytest.param(LATENT, HOPPER, "auto", "0.17.1", "FLASH_ATTN_MLA", 64, id="blocks of 64 forced before 0.18"),
        pytest.param(LATENT, HOPPER, "auto", "0.10.2", "FLASHMLA", 64, id="FlashMLA before 0.11"),
        pytest.param(LATENT, HOPPER, "fp8", "0.32.0", "FLASHMLA", 64, id="8-bit latents need FlashMLA"),
        pytest.param(LATENT, AMPERE, "fp8", "0.32.0", "TRITON_MLA", 16, id="8-bit latents with Triton"),
        pytest.param(LATENT, BLACKWELL, "auto", "0.32.0", "FLASHINFER_MLA", 32, id="latents on Blackwell"),
        pytest.param(LATENT, BLACKWELL, "auto", "0.15.1", "FLASHINFER_MLA", 64, id="in blocks of 64 before 0.18"),
        pytest.param(LATENT, BLACKWELL, "auto", "0.12.0", "CUTLASS_MLA", 128, id="in blocks of 128 before 0.15"),
        pytest.param(
            AttentionNeeds("latent", 576, 16, nope_head_dim=48), BLACKWELL, "auto", "0.32.0", "CUTLASS_MLA", 128,
            id="heads that FlashInfer has no kernel for",
        ),
        pytest.param(LATENT, CONSUMER, "auto", "0.32.0", "TRITON_MLA", 16, id="latents on consumer Blackwell"),
        pytest.param(SPARSE, HOPPER, "auto", "0.32.0", "FLASH_ATTN_MLA_SPARSE", 64, id="sparse on Hopper"),
        pytest.param(SPARSE, HOPPER, "auto", "0.24.0", "FLASHMLA_SPARSE", 64, id="sparse on Hopper before 0.25"),
        pytest.param(SPARSE, BLACKWELL, "auto", "0.32.0", "FLASHINFER_MLA_SPARSE", 64, id="sparse with few heads"),
        pytest.param(
            AttentionNeeds("sparse", 576, 32), BLACKWELL, "auto", "0.32.0", "FLASHMLA_SPARSE", 64, id="with many heads"
        ),
        pytest.param(
            AttentionNeeds("sparse", 576, 32), BLACKWELL, "fp8", "0.32.0", "FLASHINFER_MLA_SPARSE", 64,
            id="many heads in 8 bits",
        ),
        pytest.param(
            SPARSE, HOPPER, "fp8_e4m3", "0.32.0", "FLASHINFER_MLA_SPARSE_SM90", 64, id="plain 8-bit latents on Hopper"
        ),
        pytest.param(COMPRESSED, HOPPER, "auto", "0.32.0", "FLASHMLA_SPARSE_DSV4", 64, id="compressed latents"),
        pytest.param(
            COMPRESSED, BLACKWELL, "fp8_e4m3", "0.24.0", "FLASHMLA_SPARSE_DSV4", 64, id="any 8 bits are the packed ones"
        ),
        pytest.param(
            COMPRESSED, CONSUMER, "fp8", "0.32.0", "FLASHINFER_MLA_SPARSE_DSV4", 64, id="compressed on consumer cards"
        ),
        pytest.param(INDEXED, HOPPER, "fp8", "0.32.0", "MINIMAX_M3_SPARSE", 128, id="heads with an indexer"),
        pytest.param(INDEXED, BLACKWELL, "nvfp4", "0.32.0", "MINIMAX_M3_SPARSE", 128, id="in four bits on Blackwell"),
        pytest.param(HEADS, None, "auto", "0.32.0", "CPU_ATTN", 128, id="the CPU backend"),
        pytest.param(LATENT, None, "auto", "0.32.0", "AMX_MLA", 128, id="latents on the CPU"),
        pytest.param(HEADS, TURING, "fp8", "0.6.6", "XFORMERS", 16, id="the V0 engine"),
    ],
)  # fmt: skip
def test_choices(
    needs: AttentionNeeds,
    capability: tuple[int, int] | None,
    kv_dtype: str,
    release: str,
    name: str,
    block_size: int,
) -> None:
    found = chosen(needs, capability, kv_dtype, release)
    assert found is not None
    assert (found.name, found.block_size) == (name, block_size)


@pytest.mark.parametrize(
    ("needs", "capability", "kv_dtype", "release", "stored"),
    [
        pytest.param(SPARSE, HOPPER, "fp8", "0.32.0", "fp8_ds_mla", id="fp8 is packed on Hopper"),
        pytest.param(SPARSE, BLACKWELL, "fp8", "0.32.0", "fp8", id="and plain on Blackwell"),
        pytest.param(SPARSE, BLACKWELL, "fp8", "0.17.1", "fp8_ds_mla", id="where it was packed before 0.18"),
        pytest.param(SPARSE, CONSUMER, "auto", "0.32.0", "fp8_ds_mla", id="consumer Blackwell always packs"),
        pytest.param(SPARSE, HOPPER, "auto", "0.32.0", "auto", id="auto stays 16-bit"),
        pytest.param(LATENT, HOPPER, "fp8", "0.32.0", "fp8", id="dense latents are never packed"),
        pytest.param(COMPRESSED, CONSUMER, "auto", "0.32.0", "fp8_ds_mla", id="compressed ones always are"),
    ],
)
def test_formats_that_are_stored(
    needs: AttentionNeeds, capability: tuple[int, int], kv_dtype: str, release: str, stored: str
) -> None:
    found = chosen(needs, capability, kv_dtype, release)
    assert found is not None
    assert found.kv_dtype == stored


@pytest.mark.parametrize(
    ("needs", "capability", "kv_dtype", "release"),
    [
        pytest.param(HEADS, HOPPER, "nvfp4", "0.31.0", id="four bits on Hopper before 0.32"),
        pytest.param(
            AttentionNeeds("heads", 64, 8), AMPERE, "nvfp4", "0.32.0", id="four bits in heads of 64"
        ),
        pytest.param(LATENT, AMPERE, "fp8", "0.17.1", id="8-bit latents on Ampere before 0.18"),
        pytest.param(SPARSE, AMPERE, "auto", "0.32.0", id="sparse attention on Ampere"),
        pytest.param(SPARSE, HOPPER, "fp8_e4m3", "0.28.0", id="plain 8-bit latents on Hopper before 0.32"),
        pytest.param(
            COMPRESSED, HOPPER, "bfloat16", "0.32.0", id="compressed latents are not kept in 16 bits"
        ),
        pytest.param(
            COMPRESSED, BLACKWELL, "bfloat16", "0.32.0", id="nor on Blackwell by what it takes by itself"
        ),
        pytest.param(COMPRESSED, CONSUMER, "bfloat16", "0.32.0", id="nor on consumer Blackwell"),
        pytest.param(COMPRESSED, HOPPER, "auto", "0.28.0", id="and not by default before 8 bits were"),
        pytest.param(COMPRESSED, AMPERE, "auto", "0.32.0", id="compressed latents on Ampere"),
        pytest.param(INDEXED, HOPPER, "auto", "0.23.0", id="heads with an indexer before 0.24"),
        pytest.param(SPARSE, CONSUMER, "auto", "0.20.0", id="sparse on consumer Blackwell before 0.24"),
        pytest.param(LATENT, None, "fp8_e4m3", "0.32.0", id="8-bit latents on the CPU"),
    ],
)
def test_refusals(
    needs: AttentionNeeds, capability: tuple[int, int] | None, kv_dtype: str, release: str
) -> None:
    assert chosen(needs, capability, kv_dtype, release) is None


def test_a_pinned_block_size_skips_backends_that_do_not_take_it() -> None:
    found = chosen(LATENT, BLACKWELL, block_size=128)
    assert found is not None
    assert (found.name, found.block_size) == ("FLASHINFER_MLA", 128)
    odd = chosen(LATENT, BLACKWELL, block_size=48)
    assert odd is not None
    assert odd.name == "TRITON_MLA"


def test_kernel_blocks() -> None:
    fixed = AttentionBackend("FIXED", 16, (16, 32, 64), 16, "auto")
    free = AttentionBackend("FREE", 16, (), 16, "auto")
    assert [fixed.largest_kernel_block(size) for size in (1568, 40, 8)] == [64, 32, 16]
    assert [free.largest_kernel_block(size) for size in (1568, 40, 8)] == [1568, 32, 16]
    assert fixed.smallest_kernel_block == free.smallest_kernel_block == 16
    assert fixed.takes_block(48)
    assert not fixed.takes_block(24)


@pytest.mark.parametrize(
    ("architecture", "release", "capability", "kv_dtype"),
    [
        pytest.param(
            "DeepseekV32ForCausalLM", "0.11.0", HOPPER, "fp8_ds_mla", id="the first release with it"
        ),
        pytest.param("DeepseekV32ForCausalLM", "0.11.1", HOPPER, "auto", id="and no later one"),
        pytest.param("GlmMoeDsaForCausalLM", "0.32.0", BLACKWELL, "fp8_e4m3", id="on Blackwell"),
        pytest.param("GlmMoeDsaForCausalLM", "0.32.0", HOPPER, "auto", id="not on Hopper"),
        pytest.param("LlamaForCausalLM", "0.32.0", HOPPER, "auto", id="most have none"),
    ],
)
def test_defaults_of_architectures(
    architecture: str, release: str, capability: tuple[int, int], kv_dtype: str
) -> None:
    assert auto_kv_dtype(architecture, release, capability) == kv_dtype


@pytest.mark.parametrize(
    ("name", "bytes_of_128", "bytes_of_a_latent"),
    [
        pytest.param("auto", 256, 1152, id="auto"),
        pytest.param("fp8_e4m3", 128, 576, id="fp8"),
        pytest.param("int8_per_token_head", 132, 580, id="int8 and a scale"),
        pytest.param("int4_per_token_head", 68, 292, id="int4 and a scale"),
        pytest.param("nvfp4", 72, 324, id="four bits and a scale for sixteen"),
        pytest.param("fp8_ds_mla", 128, 656, id="packed latents"),
        pytest.param("nvfp4_ds_mla", 64, 352, id="packed latents of four bits"),
    ],
)
def test_formats(name: str, bytes_of_128: int, bytes_of_a_latent: int) -> None:
    found = kv_format(name, "bfloat16", "0.32.0")
    assert found is not None
    assert (found.vector_bytes(128), found.latent_bytes(576)) == (bytes_of_128, bytes_of_a_latent)


def test_formats_by_release() -> None:
    assert known_kv_dtypes("0.8.5") == ("auto", "fp8", "fp8_e4m3", "fp8_e5m2", "fp8_inc")
    assert "nvfp4" not in known_kv_dtypes("0.19.1")
    assert "nvfp4_4over6" in known_kv_dtypes("0.32.0")
    assert kv_format("auto", "float32", "0.32.0") != kv_format("auto", "bfloat16", "0.32.0")


def test_every_row_names_its_source_and_every_order_known_backends() -> None:
    table = backend_table()
    names = {row["name"] for row in table["backend"]}
    for row in (row for kind in table.values() for row in kind):
        assert row["source"].startswith("vllm ")
    for row in table["order"]:
        assert names.issuperset(row["backends"] + row.get("few_heads", []) + row.get("quantized", []))


@pytest.mark.parametrize(
    ("architecture", "release", "capability", "kv_dtype"),
    [
        pytest.param("DeepseekV4ForCausalLM", "0.28.0", HOPPER, "fp8", id="where the default ends the start"),
        pytest.param("DeepseekV4ForCausalLM", "0.32.0", HOPPER, "auto", id="not where it is 8 bits itself"),
        pytest.param("DeepseekV4ForCausalLM", "0.28.0", None, "auto", id="not without a GPU"),
        pytest.param("LlamaForCausalLM", "0.28.0", HOPPER, "auto", id="most start without"),
    ],
)
def test_formats_that_have_to_be_stated(
    architecture: str, release: str, capability: tuple[int, int] | None, kv_dtype: str
) -> None:
    assert stated_kv_dtype(architecture, release, capability) == kv_dtype
