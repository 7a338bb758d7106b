"""Which language a text is in: by its script, and within one by its little words.

Short texts, and languages that the table does not have, are not decided.
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from importlib.resources import files

_TABLE: dict[str, str] = tomllib.loads(
    files(__package__).joinpath("languages.toml").read_text(encoding="utf-8")
)
_LANGUAGES: dict[str, list[str]] = {}  # by little word
for _language, _words in _TABLE.items():
    for _word in _words.split():
        _LANGUAGES.setdefault(_word, []).append(_language)
_SCRIPTS = {
    "latin": re.compile(r"[A-Za-z\u00aa-\u024f\u1e00-\u1eff]"),
    "greek": re.compile(r"[\u0370-\u03ff\u1f00-\u1fff]"),
    "cyrillic": re.compile(r"[\u0400-\u052f]"),
    "hebrew": re.compile(r"[\u0590-\u05ff]"),
    "arabic": re.compile(r"[\u0600-\u06ff\u0750-\u077f]"),
    "devanagari": re.compile(r"[\u0900-\u097f]"),
    "thai": re.compile(r"[\u0e00-\u0e7f]"),
    "kana": re.compile(r"[\u3040-\u30ff]"),
    "han": re.compile(r"[\u3400-\u9fff\uf900-\ufaff]"),
    "hangul": re.compile(r"[\u1100-\u11ff\uac00-\ud7af]"),
}
_SHARED = ("latin", "cyrillic")  # scripts of which the table has languages
_LOOKED_AT = 4000  # characters of a text; the rest is in the same language
_TOKEN = re.compile(r"[^\W\d_]+")
_LEAST_LETTERS = 12
_LEAST_HITS = 4  # little words that decide
_LEAST_SHARE = 0.12  # of the words
_LEAD = 1.5  # over the second


def script_of(text: str) -> str:
    """The script of most letters; empty: too few letters to say."""
    text = text[:_LOOKED_AT]
    if text.isascii():
        return "latin" if sum(map(str.isalpha, text)) >= _LEAST_LETTERS else ""
    counts = Counter({name: len(found.findall(text)) for name, found in _SCRIPTS.items()})
    if counts.total() < _LEAST_LETTERS:
        return ""
    if counts["kana"] > 0.1 * counts.total():  # Japanese is written in Han, too
        return "kana"
    return counts.most_common(1)[0][0]


def language_of(text: str) -> str:
    """Such as ``en``; empty: not decided. A script of one language gives the script's name."""
    script = script_of(text)
    if script not in _SHARED:
        return script
    tokens = _TOKEN.findall(text[:_LOOKED_AT].casefold())
    hits = Counter(language for token in tokens for language in _LANGUAGES.get(token, ()))
    (first, most), (_, second) = [*hits.most_common(2), ("", 0), ("", 0)][:2]
    is_clear = most >= max(_LEAST_HITS, _LEAST_SHARE * len(tokens)) and most >= _LEAD * second
    return first if is_clear else ""


def same_language(source: str, rewrite: str) -> bool:
    """Whether nothing speaks against two texts being in one language."""
    scripts = script_of(source), script_of(rewrite)
    if all(scripts) and scripts[0] != scripts[1]:
        return False
    languages = language_of(source), language_of(rewrite)
    return not all(languages) or languages[0] == languages[1]
