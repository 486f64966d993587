"""Tiny models are whole, deterministic and of the sizes they claim."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from e2e.tinymodel import FAMILIES, TinyModel


def header_of(path: Path) -> dict[str, dict]:
    with path.open("rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header: dict[str, dict] = json.loads(file.read(size))
    header.pop("__metadata__")
    return header


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_header_describes_every_byte_of_the_file(family: str, tmp_path: Path) -> None:
    model = TinyModel(family=family)
    model.write(tmp_path)
    path = tmp_path / "model.safetensors"
    header = header_of(path)
    spans = sorted(entry["data_offsets"] for entry in header.values())
    assert [begin for begin, _ in spans] == [0, *(end for _, end in spans[:-1])]
    assert path.stat().st_size == 8 + struct.unpack("<Q", path.read_bytes()[:8])[0] + spans[-1][1]
    assert spans[-1][1] == model.weight_bytes
    assert {name: tuple(entry["shape"]) for name, entry in header.items()} == model.tensors()


def test_same_seed_gives_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        TinyModel(seed=seed, num_hidden_layers=1).write(tmp_path / name)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert [(tmp_path / "a" / f).read_bytes() for f in files] == [
        (tmp_path / "b" / f).read_bytes() for f in files
    ]
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in "ac"]
    assert weights[0] != weights[1]


def test_weights_are_small_and_finite(tmp_path: Path) -> None:
    TinyModel(num_hidden_layers=1).write(tmp_path)
    content = (tmp_path / "model.safetensors").read_bytes()
    data = content[8 + struct.unpack("<Q", content[:8])[0] :]
    exponents = {(high & 0x7F) << 1 | low >> 7 for low, high in zip(data[0::2], data[1::2], strict=True)}
    assert max(exponents) <= 127  # |x| < 2: an exponent of 255 would be infinity or NaN


def test_shards_hold_the_same_tensors_and_the_index_names_them(tmp_path: Path) -> None:
    model = TinyModel(shards=3)
    model.write(tmp_path)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    shards = {path.name: header_of(path) for path in tmp_path.glob("*.safetensors")}
    assert len(shards) == 3
    assert index["weight_map"] == {name: file for file, header in shards.items() for name in header}
    assert index["metadata"]["total_size"] == model.weight_bytes


@pytest.mark.parametrize(
    ("family", "present", "absent"),
    [
        pytest.param(
            "qwen2", "model.layers.0.self_attn.q_proj.bias", "", id="Qwen2 has biases on q, k and v"
        ),
        pytest.param("qwen3", "model.layers.0.self_attn.q_norm.weight", "", id="Qwen3 normalises q and k"),
        pytest.param(
            "phi3",
            "model.layers.0.mlp.gate_up_proj.weight",
            "model.layers.0.mlp.gate_proj.weight",
            id="Phi-3 stores gate and up fused",
        ),
        pytest.param(
            "phi3",
            "model.layers.0.self_attn.qkv_proj.weight",
            "model.layers.0.self_attn.q_proj.weight",
            id="Phi-3 stores q, k and v fused",
        ),
    ],
)
def test_family_uses_the_names_of_its_published_checkpoints(family: str, present: str, absent: str) -> None:
    tensors = TinyModel(family=family).tensors()
    assert present in tensors
    assert absent not in tensors


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        pytest.param({"family": "gpt9"}, "family 'gpt9' is unknown", id="an unknown family is refused"),
        pytest.param({"num_key_value_heads": 3}, "multiple of", id="KV heads that do not divide are refused"),
        pytest.param({"vocab_size": 100}, "below the tokenizer's", id="a vocabulary too small is refused"),
        pytest.param(
            {"family": "phi3", "head_dim": 16}, "phi3 derives", id="phi3 with its own head size is refused"
        ),
    ],
)
def test_impossible_models_are_refused(arguments: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        TinyModel(**arguments)


def test_tokenizer_has_one_entry_per_byte_and_the_end_token(tmp_path: Path) -> None:
    TinyModel().write(tmp_path)
    tokenizer = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    assert sorted(tokenizer["model"]["vocab"].values()) == list(range(256))
    assert [token["id"] for token in tokenizer["added_tokens"]] == [256]
    assert tokenizer["model"]["vocab"]["Ġ"] == ord(" ")


def test_extra_configuration_ends_up_in_config_json(tmp_path: Path) -> None:
    TinyModel(extra_config={"standin": {"fault": "exit"}}).write(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["standin"] == {"fault": "exit"}


def values_of(path: Path) -> list[float]:
    """All weights of a file, in order."""
    content = path.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    halves = struct.unpack(f"<{(len(content) - 8 - size) // 2}H", content[8 + size :])
    return [struct.unpack("<f", struct.pack("<I", half << 16))[0] for half in halves]


def test_noise_moves_every_tensor_by_its_share_and_no_noise_moves_nothing(tmp_path: Path) -> None:
    spreads = []
    for permille in (0, 100, 300):
        model = TinyModel(num_hidden_layers=1, hidden_size=64, noise_permille=permille)
        model.write(tmp_path / str(permille))
    exact = values_of(tmp_path / "0" / "model.safetensors")
    for permille in (100, 300):
        noisy = values_of(tmp_path / str(permille) / "model.safetensors")
        off = [value - other for value, other in zip(noisy, exact, strict=True)]
        spreads.append(sum(each * each for each in off) ** 0.5 / sum(each * each for each in exact) ** 0.5)
    assert 0.05 < spreads[0] < 0.12
    assert 2.5 < spreads[1] / spreads[0] < 3.5
