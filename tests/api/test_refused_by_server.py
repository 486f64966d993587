"""The real API server refuses nonsense with a sentence, and accepts what is good."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from kubernetes import client, config

from e2e.controlplane.cluster import Cluster
from tests.api.bad_objects import BAD_OBJECTS, BadObject

pytestmark = pytest.mark.cluster

DryRun = Callable[[Mapping[str, Any]], tuple[int, str]]


@pytest.fixture(scope="module")
def dry_run(cluster_with_crd: Cluster) -> DryRun:
    """Create an object as `kubectl create --dry-run=server` does; gives the status code and the message."""
    api_client = config.new_client_from_config(str(cluster_with_crd.kubeconfig))
    api = client.CustomObjectsApi(api_client)

    def create(document: Mapping[str, Any]) -> tuple[int, str]:
        try:
            api.create_namespaced_custom_object(
                "stowage.dev",
                "v1alpha1",
                "default",
                "llmdeployments",
                document,
                dry_run="All",
                field_validation="Strict",
            )
        except client.ApiException as error:
            return error.status, json.loads(error.body)["message"]
        return 201, ""

    return create


@pytest.mark.parametrize("bad", BAD_OBJECTS)
def test_the_server_refuses_with_a_sentence(dry_run: DryRun, bad: BadObject) -> None:
    status, message = dry_run(bad.document())
    assert status in (400, 422), f"answered {status}"
    for text in bad.server:
        assert text in message


def test_the_object_that_the_bad_ones_differ_from_is_accepted(dry_run: DryRun) -> None:
    assert dry_run(BadObject(name="a-name-that-nobody-else-uses").document()) == (201, "")
