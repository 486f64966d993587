"""The command and the environment with which vLLM is started.

The operator's plan decides the options; the agent adds only what the pod alone knows. Pure, so that a test
can say exactly what would run. No secret that the engine does not need is handed on to it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

from stowage_runtime.contract import LaunchSpec

ENGINE_MODULE = "vllm.entrypoints.openai.api_server"
_FETCH_ONLY = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


def base_environment(spec: LaunchSpec, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the container's environment with the plan's variables, for every child."""
    return {**environment, **spec.env}


def engine_environment(spec: LaunchSpec, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the engine's environment: offline, since the model is there, and without the Hub's token.

    Usage statistics stay off unless the plan's variables say otherwise: a private cluster must not call out.
    """
    kept = {key: value for key, value in environment.items() if key not in _FETCH_ONLY}
    defaults = {"VLLM_NO_USAGE_STATS": "1", "PYTHONUNBUFFERED": "1"}
    return {**defaults, **kept, **spec.env, "HF_HUB_OFFLINE": "1"}


def engine_command(spec: LaunchSpec, model_path: str, host: str) -> list[str]:
    """Return the command line of the engine.

    The module is started, not the ``vllm`` command: that one looks for a distribution named vllm, which the
    CPU build is not.
    """
    return [
        sys.executable,
        "-m",
        ENGINE_MODULE,
        "--model",
        model_path,
        "--served-model-name",
        spec.served_model_name,
        "--host",
        host,
        "--port",
        str(spec.port),
        *spec.args,
    ]
