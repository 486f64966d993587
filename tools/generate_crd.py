"""Write the CustomResourceDefinition from the models, or with --check say how the file differs.

The only place that turns the definition into YAML. The output is the same bytes for the same models.
"""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

from stowage.api.crd import custom_resource_definition
from tools.generated import run

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_OUTPUT = ROOT / "crds" / "stowage.dev_llmdeployments.yaml"
HEADER = "# Generated from operator/stowage/api by `make crds`; edits here are overwritten.\n"


def render() -> str:
    """Give the file's text."""
    body = yaml.safe_dump(
        custom_resource_definition(), sort_keys=True, allow_unicode=True, width=100, default_flow_style=False
    )
    return HEADER + "---\n" + body


def main(arguments: list[str] | None = None) -> int:
    """Write or check the file; the exit status is 1 when --check finds a difference."""
    return run({DEFAULT_OUTPUT: render}, arguments, description=__doc__ or "")


if __name__ == "__main__":
    sys.exit(main())
