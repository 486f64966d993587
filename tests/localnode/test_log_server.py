"""What the log endpoint refuses, as the API server asks it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from e2e.localnode.log_server import LogServer
from e2e.localnode.logs import ContainerLogs


@pytest_asyncio.fixture
async def address(tmp_path: Path) -> AsyncIterator[str]:
    logs = ContainerLogs(tmp_path, "main")
    logs.file(0).write_text("one\ntwo\n")
    server = LogServer("127.0.0.1", "", lambda namespace, pod, container: (logs, lambda: (0, False)))
    await server.start()
    yield f"https://127.0.0.1:{server.port}"
    await server.stop()


async def asked(url: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(url, ssl=False) as answer:
        return answer.status, await answer.text()


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        pytest.param("", (200, "one\ntwo\n"), id="the whole log"),
        pytest.param("tailLines=1", (200, "two\n"), id="its tail"),
        pytest.param("timestamps=false&stream=All", (200, "one\ntwo\n"), id="options that ask for nothing"),
        pytest.param("sinceSeconds=5", (400, "sinceSeconds"), id="--since"),
        pytest.param("sinceTime=2026-01-01T00%3A00%3A00Z", (400, "sinceTime"), id="--since-time"),
        pytest.param("timestamps=true", (400, "timestamps"), id="--timestamps"),
        pytest.param("stream=Stderr", (400, "stream"), id="one stream"),
    ],
)
async def test_log_options_are_honoured_or_refused(
    address: str, query: str, expected: tuple[int, str]
) -> None:
    status, text = await asked(f"{address}/containerLogs/ns/pod/main?{query}")
    sentence = f"the local node does not implement the log option {expected[1]}\n"
    assert (status, text) == (expected if expected[0] == 200 else (400, sentence))


async def test_other_endpoints_of_a_kubelet_are_refused(address: str) -> None:
    assert (await asked(f"{address}/exec/ns/pod/main"))[0] == 501
