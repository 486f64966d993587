"""Run the command line of `e2e.controlplane`; it must hold nothing else."""

import sys

from e2e.controlplane.cli import main

sys.exit(main())
