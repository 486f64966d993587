"""An operator that serves some namespaces only still has to see who uses the nodes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, NamedTuple

import pytest

from stowage.feed.kopf_feed import KopfFeed
from stowage.feed.resync import Resync
from stowage.feed.watchdog import Watchdog
from stowage.kube.client import Selector
from stowage.kube.kinds import CONFIG_MAP, LLM_DEPLOYMENT, NODE, POD, RESOURCE_QUOTA, Kind
from stowage.world import Outcome
from tests.feed.test_hub import Rig
from tests.kube.fake_time import run
from tests.kube.objects import config_map, llm, node, pod


class Page(NamedTuple):
    items: list[dict[str, Any]]
    resource_version: str


class Lists:
    """Answers every LIST with nothing and remembers where it was made."""

    def __init__(self) -> None:
        self.places: dict[Kind, list[str | None]] = {}

    async def serves(self, kind: Kind) -> bool:
        return False

    async def list_pages(self, kind: Kind, namespace: str | None, selector: Selector) -> AsyncIterator[Page]:
        self.places.setdefault(kind, []).append(namespace)
        yield Page([], "1")


def test_nodes_and_pods_are_listed_everywhere_and_the_rest_where_it_is_served() -> None:
    lists = Lists()

    async def scenario() -> None:
        rig = Rig(lambda world, now: Outcome())
        resync = Resync(lists, rig.hub, Watchdog(300.0), ("a", "b"), lambda count: None)  # type: ignore[arg-type]
        await resync.round()

    run(scenario())
    assert lists.places[NODE] == lists.places[POD] == [None]
    assert (
        lists.places[CONFIG_MAP] == lists.places[RESOURCE_QUOTA] == lists.places[LLM_DEPLOYMENT] == ["a", "b"]
    )


@pytest.mark.parametrize(
    ("kind", "obj", "expected"),
    [
        pytest.param(POD, pod("foreign", namespace="elsewhere"), True, id="a pod anywhere takes room"),
        pytest.param(NODE, node("n1"), True, id="a node has no namespace"),
        pytest.param(LLM_DEPLOYMENT, llm(), True, id="an LLMDeployment that is served"),
        pytest.param(LLM_DEPLOYMENT, llm(namespace="elsewhere"), False, id="one that is not"),
        pytest.param(CONFIG_MAP, config_map(namespace="elsewhere"), False, id="a child of one that is not"),
    ],
)
def test_which_events_are_passed_on(kind: Kind, obj: dict[str, Any], expected: bool) -> None:
    seen: list[Mapping[str, Any]] = []
    feed = KopfFeed(None, lambda kind, obj, deleted: seen.append(obj), ("default",))
    run(feed._handler(kind)(event={"type": "ADDED", "object": obj}))
    assert bool(seen) is expected
