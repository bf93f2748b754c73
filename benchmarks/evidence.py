"""Recall and precision of `evidence` on planted quotations: true ones in other spellings, false ones that look like true ones.

The texts are at hand on any machine: the descriptions of the installed Python packages, and man pages where there are some.
Prints one line for each kind of change: how many quotations, and how many are said to stand in their text.
"""

from __future__ import annotations

import argparse
import gzip
import random
import re
import time
from collections import Counter
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from enrich.answer.standing import Text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Change = Callable[[str, random.Random], str | None]

MAN = Path("/usr/share/man")
LONGEST = 20_000  # characters of a text
_WORD = re.compile(r"[A-Za-z]{4,}")
_NUMBER = re.compile(r"(?<![\w.,-])\d+(?![\w.,-])")
_MARKUP = re.compile(r"^[.'].*$|\\f[A-Z]|\\", re.MULTILINE)
COMMON = frozenset(
    [
        "this",
        "that",
        "with",
        "from",
        "they",
        "them",
        "when",
        "then",
        "have",
        "been",
        "will",
        "which",
        "your",
        "into",
        "more",
        "most",
        "some",
        "such",
        "than",
        "only",
        "not",
    ]
)


def texts() -> Iterator[str]:
    """Give the texts."""
    for package in sorted(metadata.distributions(), key=lambda found: found.name or ""):
        yield (package.read_text("METADATA") or "").partition("\n\n")[2][:LONGEST]
    for page in sorted(MAN.glob("man[1-8]/*.gz")):
        yield _MARKUP.sub("", gzip.decompress(page.read_bytes()).decode(errors="replace"))[:LONGEST]


def quotations(text: str, source: random.Random, most: int) -> Iterator[str]:
    """Give runs of 5 to 25 words of a text."""
    words = [match.span() for match in re.finditer(r"\S+", text)]
    for _ in range(most):
        size = source.randint(5, 25)
        if len(words) <= size:
            return
        start = source.randrange(len(words) - size)
        quoted = text[words[start][0] : words[start + size - 1][1]].strip(".,;:!?()[]\"'`*_#-=|<>~+/")
        if len(_WORD.findall(quoted)) >= size // 2 and quoted[:1].isalnum() and quoted[-1:].isalnum():
            yield quoted


# --- true ones: the same words -------------------------------------------------------------------------


def reflowed(quoted: str, source: random.Random) -> str:
    """Break the lines elsewhere."""
    return re.sub(r"\s+", lambda _: source.choice((" ", "\n", "  ", "\u00a0")), quoted)


def other_case(quoted: str, source: random.Random) -> str:
    """Write it in other capitals."""
    return source.choice((quoted.upper(), quoted.lower(), quoted.title()))


def typeset(quoted: str, _: random.Random) -> str | None:
    """Set it with curly quotes, dashes and ligatures."""
    made = quoted.replace("'", "’").replace("-", "\u2011").replace("fi", "ﬁ").replace("...", "…")
    return made if made != quoted else None


def in_quotes(quoted: str, _: random.Random) -> str:
    """Put it in quotation marks, with a full stop."""
    return f"“{quoted}.”"


def misspelt(quoted: str, source: random.Random) -> str | None:
    """Double or swap two letters in one common word."""
    words = [m for m in _WORD.finditer(quoted) if len(m[0]) > 6 and m[0].islower()]
    if not words or len(quoted) < 40:
        return None
    word = source.choice(words)
    at = word.start() + source.randint(2, len(word[0]) - 2)
    return quoted[:at] + quoted[at - 1] + quoted[at:]


def without_article(quoted: str, _: random.Random) -> str | None:
    """Leave an article out."""
    made = re.sub(r"(?<=[a-z] )(?:the|a|an) (?=[a-z])", "", quoted, count=1)
    return made if made != quoted and len(made) > 40 else None


# --- false ones: something else is said -----------------------------------------------------------------


def other_number(quoted: str, source: random.Random) -> str | None:
    """Change a number."""
    found = list(_NUMBER.finditer(quoted))
    if not found:
        return None
    number = source.choice(found)
    changed = source.choice((number[0] + "0", "1" + number[0], str(int(number[0]) + 1)))
    return quoted[: number.start()] + changed + quoted[number.end() :]


def other_word(quoted: str, source: random.Random) -> str | None:
    """Put another word in the place of one."""
    words = [m for m in _WORD.finditer(quoted) if m[0].islower() and m[0] not in COMMON]
    if not words:
        return None
    word = source.choice(words)
    other = source.choice(
        [
            w
            for w in ("remote", "silently", "deprecated", "optional", "windows", "password", "always")
            if w != word[0]
        ]
    )
    return quoted[: word.start()] + other + quoted[word.end() :]


