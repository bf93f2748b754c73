"""Parts what a model thought aloud from what it answers, in the marks that common models put around it."""

from __future__ import annotations

import re

_NAMES = (
    r"(?:[a-z]+:)?(?:think|thinking|thoughts?|reasoning|reflection|scratchpad|longcat_think|antthinking"
    r"|(?:inner|internal)_(?:monologue|thoughts?)|(?:thought|thinking|reasoning)_process|chain_of_thought)"
)
# Beside JSON these are no part of the answer either; in a text they may be what was asked for.
_BESIDE_JSON = re.compile(
    r"<(analysis|cot|draft|plan|rationale|reason|reasons)(?:\s[^<>]*)?>.*?(?:</\1\s*>|\Z)",
    re.DOTALL | re.IGNORECASE,
)
# Opening and closing marks: DeepSeek, Qwen, GLM and many more; Magistral; Kimi; Cohere; Sky-T1; MedGemma; Gemma.
_PAIRS = (
    (rf"<({_NAMES})(?:\s[^<>]*)?>", r"</{name}\s*>"),
    (r"\[(THINK|THINKING|REASONING)\]", r"\[/{name}\]"),
    (r"◁(think)▷", r"◁/{name}▷"),
    (r"<\|START_(THINKING)\|>", r"<\|END_{name}\|>"),
    (r"<\|(?:begin_of_)?(thought|thinking|think)\|>", r"<\|(?:end_of_|/){name}\|>"),
    (r"<unused94>(thought)?", r"<unused95>"),
    (r"<\|channel>(thought|analysis)", r"<channel\|>"),
)
_OPEN = re.compile("|".join(f"(?:{opening})" for opening, _ in _PAIRS), re.IGNORECASE)
_ORPHANS = re.compile(
    rf"</{_NAMES}\s*>|\[/THINK(?:ING)?\]|◁/think▷|<\|END_THINKING\|>|<\|(?:end_of_|/)(?:thought|think(?:ing)?)\|>|<unused95>",
    re.IGNORECASE,
)
# gpt-oss speaks in channels; where a server drops the special tokens, their names are left.
_FINAL = re.compile(r"<\|channel\|>final[^\n]{0,40}?<\|message\|>")
_CHANNEL = re.compile(r"\s*(?:<\|start\|>assistant)?<\|channel\|>(?:analysis|commentary)")
_CHANNEL_ENDS = re.compile(r"<\|(?:return|end|call)\|>")
_BARE_CHANNELS = re.compile(r"\s*analysis(?=[A-Z\"'(]).*?assistantfinal", re.DOTALL)
_WRAPPERS = re.compile(
    r"^\s*<\|(?:begin_of_solution|START_RESPONSE)\|>\s*|\s*<\|(?:end_of_solution|END_RESPONSE)\|>\s*$"
)


def part(text: str, *, anywhere: bool) -> str:
    """Give an answer without the reasoning before it; the same text where there is none.

    Reasoning that is not closed leaves nothing: the model never came to its answer.

    Args:
        text: as the model gave it.
        anywhere: whether marks count wherever they stand (JSON is wanted, which is found behind them), and not only
            where reasoning begins a text or its closing mark stands at the end or the beginning of a line.
    """
    if "<" not in text and "[" not in text and "◁" not in text and not text.lstrip().startswith("analysis"):
        return text  # as nearly always
    answer = _behind_channels(text)
    answer = _behind_opened(answer)
    answer = _behind_orphan(answer, anywhere=anywhere)
    if anywhere:
        answer = _without_blocks(answer)
    if answer == text:
        return text
    return _WRAPPERS.sub("", answer).lstrip()


def before(text: str, *, anywhere: bool) -> str | None:
    """Give the reasoning that `part` leaves out, without its marks; None where there is none.

    Args:
        text: as the model gave it.
        anywhere: as for `part`.
    """
    answer = part(text, anywhere=anywhere)
    if answer == text:
        return None
    kept = text.rfind(answer) if answer else len(text)
    thoughts = text[:kept] if kept >= 0 else text
    return _ORPHANS.sub("", _OPEN.sub("", thoughts)).strip() or None


def _behind_channels(text: str) -> str:
    finals = list(_FINAL.finditer(text))
    if finals:
        return _CHANNEL_ENDS.split(text[finals[-1].end() :], maxsplit=1)[0]
    if _CHANNEL.match(text):
        return ""
    bare = _BARE_CHANNELS.match(text)
    return text[bare.end() :] if bare else text


def _closing(opened: re.Match[str]) -> re.Pattern[str]:
    """Give what closes a block that was opened so."""
    for opening, closing in _PAIRS:
        match = re.fullmatch(opening, opened[0], re.IGNORECASE)
        if match:
            return re.compile(closing.replace("{name}", re.escape(match[1] or "")), re.IGNORECASE)
    raise AssertionError(opened[0])


def _behind_opened(text: str) -> str:
    """Leave out blocks at the beginning."""
    while (opened := _OPEN.match(text, len(text) - len(text.lstrip()))) is not None:
        closed = _closing(opened).search(text, opened.end())
        text = text[closed.end() :] if closed else ""
    return text


def _behind_orphan(text: str, *, anywhere: bool) -> str:
    """Leave out what stands before a closing mark that nothing opened: the template had opened it in the prompt."""
    for closed in reversed(list(_ORPHANS.finditer(text))):
        if _OPEN.search(text, 0, closed.start()):
            continue
        before, behind = text[: closed.start()], text[closed.end() :]
        own_line = before.endswith("\n") or behind[:1] in ("", "\n", "\r")
        if anywhere or own_line:
            return behind
    return text


def _without_blocks(text: str) -> str:
    """Leave out blocks wherever they stand, and all that follows one that is not closed."""
    kept: list[str] = []
    at = 0
    while (opened := _OPEN.search(text, at)) is not None:
        kept.append(text[at : opened.start()])
        closed = _closing(opened).search(text, opened.end())
        at = closed.end() if closed else len(text)
    return _BESIDE_JSON.sub("", "".join((*kept, text[at:])))
