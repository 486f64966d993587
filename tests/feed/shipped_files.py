"""The manifests that users apply."""

from __future__ import annotations

from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
CRD = _ROOT / "crds" / "stowage.dev_llmdeployments.yaml"
RIGHTS = _ROOT / "deploy" / "operator.yaml"
CRD_NAME = "crd/llmdeployments.stowage.dev"