def negated(quoted: str, source: random.Random) -> str | None:
    """Put a negation in, or take one out."""
    if " not " in quoted:
        return quoted.replace(" not ", " ", 1)
    places = [m.start() for m in re.finditer(" ", quoted)]
    at = source.choice(places)
    return f"{quoted[:at]} not{quoted[at:]}"


def contrary(quoted: str, source: random.Random) -> str | None:
    """Make a word its contrary with a syllable."""
    words = [m for m in _WORD.finditer(quoted) if len(m[0]) > 5 and m[0].islower()]
    if not words:
        return None
    word = source.choice(words)
    return quoted[: word.start()] + source.choice(("un", "non", "dis")) + quoted[word.start() :]


def a_word_more(quoted: str, source: random.Random) -> str | None:
    """Put a word in."""
    places = [m.start() for m in re.finditer(" ", quoted)]
    at = source.choice(places)
    return f"{quoted[:at]} {source.choice(('securely', 'recently', 'partially', 'usually'))}{quoted[at:]}"


def cut_short(quoted: str, _: random.Random) -> str | None:
    """End in the middle of a word or number."""
    return quoted[:-1] if len(quoted.rsplit(maxsplit=1)[-1]) > 2 and quoted[-2:].isalnum() else None


def shuffled(quoted: str, source: random.Random) -> str | None:
    """Change the order of the words."""
    words = quoted.split()
    made = " ".join(source.sample(words, len(words)))
    return made if made != " ".join(words) else None


def other_name(quoted: str, _: random.Random) -> str | None:
    """Change the last letters of a name."""
    names = re.findall(r"(?<=[a-z,] )[A-Z][a-z]{3,}\b", quoted)
    return quoted.replace(names[0], names[0][:-2] + "ov") if names and not names[0].endswith("ov") else None


TRUE: tuple[Change, ...] = (
    lambda quoted, _: quoted,
    reflowed,
    other_case,
    typeset,
    in_quotes,
    misspelt,
    without_article,
)
FALSE: tuple[Change, ...] = (
    other_number,
    other_word,
    negated,
    contrary,
    a_word_more,
    cut_short,
    shuffled,
    other_name,
)


def main() -> None:
    """Plant quotations and look them up."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--texts", type=int, default=200)
    parser.add_argument("--each", type=int, default=10, help="quotations of a text")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--fuzzy", type=float, default=0.9)
    parser.add_argument("--show", type=int, default=0, help="wrong verdicts to print")
    options = parser.parse_args()
    source = random.Random(options.seed)  # the same plants every time
    found = [text for text in texts() if len(text) > 500]
    chosen = source.sample(found, min(options.texts, len(found)))
    asked: Counter[tuple[bool, str]] = Counter()
    taken: Counter[tuple[bool, str]] = Counter()
    begun, shown = time.perf_counter(), 0
    for number, text in enumerate(chosen):
        own = Text(text)
        plants = [
            (True, change, quoted) for quoted in quotations(text, source, options.each) for change in TRUE
        ]
        plants += [
            (False, change, quoted) for quoted in quotations(text, source, options.each) for change in FALSE
        ]
        other = chosen[number - 1]
        plants += [(False, elsewhere, quoted) for quoted in quotations(other, source, options.each)]
        for is_true, change, quoted in plants:
            planted = change(quoted, source)
            if planted is None or (not is_true and " ".join(planted.split()) in " ".join(text.split())):
                continue
            name = change.__name__.strip("<>").replace("lambda", "as it is")
            stands = own.find(planted, fuzzy=options.fuzzy).match != "none"
            asked[is_true, name] += 1
            taken[is_true, name] += stands
            if stands != is_true and shown < options.show:
                shown += 1
                print(f"{name}: {planted!r}\n")
    _tell(asked, taken, len(chosen), time.perf_counter() - begun)


def elsewhere(quoted: str, _: random.Random) -> str:
    """Quote another text."""
    return quoted


def _tell(
    asked: Counter[tuple[bool, str]], taken: Counter[tuple[bool, str]], number: int, seconds: float
) -> None:
    print(f"{'planted':<20}{'quotations':>12}{'said to stand there':>22}")
    for (is_true, name), count in asked.items():
        print(
            f"{('true, ' if is_true else 'false, ') + name.replace('_', ' '):<26}{count:>6}{taken[is_true, name]:>22}"
        )
    true = sum(count for (is_true, _), count in asked.items() if is_true)
    right = sum(count for (is_true, _), count in taken.items() if is_true)
    wrong = sum(count for (is_true, _), count in taken.items() if not is_true)
    false = sum(asked.values()) - true
    print(
        f"\n{number} texts; recall {right / true:.4f} ({right:,} of {true:,}), precision {right / (right + wrong):.4f}"
    )
    print(f"false ones found out: {(false - wrong) / false:.4f} ({false - wrong:,} of {false:,})")
    print(f"{1e3 * seconds / (true + false):.2f} ms a quotation")


if __name__ == "__main__":
    main()
