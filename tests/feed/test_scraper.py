from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web

from stowage.feed import agent_http
from stowage.feed.agent_http import AgentHttp, AgentUnavailable
from stowage.feed.scraper import Scraper, ScrapeTimes
from stowage.world import Key
from tests.feed.test_small_parts import report, utilization
from tests.kube.fake_time import run
from tests.kube.objects import KEY, pod


def running(name: str, address: str = "10.0.0.1") -> dict[str, Any]:
    item = pod(name, node="n1", own="llama")
    item["status"] |= {"podIP": address, "containerStatuses": [{"state": {"running": {}}}]}
    return item


class Agents:
    """Answers by address; an address without an answer is unavailable."""

    def __init__(self, **answers: str) -> None:
        self.answers = answers
        self.asked: list[float] = []

    async def get(self, pod_ip: str, path: str) -> str:
        self.asked.append(asyncio.get_running_loop().time())
        if "now" not in self.answers:
            raise AgentUnavailable(path)
        return self.answers["now"]


def scraper(agents: Agents, pods: list[dict[str, Any]], woken: list[Key], errors: list[int]) -> Scraper:
    return Scraper(
        agents,  # type: ignore[arg-type]
        lambda: [(KEY, item) for item in pods],
        woken.append,
        ScrapeTimes(serving=15.0, starting=2.0),
        lambda: errors.append(1),
    )


@pytest.mark.parametrize(
    ("phase", "gap"),
    [
        pytest.param("Loading", 2.0, id="a starting pod is asked every two seconds"),
        pytest.param("Serving", 15.0, id="a serving pod is asked every fifteen seconds"),
    ],
)
def test_how_often_a_pod_is_asked(phase: str, gap: float) -> None:
    agents = Agents(now=report(phase=phase).to_json())

    async def scenario() -> None:
        task = asyncio.create_task(scraper(agents, [running("llama-1")], [], []).run())
        await asyncio.sleep(40.0)
        task.cancel()

    run(scenario())
    gaps = [second - first for first, second in zip(agents.asked, agents.asked[1:], strict=False)]
    assert gaps
    assert all(gap <= found <= gap + 0.6 for found in gaps)


def test_news_wakes_the_key_and_repetition_does_not() -> None:
    agents, woken = Agents(now=report(utilization=utilization(0.1)).to_json()), list[Key]()

    async def scenario() -> None:
        subject = scraper(agents, [running("llama-1")], woken, [])
        for usage in (0.1, 0.12, 0.14, 0.15, 0.16):
            agents.answers["now"] = report(utilization=utilization(usage)).to_json()
            await subject.scrape_once()

    run(scenario())
    assert woken == [KEY, KEY]


def test_failures_keep_the_last_report_until_it_is_too_old_and_that_is_told_once() -> None:
    agents, woken, errors = Agents(now=report().to_json()), list[Key](), list[int]()
    counts: list[tuple[int, int]] = []

    async def scenario() -> None:
        subject = scraper(agents, [running("llama-1")], woken, errors)
        task = asyncio.create_task(subject.run())
        await asyncio.sleep(1.0)
        answer = agents.answers.pop("now")
        for _ in range(4):
            await asyncio.sleep(22.0)
            counts.append((len(subject.reports(KEY)), len(woken)))
        agents.answers["now"] = answer
        await asyncio.sleep(10.0)
        counts.append((len(subject.reports(KEY)), len(woken)))
        task.cancel()

    run(scenario())
    assert counts == [(1, 1), (1, 1), (0, 2), (0, 2), (1, 3)]
    assert len(errors) > 10


def test_the_first_look_asks_all_pods_at_once_and_waits_for_none_for_long() -> None:
    pods = [running(f"llama-{number}", f"10.0.0.{number}") for number in range(20)]
    agents = Agents(now=report().to_json())
    quick = agents.get

    async def get(pod_ip: str, path: str) -> str:
        await asyncio.sleep(3600.0 if pod_ip == "10.0.0.7" else 2.0)
        return await quick(pod_ip, path)

    agents.get = get  # type: ignore[method-assign]

    async def scenario() -> tuple[int, float]:
        subject = scraper(agents, pods, [], [])
        begin = asyncio.get_running_loop().time()
        await subject.scrape_once(within_seconds=5.0)
        return len(subject.reports(KEY)), asyncio.get_running_loop().time() - begin

    assert run(scenario()) == (19, 5.0)


def test_an_answer_that_breaks_the_contract_counts_as_none() -> None:
    async def scenario() -> int:
        subject = scraper(Agents(now='{"phase": "Dancing"}'), [running("llama-1")], [], [])
        await subject.scrape_once()
        return len(subject.reports(KEY))

    assert run(scenario()) == 0


def test_a_pod_that_is_gone_takes_its_report_with_it() -> None:
    pods = [running("llama-1")]

    async def scenario() -> int:
        subject = scraper(Agents(now=report().to_json()), pods, [], [])
        await subject.scrape_once()
        pods.clear()
        await subject.scrape_once()
        return len(subject.reports(KEY))

    assert run(scenario()) == 0


def test_a_pod_whose_container_does_not_run_is_not_asked() -> None:
    waiting = running("llama-1")
    waiting["status"]["containerStatuses"] = [{"state": {"waiting": {"reason": "CrashLoopBackOff"}}}]
    agents = Agents(now=report().to_json())

    async def scenario() -> None:
        await scraper(agents, [waiting], [], []).scrape_once()

    run(scenario())
    assert agents.asked == []


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def _hang(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(60.0)
    return web.Response()


async def _redirect(request: web.Request) -> web.StreamResponse:
    raise web.HTTPFound("/good")


@pytest_asyncio.fixture
async def agent(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AgentHttp]:
    async def good(request: web.Request) -> web.StreamResponse:
        return web.Response(text="fine")

    async def huge(request: web.Request) -> web.StreamResponse:
        return web.Response(text="x" * 5000)

    application = web.Application()
    for path, handler in {"/good": good, "/huge": huge, "/hang": _hang, "/redirect": _redirect}.items():
        application.router.add_get(path, handler)
    runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    monkeypatch.setattr(agent_http, "AGENT_PORT", runner.addresses[0][1])
    monkeypatch.setattr(agent_http, "MAXIMUM_BYTES", 1000)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    http = AgentHttp(timeout_seconds=0.5)
    yield http
    await http.close()
    await runner.cleanup()


async def test_an_agent_is_asked_without_any_proxy(agent: AgentHttp) -> None:
    assert await agent.get("127.0.0.1", "/good") == "fine"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        pytest.param("/missing", "404", id="another status than 200"),
        pytest.param("/huge", "more than 1000 bytes", id="an endless answer"),
        pytest.param("/hang", "Timeout", id="an agent that hangs"),
        pytest.param("/redirect", "302", id="a redirection is not followed"),
    ],
)
async def test_an_unusable_answer_is_one_error(agent: AgentHttp, path: str, words: str) -> None:
    with pytest.raises(AgentUnavailable, match=words):
        await agent.get("127.0.0.1", path)
