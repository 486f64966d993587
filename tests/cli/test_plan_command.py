"""`stowage plan`: the same plan without a cluster, and one clear sentence for every bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.cli.support import make_files, manifest, run, stowage, write
from tests.hardware.objects import gpu_node, node, pod, quota
from tests.planning.builders import inventory_of, llama_8b, llama_config, make_plan, mixed_nodes

L4 = "NVIDIA-L4"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    return make_files(tmp_path)


def test_a_plan_that_fits_ends_with_0(files: Path) -> None:
    code, out, _ = run(files, "plan")
    assert code == 0
    assert "Plan       1x NVIDIA-L4 (tp1) on l4" in out


def test_json_and_yaml_hold_the_plan_that_the_operator_would_make(files: Path) -> None:
    expected = make_plan(llama_8b(), inventory_of(mixed_nodes())).plan
    assert expected is not None
    _, as_json, _ = run(files, "plan", "-o", "json")
    _, as_yaml, _ = run(files, "plan", "-o", "yaml")
    document = json.loads(as_json)
    assert yaml.safe_load(as_yaml) == document
    assert document["fits"] is True
    assert document["plan"]["settings"] == json.loads(expected.to_json())["settings"]
    assert document["statusPlan"]["gpus"] == "1x NVIDIA-L4"


def test_a_plan_that_does_not_fit_ends_with_1(files: Path) -> None:
    write(files / "small.yaml", gpu_node("n", "NVIDIA-GeForce-RTX-3070", 1))
    code, out, _ = run(files, "plan", inventory="small.yaml")
    assert code == 1
    assert "Refused    InsufficientMemory" in out
    assert "Would fit" in out


def test_a_field_that_is_not_supported_ends_with_1_in_every_form(files: Path) -> None:
    write(files / "native.yaml", manifest(scaling={"mode": "Native"}))
    code, out, _ = run(files, "plan", manifest="native.yaml")
    assert code == 1
    assert "NotSupported" in out
    code, out, _ = run(files, "plan", "-o", "json", manifest="native.yaml")
    assert (code, json.loads(out)["reason"]) == (1, "NotSupported")


def test_several_fields_that_are_not_supported_have_a_line_each(files: Path) -> None:
    example = Path(__file__).resolve().parents[2] / "examples" / "full.yaml"
    code, out, _ = run(files, "plan", manifest=str(example))
    first, *lines = out.splitlines()
    assert code == 1
    assert first == f"Refused    NotSupported: {len(lines)} fields of the manifest."
    assert len(lines) > 5
    assert all(line.startswith("  - spec.") for line in lines)
    code, out, _ = run(files, "plan", "-o", "json", manifest=str(example))
    assert (code, json.loads(out)["reason"]) == (1, "NotSupported")


def test_an_architecture_that_is_not_supported_ends_with_1(files: Path) -> None:
    (files / "model" / "config.json").write_text(
        json.dumps(llama_config(architectures=["NoSuchForCausalLM"]))
    )
    code, out, _ = run(files, "plan")
    assert code == 1
    assert "UnsupportedArchitecture" in out


def test_pods_and_quotas_in_the_inventory_count_and_own_pods_do_not(files: Path) -> None:
    gpus = {"nvidia.com/gpu": "4"}
    own = pod("llama-0", gpus, on="l4", owner="llama")
    write(files / "own.yaml", *mixed_nodes(), own)
    assert "NVIDIA-L4 (tp1)" in run(files, "plan", inventory="own.yaml")[1]
    write(files / "taken.yaml", {"kind": "List", "items": [*mixed_nodes(), pod("x", gpus, on="l4")]})
    assert "NVIDIA-L40S (tp1)" in run(files, "plan", inventory="taken.yaml")[1]
    write(files / "quota.yaml", *mixed_nodes(), quota("team", {"requests.nvidia.com/gpu": "0"}))
    code, out, _ = run(files, "plan", inventory="quota.yaml")
    assert code == 1
    assert "QuotaExceeded" in out


def test_a_typed_list_as_on_the_wire_is_read(files: Path) -> None:
    items = [{key: value for key, value in each.items() if key != "kind"} for each in mixed_nodes()]
    write(files / "list.yaml", {"apiVersion": "v1", "kind": "NodeList", "items": items})
    assert run(files, "plan", inventory="list.yaml")[0] == 0


def test_class_cpu_works_offline(files: Path) -> None:
    write(files / "cpu.yaml", manifest(hardware={"class": "CPU"}))
    write(files / "laptop.yaml", node("laptop", memory="64Gi"))
    code, out, _ = run(files, "plan", manifest="cpu.yaml", inventory="laptop.yaml")
    assert code == 0
    assert "Plan       CPU on laptop" in out


def test_one_of_several_manifests_is_named(files: Path) -> None:
    write(files / "two.yaml", manifest("one"), manifest("two", hardware={"gpus": ["H100"]}))
    code, _, err = run(files, "plan", manifest="two.yaml")
    assert code == 2
    assert "2 objects" in err
    code, out, _ = run(files, "plan", "--name", "two", manifest="two.yaml")
    assert code == 0
    assert "NVIDIA-H100" in out


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        pytest.param("llama.yaml", None, "cannot be read", id="no manifest"),
        pytest.param("llama.yaml", "spec: [", "is not valid YAML", id="a manifest that is not YAML"),
        pytest.param(
            "llama.yaml", "kind: Pod\nmetadata: {name: a}", "holds no object of kind", id="another kind"
        ),
        pytest.param("llama.yaml", "- 1\n- 2", "not a Kubernetes object", id="a list of numbers"),
        pytest.param(
            "llama.yaml",
            "kind: LLMDeployment\nmetadata: {name: a}\nspec: {model: {source: 'hf://a/b'}, replicsa: 2}",
            "spec.replicsa is not a field",
            id="a field with a typing error",
        ),
        pytest.param(
            "llama.yaml",
            "kind: LLMDeployment\nmetadata: {name: a}\nspec: {}",
            "spec.model is required",
            id="a manifest without a model",
        ),
        pytest.param("nodes.yaml", None, "cannot be read", id="no inventory"),
        pytest.param(
            "nodes.yaml", "kind: Pod\nmetadata: {name: a}", "holds no Node", id="an inventory without nodes"
        ),
        pytest.param(
            "nodes.yaml",
            "kind: Node\nmetadata: {name: a}\nstatus: {allocatable: {memory: much}}",
            "'much' is not a Kubernetes quantity",
            id="an amount that is not a quantity",
        ),
        pytest.param(
            "nodes.yaml",
            "kind: Node\nmetadata: {name: a}\nstatus: {allocatable: [1]}",
            "not in the form",
            id="a node of another form",
        ),
        pytest.param("model/config.json", None, "config.json", id="no config.json"),
        pytest.param("model/config.json", "{", "config.json", id="a broken config.json"),
        pytest.param(
            "model/config.json",
            '{"architectures": ["LlamaForCausalLM"]}',
            "hidden_size",
            id="a config.json that lacks a field",
        ),
    ],
)
def test_bad_input_ends_with_2_and_one_sentence(
    files: Path, name: str, content: str | None, words: str
) -> None:
    if content is None:
        (files / name).unlink()
    else:
        (files / name).write_text(content)
    code, out, err = run(files, "plan")
    assert code == 2
    assert out == ""
    assert words in err
    assert "Traceback" not in err
    assert err.startswith("stowage: ")


def test_a_volume_needs_a_folder_with_the_model(files: Path) -> None:
    write(files / "pvc.yaml", manifest(model={"source": "pvc://models/llama"}))
    code, _, err = stowage("plan", "-f", str(files / "pvc.yaml"), "--inventory", str(files / "nodes.yaml"))
    assert code == 2
    assert "--model-dir" in err


def test_a_missing_option_is_bad_input() -> None:
    assert stowage("plan")[0] == 2


def test_the_command_runs_as_a_module(files: Path) -> None:
    assert L4 in run(files, "plan", "-o", "table")[1]
