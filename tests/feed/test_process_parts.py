"""Settings, probes, metrics, logs and credentials of the operator process."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from kubernetes.aio.client.configuration import Configuration

from stowage import app
from stowage.app import TaskEnded, _causes
from stowage.feed.hub import Hub
from stowage.feed.kopf_feed import KopfFeed
from stowage.feed.resync import Resync
from stowage.feed.scraper import Scraper
from stowage.kube.connection import NoCredentials, load_connection
from stowage.kube.kinds import DEPLOYMENT, LLM_DEPLOYMENT, NODE, Kind, kind_named
from stowage.kube.recorder import Recorder
from stowage.logs import set_up_logs
from stowage.probes import MAXIMUM_LAG_SECONDS, Health, ProbeServer, beat
from stowage.settings import BadSetting, Settings, identity, read_settings
from stowage.telemetry import Telemetry
from tests.kube.fake_time import run
from tests.kube.objects import KEY


def test_defaults_are_those_of_the_class_and_hf_endpoint_is_passed_on() -> None:
    settings = read_settings([], {"HF_ENDPOINT": "http://hub:8080"})
    assert settings.hub_endpoint == "http://hub:8080"
    assert (settings.workers, settings.scrape_interval) == (4, 15.0)
    options = settings.engine_options()
    assert options.hub_endpoint == "http://hub:8080"
    assert options.images["GPU"].format(version="0.32.0") == "vllm/vllm-openai:v0.32.0"


def test_a_flag_wins_over_a_variable_over_the_default() -> None:
    environment = {"STOWAGE_WORKERS": "2", "STOWAGE_NAMESPACES": "a, b,"}
    settings = read_settings(["--workers", "7", "--leader-election=false"], environment)
    assert settings.workers == 7
    assert settings.namespaces == ("a", "b")
    assert settings.leader_election is False


def test_every_setting_has_a_help_text_and_a_variable_that_works() -> None:
    for option in dataclasses.fields(Settings):
        assert option.metadata["help"]
        value = {bool: "true", int: "3", float: "30", tuple: "x", str: "text"}[type(option.default)]
        special = {"log_format": "json", "renew_deadline": "12", "retry_period": "3"}.get(option.name, value)
        settings = read_settings([], {f"STOWAGE_{option.name.upper()}": special})
        assert getattr(settings, option.name) != "" or option.name == "host"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        pytest.param(["--workers=many"], "Setting workers is 'many'; write a whole number.", id="no number"),
        pytest.param(["--workers=0"], "Setting workers is 0; write at least 1.", id="nobody would work"),
        pytest.param(["--leader-election=maybe"], "write true or false", id="no yes or no"),
        pytest.param(["--log-format=xml"], "write text or json", id="an unknown log format"),
        pytest.param(
            ["--lease-duration=5"], "longer than renew_deadline", id="a Lease that ends before its leader"
        ),
        pytest.param(["--retry-period=9"], "longer than 1.2 times retry_period", id="too few tries to renew"),
        pytest.param(["--retry-period=0.1"], "write at least 1", id="too many tries to renew"),
    ],
)
def test_a_bad_setting_is_named_with_its_value(flags: list[str], words: str) -> None:
    with pytest.raises(BadSetting, match=words):
        read_settings(flags, {})


@pytest.mark.parametrize(
    ("flags", "environment"),
    [
        pytest.param(["--hub-endpoint=https://me:hidden@hub.example"], {}, id="as a flag"),
        pytest.param([], {"HF_ENDPOINT": "https://hidden@hub.example/hf"}, id="as the Hub's own variable"),
        pytest.param([], {"STOWAGE_HUB_ENDPOINT": "https://:hidden@hub.example"}, id="without a name"),
        pytest.param(["--hub-endpoint=me:hidden@hub.example"], {}, id="without a scheme"),
    ],
)
def test_credentials_in_the_hubs_address_are_refused_and_not_repeated(
    flags: list[str], environment: dict[str, str]
) -> None:
    with pytest.raises(BadSetting, match="Setting hub_endpoint holds credentials") as caught:
        read_settings(flags, environment)
    assert "hidden" not in str(caught.value)


def test_help_names_the_command_that_starts_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read_settings(["--help"], {})
    assert capsys.readouterr().out.startswith("usage: python -m stowage.app ")


def test_identity_is_unique_and_starts_with_the_pods_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POD_NAME", "stowage-0")
    assert identity().startswith("stowage-0_")
    assert identity() != identity()


@pytest.mark.parametrize(
    ("health", "alive", "ready"),
    [
        pytest.param(Health(), True, False, id="a process that starts is alive, not ready"),
        pytest.param(Health(waiting_for=None), True, True, id="a process at work is both"),
        pytest.param(
            Health(waiting_for="the CRD"), True, False, id="a process that waits is alive, not ready"
        ),
        pytest.param(Health(None, "resync"), False, True, id="a dead task ends liveness"),
        pytest.param(Health(None, None, 29.0), True, True, id="a slow loop is still alive"),
        pytest.param(Health(None, None, MAXIMUM_LAG_SECONDS), False, True, id="a stuck loop is not"),
    ],
)
def test_probes(health: Health, alive: bool, ready: bool) -> None:
    assert (health.liveness() is None, health.readiness() is None) == (alive, ready)


async def test_the_endpoints_answer_on_ports_of_their_own() -> None:
    health, telemetry = Health(), Telemetry()
    server = ProbeServer(health, telemetry, "127.0.0.1")
    probes, metrics = await server.start(0, 0)
    async with aiohttp.ClientSession() as session:
        async with session.get(f"http://127.0.0.1:{probes}/readyz") as answer:
            assert (answer.status, await answer.text()) == (503, "waiting for start-up\n")
        async with session.get(f"http://127.0.0.1:{probes}/healthz") as answer:
            assert answer.status == 200
        async with session.get(f"http://127.0.0.1:{metrics}/metrics") as answer:
            assert "workqueue_depth" in await answer.text()
        async with session.get(f"http://127.0.0.1:{probes}/metrics") as answer:
            assert answer.status == 404
    await server.close()


async def test_agents_are_asked_after_the_first_list_and_before_the_workers_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else the first status after a restart would say that no pod reports anything."""
    steps: list[str] = []
    at_work = asyncio.Event()

    def step(name: str) -> Callable[..., Awaitable[None]]:
        async def take(*_: Any) -> None:
            steps.append(name)
            if name == "work":
                at_work.set()
                await asyncio.Event().wait()

        return take

    async def rest(*_: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(app, "wait_for_own_kind", step("CRD"))
    monkeypatch.setattr(Resync, "round", step("list"))
    monkeypatch.setattr(Scraper, "scrape_once", step("ask the agents"))
    monkeypatch.setattr(Hub, "work", step("work"))
    for part in (Resync, Scraper, Recorder, KopfFeed):
        monkeypatch.setattr(part, "run", rest)
    monkeypatch.setattr(app, "guard_own_kind", rest)
    settings = Settings(leader_election=False, workers=1)
    operator = app.Operator(settings, Configuration(host="http://127.0.0.1:9"), Telemetry(), Health())
    task = asyncio.create_task(operator.run(lambda: None))
    async with asyncio.timeout(10.0):
        await at_work.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert steps == ["CRD", "list", "ask the agents", "work"]


def test_the_heart_beat_sees_a_loop_that_is_late() -> None:
    health = Health()

    async def scenario() -> float:
        loop = asyncio.get_running_loop()
        task = asyncio.create_task(beat(health, Telemetry()))
        await asyncio.sleep(0.2)
        # A handler that blocks: the clock goes on, the loop does not.
        loop._jumping.now += 40.0  # type: ignore[attr-defined]
        await asyncio.sleep(0.1)
        task.cancel()
        return health.lag_seconds

    assert run(scenario()) > MAXIMUM_LAG_SECONDS


def samples(telemetry: Telemetry) -> dict[str, float]:
    lines = [line for line in telemetry.render().decode().splitlines() if not line.startswith("#")]
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines}


