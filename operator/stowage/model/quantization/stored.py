"""Names, shapes and element types of the tensors that a quantised module has in the checkpoint.

Only what the engine needs is listed: a checkpoint may hold more (g_idx of GPTQ, scales of the KV cache), and
some exports leave tensors out that can be derived. Sources: the `create_weights` of each method in vLLM
0.32.0, whose parameter names are the checkpoint's, and bitsandbytes' quant_state for its own format.
"""

from __future__ import annotations

from stowage.model.tensors import Scheme, StoredTensor

Entry = tuple[str, tuple[int, ...], str | None]
"""Suffix, shape and element type."""


def stored_module(kept: StoredTensor, scheme: Scheme) -> tuple[StoredTensor, ...]:
    """Give the tensors that stand for one plain weight of the checkpoint in this layout.

    Experts that lie together in the checkpoint keep their first dimension.
    """
    part, (*lead, rows, columns) = kept.name.removesuffix(".weight"), kept.shape
    if lead and scheme.method == "mxfp4":
        return _blocks_of_experts(part, tuple(lead), columns, rows)
    bits = int(scheme.weight[3:]) if scheme.weight.startswith("int") else 0
    entries = _packed(rows, columns, bits, scheme) if bits and scheme.activation is None else None
    if entries is None:
        entries = _whole(rows, columns, scheme)
    return tuple(StoredTensor(f"{part}.{suffix}", (*lead, *shape), dtype) for suffix, shape, dtype in entries)


def _blocks_of_experts(part: str, lead: tuple[int, ...], rows: int, columns: int) -> tuple[StoredTensor, ...]:
    """gpt-oss: blocks of 32 values in 16 bytes, and their scales, for all experts together.

    The plain checkpoint has inputs before outputs, the packed one outputs before inputs.
    """
    blocks = (*lead, rows, columns // 32)
    return (
        StoredTensor(f"{part}_blocks", (*blocks, 16), "U8"),
        StoredTensor(f"{part}_scales", blocks, "U8"),
    )


def _packed(rows: int, columns: int, bits: int, scheme: Scheme) -> list[Entry] | None:
    groups = columns // scheme.group_size if scheme.group_size else 1
    if scheme.method == "awq":
        zeros: Entry = ("qzeros", (groups, rows * bits // 32), "I32")
        return [("qweight", (columns, rows * bits // 32), "I32"), zeros, ("scales", (groups, rows), None)]
    if scheme.method == "gptq":
        zeros = ("qzeros", (groups, rows * bits // 32), "I32")
        return [("qweight", (columns * bits // 32, rows), "I32"), zeros, ("scales", (groups, rows), None)]
    found: list[Entry] = [
        ("weight_packed", (rows, -(-columns * bits // 32)), "I32"),
        ("weight_scale", (rows, groups), None),
        ("weight_shape", (2,), "I64"),
    ]
    if scheme.zero_point:
        found.append(("weight_zero_point", (-(-rows * bits // 32), groups), "I32"))
    return found


def _whole(rows: int, columns: int, scheme: Scheme) -> list[Entry]:
    match scheme.weight:
        case "fp8":
            return _fp8(rows, columns, scheme)
        case "int8":
            scale = (rows, 1) if scheme.strategy == "channel" else (1,)
            return [("weight", (rows, columns), "I8"), ("weight_scale", scale, None)]
        case "nvfp4":
            return _nvfp4(rows, columns, scheme)
        case "mxfp8":
            return [("weight", (rows, columns), "F8_E4M3"), ("weight_scale", (rows, columns // 32), "U8")]
        case "mxfp4":
            name = "weight_packed" if scheme.method == "compressed-tensors" else "weight"
            return [(name, (rows, columns // 2), "U8"), ("weight_scale", (rows, columns // 32), "U8")]
    return _bitsandbytes(rows, columns, scheme)


def _fp8(rows: int, columns: int, scheme: Scheme) -> list[Entry]:
    weight: Entry = ("weight", (rows, columns), "F8_E4M3")
    if scheme.block is not None:
        blocks = (-(-rows // scheme.block[0]), -(-columns // scheme.block[1]))
        if scheme.method == "modelopt":
            return [weight, ("weight_scale", (blocks[0], 1, blocks[1], 1), "F32")]
        return [weight, ("weight_scale_inv" if scheme.method == "fp8" else "weight_scale", blocks, None)]
    if scheme.strategy == "channel":
        shape: tuple[int, ...] = (rows,) if scheme.method == "modelopt" else (rows, 1)
        return [weight, ("weight_scale", shape, None)]
    static: list[Entry] = [("input_scale", (), "F32")] if scheme.static_activation else []
    return [weight, ("weight_scale", (), "F32"), *static]


def _nvfp4(rows: int, columns: int, scheme: Scheme) -> list[Entry]:
    packed, scale = (rows, columns // 2), (rows, columns // (scheme.group_size or 16))
    if scheme.method == "compressed-tensors":
        found: list[Entry] = [
            ("weight_packed", packed, "U8"),
            ("weight_scale", scale, "F8_E4M3"),
            ("weight_global_scale", (1,), "F32"),
        ]
        return [*found, ("input_global_scale", (1,), "F32")] if scheme.activation else found
    found = [("weight", packed, "U8"), ("weight_scale", scale, "F8_E4M3"), ("weight_scale_2", (), "F32")]
    return [*found, ("input_scale", (), "F32")] if scheme.static_activation else found


def _bitsandbytes(rows: int, columns: int, scheme: Scheme) -> list[Entry]:
    blocks = -(-rows * columns // (scheme.group_size or 64))
    weight: Entry = ("weight", (-(-rows * columns // 2), 1), "U8")
    tables: list[Entry] = [("weight.quant_map", (16,), "F32")]
    if not scheme.double_quantized:
        return [weight, ("weight.absmax", (blocks,), "F32"), *tables]
    nested: list[Entry] = [
        ("weight.absmax", (blocks,), "U8"),
        ("weight.nested_absmax", (-(-blocks // 256),), "F32"),
        ("weight.nested_quant_map", (256,), "F32"),
    ]
    return [weight, *nested, *tables]
