"""The engine's command, its environment, and small parts of the agent."""

from __future__ import annotations

import io
import threading
import urllib.request

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stowage_runtime.contract import EngineExpectation, LaunchSpec, ModelRef
from stowage_runtime.launch import base_environment, engine_environment
from stowage_runtime.line_pump import LinePump, piped
from stowage_runtime.own_polls import own_poll_filter
from stowage_runtime.redaction import Redactor
from stowage_runtime.server import Answer, ReportServer

SPEC = LaunchSpec(
    namespace="default",
    name="tiny",
    served_model_name="tiny",
    model=ModelRef(kind="pvc", path="/stowage/model"),
    engine=EngineExpectation(version="0.32.0", hardware="CPU"),
    args=(),
    env={"VLLM_NO_USAGE_STATS": "0", "A": "plan"},
    startup_timeout_seconds=60,
    drain_timeout_seconds=30,
)


def test_the_engine_is_offline_and_without_the_token() -> None:
    env = engine_environment(SPEC, {"HF_TOKEN": "x", "PATH": "/bin", "A": "pod", "HF_HUB_OFFLINE": "0"})
    assert env["HF_HUB_OFFLINE"] == "1"
    assert env["A"] == "plan"
    assert env["VLLM_NO_USAGE_STATS"] == "0"
    assert env["PATH"] == "/bin"
    assert "HF_TOKEN" not in env


def test_the_download_gets_the_token() -> None:
    assert base_environment(SPEC, {"HF_TOKEN": "x"})["HF_TOKEN"] == "x"


@given(
    st.text(min_size=6, max_size=20).filter(lambda s: s.strip() == s and s not in "[redacted]"),
    st.text(),
    st.text(),
)
def test_a_secret_never_survives(secret: str, before: str, after: str) -> None:
    redact = Redactor.of_environment({"HF_TOKEN": secret, "PATH": "/bin"})
    assert secret not in redact(before + secret + after).replace("[redacted]", "\0")


def test_without_secrets_nothing_changes() -> None:
    assert Redactor.of_environment({"HF_TOKEN": "", "PATH": "/bin"})("a /bin b") == "a /bin b"


def pump(content: bytes, secret: str = "") -> tuple[LinePump, bytes, list[str]]:
    sink = io.BytesIO()
    seen: list[str] = []
    found = LinePump(io.BytesIO(content), sink, Redactor([secret]), [seen.append])
    found.start()
    found.finish(10)
    return found, sink.getvalue(), seen


@given(st.lists(st.binary(max_size=50)).map(b"\n".join))
def test_output_passes_through_byte_by_byte(content: bytes) -> None:
    assert pump(content)[1] == content


def test_the_last_state_of_a_progress_bar_is_kept() -> None:
    found, _, seen = pump(b"10%\r50%\r100%\nnext\n")
    assert seen == ["100%", "next"]
    assert found.last_lines() == seen


def test_a_secret_is_taken_out_of_the_output() -> None:
    assert pump(b"a hf_secret b\n", "hf_secret")[1] == b"a [redacted] b\n"


@pytest.mark.parametrize(
    ("line", "dropped"),
    [
        pytest.param(
            '(APIServer pid=22) INFO:     10.0.0.2:34812 - "GET /health HTTP/1.1" 200 OK',
            True,
            id="an own poll",
        ),
        pytest.param(
            'INFO:     10.0.0.2:34812 - "GET /metrics HTTP/1.1" 200 OK', True, id="without a prefix"
        ),
        pytest.param(
            'INFO:     10.0.0.9:34812 - "GET /metrics HTTP/1.1" 200 OK', False, id="somebody else's scrape"
        ),
        pytest.param('INFO:     10.0.0.2:34812 - "GET /health HTTP/1.1" 503', False, id="a poll that failed"),
        pytest.param('INFO:     10.0.0.2:1 - "POST /v1/completions HTTP/1.1" 200 OK', False, id="a request"),
    ],
)
def test_only_successful_polls_of_the_agent_itself_leave_the_log(line: str, dropped: bool) -> None:
    sink = io.BytesIO()
    found = LinePump(
        io.BytesIO(f"{line}\nrest\n".encode()), sink, Redactor([]), [], own_poll_filter("10.0.0.2")
    )
    found.start()
    found.finish(10)
    assert (line in sink.getvalue().decode()) is not dropped
    assert found.last_lines()[-1] == "rest"


def test_a_child_without_a_pipe_is_a_bug() -> None:
    with pytest.raises(ValueError, match="without a pipe"):
        piped(None)


def test_the_server_answers_on_ipv6_too() -> None:
    try:
        server = ReportServer("::1", 0, {"/x": lambda: Answer(200, "ok")})
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    try:
        with urllib.request.urlopen(f"http://[::1]:{server.port}/x?y=1", timeout=10) as answer:
            assert answer.read() == b"ok"
    finally:
        server.close()
    assert not [
        thread for thread in threading.enumerate() if thread.name == "report-server" and thread.is_alive()
    ]
