"""What Kimi K2 fixes about its vocabulary: special tokens and how text is cut before merging.

Read by the tokenizers that are trained here (``hf_backend.py``) and by the reader of Kimi's own
``tiktoken.model`` (``tiktoken_backend.py``), so that both cut text alike.
"""

from __future__ import annotations

BOS = "[BOS]"
EOS = "[EOS]"
IM_END = "<|im_end|>"
PAD = "[PAD]"
UNK = "[UNK]"

# In Kimi's files the special tokens follow the merged tokens, at these distances from the end of
# the merged tokens; the 256 places have a name each, the unnamed ones "<|reserved_token_ID|>".
SPECIAL_OFFSETS: dict[str, int] = {
    BOS: 0,
    EOS: 1,
    IM_END: 2,
    "<|im_user|>": 3,
    "<|im_assistant|>": 4,
    "<|start_header_id|>": 6,
    "<|end_header_id|>": 7,
    "[EOT]": 9,
    "<|im_system|>": 10,
    "<|tool_calls_section_begin|>": 11,
    "<|tool_calls_section_end|>": 12,
    "<|tool_call_begin|>": 13,
    "<|tool_call_argument_begin|>": 14,
    "<|tool_call_end|>": 15,
    "<|im_middle|>": 17,
    UNK: 254,
    PAD: 255,
}
NUM_RESERVED = 256
SPECIAL_TOKENS: tuple[str, ...] = tuple(SPECIAL_OFFSETS)


def _pattern() -> str:
    """The alternatives of the pre-tokeniser, tried from left to right at each place."""
    not_han = r"&&[^\p{Han}]"
    upper = rf"[\p{{Lu}}\p{{Lt}}\p{{Lm}}\p{{Lo}}\p{{M}}{not_han}]"
    lower = rf"[\p{{Ll}}\p{{Lm}}\p{{Lo}}\p{{M}}{not_han}]"
    lead = r"[^\r\n\p{L}\p{N}]?"  # the space or mark before a word belongs to it
    clitic = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    return "|".join(
        (
            r"[\p{Han}]+",  # Chinese script is cut from everything else
            f"{lead}{upper}*{lower}+{clitic}",  # word, Word, WOrd: camelCase is cut in two
            f"{lead}{upper}+{lower}*{clitic}",  # WORD
            r"\p{N}{1,3}",  # digits in groups of at most three
            r" ?[^\s\p{L}\p{N}]+[\r\n]*",  # punctuation with the line ends that follow it
            r"\s*[\r\n]+",
            r"\s+(?!\S)",  # spaces, but for the last one, which the next word takes
            r"\s+",
        )
    )


PATTERN = _pattern()
