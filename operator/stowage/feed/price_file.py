"""Reads the operator's price table from a file, once, when the operator starts.

What the table may say is the planner's business (planning/prices.py); here it is only opened and parsed.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from stowage.api.refusal import Refusal
from stowage.planning.prices import Prices, read_prices


class PriceFileError(Exception):
    """A price table that cannot be used; the message is one sentence."""


def read_price_file(path: str) -> Prices:
    """Read a YAML or JSON file; raises PriceFileError where it is missing, unreadable or not a price table."""
    try:
        document = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise PriceFileError(f"{path} cannot be read: {error}.") from error
    except yaml.YAMLError as error:
        raise PriceFileError(f"{path} is not YAML: {' '.join(str(error).split())}.") from error
    prices = read_prices(document)
    if isinstance(prices, Refusal):
        raise PriceFileError(f"{path}: {prices.sentence}")
    return prices