def test_metrics_have_the_names_that_dashboards_know() -> None:
    telemetry = Telemetry()
    telemetry.set_host("api:6443")
    telemetry.requested("GET", "200")
    telemetry.leading("ns/stowage", True)
    telemetry.added()
    telemetry.watch_queue(lambda: 3, lambda: (1.0, 4.0))
    with telemetry.reconciling() as result:
        result.name = "success"
    found = samples(telemetry)
    name = '{controller="llmdeployment"'
    assert found[f'controller_runtime_reconcile_total{name},result="success"}}'] == 1
    assert found['workqueue_depth{name="llmdeployment"}'] == 3
    assert found['workqueue_longest_running_processor_seconds{name="llmdeployment"}'] == 4
    assert found['workqueue_unfinished_work_seconds{name="llmdeployment"}'] == 5
    assert found['rest_client_requests_total{code="200",host="api:6443",method="GET"}'] == 1
    assert found['leader_election_master_status{name="ns/stowage"}'] == 1


def test_a_reconciliation_that_raises_counts_as_an_error() -> None:
    telemetry = Telemetry()
    with pytest.raises(ZeroDivisionError), telemetry.reconciling():
        raise ZeroDivisionError
    found = samples(telemetry)
    assert found['controller_runtime_reconcile_errors_total{controller="llmdeployment"}'] == 1
    assert found['controller_runtime_active_workers{controller="llmdeployment"}'] == 0


