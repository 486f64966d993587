"""Starts the stand-in: `python3 -m vllm.entrypoints.openai.api_server …`, with vLLM's options and life.

Why: the agent starts and watches this exactly as it does the real engine, from the first log line to SIGTERM.
As measured on vLLM 0.32: without `--shutdown-timeout`, SIGTERM aborts running requests, which are never
answered, and the process ends when their clients have gone; with it, they are finished and new ones get 500.
It must never serve before its start-up lines are out.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Sequence
from http.server import ThreadingHTTPServer

from . import failures, scoring
from .capacity import Capacity, DoesNotFitError, capacity_of
from .checkpoint import Checkpoint, ModelMissingError, find
from .http_api import Engine, server_of
from .machine import detect
from .metrics import Metrics
from .options import parse
from .scheduler import Scheduler
from .startup_log import StartupLog, say
from .steering import Steering, steering_of

VERSION = "0.32.0"


def main(arguments: Sequence[str]) -> int:
    """Run until SIGTERM, SIGINT or a fault; the exit code of the process."""
    options = parse(arguments)
    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ending.set())
    try:
        checkpoint = find(options.model, options.revision)
    except ModelMissingError as error:
        say("APIServer", "standin", f"OSError: {error}", "ERROR")
        return 1
    steering, machine = steering_of(checkpoint.config), detect()
    log = StartupLog(options, machine, steering)
    log.begin(VERSION)
    capacity = _start(log, checkpoint, ending)
    if ending.is_set():
        return 0
    return _serve(log, capacity, steering, ending)


def _start(log: StartupLog, checkpoint: Checkpoint, ending: threading.Event) -> Capacity:
    options, machine, steering = log.options, log.machine, log.steering
    try:
        capacity = capacity_of(options, checkpoint, machine, steering)
    except DoesNotFitError as error:
        log.loading(VERSION)
        failures.fail(str(error))
    log.architecture((checkpoint.config.get("architectures") or ["unknown"])[0], capacity.max_model_len)
    failures.before_loading(steering, machine, options.gpu_memory_utilization)
    log.loading(VERSION)
    failures.while_loading(steering, machine, ending.wait)
    log.loaded(capacity)
    failures.while_sizing(steering, machine, capacity)
    log.sized(capacity)
    return capacity


def _serve(log: StartupLog, capacity: Capacity, steering: Steering, ending: threading.Event) -> int:
    options = log.options
    names = tuple(options.served_model_name or [options.model])
    metrics = Metrics(names[0])
    scheduler = Scheduler(capacity, options.max_num_seqs, steering, metrics)
    info = {
        "block_size": capacity.block_size,
        "num_gpu_blocks": capacity.blocks,
        "kv_cache_size_tokens": capacity.tokens,
        "kv_cache_max_concurrency": capacity.concurrency,
        "kv_cache_memory_bytes": options.kv_cache_memory_bytes,
        "gpu_memory_utilization": options.gpu_memory_utilization,
        "cache_dtype": options.kv_cache_dtype,
        "enable_prefix_caching": options.enable_prefix_caching is not False,
    }
    began = time.monotonic()
    sick_after = steering.after_seconds if steering.fault == "unhealthy" else float("inf")
    engine = Engine(
        version=VERSION,
        names=names,
        root=options.model,
        max_model_len=capacity.max_model_len,
        scheduler=scheduler,
        metrics_text=lambda: metrics.exposition(scheduler.gauges(), info),
        healthy=lambda: time.monotonic() - began < sick_after,
        refuse=steering.fault == "refuse",
        loss_nats=scoring.loss_nats(options, steering),
    )
    server = server_of(engine, options.host or "0.0.0.0", options.port)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    log.serving(f"http://{options.host or '0.0.0.0'}:{server.server_address[1]}")
    if steering.fault == "exit_serving" and not ending.wait(steering.after_seconds):
        say("EngineCore", "core.py:1454", "EngineCore encountered a fatal error.", "ERROR")
        return steering.exit_code
    ending.wait()
    _shut_down(engine, server, options.shutdown_timeout)
    return 0


def _shut_down(engine: Engine, server: ThreadingHTTPServer, timeout_seconds: int) -> None:
    mode = "drain" if timeout_seconds else "abort"
    text = f"[shutdown] API server: stopping engine client mode={mode} timeout={timeout_seconds}s"
    say("APIServer", "launcher.py:254", "[shutdown] API server: shutdown triggered")
    say("APIServer", "launcher.py:270", text)
    if timeout_seconds:
        engine.draining.set()
        engine.in_flight.wait_for_none(timeout_seconds)
    server.shutdown()
    server.server_close()
    engine.scheduler.abort()
    engine.in_flight.wait_for_none(None)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
