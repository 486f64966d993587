"""Entry point of the zipapp and of ``python -m stowage_runtime``; it hands over to the command line."""

from __future__ import annotations

import sys

from stowage_runtime.cli import main

if __name__ == "__main__":
    sys.exit(main())
