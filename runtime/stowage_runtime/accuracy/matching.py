"""When an answer counts as right.

Two rules, both forgiving about case, width, spaces and the punctuation around, and about nothing else: an expected
answer must stand in the answer as whole words; a recorded answer must be the whole answer. Pure.
"""

from __future__ import annotations

import re
import unicodedata

from stowage_runtime.accuracy.prompts import Prompt

_AROUND = " \t\r\n.,;:!?\"'`*()[]{}"


def is_right(prompt: Prompt, answer: str) -> bool:
    """Whether the answer holds an expected one or, where none is expected, equals the recorded one."""
    given = normalized(answer)
    if prompt.expected:
        return any(_holds(given, normalized(each)) for each in prompt.expected)
    return prompt.recorded is not None and given == normalized(prompt.recorded)


def recorded_is_right(prompt: Prompt) -> bool:
    """Whether the baseline was right: as recorded, or taken for granted where only the expected answer is known."""
    return prompt.recorded is None or is_right(prompt, prompt.recorded)


def normalized(text: str) -> str:
    """Fold case and width, make every run of white space one space, drop punctuation at the ends."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(folded.split()).strip(_AROUND)


def _holds(given: str, expected: str) -> bool:
    if not expected:
        return False
    # A boundary is asked for only where the expected answer itself begins or ends with a word: "-4" is not in "-42".
    before = r"(?<!\w)" if expected[0].isalnum() else ""
    after = r"(?!\w)" if expected[-1].isalnum() else ""
    return re.search(before + re.escape(expected) + after, given) is not None
