"""A byte-level tokenizer as the files of a Hub repository: 256 bytes and one end token, no merges.

Why: it needs no training and no data, encodes every text, and its token count is the text's length in
UTF-8 bytes, which makes expectations in tests easy to state. Written directly, without a tokenizer library.
It must never depend on anything random: token ids are byte values.
"""

from __future__ import annotations

from typing import Any

END_TOKEN = "<|end|>"
END_TOKEN_ID = 256
VOCABULARY_SIZE = 257

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)


def files(model_max_length: int) -> dict[str, Any]:
    """Content of the tokenizer's JSON files by file name."""
    return {
        "tokenizer.json": _tokenizer(),
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "added_tokens_decoder": {str(END_TOKEN_ID): _END_TOKEN_ENTRY},
            "bos_token": None,
            "eos_token": END_TOKEN,
            "pad_token": END_TOKEN,
            "model_max_length": model_max_length,
            "clean_up_tokenization_spaces": False,
            "chat_template": CHAT_TEMPLATE,
        },
        "special_tokens_map.json": {"eos_token": END_TOKEN, "pad_token": END_TOKEN},
    }


_END_TOKEN_ENTRY = {
    "content": END_TOKEN,
    "single_word": False,
    "lstrip": False,
    "rstrip": False,
    "normalized": False,
    "special": True,
}


def _tokenizer() -> dict[str, Any]:
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    vocabulary = {character: byte for byte, character in enumerate(_printable_bytes())}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": END_TOKEN_ID, **_END_TOKEN_ENTRY}],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocabulary,
            "merges": [],
        },
    }


def _printable_bytes() -> list[str]:
    """Return the character by which byte-level BPE writes each byte: itself where visible, else U+0100 up.

    The mapping is part of the format (GPT-2's `bytes_to_unicode`): visible are !–~, ¡–¬ and ®–ÿ.
    """
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    characters, next_code = [], 0x100
    for byte in range(256):
        if byte in visible:
            characters.append(chr(byte))
        else:
            characters.append(chr(next_code))
            next_code += 1
    return characters
