"""The HTTP interface of the stand-in: vLLM's paths, fields and errors, and in every answer what it is.

Why: the agent's probes and own completion, load generators and users' clients talk to this.
It must never answer a completion without `"engine": "simulated"`.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from .scheduler import AbortedError, Request, Scheduler
from .scoring import prompt_logprobs, token_ids

SIMULATED = {"engine": "simulated"}
_DEFAULT_MAX_TOKENS = 16

Json = dict[str, Any]


class InFlight:
    """Counts requests from their first byte read to their last byte written."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._count = 0

    def __enter__(self) -> None:
        with self._changed:
            self._count += 1

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._count -= 1
            self._changed.notify_all()

    def wait_for_none(self, timeout_seconds: float | None) -> bool:
        """Wait until nothing is in flight; False if the time ran out first."""
        with self._changed:
            return self._changed.wait_for(lambda: self._count == 0, timeout_seconds)


@dataclass(frozen=True, slots=True)
class Engine:
    """What the HTTP interface needs to know of the engine."""

    version: str
    names: tuple[str, ...]
    root: str
    max_model_len: int
    scheduler: Scheduler
    metrics_text: Callable[[], str]
    healthy: Callable[[], bool]
    refuse: bool
    loss_nats: float = 0.0
    in_flight: InFlight = field(default_factory=InFlight)
    draining: threading.Event = field(default_factory=threading.Event)


def server_of(engine: Engine, host: str, port: int) -> ThreadingHTTPServer:
    """Return a server bound to `host`:`port` that answers for `engine`."""
    handler = type("Handler", (_Handler,), {"engine": engine})
    server = ThreadingHTTPServer((host, port), handler)
    server.daemon_threads = True
    return server


