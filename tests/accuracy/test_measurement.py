"""The phases of a check and the figures that come of them, with an engine made of functions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stowage_runtime.accuracy.figures import drop_of, likelihood_figures
from stowage_runtime.accuracy.measurement import NOTHING_WAS_RIGHT, TOKENIZERS_DIFFER, compare
from stowage_runtime.accuracy.prompts import Prompt
from stowage_runtime.accuracy.scorer import LEAST_LOG_PROBABILITY, Scorer
from stowage_runtime.contract import EngineExpectation, LaunchSpec, ModelRef
from stowage_runtime.engine_client import EngineRequestError
from stowage_runtime.failures import AgentFailure

BASELINE, CANDIDATE = "baseline", "candidate"


def launch(name: str) -> LaunchSpec:
    return LaunchSpec(
        namespace="default",
        name=name,
        served_model_name=name,
        model=ModelRef(kind="pvc", path="/model"),
        engine=EngineExpectation(version="0.32.0", hardware="CPU"),
        args=(),
        env={},
        startup_timeout_seconds=60,
        drain_timeout_seconds=10,
    )


@dataclass
class FakeClient:
    """Answers as vLLM does: tokens are code points, `answers` by prompt, every token is `loss` less likely."""

    answers: dict[str, str]
    loss: float = 0.0
    shift: int = 0
    max_model_len: int = 100
    noise: list[float] = field(default_factory=list)
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    broken: dict[str, Any] = field(default_factory=dict)

    def ask(self, path: str, body: dict[str, Any], timeout_seconds: float) -> dict[str, Any]:
        self.asked.append((path, body))
        if path == "/tokenize":
            text = (
                body["prompt"] if "prompt" in body else "".join(each["content"] for each in body["messages"])
            )
            tokens = [ord(letter) + self.shift for letter in text]
            return {"tokens": tokens, "max_model_len": self.max_model_len, **self.broken}
        if "prompt_logprobs" in body:
            loss = self.loss + (self.noise.pop() if self.noise else 0.0)
            entries = [{str(token): {"logprob": -1.0 - loss}} for token in body["prompt"][1:]]
            return {"choices": [{"prompt_logprobs": [None, *entries], **self.broken}]}
        text = "".join(chr(token - self.shift) for token in body["prompt"])
        answer = self.answers[text][: body["max_tokens"]]
        return {"choices": [{"text": answer, "token_ids": [ord(letter) for letter in answer], **self.broken}]}


class Engines:
    """Opens one engine at a time and remembers in which order."""

    def __init__(self, **clients: FakeClient) -> None:
        self.clients = clients
        self.opened: list[str] = []
        self.is_open = False

    @contextmanager
    def open(self, spec: LaunchSpec, word: str) -> Iterator[Scorer]:
        assert not self.is_open
        assert spec.name == word
        self.opened.append(word)
        self.is_open = True
        client: Any = self.clients[word]
        yield Scorer(client, spec.served_model_name, 1)
        self.is_open = False


def questions(count: int, **known: Any) -> list[Prompt]:
    return [Prompt(index + 1, f"q{index}", None, **known) for index in range(count)]


def answered(prompts: list[Prompt], word: str) -> dict[str, str]:
    return {prompt.text or "": word for prompt in prompts}


def test_one_engine_runs_after_the_other_and_an_equal_candidate_loses_nothing() -> None:
    prompts = questions(12, expected=("yes",))
    engines = Engines(
        baseline=FakeClient(answered(prompts, "yes")), candidate=FakeClient(answered(prompts, "yes"))
    )
    found = compare(prompts, launch(BASELINE), launch(CANDIDATE), 8, engines.open)
    assert engines.opened == [BASELINE, CANDIDATE]
    assert found.likelihood is not None
    assert found.answers is not None
    assert (found.likelihood.drop, found.likelihood.noise, found.likelihood.tokens) == (0.0, 0.0, 36)
    assert (found.answers.lost, found.answers.gained, found.answers.changed_by_noise) == (0, 0, 0)


def test_the_second_run_of_the_baseline_goes_the_other_way() -> None:
    prompts = questions(3)
    client = FakeClient(answered(prompts, "a"))
    compare(
        prompts,
        launch(BASELINE),
        launch(CANDIDATE),
        8,
        Engines(baseline=client, candidate=FakeClient(answered(prompts, "a"))).open,
    )
    scored = [body["prompt"] for _, body in client.asked if "prompt_logprobs" in body]
    assert scored[3:] == scored[:3][::-1]


def test_the_candidate_is_scored_on_the_answers_of_the_baseline() -> None:
    prompts = questions(2)
    candidate = FakeClient(answered(prompts, "other"))
    engines = Engines(baseline=FakeClient(answered(prompts, "mine")), candidate=candidate)
    compare(prompts, launch(BASELINE), launch(CANDIDATE), 8, engines.open)
    scored = ["".join(map(chr, body["prompt"])) for _, body in candidate.asked if "prompt_logprobs" in body]
    assert scored == ["q0mine", "q1mine"]


def test_a_loss_of_likelihood_is_measured_in_shares_of_a_tokens_probability() -> None:
    prompts = questions(12)
    engines = Engines(
        baseline=FakeClient(answered(prompts, "a")), candidate=FakeClient(answered(prompts, "a"), loss=0.1)
    )
    found = compare(prompts, launch(BASELINE), launch(CANDIDATE), 8, engines.open).likelihood
    assert found is not None
    assert found.drop == pytest.approx(drop_of(0.1)) == pytest.approx(0.09516, abs=1e-5)


def test_noise_of_the_baseline_is_told_apart_from_a_loss() -> None:
    prompts = questions(12)
    noisy = FakeClient(answered(prompts, "a"), noise=[0.02 * (index % 2) for index in range(24)])
    engines = Engines(baseline=noisy, candidate=FakeClient(answered(prompts, "a")))
    found = compare(prompts, launch(BASELINE), launch(CANDIDATE), 8, engines.open).likelihood
    assert found is not None
    assert found.noise is not None
    assert 0.005 < found.noise < 0.03


def test_answers_that_went_wrong_are_lost_and_others_gained() -> None:
    prompts = questions(5, expected=("yes",))
    before = {**answered(prompts, "yes"), "q4": "no"}
    after = {**answered(prompts, "yes"), "q0": "no"}
    engines = Engines(baseline=FakeClient(before), candidate=FakeClient(after))
    found = compare(prompts, launch(BASELINE), launch(CANDIDATE), 8, engines.open).answers
    assert found is not None
    assert (found.baseline_right, found.candidate_right, found.lost, found.gained) == (4, 4, 1, 1)
    assert found.drop_low < found.drop == 0.0 < found.drop_high


def test_only_prompts_with_a_known_answer_are_answered_by_the_candidate() -> None:
    prompts = [*questions(2), Prompt(3, "known", None, expected=("yes",))]
    candidate = FakeClient(answered(prompts, "yes"))
    engines = Engines(baseline=FakeClient(answered(prompts, "yes")), candidate=candidate)
    found = compare(prompts, launch(BASELINE), launch(CANDIDATE), 8, engines.open)
    assert found.answers is not None
    assert found.answers.compared == 1
    assert sum("return_token_ids" in body for _, body in candidate.asked) == 1


def test_another_tokenizer_leaves_only_answers_to_compare() -> None:
    prompts = questions(3, expected=("yes",))
    engines = Engines(
        baseline=FakeClient(answered(prompts, "yes")), candidate=FakeClient(answered(prompts, "yes"), shift=1)
    )
    found = compare(prompts, launch(BASELINE), launch(CANDIDATE), 8, engines.open)
    assert (found.likelihood, found.notes) == (None, (TOKENIZERS_DIFFER,))
    assert found.answers is not None


def test_answers_of_which_none_was_right_are_said_to_show_nothing() -> None:
    prompts = questions(3, expected=("yes",))
    engines = Engines(
        baseline=FakeClient(answered(prompts, "no")), candidate=FakeClient(answered(prompts, "no"))
    )
    found = compare(prompts, launch(BASELINE), launch(CANDIDATE), 8, engines.open)
    assert found.notes == (NOTHING_WAS_RIGHT,)


def test_without_a_baseline_recorded_answers_stand_for_it() -> None:
    prompts = [
        Prompt(1, "q0", None, expected=("yes",), recorded="no"),
        Prompt(2, "q1", None, recorded="blue"),
        Prompt(3, "q2", None, expected=("yes",)),
    ]
    engines = Engines(candidate=FakeClient({"q0": "yes", "q1": "red", "q2": "yes"}))
    found = compare(prompts, None, launch(CANDIDATE), 8, engines.open)
    assert found.likelihood is None
    assert found.answers is not None
    assert (found.answers.lost, found.answers.gained, found.answers.baseline_right) == (1, 1, 2)
    assert found.answers.changed_by_noise is None


def test_messages_go_through_the_models_own_template() -> None:
    prompts = [Prompt(1, None, ({"role": "user", "content": "hi"},))]
    client = FakeClient({"hi": "a"})
    engines = Engines(baseline=client, candidate=FakeClient({"hi": "a"}))
    compare(prompts, launch(BASELINE), launch(CANDIDATE), 8, engines.open)
    assert client.asked[0] == (
        "/tokenize",
        {"model": BASELINE, "messages": [{"role": "user", "content": "hi"}]},
    )


@pytest.mark.parametrize(
    ("prompt", "asked"),
    [
        pytest.param(Prompt(1, "q", None), 8, id="the check's own limit"),
        pytest.param(Prompt(1, "q", None, max_tokens=3), 3, id="the line's limit"),
        pytest.param(
            Prompt(1, "q" * 95, None), 4, id="what the context leaves, less one token to score with"
        ),
    ],
)
def test_answers_are_as_long_as_asked_and_as_fits(prompt: Prompt, asked: int) -> None:
    client = FakeClient({prompt.text or "": "a" * 50})
    engines = Engines(baseline=client, candidate=FakeClient({prompt.text or "": "a" * 50}))
    compare([prompt], launch(BASELINE), launch(CANDIDATE), 8, engines.open)
    assert [body["max_tokens"] for _, body in client.asked if "return_token_ids" in body] == [asked]


def test_a_prompt_that_leaves_no_room_for_an_answer_is_named() -> None:
    prompts = [Prompt(7, "q" * 99, None)]
    engines = Engines(baseline=FakeClient({}), candidate=FakeClient({}))
    with pytest.raises(AgentFailure, match="line 7: it has 99 tokens, and the plan serves 100"):
        compare(prompts, launch(BASELINE), launch(CANDIDATE), 8, engines.open)


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param({"tokens": None}, id="no tokens"),
        pytest.param({"token_ids": None}, id="no token ids"),
        pytest.param({"prompt_logprobs": None}, id="no log-probabilities"),
        pytest.param({"prompt_logprobs": [None, {}, {}]}, id="none of the right token"),
    ],
)
def test_an_engine_without_what_is_needed_is_refused(broken: dict[str, Any]) -> None:
    prompts = questions(1)
    engines = Engines(
        baseline=FakeClient(answered(prompts, "a"), broken=broken),
        candidate=FakeClient(answered(prompts, "a")),
    )
    with pytest.raises(EngineRequestError):
        compare(prompts, launch(BASELINE), launch(CANDIDATE), 8, engines.open)


def test_one_absurd_token_counts_for_no_more_than_the_floor() -> None:
    client: Any = FakeClient({}, loss=9998.0)
    assert Scorer(client, "m", 1).score([(1, 2)], [(3,)]) == [(LEAST_LOG_PROBABILITY,)]


@given(
    st.lists(st.lists(st.floats(-20.0, 0.0), min_size=1, max_size=4), min_size=2, max_size=9),
    st.floats(0.0, 5.0),
    st.floats(0.0, 5.0),
)
def test_a_candidate_that_is_less_likely_everywhere_never_drops_less(
    scores: list[list[float]], less: float, still_less: float
) -> None:
    first = [tuple(each) for each in scores]
    near = [tuple(value - less for value in each) for each in scores]
    far = [tuple(value - less - still_less for value in each) for each in scores]
    one, other = likelihood_figures(first, first, near), likelihood_figures(first, first, far)
    assert one is not None
    assert other is not None
    assert other.drop >= one.drop - 1e-9
    assert one.drop >= -1e-9
    assert one.noise == 0.0
