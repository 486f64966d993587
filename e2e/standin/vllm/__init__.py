"""A stand-in for vLLM 0.32.0: its options, start-up lines, endpoints and metrics, with no model behind them.

Why: simulated GPU nodes cannot run the real engine, and faults must be had on demand and in milliseconds.
It is put on `PYTHONPATH` in place of vLLM and started in the same way. It runs on the standard library
alone.
It must never pass for the real engine: its log, `/version` and every answer say what it is.
"""

from __future__ import annotations

__version__ = "0.32.0"
