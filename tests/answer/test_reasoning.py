from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrich.answer.reasoning import part


@pytest.mark.parametrize(
    "text",
    [
        "<think>hm</think>Paris",
        "<think>\nhm\n</think>\n\nParis",
        "\n<Thinking>hm</Thinking> Paris",
        "<think type='x'>hm</think>Paris",
        "<reasoning>a</reasoning><think>b</think>Paris",
        "<seed:think>hm</seed:think>Paris",
        "<thought>hm</thought>\nParis",
        "[THINK]hm[/THINK]Paris",
        "◁think▷hm◁/think▷Paris",
        "<|START_THINKING|>hm<|END_THINKING|><|START_RESPONSE|>Paris<|END_RESPONSE|>",
        "<|begin_of_thought|>hm<|end_of_thought|>\n<|begin_of_solution|>Paris<|end_of_solution|>",
        "<unused94>thought\nhm<unused95>Paris",
        "<|channel>thought\nhm<channel|>Paris",
        "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>Paris",
        "<|channel|>final <|constrain|>json<|message|>Paris<|return|>",
        "analysisWe need a city.assistantfinalParis",
        "hm\n</think>\nParis",
        "<inner_monologue>hm</inner_monologue>Paris",
        "<thought_process>hm</thought_process>\nParis",
    ],
)
@pytest.mark.parametrize("anywhere", [True, False])
def test_marks(text: str, anywhere: bool) -> None:
    """The marks of the common models are known, whatever case and white space."""
    assert part(text, anywhere=anywhere) == "Paris"


@pytest.mark.parametrize(
    "text", ["<think>hm", "[THINK]hm", "◁think▷hm", "<|channel|>analysis<|message|>hm", "<think></think>"]
)
def test_nothing_behind(text: str) -> None:
    """Reasoning that is not closed, or that nothing follows, leaves nothing."""
    assert part(text, anywhere=False) == ""


@pytest.mark.parametrize(
    "text",
    [
        "Paris",
        "",
        "Use <think> to open and </think> to close.",
        "a < b and [THINKING]",
        "analysis of the city",
        "<b>Paris</b>",
    ],
)
def test_what_is_no_reasoning(text: str) -> None:
    """A text that only speaks of marks stays as it is."""
    assert part(text, anywhere=False) == text


@pytest.mark.parametrize("name", ["analysis", "reason", "draft", "Rationale"])
@pytest.mark.parametrize("closed", [True, False])
def test_drafts_beside_json(name: str, closed: bool) -> None:
    """Blocks of such names hold no answer where JSON is wanted, closed or not; in a text they may be what was asked for."""
    text = f"<{name}>{{}}" + (f"</{name}>Paris" if closed else "Paris")
    assert part(text, anywhere=True) == ("Paris" if closed else "")
    assert part(text, anywhere=False) == text


def test_marks_within() -> None:
    """Where JSON is wanted, marks count wherever they stand."""
    assert part("Well <think>hm</think> Paris <think>more", anywhere=True) == "Well  Paris "


@given(st.text(), st.text(alphabet="abc {}\n"))
def test_answer_is_an_end_of_the_text(thought: str, said: str) -> None:
    """What is given stands at the end of the text, and parting it again changes nothing."""
    text = f"<think>{thought}</think>{said}"
    answer = part(text, anywhere=False)
    assert text.endswith(answer)
    assert part(answer, anywhere=False) == answer
