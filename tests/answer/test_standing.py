"""What stands in a text and what does not: numbers, dates, names and quotations, to the letter and in other spellings."""

from __future__ import annotations

import unicodedata
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrich.answer.plain import plain
from enrich.answer.standing import Standing, Text

LONG = "The utility reads each line of the given files and writes it to standard output, unchanged."


def stands(value: Any, text: str, fuzzy: float = 0.9) -> tuple[str, str | None]:
    """Give the kind of match, and the part of the text."""
    found = Text(text).find(value, fuzzy=fuzzy)
    return found.match, None if found.start is None else text[found.start : found.end]


@pytest.mark.parametrize(
    ("value", "text", "match", "part"),
    [
        (500_000, "we paid 500000.", "exact", "500000"),
        (500_000, "we paid 500,000 USD", "normalised", "500,000"),
        (500_000, "500\u202f000 kr", "normalised", "500\u202f000"),
        (500_000, "CHF500'000", "normalised", "500'000"),
        (1.5, "it is 1.50 m long", "normalised", "1.50"),
        (3.0, "3 of them", "exact", "3"),
        (1234.5, "1.234,50 EUR", "normalised", "1.234,50"),
        (Decimal("0.10"), "0,1 %", "normalised", "0,1"),
        (-5, "at −5 °C", "normalised", "−5"),  # a minus
        (5, "3-5 people", "exact", "5"),
        (5, "rated 5/10", "exact", "5"),
        (2024, "on 2024-03-05", "exact", "2024"),
        (12, "12kg", "exact", "12"),
        (10, "9, 10", "exact", "10"),
        (10**20, "1e20", "normalised", "1e20"),
        ("500000", "500,000", "normalised", "500,000"),
        (date(2024, 3, 5), "on 2024-03-05T10:00", "normalised", "2024-03-05"),
        (date(2024, 3, 5), "on 2024-03-05.", "exact", "2024-03-05"),
        (date(2024, 3, 5), "on 5 March 2024", "normalised", "5 March 2024"),
        (date(2024, 3, 5), "March 5th, 2024", "normalised", "March 5th, 2024"),
        (date(2024, 3, 5), "am 5. März 2024", "normalised", "5. März 2024"),
        (date(2024, 3, 5), "05.03.2024", "normalised", "05.03.2024"),
        (date(2024, 3, 5), "3/5/24", "normalised", "3/5/24"),
        ("Ann", "Ann's house", "exact", "Ann"),
        ("ANN", "met Ann here", "normalised", "Ann"),
        ("Paris", "a Paris-based firm", "exact", "Paris"),
        ("C++", "in C++ and C", "exact", "C++"),
        ("東京", "東京都", "exact", "東京"),
        ("“quoted  text”", "he said 'Quoted\n text' ok", "normalised", "'Quoted\n text'"),
        ("the end", "“The\u00a0end”", "normalised", "The\u00a0end"),
        ("file", "the ﬁle", "normalised", "ﬁle"),
        ("café", "cafe\u0301 au lait", "normalised", "cafe\u0301"),
        ("Straße", "STRASSE 5", "normalised", "STRASSE"),
        ("word", "a wo\u00adrd", "normalised", "wo\u00adrd"),
        ("a - b", "a — b", "normalised", "a — b"),
        ("It was late.", "it was late, and dark", "normalised", "it was late"),
        (LONG.replace("given", "givven"), LONG, "fuzzy", LONG[:-1]),
        ("utility reads line of the given files and writes it", LONG, "fuzzy", LONG[4:60]),
        ("information about the running system", "infor-\nmation about the running system", "fuzzy", "infor-\nmation about the running system"),
    ],
)  # fmt: skip
def test_what_stands_there(value: Any, text: str, match: str, part: str) -> None:
    """A value is found in the spelling that the text has, and its place is that in the text as it came."""
    assert stands(value, text) == (match, part)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (500_000, "5000000"), (500_000, "5,000,000"), (500_000, "1,500,000"), (500_000, "500 million"), (500_000, "2500000"),
        (500, "500,000"), (500, "12 500"), (1.5, "11.5"), (1.5, "1.55"), (1.5, "v1.5.2"), (5, "1.5"), (5, "5.2"),
        (5, ".5"), (5, "-5 C"), (-5, "3-5"), (3, "2024-03-05"), (12, "12k"), (12, "12 million"), (5, "IPv5"), (0.15, "15%"),
        (1, "1,2"), ("1.5", "11.5"), ("1.5", "21.5"), ("500000", "5,000,000"), ("102", "10²"), ("51", "5½"), ("$5", "$50"),
        (date(2024, 3, 5), "15 March 2024"), (date(2024, 3, 5), "5 March 2023"), (date(2024, 3, 5), "2024-03-051"),
        (date(2024, 3, 5), "3/15/2024"), ("2024-03", "2024-03-05"), ("March 5", "March 51"), ("5/3", "5/31"),
        ("Ann", "Annabel"), ("ann", "Joann"), ("Smith", "Smith-Jones"), ("Jones", "Smith-Jones"), ("Brien", "O'Brien"),
        ("European", "non-European"), ("cafe", "cafe\u0301"), ("C", "in C++"), ("--all", "--all-files"), ("art", "start"),
        ("x", ""), ("nobody", "somebody"), ("Jon Smith", "Jan Smith"),
        (LONG.replace("unchanged", "changed"), LONG), (LONG.replace("each", "not each"), LONG),
        (LONG.replace("given", "given 12"), LONG), (LONG.replace("files", "sockets"), LONG),
        (LONG.replace("standard output", "standard error"), LONG), (LONG.replace("writes it", "writes it twice"), LONG),
        (LONG, LONG.replace("unchanged", "not unchanged")),
        ("Yesterday evening the director Johansson resigned", "Yesterday evening the director Johanssen resigned"),
    ],
)  # fmt: skip
def test_what_does_not(value: Any, text: str) -> None:
    """A part of a longer number, date, word or name is none of them; nor is a sentence that says something else."""
    assert stands(value, text) == ("none", None)


