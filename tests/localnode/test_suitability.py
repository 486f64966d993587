from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from e2e.localnode.context import NodeContext
from e2e.localnode.images import ImageCatalog
from e2e.localnode.inventory import NodeManifest
from e2e.localnode.isolation import Isolation
from e2e.localnode.suitability import refusal

NODE = NodeManifest("gpu-0", {}, {}, (), {}, {"nvidia.com/gpu": "8"})
IMAGES = ImageCatalog([{"image": "fake:*", "engine": "simulated"}, {"image": "real:*", "engine": "real"}], {})
TOKEN = {"name": "kube-api-access", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}
GPU = {"resources": {"limits": {"nvidia.com/gpu": "1"}}}


def refused(container: dict[str, Any], *, mounts: bool = True) -> str:
    isolation = Isolation(("mnt",) if mounts else (), other_users=False, reason="unshare: not permitted")
    context = cast(NodeContext, SimpleNamespace(images=IMAGES, isolation=isolation))
    return refusal({"spec": {"containers": [{"name": "c", "image": "fake:1", **container}]}}, NODE, context)


@pytest.mark.parametrize(
    ("container", "mounts", "sentence"),
    [
        pytest.param({}, True, "", id="a plain pod"),
        pytest.param(GPU, True, "", id="a stand-in on simulated GPUs"),
        pytest.param(
            {**GPU, "image": "real:1"}, True, "is a real engine", id="a real engine on simulated GPUs"
        ),
        pytest.param({"image": "real:1"}, True, "", id="a real engine without GPUs"),
        pytest.param({"tty": True}, True, "spec.containers[0].tty", id="a field that is not implemented"),
        pytest.param({"volumeMounts": [{"name": "v", "mountPath": "/v"}]}, True, "", id="a volume"),
        pytest.param(
            {"volumeMounts": [{"name": "v", "mountPath": "/v"}]},
            False,
            "unshare: not permitted",
            id="a volume where mounts are refused",
        ),
        pytest.param(
            {"volumeMounts": [TOKEN]}, False, "", id="the token that every pod gets is left out there"
        ),
    ],
)
def test_refusal(container: dict[str, Any], mounts: bool, sentence: str) -> None:
    said = refused(container, mounts=mounts)
    assert sentence in said
    assert bool(said) is bool(sentence)
