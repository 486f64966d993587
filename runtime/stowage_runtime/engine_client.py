"""The agent's requests to the engine on its own pod: health, version, metrics, and one completion.

Every request has a time limit and goes straight to the pod's address, past any proxy of the environment.
Nothing here waits or decides; a request that fails raises EngineRequestError with one sentence.
"""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from typing import Any

from stowage_runtime.prometheus_text import Exposition, parse_exposition

# Long enough that engines which treat the shortest prompts specially do what they do for real requests.
SELF_TEST_PROMPT = "The ship is loaded by a plan. In one word, the plan is called"
_SHORT_SECONDS = 5.0
_LONGEST_ANSWER_BYTES = 64 * 1024 * 1024


class EngineRequestError(Exception):
    """A request that got no good answer; ``status`` is None when there was no answer at all."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class EngineClient:
    """Talks to one engine."""

    def __init__(self, host: str, port: int, api_key: str | None = None) -> None:
        self._base = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def healthy(self) -> bool:
        """Ask whether the engine is there and well."""
        try:
            self._request("/health", None, _SHORT_SECONDS)
        except EngineRequestError:
            return False
        return True

    def kind_and_version(self) -> tuple[str, str | None]:
        """Return ("vllm" or "simulated", version); a stand-in engine says so in its own answer."""
        answer = self._json("/version", None, _SHORT_SECONDS)
        version = answer.get("version")
        kind = "simulated" if answer.get("engine") == "simulated" else "vllm"
        return kind, version if isinstance(version, str) else None

    def metrics(self) -> Exposition:
        """Scrape the engine's metrics."""
        return parse_exposition(self._request("/metrics", None, _SHORT_SECONDS).decode(errors="replace"))

    def complete(self, model: str, timeout_seconds: float) -> None:
        """Ask for one short completion; raises EngineRequestError unless tokens came back."""
        body = {"model": model, "prompt": SELF_TEST_PROMPT, "max_tokens": 4, "temperature": 0}
        answer = self._json("/v1/completions", body, timeout_seconds)
        choices, usage = answer.get("choices"), answer.get("usage")
        generated = usage.get("completion_tokens") if isinstance(usage, dict) else None
        if not isinstance(choices, list) or not choices or not isinstance(generated, int) or generated < 1:
            raise EngineRequestError(f"the answer holds no generated token: {json.dumps(answer)[:300]}", 200)

    def ask(self, path: str, body: dict[str, Any], timeout_seconds: float) -> dict[str, Any]:
        """Send a JSON body and return the object that comes back; raises EngineRequestError."""
        return self._json(path, body, timeout_seconds)

    def _json(self, path: str, body: dict[str, Any] | None, timeout_seconds: float) -> dict[str, Any]:
        content = self._request(path, body, timeout_seconds)
        try:
            answer = json.loads(content)
        except ValueError:
            raise EngineRequestError(f"{path} did not answer in JSON", 200) from None
        if not isinstance(answer, dict):
            raise EngineRequestError(f"{path} did not answer with an object", 200)
        return answer

    def _request(self, path: str, body: dict[str, Any] | None, timeout_seconds: float) -> bytes:
        data = None if body is None else json.dumps(body).encode()
        headers = {**self._headers, **({"Content-Type": "application/json"} if body is not None else {})}
        # The scheme is always http: the base is made here.
        request = urllib.request.Request(self._base + path, data=data, headers=headers)  # noqa: S310
        try:
            with self._opener.open(request, timeout=timeout_seconds) as answer:
                content: bytes = answer.read(_LONGEST_ANSWER_BYTES)
                return content
        except urllib.error.HTTPError as error:
            with error:
                detail = error.read(2000).decode(errors="replace")
            raise EngineRequestError(f"{path} answered {error.code}: {detail[:500]}", error.code) from None
        except (OSError, http.client.HTTPException) as error:
            raise EngineRequestError(f"{path} did not answer: {error}") from None
