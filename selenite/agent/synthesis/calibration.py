"""How far the judges can be trusted: what they say of episodes that were spoilt on purpose.

recall      of the episodes with a defect, those that some judge rejects
precision   of the episodes that are rejected, spoilt or not, those that were spoilt so; where
            each good task is as frequent as a spoilt one
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from selenite.agent.roles.judge import MODEL
from selenite.agent.roles.role import Role


def calibrate(manifest: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """By defect: episodes played and rejected, recall, precision, and the judges that objected.

    Contrasts are judged by code, so that votes of models are left out here. There is no precision
    where models play agents or worlds: nobody knows which of these episodes are good.
    """
    played = manifest.get("models", {"roles": {}})["roles"].keys()
    is_known = not {Role.AGENT.value, Role.TOOL_WORLD.value} & played
    by_code = sum(count for name, count in manifest["rejected"].items() if name != MODEL)
    wrong = by_code / max(1, manifest["tasks"])
    return {
        defect: _row(reasons, wrong if is_known else None)
        for defect, reasons in manifest["contrasts"].items()
    }


def _row(reasons: Mapping[str, int], wrong: float | None) -> dict[str, Any]:
    played = sum(reasons.values())
    judges = {name: count for name, count in sorted(reasons.items()) if name}
    rejected = sum(judges.values())
    recall = rejected / played
    precision = None
    if wrong is not None and recall + wrong:
        precision = round(recall / (recall + wrong), 4)
    return {
        "played": played,
        "rejected": rejected,
        "recall": round(recall, 4),
        "precision": precision,
        "judges": judges,
    }
