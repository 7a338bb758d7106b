"""Runs inside the sandbox, where the unpacked wheel is on the path: BFCL's own checker.

Reads JSON lines {"id", "functions", "calls", "acceptable", "category"} and writes {"id", "valid",
"error"}. The table of models, which the checker imports for one flag and which imports the
software of every vendor, is replaced.
"""

from __future__ import annotations

import json
import sys
import types


def main() -> None:
    table = types.ModuleType("bfcl_eval.constants.model_config")
    entry = types.SimpleNamespace(underscore_to_dot=True)
    table.MODEL_CONFIG_MAPPING = {"model": entry}  # type: ignore[attr-defined]
    sys.modules["bfcl_eval.constants.model_config"] = table
    sys.path.insert(0, sys.argv[1])
    from bfcl_eval.constants.enums import Language  # type: ignore[import-not-found]
    from bfcl_eval.eval_checker.ast_eval.ast_checker import (  # type: ignore[import-not-found]
        ast_checker,
    )

    for line in sys.stdin:
        item = json.loads(line)
        found = ast_checker(
            item["functions"],
            item["calls"],
            item["acceptable"],
            Language.PYTHON,
            item["category"],
            "model",
        )
        error = "" if found["valid"] else f"{found['error_type']}: {str(found['error'])[:300]}"
        print(json.dumps({"id": item["id"], "valid": bool(found["valid"]), "error": error}))


if __name__ == "__main__":
    main()
