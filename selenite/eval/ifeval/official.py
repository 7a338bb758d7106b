"""Runs inside the sandbox, where the unpacked wheels are on the path: lm-eval's checkers of IFEval.

Reads JSON lines {"key", "prompt", "instruction_id_list", "kwargs", "reply"} and writes {"key",
"strict", "loose"}: whether each instruction is followed. What the checkers do not need of lm-eval
and of nltk is left out, and nltk's sentence splitter, whose data no wheel has, is nupunkt's.
"""

from __future__ import annotations

import json
import random
import sys
import types
from pathlib import Path


def main() -> None:
    folders = sys.argv[1:]
    sys.path[:0] = folders
    for name in ("lm_eval", "lm_eval.tasks", "nltk", "nltk.tokenize"):
        _only_a_folder(name, folders)
    _give_nltk_its_names()
    from langdetect import DetectorFactory  # type: ignore[import-not-found]
    from lm_eval.tasks.ifeval.utils import process_results  # type: ignore[import-not-found]

    DetectorFactory.seed = 0
    for line in sys.stdin:
        item = json.loads(line)
        random.seed(0)
        found = process_results(item, [item["reply"]])
        verdicts = {
            "key": item["key"],
            "strict": found["inst_level_strict_acc"],
            "loose": found["inst_level_loose_acc"],
        }
        print(json.dumps(verdicts), flush=True)


def _only_a_folder(name: str, folders: list[str]) -> None:
    """A package whose modules can be imported, and whose own start is not run."""
    package = types.ModuleType(name)
    parts = name.split(".")
    package.__path__ = [str(path) for path in (Path(f, *parts) for f in folders) if path.is_dir()]
    sys.modules[name] = package
    if len(parts) > 1:
        setattr(sys.modules[".".join(parts[:-1])], parts[-1], package)


def _give_nltk_its_names() -> None:
    """What the checkers call of it."""
    import nltk  # type: ignore[import-not-found]
    import nupunkt  # type: ignore[import-not-found]
    from nltk.tokenize.destructive import NLTKWordTokenizer  # type: ignore[import-not-found]
    from nltk.tokenize.regexp import RegexpTokenizer  # type: ignore[import-not-found]

    def words(text: str) -> list[str]:
        return [word for part in nupunkt.sent_tokenize(text) for word in splitter.tokenize(part)]

    splitter = NLTKWordTokenizer()
    sentences = types.SimpleNamespace(tokenize=nupunkt.sent_tokenize)
    nltk.tokenize.RegexpTokenizer = RegexpTokenizer
    nltk.word_tokenize = words
    nltk.data = types.SimpleNamespace(find=lambda name: None, load=lambda name: sentences)


if __name__ == "__main__":
    main()
