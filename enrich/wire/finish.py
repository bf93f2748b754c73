"""Why an answer ended, in the words of many servers: one table of spellings for `finish_reason`."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal

Ending = Literal["whole", "truncated", "filtered", "broken", "unknown"]

# Compiled from the documented values of OpenAI, Azure, Anthropic, Gemini, Mistral, Cohere, DeepSeek, Zhipu, watsonx,
# Bedrock, OpenRouter, LiteLLM, vLLM, SGLang, TGI, llama.cpp and Ollama; in lower case, words joined by `_`.
_SPELLINGS: dict[Ending, str] = {
    "whole": """
        stop stopped stop_sequence stop_token stop_str stop_string end end_turn end_of_turn end_of_text eos eos_token
        eos_token_id eos_found endoftext end_of_sequence complete completed done finish finished finish_reason_stop natural normal success
        tool_calls tool_call tool_use function_call function_calls
    """,
    "truncated": """
        length max_length max_tokens max_output_tokens max_new_tokens max_completion_tokens token_limit
        token_limit_reached token_limit_exceeded length_limit length_exceeded output_limit output_token_limit out_of_tokens max_tokens_reached
        max_tokens_exceeded max_completion_length model_length model_context_window_exceeded context_length context_length_exceeded
        context_window context_window_exceeded context_limit limit error_limit incomplete not_finished unfinished
        time_limit pause_turn repetition repetition_detected truncated
    """,
    "filtered": """
        content_filter content_filtered content_filtering contentfilter filtered filter safety image_safety
        recitation image_recitation blocklist prohibited_content image_prohibited_content spii language
        refusal refused guardrail guardrail_intervened guardrails sensitive error_toxic toxic blocked moderation
        moderated model_armor unsafe policy_violation content_policy_violation harmful
    """,
    "broken": """
        error errored server_error internal_error error_other unknown_error failed failure abort aborted cancel
        cancelled canceled user_cancel user_canceled user_cancelled interrupted network_error timeout time_out
        timed_out connection_error insufficient_system_resource insufficient_resources overloaded engine_overloaded
        preempted preemption evicted shutdown killed malformed_function_call malformed_response malformed_tool_call
        unexpected_tool_call missing_thought_signature too_many_tool_calls other
    """,
}
_ENDINGS = {word: ending for ending, words in _SPELLINGS.items() for word in words.split()}
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_BETWEEN = re.compile(r"[\s.:-]+")


@lru_cache(1_024)  # reasons are the endpoint's words, of which there may be any number
def ending(finish_reason: str | None) -> Ending:
    """Say what a finish reason means; ``whole`` for none at all, since a whole body of JSON need not give one."""
    if finish_reason is None:
        return "whole"
    word = _BETWEEN.sub("_", _CAMEL.sub("_", finish_reason.strip())).lower()
    return _ENDINGS.get(word.removeprefix("finish_reason_"), "unknown")
