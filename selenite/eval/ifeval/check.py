"""Which instructions replies follow, by lm-eval's checkers in the sandbox."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from selenite.agent.sandbox.limits import Limits
from selenite.agent.sandbox.sandbox import Sandbox
from selenite.errors import DataError
from selenite.eval.ifeval.prompts import Prompt
from selenite.eval.wheels import Wheel, unpacked

CHECKERS = Wheel(
    "lm-eval", "0.4.13", "5daaa1973bf874005f64f28d3834b875f6886f0d6475878e6a6c821994a5286a"
)
WHEELS = (
    CHECKERS,
    # langdetect itself comes as a source archive, and building one would run it. This is its code
    # as a wheel; Korean's profile is another, and its random numbers are Python's own.
    Wheel(
        "langdetect-py", "1.1.1", "f31023136acc964992b9257d83af04f13116b89f026139d52da3567e462e38ee"
    ),
    Wheel("six", "1.17.0", "4721f391ed90541fddacab5acf947aa0d3dc7d27b2e1e8eda2be8970586c3274"),
    Wheel(
        "immutabledict", "4.3.1", "c9facdc0ff30fdb8e35bd16532026cac472a549e182c94fa201b51b25e4bf7bf"
    ),
    Wheel("packaging", "26.4", "81383611a09c1bc0b08b76e0fd5829d7c6824c65b27a6aee339da133f4233ea2"),
    Wheel("nltk", "3.10.4", "769ba5413f265b7d3e87cd163cc28efa01e29eeef8bb6080bc907949d9fcfb51"),
    Wheel("nupunkt", "0.8.0", "339e4b017eded7a060a17a55300854c35eb067c05857da0843cd93b5c1d85f9b"),
)
_CHUNK = 600  # replies of one run in the sandbox


@dataclass(frozen=True)
class Followed:
    """Whether each instruction of a prompt is followed. Loose: by the reply, or by it without its
    first line, its last line or its asterisks."""

    strict: tuple[bool, ...]
    loose: tuple[bool, ...]


def check(prompts: Sequence[Prompt], replies: Mapping[str, str]) -> dict[str, Followed]:
    """What each reply follows, by the prompt's id; prompts without a reply are left out.

    Raises what ``unpacked`` raises, ``UnsupportedError`` where there is no sandbox, and
    ``DataError`` where a checker fails.
    """
    folders = [unpacked(wheel) for wheel in WHEELS]
    lines = [json.dumps(_line(p, replies[p.id])) for p in prompts if p.id in replies]
    found = dict[str, Followed]()
    for start in range(0, len(lines), _CHUNK):
        for entry in _checked(lines[start : start + _CHUNK], folders):
            found[entry["key"]] = Followed(tuple(entry["strict"]), tuple(entry["loose"]))
    return found


def _line(prompt: Prompt, reply: str) -> dict[str, Any]:
    return {
        "key": prompt.id,
        "prompt": prompt.text,
        "instruction_id_list": prompt.instructions,
        "kwargs": prompt.arguments,
        "reply": reply,
    }


def _checked(lines: Sequence[str], folders: Sequence[Path]) -> list[dict[str, Any]]:
    script = files("selenite.eval.ifeval").joinpath("official.py").read_text(encoding="utf-8")
    limits = Limits(seconds=600, cpu_seconds=600, output_bytes=1 << 24)
    command = ["python3", "check.py", *map(str, folders)]
    outcome = Sandbox(limits, readable=folders).run(
        command, {"check.py": script}, stdin="\n".join(lines) + "\n"
    )
    whole = [line for line in outcome.stdout_text.splitlines() if line.endswith("}")]  # not cut off
    found = [json.loads(line) for line in whole]
    if not outcome.is_ok or len(found) != len(lines):
        key = json.loads(lines[min(len(found), len(lines) - 1)])["key"]
        raise DataError(
            f"IFEval's checkers ended with {outcome.was_killed_by or outcome.exit_code} at the "
            f"reply to prompt {key}: {outcome.stderr_text[-600:]}"
        )
    return found
