"""Command line of the tiny-model generator: `python -m e2e.tinymodel [--family llama] … OUT_DIR`."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from e2e.tinymodel.model import FAMILIES, TinyModel


def main() -> None:
    """Write one tiny model to a folder and say how large it is."""
    parser = argparse.ArgumentParser(prog="python -m e2e.tinymodel", description="write a tiny random model")
    parser.add_argument("directory", type=Path, help="folder to write to; made if missing")
    parser.add_argument("--family", choices=sorted(FAMILIES), default="llama")
    for field in dataclasses.fields(TinyModel):
        if isinstance(field.default, bool):
            parser.add_argument(
                "--" + field.name.replace("_", "-"), action="store_true", default=field.default
            )
        elif isinstance(field.default, int):
            parser.add_argument("--" + field.name.replace("_", "-"), type=int, default=field.default)
    arguments = vars(parser.parse_args())
    directory = arguments.pop("directory")
    try:
        model = TinyModel(**arguments)
    except ValueError as error:
        parser.error(str(error))
    model.write(directory)
    print(f"{directory}: {model.family}, {model.weight_bytes / 1e6:.1f} MB of weights")


if __name__ == "__main__":
    main()
