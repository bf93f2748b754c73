from __future__ import annotations

import pytest

from enrich.records import Failure, Fate
from enrich.wire.envelope import http_failure
from enrich.wire.meanings import is_about_the_schema, meaning

SAID = [
    ("http_400","Invocation of model ID x with on-demand throughput isn’t supported. Retry with an inference profile.",400,"no_model"),
    ("http_400","The model `x` doesn't exist",400,"no_model"),
    ("http_400","model x couldn't be found",400,"no_model"),
    ("ThrottlingException","Rate exceeded",400,"limited"),
    ("rateLimitExceeded","Quota exceeded for quota metric",403,"limited"),
    ("rate_limit_error","Number of requests has exceeded your limit",200,"limited"),
    ("rate_limit_exceeded","Request too large for model `x` on tokens per minute: limit 6000, requested 9000",413,None),
    ("rate_limit_exceeded","You exceeded your current quota",429,"balance"),
    ("insufficient_quota","You exceeded your current quota",429,"balance"),
    ("rate_limited","Rate limit reached for requests",429,None),
    ("invalid_request_error","Your credit balance is too low to access the Anthropic API.",400,"balance"),
    ("exceeded_current_quota_error","x",429,"balance"),
    ("http_429","余额不足或无可用资源包,请充值。",429,"balance"),
    ("http_402","Insufficient credits",402,"balance"),
    ("model_not_found","The model `old-1` has been retired.",404,"no_model"),
    ("NotFoundError","The model `x` does not exist.",404,"no_model"),
    ("http_400","litellm.BadRequestError: You passed in model=x. There are no healthy deployments for this model",400,"no_model"),
    ("http_400","/chat/completions: Invalid model name passed in model=gpt-9. Call `/v1/models` to view available models for your key.",400,"no_model"),
    ("http_404",'model "x" not found, try pulling it first',404,"no_model"),
    ("invalid_request_error","Model Not Exist",400,"no_model"),
    ("http_400","foo/bar is not a valid model ID",400,"no_model"),
    ("http_404","No endpoints found for foo/bar.",404,"no_model"),
    ("http_404","No endpoints found that can handle the requested parameters.",404,"no_format"),
    ("http_400","The provided model identifier is invalid.",400,"no_model"),
    ("NOT_FOUND","models/gemini-9 is not found for API version v1beta, or is not supported for generateContent.",404,"no_model"),
    ("not_found_error","model: claude-9",404,"no_model"),
    ("resource_not_found_error","Not found the model moon-9 or Permission denied",404,"no_model"),
    ("http_400","This server is pinned to model 'a'; got 'b'",400,"no_model"),
    ("http_400","Server is pinned to 'tiny'",400,"no_model"),
    ("key_model_access_denied","key not allowed to access model. This key can only access models=['a']",401,"no_model"),
    ("http_403","Project `p` does not have access to model `gpt-9`",403,"no_model"),
    ("invalid_request_error","This model's maximum context length is 8192 tokens.",400,None),
    ("invalid_request_error","This model does not support image inputs",400,None),
    ("unsupported_value","Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) value is supported.",400,None),
    ("unsupported_parameter","Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",400,None),
    ("invalid_request_error","`top_k` is not supported by the model",400,None),
    ("invalid_request","model output is invalid",400,None),
    ("invalid_request_error","Invalid schema for response_format 's': 'additionalProperties' is required to be false.",400,"no_format"),
    ("invalid_request_error","This response_format type is unavailable now",400,"no_format"),
    ("http_422","body.response_format.type: Input should be 'text' or 'json_object'",422,"no_format"),
    ("internal_server_error","[{'type': 'literal_error', 'loc': ('body', 'response_format', 'type'), 'msg': ...}]",500,"no_format"),
    ("server_error","it broke",500,None),
    ("model_unavailable","no capacity",503,"unavailable"),
    ("model_loading","Model x is currently loading",503,"unavailable"),
    ("unavailable_error","Loading model",503,"unavailable"),
    ("http_503","Model acme/x-7b is currently loading, try again in 20 s",503,"unavailable"),
    ("http_503","Service is loading, try again",503,None),
    ("PERMISSION_DENIED","This API method requires billing to be enabled.",403,"balance"),
    ("billing_error","Billing is not active on this account",403,"balance"),
    ("unsupported_option","remove response_format",422,"no_format"),
    ("unsupported_option","remove seed",422,None),
    ("content_filter","The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",400,"filtered"),
    ("http_403",'google/x requires moderation on OpenAI. Your input was flagged for "harassment".',403,"filtered"),
    ("http_403","HTTP 403 and no error in JSON: <html>Request blocked</html>",403,None),
    ("unauthorized","x",401,"key"),("no_db_connection","Authentication Error",400,"key"),
    ("INVALID_ARGUMENT","API key not valid. Please pass a valid API key.",400,"key"),
    ("http_404","HTTP 404 and no error in JSON: <html>nginx",404,None),
    ("http_429","No deployments available for selected model, Try again in 5 seconds.",429,None),
    ("http_400","The model `gpt` is not supported",400,"no_model"),
    ("http_404","The model does not exist or you do not have access to it.",404,"no_model"),
    ("BadRequestError","Model bla does not exist.",400,"no_model"),
    ("http_400","model gpt-x not found",400,"no_model"),
    ("internal","This model's maximum context length is 4096 tokens. However, you requested 5000",500,"too_long"),
    ("http_500","the request exceeds the available context size, try increasing it",500,"too_long"),
    ("ContextWindowExceededError","x",400,"too_long"),("internal","the context of this request was lost",500,None),
    ("permission_error","Your team has either used all available credits or reached its monthly spending limit.",403,"balance"),
]  # fmt: skip


@pytest.mark.parametrize(("code", "message", "status", "meant"), SAID)
def test_what_servers_say(code: str, message: str, status: int, meant: str | None) -> None:
    """The words of vendors, servers and gateways are known for what they mean; others mean what their status does."""
    assert meaning(Failure(code, message, Fate.REFUSED, status)) == meant


@pytest.mark.parametrize("status", [408, 425, 499, 502, 503, 529])
def test_what_passes(status: int) -> None:
    """A message under a status of something that passes does not make it last."""
    assert meaning(Failure(f"http_{status}", "The model `m` is not available", Fate.UNKNOWN, status)) is None


def test_word_of_the_flag() -> None:
    """An envelope that allows a retry is no lasting refusal, whatever its message says."""
    assert meaning(Failure("busy", "model m not found", Fate.REFUSED, 400, retryable=True)) is None


def test_refusal_with_a_5xx() -> None:
    """A 500 that names the format of the answer refused the request: nothing was executed."""
    body = b'{"error": {"message": "Unsupported response_format", "type": "internal_server_error"}}'
    assert http_failure(500, body).fate is Fate.REFUSED
    assert http_failure(500, body.replace(b"response_format", b"weather")).fate is Fate.UNKNOWN


@pytest.mark.parametrize(
    ("message", "about"),
    [
        ("Invalid schema for response_format 's': 'additionalProperties' is required to be false.", True),
        ("The provided JSON schema contains features not supported by xgrammar.", True),
        ("Failed to parse grammar", True),
        ("This response_format type is unavailable now", False),
        ("body.response_format.type: Input should be 'text' or 'json_object'", False),
    ],
)
def test_format_or_schema(message: str, about: bool) -> None:
    """A format that is not known is told from a schema that is not liked."""
    assert is_about_the_schema(Failure("http_400", message, Fate.REFUSED, 400)) is about