def test_fuzzy_is_a_share_of_the_letters() -> None:
    """With 1 every letter counts; a lower share lets more slips pass."""
    slip = LONG.replace("given", "givven")
    assert stands(slip, LONG, 1)[0] == "none"
    several = (
        slip.replace("reads", "readds").replace("standard", "standdard").replace("unchanged", "unchangedd")
    )
    assert (stands(several, LONG, 0.99)[0], stands(several, LONG, 0.9)[0]) == ("none", "fuzzy")


TEXTS = st.text(
    st.one_of(st.sampled_from("ab 1.,'\"-–—“”’\n\t\u00a0\u00adﬁßİ½²é\u0301\u200b가각"), st.characters()),
    max_size=40,
)  # the ones that differ


@given(TEXTS)
def test_plain_places_lead_back(text: str) -> None:
    """Every plain character knows the piece that it stands for; the pieces come in order, and are plain themselves."""
    made = plain(text)
    assert len(made.text) == len(made.starts) == len(made.ends)
    assert made.starts == sorted(made.starts)
    assert all(0 <= start < end <= len(text) for start, end in zip(made.starts, made.ends, strict=True))
    assert "  " not in made.text
    assert made.text == made.text.strip(" ")


@given(TEXTS, TEXTS)
def test_what_is_found_says_the_same(value: str, text: str) -> None:
    """Whatever is said to stand in a text is, in its plain spelling, the part of the text that is named."""
    found = Text(text).find(value, fuzzy=1)
    if found.match == "exact":
        assert text[found.start : found.end] == value.strip()
    elif found.match == "normalised":
        assert isinstance(found, Standing)
        assert found.start is not None
        assert found.end is not None
        assert 0 <= found.start < found.end <= len(text)


WORD = st.text(st.sampled_from("abcdefgh"), min_size=1, max_size=6)


@given(st.lists(WORD, min_size=1, max_size=12), st.data())
def test_words_of_a_text_stand_there_however_they_are_spelled(words: list[str], data: st.DataObject) -> None:
    """Case, white space and Unicode's forms make no difference to words that stand next to each other."""
    start = data.draw(st.integers(0, len(words) - 1))
    end = data.draw(st.integers(start + 1, len(words)))
    text = " \n".join(words)
    quoted = unicodedata.normalize("NFKD", "\u00a0".join(words[start:end]).upper())
    found = Text(text).find(quoted, fuzzy=1)
    assert found.match == "normalised"
    assert plain(text[found.start : found.end]).text == plain(quoted).text


@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_a_number_stands_only_where_it_is_the_whole_one(value: int, other: int) -> None:
    """However a number is grouped, it is found as itself and as no other."""
    for text in (f"about {other} things", f"about {other:,} things", f"{other:_}".replace("_", "\u202f")):
        assert (stands(value, text)[0] != "none") == (value == other)
