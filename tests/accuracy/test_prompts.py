"""The prompts file: what is read, when an answer is right, and one clear sentence for everything else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stowage_runtime.accuracy.matching import is_right, recorded_is_right
from stowage_runtime.accuracy.prompts import Prompt, parse_prompt, read_prompts
from stowage_runtime.failures import AgentFailure


def folder(tmp_path: Path, content: str | bytes, name: str = "prompts.jsonl") -> str:
    data = content.encode() if isinstance(content, str) else content
    (tmp_path / name).write_bytes(data)
    return str(tmp_path)


def problem(path: str, *, needs_reference: bool = False) -> str:
    with pytest.raises(AgentFailure) as caught:
        read_prompts(path, needs_reference)
    assert caught.value.termination.reason == "InvalidPrompts"
    return caught.value.termination.message


def test_prompts_messages_and_what_is_known_of_answers_are_read(tmp_path: Path) -> None:
    lines = [
        {"prompt": "2 + 2 ="},
        {"messages": [{"role": "user", "content": "Hi"}], "expected": ["hello", "hi"], "maxTokens": 8},
        {"prompt": "Say it", "recorded": "it"},
    ]
    found = read_prompts(folder(tmp_path, "\n\n".join(map(json.dumps, lines)) + "\n"), False).prompts
    assert [each.line for each in found] == [1, 3, 5]
    assert (found[0].text, found[0].has_reference) == ("2 + 2 =", False)
    assert (found[1].expected, found[1].max_tokens) == (("hello", "hi"), 8)
    assert found[2].recorded == "it"


def test_a_single_key_of_any_name_will_do(tmp_path: Path) -> None:
    path = folder(tmp_path, '{"prompt": "a"}', "questions")
    (tmp_path / "..data").mkdir()  # what a mounted ConfigMap has besides its keys
    assert len(read_prompts(path, False).prompts) == 1


@pytest.mark.parametrize(
    ("line", "words"),
    [
        pytest.param("{", "line 1: it is not JSON", id="not JSON"),
        pytest.param('"a"', 'line 1: it is "a"; write an object', id="no object"),
        pytest.param("{}", "either `prompt` or `messages`", id="neither prompt nor messages"),
        pytest.param('{"prompt": "a", "messages": []}', "either `prompt` or `messages`", id="both"),
        pytest.param('{"prompt": ""}', '`prompt` is ""', id="an empty prompt"),
        pytest.param('{"prompt": 5}', "`prompt` is 5", id="a prompt that is a number"),
        pytest.param('{"prompt": "a", "answer": "b"}', "`answer` is not a known key", id="an unknown key"),
        pytest.param('{"messages": [{"content": "a"}]}', "`messages` is", id="a message without a role"),
        pytest.param(
            '{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}',
            "only text is compared",
            id="a picture",
        ),
        pytest.param('{"prompt": "a", "expected": []}', "`expected` is []", id="no expected answer"),
        pytest.param('{"prompt": "a", "expected": [""]}', "`expected` is", id="an empty expected answer"),
        pytest.param('{"prompt": "a", "recorded": 1}', "`recorded` is 1", id="a recorded number"),
        pytest.param('{"prompt": "a", "maxTokens": 0}', "`maxTokens` is 0", id="no token"),
        pytest.param('{"prompt": "a", "maxTokens": true}', "`maxTokens` is true", id="a truth as a number"),
    ],
)
def test_a_bad_line_is_named_with_what_to_write(tmp_path: Path, line: str, words: str) -> None:
    message = problem(folder(tmp_path, line))
    assert message.startswith("The prompts of spec.precision.accuracy.promptsRef cannot be used: ")
    assert words in message
    assert message.endswith(".")
    with pytest.raises(ValueError, match=r"\w"):
        parse_prompt(line, 1)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param("", "it has no line", id="an empty file"),
        pytest.param(b"\xff\xfe", "not UTF-8", id="another encoding"),
        pytest.param("{\n" * 9, "(and 6 more lines)", id="many bad lines"),
        pytest.param('{"prompt": "a"}\n' * 5001, "at most 5000", id="too many prompts"),
    ],
)
def test_a_bad_file_is_told_in_one_sentence(tmp_path: Path, content: str | bytes, words: str) -> None:
    assert words in problem(folder(tmp_path, content))


def test_several_keys_need_one_of_the_right_name(tmp_path: Path) -> None:
    folder(tmp_path, "{}", "a")
    assert "it holds a, b; put the prompts under the key prompts.jsonl" in problem(
        folder(tmp_path, "{}", "b")
    )


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    assert "cannot be read" in problem(str(tmp_path / "none"))


def test_without_a_baseline_every_prompt_needs_a_known_answer(tmp_path: Path) -> None:
    path = folder(tmp_path, '{"prompt": "a", "expected": "b"}\n{"prompt": "c"}')
    assert "line 2: it has neither `expected` nor `recorded`" in problem(path, needs_reference=True)
    assert len(read_prompts(path, needs_reference=False).prompts) == 2


@pytest.mark.parametrize(
    ("expected", "answer", "right"),
    [
        pytest.param("4", "The answer is 4.", True, id="a word of the answer"),
        pytest.param("4", "The answer is 42.", False, id="a part of a word"),
        pytest.param("Paris", "  paris!\n", True, id="another case and punctuation"),
        pytest.param("New York", "It is New\nYork, of course", True, id="words over a line break"),
        pytest.param("-4", "x = -4", True, id="a sign before it"),
        pytest.param("4", "４", True, id="a wide digit"),
        pytest.param("Paris", "London", False, id="something else"),
    ],
)
def test_an_expected_answer_must_stand_in_the_answer_as_words(
    expected: str, answer: str, right: bool
) -> None:
    assert is_right(Prompt(1, "q", None, (expected,)), answer) is right


def test_a_recorded_answer_must_be_the_whole_answer() -> None:
    prompt = Prompt(1, "q", None, (), "It is  Paris.")
    assert is_right(prompt, "it is paris")
    assert not is_right(prompt, "It is Paris, the capital")


@pytest.mark.parametrize(
    ("prompt", "right"),
    [
        pytest.param(Prompt(1, "q", None, ("4",), "5"), False, id="recorded and wrong"),
        pytest.param(Prompt(1, "q", None, ("4",), "It is 4"), True, id="recorded and right"),
        pytest.param(Prompt(1, "q", None, ("4",)), True, id="taken for granted where nothing is recorded"),
        pytest.param(Prompt(1, "q", None, (), "5"), True, id="right by definition where only it is known"),
    ],
)
def test_the_baseline_was_right_as_recorded(prompt: Prompt, right: bool) -> None:
    assert recorded_is_right(prompt) is right
