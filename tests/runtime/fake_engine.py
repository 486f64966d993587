"""A tiny stand-in for vLLM, written as a package into a folder: enough to drive the agent through all its phases.

It is told by the environment how to behave. It knows nothing of the agent, and the agent has no switch for
it.
"""

from __future__ import annotations

from pathlib import Path

API_SERVER = r'''
import argparse, http.server, json, os, signal, subprocess, sys, threading, time

parser = argparse.ArgumentParser(prog="api_server.py")
for name in ("--model", "--served-model-name", "--host"):
    parser.add_argument(name, required=True)
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--max-model-len", type=int)
parser.add_argument("--shutdown-timeout", type=int)
options = parser.parse_args()
mode = os.environ.get("FAKE_MODE", "")
record = os.environ.get("FAKE_RECORD")
if record:
    with open(record, "w") as file:
        json.dump({"pid": os.getpid(), "argv": sys.argv[1:], "env": dict(os.environ)}, file)

P = "(EngineCore pid=77) INFO 11-22 10:00:00 "
print(P + "[model_runner.py:425] Model loading took 2.5 GiB memory and 1.25 seconds", flush=True)
if mode == "oom":
    print("(EngineCore pid=77) ERROR 11-22 10:00:02 [core.py:1] torch.OutOfMemoryError: CUDA out of memory. "
          "Tried to allocate 1.17 GiB. GPU 0 has a total capacity of 7.63 GiB of which 512.00 MiB is free.",
          file=sys.stderr)
    print("(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above.", file=sys.stderr)
    sys.exit(1)
if mode == "hang":
    time.sleep(600)
print(P + "[gpu_worker.py:760] Available KV cache memory: 1.5 GiB", flush=True)
print(P + "[kv_cache_utils.py:2328] GPU KV cache size: 49,152 tokens, Maximum concurrency for 1,024 tokens "
      "per request: 48.00x", flush=True)
print(P + "[model_runner.py:1128] Graph capturing finished in 8 secs, took 0.25 GiB", flush=True)
print("token in a line: " + os.environ.get("FAKE_LEAK", ""), flush=True)

running = 0
tokens = 0
helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
if record:
    with open(record + ".helper", "w") as file:
        file.write(str(helper.pid))

METRICS = """# HELP vllm:x y
vllm:cache_config_info{{block_size="16",num_gpu_blocks="3072",kv_cache_size_tokens="49152"}} 1.0
vllm:num_requests_running{{engine="0",model_name="m"}} {running}
vllm:num_requests_waiting{{engine="0",model_name="m"}} 0.0
vllm:kv_cache_usage_perc{{engine="0",model_name="m"}} 0.25
vllm:prompt_tokens_total{{engine="0",model_name="m"}} {tokens}
vllm:generation_tokens_total{{engine="0",model_name="m"}} {tokens}
vllm:request_success_total{{engine="0",model_name="m",finished_reason="length"}} 1.0
"""


class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self, status, body, kind="application/json"):
        content = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self):
        if self.path == "/health":
            self.answer(200, "")
        elif self.path == "/version":
            self.answer(200, json.dumps({"version": "0.32.0", "engine": "simulated"}))
        elif self.path == "/metrics":
            self.answer(200, METRICS.format(running=float(running), tokens=float(tokens)), "text/plain")
        else:
            self.answer(404, "{}")

    def do_POST(self):
        global tokens, running
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if mode == "mute":
            return self.answer(500, json.dumps({"error": "engine is stuck"}))
        if mode == "refuse" or body["model"] != options.served_model_name:
            return self.answer(404, json.dumps({"error": "no such model"}))
        if body.get("user") == "slow":
            running += 1
            time.sleep(float(body["seconds"]))
            running -= 1
        tokens += 4
        if body.get("user") == "orphan":
            # A child whose parent ends first: it falls to the container's first process, as a zombie.
            subprocess.run(["/bin/sh", "-c", "sleep 0.3 & exit 0"])
        if body.get("user") == "crash":
            print("ValueError: told to crash", flush=True)
            os._exit(3)
        self.answer(200, json.dumps({"choices": [{"text": "abcd"}], "usage": {"completion_tokens": 4}}))

    def log_message(self, *args):
        pass


server = http.server.ThreadingHTTPServer((options.host, options.port), Handler)
server.daemon_threads = True


def stop(number, frame):
    if mode != "stubborn":
        threading.Thread(target=server.shutdown).start()


signal.signal(signal.SIGTERM, stop)
server.serve_forever()
helper.kill()
print("fake engine ended", flush=True)
'''


def write_fake_engine(folder: Path, version: str = "0.32.0", distribution: str = "vllm") -> Path:
    """Write the package and its distribution's metadata; the folder belongs on PYTHONPATH."""
    package = folder / "vllm" / "entrypoints" / "openai"
    package.mkdir(parents=True)
    for parent in (package, package.parent, package.parent.parent):
        (parent / "__init__.py").write_text("")
    (package / "api_server.py").write_text(API_SERVER)
    info = folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
    return folder