def refused(generation: int) -> dict[str, Any]:
    condition = {"type": "Planned", "status": "False", "reason": "NoGPUs", "observedGeneration": generation}
    return {"readyReplicas": 0, "scaling": {"desiredReplicas": 2}, "conditions": [condition]}


def test_a_rejection_counts_once_per_generation_and_series_end_with_the_resource() -> None:
    telemetry = Telemetry()
    for generation in (1, 1, 2):
        telemetry.show_replicas(KEY, refused(generation))
    assert samples(telemetry)['stowage_plan_rejections_total{reason="NoGPUs"}'] == 2
    assert samples(telemetry)['stowage_desired_replicas{name="llama",namespace="default"}'] == 2
    telemetry.forget(KEY)
    assert not [line for line in samples(telemetry) if "llama" in line]


def test_json_logs_are_one_object_per_line(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    try:
        set_up_logs("json", "info")
        try:
            raise ValueError("broken")
        except ValueError:
            logging.getLogger("stowage.test").exception("it %s", "failed")
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    entry = json.loads(capsys.readouterr().err.strip())
    assert (entry["level"], entry["logger"], entry["message"]) == ("ERROR", "stowage.test", "it failed")
    assert "ValueError: broken" in entry["traceback"]


async def test_without_credentials_the_sentence_names_what_was_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    missing = str(tmp_path / "nowhere")
    with pytest.raises(NoCredentials, match="nowhere"):
        await load_connection(missing)


@pytest.mark.parametrize(
    ("kind", "arguments", "path"),
    [
        pytest.param(
            DEPLOYMENT, ("ns", "x"), "/apis/apps/v1/namespaces/ns/deployments/x", id="a namespaced one"
        ),
        pytest.param(NODE, (None, "n1"), "/api/v1/nodes/n1", id="a core kind without a namespace"),
        pytest.param(LLM_DEPLOYMENT, (), "/apis/stowage.dev/v1alpha1/llmdeployments", id="all of a kind"),
        pytest.param(
            LLM_DEPLOYMENT,
            ("ns", "x", "status"),
            "/apis/stowage.dev/v1alpha1/namespaces/ns/llmdeployments/x/status",
            id="a subresource",
        ),
        pytest.param(
            DEPLOYMENT, ("ns", "a/b"), "/apis/apps/v1/namespaces/ns/deployments/a%2Fb", id="an odd name"
        ),
    ],
)
def test_paths(kind: Kind, arguments: tuple[str, ...], path: str) -> None:
    assert kind.path(*arguments) == path


def test_there_is_no_way_to_name_a_secret() -> None:
    with pytest.raises(KeyError):
        kind_named("v1", "Secret")


def test_causes_of_a_group_are_told_one_by_one() -> None:
    group = ExceptionGroup("parts", [TaskEnded("a"), ExceptionGroup("inner", [OSError("b")])])
    assert [str(cause) for cause in _causes(group)] == ["a", "b"]
