"""The agent's command ``accuracy``: one check from its file to its report.

The report goes into the termination message, where it stays readable after the pod's end; a check that could not
measure leaves a documented reason there instead, and a non-zero exit code.
"""

from __future__ import annotations

import traceback

from stowage_runtime.accuracy.bounds import CONFIDENCE
from stowage_runtime.accuracy.engine_run import EngineRuns
from stowage_runtime.accuracy.measurement import Measured, compare
from stowage_runtime.accuracy.prompts import PromptSet, read_prompts
from stowage_runtime.agent import Surroundings
from stowage_runtime.contract import AccuracyCheck, AccuracyReport, ContractError, Termination
from stowage_runtime.failures import AgentFailure, StopRequested

_STOPPED = 143  # what a process that SIGTERM has ended leaves behind


def check_accuracy(path: str, around: Surroundings) -> int:
    """Run the check that the file describes; returns the exit code of the container."""
    try:
        report = _measure(_read_check(path), around)
    except StopRequested:
        around.log("asked to stop before the check was done")
        return _STOPPED
    except AgentFailure as failure:
        around.termination.write(failure.termination)
        return 1
    except Exception as error:
        around.log(traceback.format_exc())
        message = f"The accuracy check itself failed: {type(error).__name__}: {error}"
        around.termination.write(Termination(reason="EngineExited", message=message))
        return 1
    finally:
        around.processes.ignore_stop()
        around.processes.watch(None)
        around.processes.end_all()
    around.termination.write_line(report.to_line())
    return 0


def _read_check(path: str) -> AccuracyCheck:
    try:
        with open(path, "rb") as file:
            return AccuracyCheck.from_json(file.read())
    except OSError as error:
        raise AgentFailure("InvalidLaunchSpec", f"{path} cannot be read: {error}.") from None
    except ContractError as error:
        raise AgentFailure("InvalidLaunchSpec", f"{path} is no accuracy check: {error}") from None


def _measure(check: AccuracyCheck, around: Surroundings) -> AccuracyReport:
    found = read_prompts(check.prompts_path, needs_reference=check.baseline is None)
    if not around.host:
        raise AgentFailure("InvalidLaunchSpec", "POD_IP is not set; the pod must set it from status.podIP.")
    around.log(f"accuracy check {check.check_id[:10]} on {len(found.prompts)} prompts")
    engines = EngineRuns(around, check.parallel_requests)
    measured = compare(found.prompts, check.baseline, check.candidate, check.answer_tokens, engines.open)
    return _report(check, found, measured, "simulated" if "simulated" in engines.kinds else "vllm")


def _report(check: AccuracyCheck, found: PromptSet, measured: Measured, kind: str) -> AccuracyReport:
    return AccuracyReport(
        check_id=check.check_id,
        message=_sentence(measured, len(found.prompts)),
        prompts=len(found.prompts),
        prompts_digest=found.digest,
        confidence=CONFIDENCE,
        engine_kind=kind,
        answers=measured.answers,
        likelihood=measured.likelihood,
        notes=measured.notes,
    )


def _sentence(measured: Measured, prompts: int) -> str:
    parts = []
    if measured.likelihood is not None:
        parts.append(
            f"a token of the baseline's answers is {measured.likelihood.drop:.2%} less likely on average"
        )
    if measured.answers is not None:
        figures = measured.answers
        parts.append(
            f"{figures.candidate_right} of {figures.compared} answers right, {figures.baseline_right} before"
        )
    return f"{prompts} prompts: " + "; ".join(parts or ["nothing could be compared"]) + "."
