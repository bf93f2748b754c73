"""The last lines of a run: how it ended, why rows failed, and what to type next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from enrich.base.command import Command
    from enrich.config import Config, StepConfig
    from enrich.records import Summary, Trouble

CAUSES_MOST = 5  # causes told; the rest is summed up
SANDBOX_NOTE = "sandbox: answers are made up, nothing was charged"

FIGURES = {
    "accuracy": "accuracy",
    "normalised": "normalised match",
    "kappa": "κ",
    "alpha": "α",  # noqa: RUF001  # its Greek letter
    "mae": "mean absolute error",
    "bias": "bias",
}  # of agreement with gold columns, in words
WORTH_SAYING = 5.0  # seconds of a run from which it is said what held it up


def closing(summary: Summary, command: Command, config: Config) -> str:
    """Say how a run ended, why rows failed if some did, and what to type next when it did not end well.

    Args:
        summary: of the run.
        command: that ran, or a `run` of the same job.
        config: the job, whose settings decide what helps.
    """
    from enrich.base.words import counted

    spent = f"{counted(summary.requests, 'request')} sent"
    if summary.credits and not summary.sandbox:
        spent += f", {summary.credits:,.6g} credits"
    took = f"{summary.seconds:,.1f} s"
    if summary.exit_code in (0, 3):
        lines = [f"{summary.reason}: {spent}, {took} → {summary.output}"]
        if summary.bound_by is not None and summary.seconds >= WORTH_SAYING:
            lines.append(f"bound by {summary.bound_by['text']}; to go faster: {summary.bound_by['change']}")
    else:
        lines = [f"{summary.reason[:1].upper()}{summary.reason[1:]} ({spent}, {took})"]
    lines += _waste(summary.waste)
    if spared := _spared(summary.waste):
        lines.append(f"votes: {counted(spared, 'request')} not needed, the majority was certain")
    lines += _caches(summary, config)
    lines += gold_lines(summary.gold or {})
    lines += [_promise(name, said) for name, said in (summary.guarantee or {}).items()]
    lines += _causes(summary, command, config)
    if summary.reused:
        lines.append(
            f"{counted(summary.reused, 'row')} keep an answer that was given under an earlier schema (`reuse: true`)"
        )
    if summary.unknown_finish:
        lines.append(_unknown_finish(summary.unknown_finish, command))
    if summary.sandbox:
        lines.append(SANDBOX_NOTE)
    if summary.exit_code == 3:
        lines.append(f"Hint: `{command.but('show', '--failed')}` shows these rows.")
    return "\n".join(lines)


def _caches(summary: Summary, config: Config) -> Iterator[str]:
    """Say where a prompt cache did not do what it could."""
    if summary.waste is not None and summary.waste["saved"]["cache"]["by"]:
        from enrich.report.waste import unread_caches

        yield from unread_caches(summary.waste, config.endpoint.cache_from)


USES = {
    "reasked": "answers that were asked again",
    "invalid_output": "answers that do not fit",
    "truncated": "truncated ones",
    "cut": "cut streams",
    "filtered": "filtered ones",
    "failed": "rows that failed",
}  # of what was paid for, in words


def _spared(waste: dict[str, Any] | None) -> int:
    """Give how many requests votes did not need."""
    return int(waste["saved"].get("votes", {}).get("requests", 0)) if waste is not None else 0


def _waste(waste: dict[str, Any] | None) -> Iterator[str]:
    """Say what was paid for and is of no use, if anything was."""
    spent = waste["spent"] if waste is not None else {}
    told = [
        f"{spent[use]['total_tokens']:,} into {words}"
        for use, words in USES.items()
        if use in spent and spent[use]["total_tokens"]
    ]
    if waste is not None and told:
        yield f"of {waste['total']['total_tokens']:,} tokens {', '.join(told)}"


def _promise(step: str, said: dict[str, Any]) -> str:
    """Say which answers of the cheap model stay, and what is promised of all."""
    stay = (
        "no answer of the cheap model stays"
        if said["threshold"] is None
        else f"cheap answers stay from a score of {said['threshold']:g} on"
    )
    return (
        f"  {step}: {stay} ({said['kept']:,} of {said['rows']:,} rows of the sample); at least {said['least']:.4g} of `{said['of']}` "
        f"are right, in {100 * said['sure']:g} of 100 such samples"
    )


def gold_lines(gold: dict[str, dict[str, Any]]) -> list[str]:
    """Say of each column how its answers agree with the values given by hand."""
    return [f"  {column} against {said['gold']}: {_figures(said)}" for column, said in gold.items()]


def _figures(said: dict[str, Any]) -> str:
    left = f", {said['unanswered']:,} more without an answer" if said["unanswered"] else ""
    if not said["n"]:
        return f"no row has both an answer and a value{left}"
    told = []
    for name, words in FIGURES.items():
        if said.get(name) is not None:
            ends = said[f"{name}_ci"]
            told.append(f"{words} {said[name]:.3g}" + (f" ({ends[0]:.3g} to {ends[1]:.3g})" if ends else ""))
    return f"{', '.join(told)}; n = {said['n']:,}{left}"


def _unknown_finish(found: dict[str, int], command: Command) -> str:
    """Tell of answers that may be half ones."""
    from enrich.base.words import counted

    reasons = ", ".join(f"`{reason}`" for reason in list(found)[:CAUSES_MOST])
    return (
        f"{counted(sum(found.values()), 'row')} ok with a finish reason that nobody knows ({reasons}): whether these "
        f"answers are whole shows only to who reads some, with `{command.but('show')}`"
    )


def _causes(summary: Summary, command: Command, config: Config) -> Iterator[str]:
    """Tell why rows failed: how many, which one for example, and what helps against it."""
    from enrich.base.words import counted

    steps = {step.name: step for step in config.steps}
    for cause in summary.causes[:CAUSES_MOST]:
        example = f"row {cause.row:,}" if cause.rows == 1 else f"first in row {cause.row:,}"
        named = cause.code if cause.code == cause.status else f"{cause.status}, {cause.code}"
        said = f": {cause.message}" if cause.message else ""
        yield f"  {counted(cause.rows, 'row')} {named} at step {cause.step}, {example}{said}"
        yield f"    {_remedy(cause, steps[cause.step], command)}"
    further = sum(cause.rows for cause in summary.causes[CAUSES_MOST:])
    if further:
        yield f"  {counted(further, 'row')} for other reasons: the columns ending in _error say why"


def _remedy(cause: Trouble, step: StepConfig, command: Command) -> str:
    """Say what helps against one cause."""
    if not cause.asked:
        return _unasked(cause, step)
    retry = command.but("retry")
    if cause.status == "truncated":
        return _longer(step, retry)
    if cause.status == "filtered":
        return (
            "the model or its filter will not answer these; no run asks them again by itself. Change what they hold, "
            f"or try once more: `{retry.but('retry', '--status', 'filtered')}`"
        )
    if cause.status == "in_doubt":
        return (
            f"`{command.but('run')}` sends them once more under their key, at no second charge, for 23 hours; after "
            f"that you decide: `{retry.but('retry', '--in-doubt', 'resend')}` (may be charged twice) or `skip`"
        )
    if command.verb == "retry" and cause.again:
        return _asked_in_vain(cause, step)
    return _asked_again(cause, step, retry)


def _unasked(cause: Trouble, step: StepConfig) -> str:
    where = f"steps.{step.name}"
    if cause.code == "null_value":
        return (
            f"no request can be made of them: with `{where}.on_null: skip` they are skipped, with `render` the value "
            "is left empty"
        )
    if cause.code == "prompt_too_large":
        return f"no request can be made of them: cut long values in the prompt of {where}, as {{{{ text[:4000] }}}}"
    return f"no request can be made of them: correct the template of {where}, or these rows"


def _longer(step: StepConfig, retry: Command) -> str:
    given = "max_tokens" if step.max_completion_tokens is None else "max_completion_tokens"
    if step.max_tokens is None and step.max_completion_tokens is None:
        return f"set `steps.{step.name}.max_tokens`: the endpoint's own limit cut them off"
    if step.on_truncated == "retry":
        return f"twice the tokens were not enough either: raise `steps.{step.name}.{given}`, or ask for less"
    again = retry.but("retry", "--status", "truncated", "--set", f"steps.{step.name}.on_truncated=retry")
    return f"`{again}` asks those rows again with twice the tokens; a higher `{given}` asks all rows anew"


def _asked_again(cause: Trouble, step: StepConfig, retry: Command) -> str:
    """Say what asks rows again whose answer is wrong, or which have none."""
    if cause.status == "unsupported":
        return _unproved(step, retry)
    is_correctable = cause.status == "invalid_output" and cause.code != "no_content"
    better = "; a higher `reask` asks by itself" if is_correctable else ""
    return f"`{retry}` asks those rows again{better}"


def _unproved(step: StepConfig, retry: Command) -> str:
    """Say what to do about values that do not stand in their source."""
    if step.on_unsupported == "keep":
        again = retry.but(
            "retry", "--status", "unsupported", "--set", f"steps.{step.name}.on_unsupported=reask"
        )
        return f"read some: the model may have made them up. `{again}` asks those rows again, and says why"
    return f"read some; `{retry.but('retry', '--status', 'unsupported')}` asks those rows once more"


def _asked_in_vain(cause: Trouble, step: StepConfig) -> str:
    """Say what helps where asking again has not."""
    if cause.status == "invalid_output":
        return (
            "asked again in vain: say in the prompt what is missing, widen the schema, or try another model"
        )
    if cause.status == "unsupported":
        return "asked again in vain: ask in the prompt for the words of the text as they stand there, or for null"
    return f"asked again in vain: correct what the message says in steps.{step.name}, or in these rows"
