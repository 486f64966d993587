"""Keeps secrets out of everything that leaves the agent: its log, the report, the termination message.

The values come from the agent's own environment. It must never print a value, not even to say that it removed
it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

SECRET_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "VLLM_API_KEY")
_REPLACEMENT = "[redacted]"
_SHORTEST_SECRET = 6


class Redactor:
    """Replaces known secret values in text."""

    def __init__(self, secrets: Iterable[str]) -> None:
        # A very short value would blank out ordinary text, and is no secret worth the name.
        self._secrets = sorted(
            {value for value in secrets if len(value) >= _SHORTEST_SECRET}, key=len, reverse=True
        )

    @classmethod
    def of_environment(cls, environment: Mapping[str, str]) -> Redactor:
        """Make a redactor for the secrets of an environment."""
        return cls(environment[name].strip() for name in SECRET_VARIABLES if environment.get(name))

    def __call__(self, text: str) -> str:
        """Return the text with every secret value replaced."""
        for secret in self._secrets:
            if secret in text:
                text = text.replace(secret, _REPLACEMENT)
        return text
