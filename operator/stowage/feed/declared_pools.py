"""Reads the file in which a person declares the node pools that an autoscaler can grow.

The file is mounted from a ConfigMap and read once, at the start: a plan must not change because a file did.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from stowage.hardware.pool_file import PoolError, read_pools
from stowage.hardware.pools import Pool


def read_declared_pools(path: str) -> tuple[Pool, ...]:
    """Read a YAML file with one key, `pools`; raises PoolError with one sentence that names the file."""
    try:
        data = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise PoolError(f"{path} cannot be read ({error.strerror}); name an existing file.") from error
    except UnicodeDecodeError as error:
        raise PoolError(f"{path} is not UTF-8 text; name a YAML file.") from error
    except yaml.YAMLError as error:
        raise PoolError(f"{path} is not valid YAML; correct it.") from error
    if not isinstance(data, dict) or set(data) != {"pools"}:
        raise PoolError(f"{path} does not hold pools; write pools: and below it a list of pools.")
    try:
        return read_pools(data["pools"])
    except PoolError as error:
        raise PoolError(f"{path}: {error}") from None
