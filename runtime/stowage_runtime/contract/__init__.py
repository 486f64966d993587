"""What operator and agent say to each other: the one module that both sides import.

Everything here is a frozen dataclass with a strict ``from_json`` and a stable ``to_json``. It must never do
IO, never depend on either side, and fields are only ever added: a live pod may be older than the operator
that reads it.
"""

from __future__ import annotations

from stowage_runtime.contract.accuracy_check import AccuracyCheck
from stowage_runtime.contract.accuracy_report import AccuracyReport, AnswerFigures, LikelihoodFigures
from stowage_runtime.contract.checkpoint_summary import CheckpointSummary, TensorGroup, summarize
from stowage_runtime.contract.fields import ContractError, Record
from stowage_runtime.contract.launch_spec import EngineExpectation, GpuExpectation, LaunchSpec, ModelRef
from stowage_runtime.contract.reasons import TERMINATION_REASONS
from stowage_runtime.contract.runtime_report import (
    PHASES,
    EngineFacts,
    Failure,
    Progress,
    RuntimeReport,
    Utilization,
)
from stowage_runtime.contract.termination import Termination

__all__ = [
    "PHASES",
    "TERMINATION_REASONS",
    "AccuracyCheck",
    "AccuracyReport",
    "AnswerFigures",
    "CheckpointSummary",
    "ContractError",
    "EngineExpectation",
    "EngineFacts",
    "Failure",
    "GpuExpectation",
    "LaunchSpec",
    "LikelihoodFigures",
    "ModelRef",
    "Progress",
    "Record",
    "RuntimeReport",
    "TensorGroup",
    "Termination",
    "Utilization",
    "summarize",
]