class RefusedError(Exception):
    """A request that cannot be served, with the status, type and words of vLLM."""

    def __init__(self, status: int, kind: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": status}, **SIMULATED}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    engine: Engine

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path in ("/health", "/ping"):
            self._answer(200 if self.engine.healthy() else 503, b"")
        elif path == "/version":
            self._answer_json({"version": self.engine.version, **SIMULATED})
        elif path == "/v1/models":
            self._answer_json(
                {"object": "list", "data": [self._model(name) for name in self.engine.names], **SIMULATED}
            )
        elif path == "/metrics":
            self._answer(200, self.engine.metrics_text().encode(), "text/plain; version=0.0.4; charset=utf-8")
        else:
            self._answer_json({"detail": "Not Found", **SIMULATED}, 404)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chat = self.path == "/v1/chat/completions"
        try:
            with self.engine.in_flight:
                self._post_or_hang(body, chat=chat)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _post_or_hang(self, body: bytes, *, chat: bool) -> None:
        try:
            self._post(body, chat=chat)
        except AbortedError:
            # As in vLLM 0.32: an aborted request is not answered; the process waits for its client to go.
            self.close_connection = True
            self.connection.recv(1)

    def _post(self, body: bytes, *, chat: bool) -> None:
        try:
            if self.path == "/tokenize":
                self._tokenize(_parse(body))
                return
            if not chat and self.path != "/v1/completions":
                raise RefusedError(404, "NotFoundError", "Not Found")
            self._complete(_parse(body), chat=chat)
        except RefusedError as refused:
            self._answer_json(refused.body, refused.status)

    def _tokenize(self, body: Json) -> None:
        tokens = token_ids(_chat_text(body)) if "messages" in body else _prompt_tokens(body)
        known = {"count": len(tokens), "max_model_len": self.engine.max_model_len}
        self._answer_json({**known, "tokens": tokens, **SIMULATED})

    def _complete(self, body: Json, *, chat: bool) -> None:
        if body.get("model", self.engine.names[0]) not in self.engine.names:
            message = f"The model `{body['model']}` does not exist."
            raise RefusedError(404, "NotFoundError", message, "model")
        if self.engine.draining.is_set():
            raise RefusedError(500, "InternalServerError", "cannot schedule new futures after shutdown")
        if self.engine.refuse:
            raise RefusedError(500, "InternalServerError", "stand-in: told to refuse completions")
        request = self._request(body, chat=chat)
        tokens = self.engine.scheduler.run(request)
        head = _head(body.get("model", self.engine.names[0]), self.engine.version, chat=chat)
        if body.get("stream"):
            self._stream(head, tokens, chat=chat)
            return
        text = "".join(tokens)
        choice: Json = {"index": 0, "finish_reason": "length", "stop_reason": None, "logprobs": None}
        choice |= {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        choice |= self._scores(body, text) if not chat else {}
        usage = {
            "prompt_tokens": request.prompt_tokens,
            "completion_tokens": request.max_tokens,
            "total_tokens": request.prompt_tokens + request.max_tokens,
        }
        self._answer_json({**head, "choices": [choice], "usage": usage})

    def _scores(self, body: Json, text: str) -> Json:
        scores: Json = {"token_ids": token_ids(text) if body.get("return_token_ids") else None}
        if body.get("prompt_logprobs") is not None:
            scores["prompt_logprobs"] = prompt_logprobs(_prompt_tokens(body), self.engine.loss_nats)
        return scores

    def _request(self, body: Json, *, chat: bool) -> Request:
        prompt_tokens = len(token_ids(_chat_text(body)) if chat else _prompt_tokens(body))
        room = self.engine.max_model_len - prompt_tokens
        wanted = body.get("max_completion_tokens") or body.get("max_tokens")
        max_tokens = int(wanted or min(room, _DEFAULT_MAX_TOKENS))
        if max_tokens < 1 or max_tokens > room:
            message = (
                f"This model's maximum context length is {self.engine.max_model_len} tokens. However, you "
                f"requested {max_tokens} output tokens and your prompt contains {prompt_tokens} input tokens."
            )
            raise RefusedError(400, "BadRequestError", message)
        return Request(prompt_tokens, max_tokens)

    def _stream(self, head: Json, tokens: Iterator[str], *, chat: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        for token in tokens:
            choice: Json = {"index": 0, "finish_reason": None}
            choice |= {"delta": {"content": token}} if chat else {"text": token}
            self._event({**head, "choices": [choice]})
        last: Json = {"delta": {}} if chat else {"text": ""}
        self._event({**head, "choices": [{"index": 0, "finish_reason": "length", **last}]})
        self.wfile.write(b"data: [DONE]\n\n")

    def _event(self, content: Json) -> None:
        self.wfile.write(b"data: " + json.dumps(content).encode() + b"\n\n")

    def _model(self, name: str) -> Json:
        engine = self.engine
        return {
            "id": name,
            "object": "model",
            "owned_by": "vllm",
            "root": engine.root,
            "max_model_len": engine.max_model_len,
        }

    def _answer_json(self, content: Mapping[str, Any], status: int = 200) -> None:
        self._answer(status, json.dumps(content).encode(), "application/json")

    def _answer(self, status: int, content: bytes, content_type: str = "") -> None:
        self.send_response(status)
        if content_type:
            self.send_header("Content-Type", content_type)
        self.send_header("X-Engine", SIMULATED["engine"])
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Stay silent: the access log of the real server is switched off too."""


def _parse(body: bytes) -> Json:
    try:
        parsed = json.loads(body)
    except ValueError as error:
        raise RefusedError(400, "BadRequestError", f"the body is not JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise RefusedError(400, "BadRequestError", "the body is not a JSON object")
    return parsed


def _chat_text(body: Json) -> str:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise RefusedError(
            400, "BadRequestError", "messages: a list of at least one message is required", "messages"
        )
    return (
        "".join(f"{message.get('role')}: {message.get('content')}\n" for message in messages) + "assistant: "
    )


def _prompt_tokens(body: Json) -> list[int]:
    prompt = body.get("prompt")
    if isinstance(prompt, list) and prompt and all(type(token) is int for token in prompt):
        return prompt
    if not isinstance(prompt, str) or not prompt:
        raise RefusedError(400, "BadRequestError", "prompt: a text or a list of tokens is required", "prompt")
    return token_ids(prompt)


def _head(model: str, version: str, *, chat: bool) -> Json:
    return {
        "id": f"{'chatcmpl' if chat else 'cmpl'}-{uuid.uuid4().hex[:16]}",
        "object": "chat.completion" if chat else "text_completion",
        "created": int(time.time()),
        "model": model,
        "system_fingerprint": f"stand-in-{version}",
        **SIMULATED,
    }
