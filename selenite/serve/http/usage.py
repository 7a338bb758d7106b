"""How many tokens a generation took."""

from __future__ import annotations

from selenite.serve.generation import Generation
from selenite.serve.http.protocol import CompletionDetails, PromptDetails, Usage


def usage_of(generation: Generation) -> Usage:
    """Tokens so far; a prompt that several choices share counts once."""
    prompt, written = generation.num_prompt_tokens, generation.num_completion_tokens
    drafted, accepted = generation.num_drafts
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=written,
        total_tokens=prompt + written,
        prompt_tokens_details=PromptDetails(cached_tokens=generation.num_cached_tokens),
        completion_tokens_details=CompletionDetails(
            accepted_prediction_tokens=accepted, rejected_prediction_tokens=drafted - accepted
        ),
    )
