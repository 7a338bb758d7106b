"""The part of an examination that runs in the sandbox, beside code of which nothing is trusted.

    stdin: the cases' code, as JSON ─► stdout: for each a line with what it saw, and its error

Nothing here decides anything: expected values are outside, so that whatever the examined code
changes in this process, it still has to find them.
"""

import json
import os
import sys
import traceback


def _fault(error: BaseException) -> str:
    """What was raised, and the last place of the examined files that it came through."""
    places = [
        f" ({os.path.basename(frame.filename)}, line {frame.lineno})"
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename.startswith(os.getcwd()) and frame.filename != __file__
    ]
    return f"{type(error).__name__}: {error}{places[-1] if places else ''}"


def main() -> None:
    """Runs each case by itself, in one process."""
    told = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the code prints is no result
    sys.path.insert(0, os.getcwd())
    for code in json.load(sys.stdin):
        seen: list[str] = []
        fault = ""
        try:
            exec(code, {"see": lambda value, seen=seen: seen.append(json.dumps(value))})
        except Exception as error:  # noqa: BLE001 - the code's own fault, told as one
            fault = _fault(error)
        told.write(json.dumps({"seen": seen, "fault": fault}) + "\n")
        told.flush()


main()
