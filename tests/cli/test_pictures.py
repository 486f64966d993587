"""Pictures: nothing lies outside the sheet, no words lie on others, and what a colour says is written too."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from functools import cache
from itertools import combinations
from pathlib import Path

import pytest

from stowage.commands import svg
from stowage.commands.memory.options import MemoryOptions
from stowage.commands.memory.parts import memory_parts
from stowage.commands.memory.picture import picture as memory_picture
from stowage.commands.memory.question import MemoryQuestion, read_question
from stowage.commands.plan.picture import picture as plan_picture
from stowage.memory.budget import rank_ledgers, tightest
from stowage.memory.ledger import Ledger
from tests.cli.support import stowage
from tests.model.support import MODELS
from tools.planning_examples import EXAMPLES, answered

NAMESPACE = "{http://www.w3.org/2000/svg}"
LARGE = str(MODELS / "meta-llama--Meta-Llama-3.1-70B")
SHAPES = {
    "a shape that fits": MemoryOptions(model=LARGE, gpu="H100", tensor_parallel_size=4, max_model_len=32768),
    "two stages": MemoryOptions(model=LARGE, gpu="L40S", tensor_parallel_size=4, pipeline_parallel_size=2),
    "a shape that does not fit": MemoryOptions(model=LARGE, gpu="L4", tensor_parallel_size=4),
    "sixteen GPUs": MemoryOptions(model=LARGE, gpu="L4", tensor_parallel_size=16),
}
Box = tuple[float, float, float, float]
"""Left, top, right and bottom in pixels."""


@cache
def ledgers_of(name: str) -> tuple[MemoryQuestion, tuple[Ledger, ...]]:
    question = read_question(SHAPES[name])
    assert isinstance(question, MemoryQuestion)
    ledgers = rank_ledgers(question.profile, question.shape, question.device, question.version)
    assert isinstance(ledgers, tuple)
    return question, ledgers


@cache
def drawn(name: str) -> ElementTree.Element:
    if name in SHAPES:
        return ElementTree.fromstring(memory_picture(*ledgers_of(name)))
    example = next(each for each in EXAMPLES if each.name == name)
    request, plan = answered(example)
    return ElementTree.fromstring(plan_picture(request.profile.source, plan))


def texts(root: ElementTree.Element) -> Iterator[tuple[str, Box]]:
    for element in root.iter(f"{NAMESPACE}text"):
        words, size = element.text or "", float(element.get("font-size", "13"))
        width = svg.text_width(words) * size / 13
        left, base = float(element.get("x", "0")), float(element.get("y", "0"))
        left -= {"start": 0.0, "middle": width / 2, "end": width}[element.get("text-anchor", "start")]
        yield words, (left, base - 0.8 * size, left + width, base + 0.2 * size)


PICTURES = pytest.mark.parametrize("name", [*SHAPES, *(example.name for example in EXAMPLES)])


@PICTURES
def test_no_words_lie_on_others_or_outside_the_sheet(name: str) -> None:
    root = drawn(name)
    _, _, width, height = (float(number) for number in root.get("viewBox", "").split())
    found = list(texts(root))
    for words, (left, top, right, bottom) in found:
        assert left >= 0, words
        assert top >= 0, words
        assert right <= width, words
        assert bottom <= height, words
    for (first, one), (second, other) in combinations(found, 2):
        apart = one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
        assert apart, (first, second)


@PICTURES
def test_bars_lie_on_the_sheet(name: str) -> None:
    root = drawn(name)
    width = float(root.get("width", "0"))
    bars = [element for element in root.iter(f"{NAMESPACE}rect") if element.get("x")]
    assert bars
    assert all(float(bar.get("x", "")) + float(bar.get("width", "")) <= width for bar in bars)


@pytest.mark.parametrize("name", SHAPES)
def test_every_part_of_the_memory_is_written_with_its_size(name: str) -> None:
    _, ledgers = ledgers_of(name)
    written = [words for words, _ in texts(drawn(name))]
    for part, amount in memory_parts(tightest(ledgers)).items():
        assert not amount or f"{part} {amount / 2**30:.2f} GiB" in written


def test_what_goes_beyond_the_gpu_is_hatched_and_its_end_is_named() -> None:
    for name in SHAPES:
        hatched = [bar for bar in drawn(name).iter(f"{NAMESPACE}rect") if bar.get("fill") == "url(#hatch)"]
        ends = [words for words, _ in texts(drawn(name)) if words == "end of the GPU: 22.0 GiB"]
        assert (len(hatched), len(ends)) == ((4, 1) if name == "a shape that does not fit" else (0, 0))


def test_many_gpus_that_are_alike_share_a_bar() -> None:
    written = [words for words, _ in texts(drawn("sixteen GPUs"))]
    assert [words for words in written if words.startswith("GPU ")] == ["GPU 0-15"]


def test_a_picture_may_be_a_page(tmp_path: Path) -> None:
    path = tmp_path / "memory.html"
    code, _, _ = stowage("memory", "--model", LARGE, "--gpu", "L4", "--picture", str(path))
    page = path.read_text(encoding="utf-8")
    assert code == 1
    assert page.startswith("<!doctype html>")
    assert "prefers-color-scheme: dark" in page
    assert page.count("<svg ") == page.count("</svg>") == 1


@pytest.mark.parametrize(
    ("name", "words"),
    [
        pytest.param("memory.png", "let the name end with .svg or .html", id="a form that is not drawn"),
        pytest.param("nowhere/memory.svg", "there is no folder", id="a folder that does not exist"),
    ],
)
def test_a_picture_that_cannot_be_written_ends_the_command_before_it_answers(
    tmp_path: Path, name: str, words: str
) -> None:
    code, out, err = stowage("memory", "--model", LARGE, "--gpu", "L4", "--picture", str(tmp_path / name))
    assert (code, out) == (2, "")
    assert words in err
