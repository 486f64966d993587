"""Without a cluster the same manifests are refused as by the API server, in a sentence that names the field."""

from __future__ import annotations

import pytest

from stowage.api.conditions import Reason
from stowage.api.refusal import Refusal
from stowage.api.v1alpha1 import LLMDeployment, parse_deployment, parse_spec
from tests.api.bad_objects import BAD_OBJECTS, BadObject


@pytest.mark.parametrize("bad", BAD_OBJECTS)
def test_the_parser_refuses_what_the_server_refuses(bad: BadObject) -> None:
    answer = parse_deployment(bad.document())
    assert isinstance(answer, Refusal)
    assert answer.reason is Reason.INVALID_SPEC
    for text in bad.offline or bad.server:
        assert text in answer.message


def test_the_object_that_the_bad_ones_differ_from_is_read() -> None:
    assert isinstance(parse_deployment(BadObject().document()), LLMDeployment)


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        pytest.param([], "The manifest is not an object", id="a list"),
        pytest.param(None, "The manifest is not an object", id="an empty file"),
        pytest.param({"kind": "Deployment"}, 'kind is "Deployment"', id="another kind"),
        pytest.param(
            {"apiVersion": "stowage.dev/v2"}, 'apiVersion is "stowage.dev/v2"', id="another version"
        ),
        pytest.param({"metadata": {"name": "x"}}, "spec is required; add it.", id="no spec"),
        pytest.param({"spec": {}}, "metadata is required; add it.", id="no metadata"),
    ],
)
def test_what_is_no_llmdeployment_is_refused(document: object, sentence: str) -> None:
    answer = parse_deployment(document)
    assert isinstance(answer, Refusal)
    assert sentence in answer.message


def test_many_mistakes_are_told_three_at_a_time() -> None:
    answer = parse_spec({"model": {"source": "x"}, "a": 1, "b": 1, "c": 1, "replicas": -1})
    assert isinstance(answer, Refusal)
    assert answer.message.startswith('spec.model.source is "x": must be')
    assert "spec.replicas is -1:" in answer.message
    assert answer.message.endswith("And 2 more.")


def test_a_status_in_another_form_does_not_hinder_reading_the_spec() -> None:
    document = BadObject().document() | {"status": {"replicas": "many"}}
    deployment = parse_deployment(document)
    assert isinstance(deployment, LLMDeployment)
    assert deployment.status is None


def test_metadata_of_the_server_is_read_and_the_rest_ignored() -> None:
    document = BadObject().document()
    document["metadata"] |= {"uid": "u-1", "generation": 7, "managedFields": [], "resourceVersion": "12"}
    deployment = parse_deployment(document)
    assert isinstance(deployment, LLMDeployment)
    assert (deployment.metadata.uid, deployment.metadata.generation) == ("u-1", 7)
    assert deployment.metadata.resource_version == "12"
