"""What one end-to-end test works in: a namespace, a lane of four simulated L4s, and an observer's eyes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from e2e.controlplane.cluster import Cluster
from e2e.controlplane.inside_http import InsideConnection
from e2e.stack import Stack
from e2e.stack.lanes import LANE_LABEL
from e2e.stack.reader import Reader
from e2e.tinymodel import TinyModel
from tests.e2e.waiting import PATIENCE_SECONDS, wait_until

T = TypeVar("T")
Json = dict[str, Any]
CHILDREN = ("deployments", "replicasets", "services", "configmaps", "poddisruptionbudgets", "pods")
OURS = "app.kubernetes.io/managed-by=stowage"


class Workspace:
    """One namespace of the stack's cluster; LLMDeployments of it use the GPUs of one lane."""

    def __init__(self, stack: Stack, namespace: str, lane: str) -> None:
        self.stack = stack
        self.namespace = namespace
        self.lane = lane
        self.reader = Reader(stack.cluster)

    @property
    def cluster(self) -> Cluster:
        return self.stack.cluster

    @property
    def hardware(self) -> Json:
        """spec.hardware that chooses the lane."""
        return {"nodeSelector": {LANE_LABEL: self.lane}}

    def model(self, name: str = "tiny", *, config: Mapping[str, Any] | None = None, **standin: Any) -> str:
        """Publish a tiny model on the Hub and give its source; `standin` steers the engine that loads it."""
        extra = {**(config or {}), **({"standin": standin} if standin else {})}
        TinyModel(extra_config=extra).write(self.stack.models / self.namespace / name)
        return f"hf://{self.namespace}/{name}"

    def repository(self, name: str = "tiny") -> str:
        """The Hub's id of a model of this workspace."""
        return f"{self.namespace}/{name}"

    def manifest(self, name: str = "llm", *, source: str | None = None, **spec: Any) -> Json:
        """An LLMDeployment of the lane; `model` and `hardware` in `spec` are added to, others replace."""
        model = {"source": source or self.model(), **spec.pop("model", {})}
        hardware = {**self.hardware, **spec.pop("hardware", {})}
        return {
            "apiVersion": "stowage.dev/v1alpha1",
            "kind": "LLMDeployment",
            "metadata": {"name": name},
            "spec": {"model": model, "hardware": hardware, **spec},
        }

    def apply(self, *objects: Mapping[str, Any]) -> None:
        """`kubectl apply` in the namespace."""
        self.cluster.apply(*objects, namespace=self.namespace)

    def deploy(self, name: str = "llm", **spec: Any) -> None:
        """Apply an LLMDeployment (see `manifest`)."""
        self.apply(self.manifest(name, **spec))

    def serve(self, name: str = "llm", **spec: Any) -> None:
        """Apply an LLMDeployment and wait until it is Ready."""
        self.deploy(name, **spec)
        self.wait_ready(name)

    def kubectl(self, *arguments: str, **options: Any) -> str:
        """Run kubectl in the namespace and give what it printed."""
        return self.cluster.kubectl(*arguments, "-n", self.namespace, **options).stdout

    def get(self, plural: str, name: str) -> Json | None:
        return self.reader.get(plural, name, self.namespace)

    def need(self, plural: str, name: str = "llm") -> Json:
        """An object that has to be there."""
        found = self.get(plural, name)
        assert found is not None, f"{plural}/{name} is not there\n{self.explain()}"
        return found

    def pods(self, name: str = "llm") -> list[Json]:
        """The server pods of an LLMDeployment, those that are on their way out included."""
        selector = f"stowage.dev/name={name},stowage.dev/role=server"
        return self.reader.items("pods", self.namespace, labelSelector=selector)

    def pod_uids(self, name: str = "llm") -> set[str]:
        return {pod["metadata"]["uid"] for pod in self.pods(name)}

    def rendered(self) -> list[str]:
        """Everything in the namespace that Stowage made, as `plural/name`."""
        return sorted(
            f"{plural}/{item['metadata']['name']}"
            for plural in CHILDREN
            for item in self.reader.items(plural, self.namespace, labelSelector=OURS)
        )

    def status(self, name: str = "llm") -> Json:
        resource = self.get("llmdeployments", name) or {}
        return resource.get("status") or {}

    def condition(self, kind: str, name: str = "llm") -> tuple[str, str, str]:
        """Status, reason and message of a condition that speaks about the current generation; else empty."""
        resource = self.get("llmdeployments", name) or {}
        generation = (resource.get("metadata") or {}).get("generation")
        for item in (resource.get("status") or {}).get("conditions") or ():
            if item["type"] == kind and item.get("observedGeneration") == generation:
                return item["status"], item["reason"], item["message"]
        return "", "", ""

    def wait(self, what: str, reached: Callable[[], T], seconds: float = PATIENCE_SECONDS) -> T:
        """Wait for anything in this namespace."""
        return wait_until(reached, what, seconds, self.explain)

    def wait_condition(self, kind: str, status: str, reason: str = "", name: str = "llm") -> str:
        """Wait for a condition of the current generation; gives its message."""

        def reached() -> tuple[str, str, str] | None:
            found = self.condition(kind, name)
            return found if found[0] == status and reason in ("", found[1]) else None

        found = self.wait(f"{kind}={status} {reason} of {name}", reached)
        return found[2] if found else ""

    def wait_ready(self, name: str = "llm", seconds: float = PATIENCE_SECONDS) -> None:
        self.wait(f"{name} to be ready", lambda: self.condition("Ready", name)[0] == "True", seconds)

    def wait_gone(self, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until nothing is left that Stowage made here."""
        self.wait("everything to be gone", lambda: not self.rendered(), seconds)

    def ask(self, name: str = "llm", tokens: int = 4) -> Json:
        """A chat completion through the Service (on plain loopback, which has none, at a pod)."""
        host = self.need("services", name)["spec"]["clusterIP"]
        if not self.cluster.namespace.isolated:
            host = self.pods(name)[0]["status"]["podIP"]
        messages = [{"role": "user", "content": "Does it fit?"}]
        body = {"model": name, "messages": messages, "max_tokens": tokens, "ignore_eos": True}
        completion: Json = json.loads(self.fetch(host, 8000, "/v1/chat/completions", body))
        return completion

    def fetch(self, host: str, port: int, path: str, body: Json | None = None) -> str:
        """What an address of the cluster's network answers, which has to be 200."""
        connection = InsideConnection(self.cluster.namespace, host, port, timeout_seconds=180.0)
        try:
            if body is None:
                connection.request("GET", path)
            else:
                connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        assert answer.status == 200, f"{path}: {answer.status} {text}"
        return text

    def clear(self) -> None:
        """Ask for the end of everything here; pods need not finish their requests."""
        everything = ("llmd,deployments,pods", "--all", "--grace-period=0", "--force", "--wait=false")
        self.kubectl("delete", *everything, check=False)

    def explain(self) -> str:
        """What somebody who looks for the cause would look at."""
        lines = [
            f"{plural}/{item['metadata']['name']} {json.dumps(item.get('status'), indent=1)}"
            for plural in ("llmdeployments", "pods")
            for item in self.reader.items(plural, self.namespace)
        ]
        lines += [f"--- log of {name}\n{service.tail(15)}" for name, service in self.stack.services.items()]
        return "\n".join(lines)
