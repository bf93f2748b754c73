"""What a refusal means, in the words of many vendors, servers and gateways: one table of spellings.

A meaning is read from a failure's code, status and message alone, so that what a ledger holds is read anew by a newer
table. Beatra's own codes are among them. Compiled from the vendors' public lists of errors and from servers that were
run; a word that means several things is in no table.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from enrich.records import Failure

Meaning = Literal["key", "balance", "no_model", "no_format", "filtered", "too_long", "unavailable", "limited"]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


KEY = _words(  # the key is not taken: no row can succeed
    """
    unauthorized invalid_api_key tenant_disabled forbidden api_key_region_mismatch
    account_deactivated api_key_expired api_key_invalid auth_error authentication_error authenticationerror
    expired_api_key expired_key incorrect_api_key incorrect_api_key_error invalid_authentication
    invalid_authentication_error invalid_key invalid_token invalidapikey invalidtoken no_db_connection
    token_expired token_not_found_in_db unauthenticated unsupported_country_region_territory
    """
)
BALANCE = _words(  # nothing is left to pay with: no waiting cures it
    """
    insufficient_balance
    accountoverdue accountoverdueerror arrearage arrearageerror balance_exhausted billing_hard_limit_reached
    billing_not_active budget_exceeded credit_balance_exhausted credit_balance_too_low credits_exhausted
    exceeded_budget exceeded_current_quota_error insufficient_credit insufficient_credits insufficient_funds
    insufficient_quota insufficient_user_quota insufficientbalance insufficientquota payment_required
    quota_exhausted spend_limit_exceeded spending_limit_reached
    """
)
NO_MODEL = _words(  # not this model, here: another one may be
    """
    unsupported_model
    deploymentnotfound invalid_model invalidendpointormodel.notfound key_model_access_denied model_access_denied
    model_archived model_decommissioned model_deprecated model_disabled model_invalid model_not_available
    model_not_exist model_not_found model_not_loaded model_not_supported model_offline model_permission_denied
    model_retired model_terms_required modelnotfound modelnotfoundexception modelnotopen no_such_model
    org_model_access_denied project_model_access_denied team_model_access_denied unknown_model user_model_access_denied
    """
)
UNAVAILABLE = _words(  # this model, just now: nothing was done, and another one may be there
    """
    model_unavailable
    model_busy model_loading model_not_ready model_overloaded model_starting modelnotready modelnotreadyexception
    """
)
FILTERED = _words(  # this row's text was withheld, before or instead of an answer
    """
    content_blocked content_filter content_filtered content_policy_violation contentfilter contentfiltererror
    contentpolicyviolationerror data_inspection_failed datainspectionfailed moderation_blocked prohibited_content
    responsibleaipolicyviolation safety_violation sensitive_content
    """
)
TOO_LONG = _words(  # this row's prompt is more than the model takes
    """
    context_length_exceeded context_window_exceeded contextwindowexceedederror exceed_context_size_error
    prompt_too_long string_above_max_length
    """
)
NO_FORMAT = frozenset({"unsupported_response_format", "response_format_not_supported"})
LIMITED = (
    _words(  # fewer requests are asked for, though no 429 says it: AWS and Google, and errors within a stream
        """
    rate_limited
    limit_exceeded rate_limit_error rate_limit_exceeded ratelimiterror ratelimitexceeded requestlimitexceeded
    resource_exhausted throttled throttledexception throttling throttlingexception too_many_requests toomanyrequests
    toomanyrequestsexception userratelimitexceeded
    """
    )
)
_LIMITING = frozenset({200, 400, 403})  # statuses under which they say so

_PASSING = frozenset(
    {408, 409, 425, 499, 502, 503, 504, 529}
)  # statuses of what passes: no message speaks of lasting things

_KEY_SAID = re.compile(
    r"(?:api[ _-]?key|token|credentials?) (?:is |are |was )?(?:not valid|invalid|incorrect|expired|revoked)"
    r"|(?:invalid|incorrect|expired|missing|wrong) (?:api[ _-]?key|x-api-key|authentication|credentials)"
    r"|authentication (?:error|failed)",
    re.IGNORECASE,
)
_BALANCE_SAID = re.compile(
    r"(?:credit )?balance is (?:too low|insufficient|not enough)|insufficient (?:account )?(?:balance|credits?|funds|quota)"
    r"|exceeded your current quota|used all (?:of )?(?:your |its )?(?:available )?credits|out of credits|not enough credits"
    r"|billing (?:is |has |must |account |to )*(?:not |be |been )*(?:enabled|disabled|active)"
    r"|(?:monthly |hard )?(?:spending|billing|budget) (?:hard )?limit (?:has been |was )?(?:reached|exceeded)|budget has been exceeded"
    r"|余额不足|欠费",
    re.IGNORECASE,
)
_NAME = r"[`'\"“]?[\w./:@+-]+[`'\"”]?"  # a model's name in a sentence
_LACKING = (
    r"(?:not (?:be )?(?:found|exist|available|supported|loaded|served|deployed|known|recogni[sz]ed|a valid model)"
    r"|no longer (?:available|supported|served)|(?:retired|deprecated|decommissioned|removed|unavailable|unknown))"
)
_MODEL_SAID = re.compile(
    rf"\b(?:model|deployment)(?: name| id)?s?[:\s=]+(?:{_NAME},? )?(?:is |was |does |do |has been |are |could )*{_LACKING}"
    rf"|(?:no|unknown|unsupported|invalid|nonexistent|unrecogni[sz]ed)(?: such)? model(?! (?:output|response|input))(?: name| id)?\b"
    rf"|{_NAME} is not a valid model|model identifier is invalid|on-demand throughput is not supported|(?:not found|found no|unable to access|cannot access)[,:]? (?:the )?model"
    r"|(?:access|allowed|permission)[^.]{0,40} (?:to|for|on) (?:the |this )?model|(?:can only|not allowed to) access models?"
    r"|no healthy deployments?|no endpoints found (?:for|matching)|no models? (?:is |are )?loaded|no allowed providers"
    r"|\bpinned\b[^.]{0,20}\bmodel|\bmodel\b[^.]{0,60}\bpinned\b|server is pinned|模型不存在",
    re.IGNORECASE,
)
_FORMAT_SAID = re.compile(
    r"response[_ ]?format|json[_ ](?:schema|object|mode)|structured[_ ]outputs?|guided[_ ](?:json|grammar|decoding)"
    r"|can handle the requested parameters|response[_ ]?schema|\boutput_(?:config|format)\b|\btext\.format\b|\bgrammar\b",
    re.IGNORECASE,
)
_SCHEMA_SAID = re.compile(
    r"invalid (?:json )?schema|additionalProperties|schema[^.]{0,80}(?:invalid|not valid|not supported|unsupported|required)"
    r"|unsupported[^.]{0,40}schema|\bgrammar\b|in strict mode|when `?strict",
    re.IGNORECASE,
)
_FILTER_SAID = re.compile(
    r"content (?:management )?polic|content[_ ]filter|requires moderation|was flagged|flagged (?:for|as|by)|inappropriate content",
    re.IGNORECASE,
)
_LENGTH_SAID = re.compile(
    r"maximum (?:context|sequence) length|exceeds?(?:ed)? [^.]{0,40}context (?:length|window|size)"
    r"|context (?:length|window|size) (?:is |was |has been |of \d+ (?:tokens )?)*exceeded|prompt is too long",
    re.IGNORECASE,
)
_LOADING_SAID = re.compile(
    r"\bloading (?:the )?model\b|\bmodel\b[^.]{0,80}\b(?:is |still |currently |being )+(?:loading|loaded|starting|warming)",
    re.IGNORECASE,
)
_CONTRACTED = re.compile(r"n['’]t\b")
_NAMES_FORMAT = frozenset({"unsupported_option"})


def meaning(failure: Failure) -> Meaning | None:
    """Say what a failure means for the rows to come, beyond its status; None where its status says it all."""
    return _meaning(
        failure.code.lower(), failure.message, failure.status or 0, retryable=failure.retryable is True
    )


def is_known(code: str | None) -> bool:
    """Say whether a code stands in one of the tables."""
    return code is not None and any(code.lower() in table for table, _ in _TABLES)


def is_about_the_schema(failure: Failure) -> bool:
    """Tell a `response_format` refused for the schema in it from one that is not known at all."""
    return _SCHEMA_SAID.search(failure.message) is not None


@cache
def _by_code(code: str) -> Meaning | None:
    return next((told for table, told in _TABLES if code in table), None)


def _meaning(code: str, message: str, status: int, *, retryable: bool) -> Meaning | None:
    by_code = _by_code(code)
    if by_code is not None or status == 402:
        return by_code or "balance"
    if code in _NAMES_FORMAT:
        return "no_format" if "response_format" in message else None
    if "n't" in message or "n’t" in message:
        message = _CONTRACTED.sub(" not", message)
    if status == 503 and _LOADING_SAID.search(message):
        return "unavailable"
    if retryable or status in _PASSING:
        return None
    said = next((told for words, told in _readings(status) if words.search(message)), None)
    if said is None and status in (404, 410) and "model" in message.lower():
        return "no_model"
    return "limited" if said is None and status in _LIMITING and code in LIMITED else said


def _readings(status: int) -> tuple[tuple[re.Pattern[str], Meaning], ...]:
    """Give what a message under such a status may say, most certain first."""
    balance, model, filtered, key, refused = _SAID
    if status in (401, 403):
        return (balance, model, filtered, key)
    if status == 429:  # a limit on the rate, unless it says that the money is gone
        return (balance,)
    if status >= 500:
        return (refused, (_LENGTH_SAID, "too_long"))
    return (filtered, balance, refused, model, key) if status >= 400 else ()


_TABLES: tuple[tuple[frozenset[str], Meaning], ...] = (
    (KEY, "key"),
    (BALANCE, "balance"),
    (NO_MODEL, "no_model"),
    (NO_FORMAT, "no_format"),
    (FILTERED, "filtered"),
    (TOO_LONG, "too_long"),
    (UNAVAILABLE, "unavailable"),
)
_SAID: tuple[tuple[re.Pattern[str], Meaning], ...] = (
    (_BALANCE_SAID, "balance"),
    (_MODEL_SAID, "no_model"),
    (_FILTER_SAID, "filtered"),
    (_KEY_SAID, "key"),
    (_FORMAT_SAID, "no_format"),
)
