"""``selenite rl page RUN``: writes the page.

    metrics.jsonl ─► series ──┐
    rollouts/ ─► Attempts ────┼─► JSON ─► files/page.html, with files/*.css and *.js in it
    tokenizer ─► token texts ─┘

The page asks for nothing and runs nothing but these scripts, and text only ever becomes text there.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from selenite import atomic
from selenite.chat.tokenizer import Tokenizer
from selenite.errors import TokenizerError
from selenite.rl.page.attempts import Attempts, token_texts
from selenite.rl.page.inline import number, policy, to_json
from selenite.rl.run_metrics import TIMES, evenly, read_steps, time_split
from selenite.train.run import CONFIG

_ROOM = 16_000_000  # characters of attempts; with all else the page has less than 20 MB
_MOST_ROWS = 1_000  # steps of a chart
_METRICS = (
    *("reward", "val_reward", "length", "entropy", "truncated", "degenerate", "failed", "stale"),
    *("mismatch_mean", "mismatch_max", "limit"),
)
_SCRIPTS = ("dom.js", "charts.js", "conversation.js", "reader.js", "main.js")


def write_page(run: Path, out: Path, room: int = _ROOM) -> Attempts:
    """Writes the page of ``run`` to ``out``; returns the attempts that are on it.

    Raises ``DataError`` for a directory that is no run, ``StorageError`` where ``out`` cannot be.
    """
    rows = read_steps(run)
    tokenizer, problem = _tokenizer(run)
    attempts = Attempts(run, tokenizer, room)
    data = {
        "name": run.resolve().name,
        "num_rows": len(rows),
        "series": _series(_thinned(rows)),
        "times": TIMES,
        "iterations": attempts.num_iterations,
        "steps": attempts.steps,
        "attempts": attempts.records,
        "messages": attempts.messages,
        "tokens": {} if tokenizer is None else token_texts(tokenizer, sorted(attempts.token_ids)),
        "no_tokens": problem,
    }
    atomic.write_text(out, _html(to_json(data)))
    return attempts


def _html(data: str) -> str:
    folder = files(__package__) / "files"
    parts = {file.name: file.read_text("utf-8") for file in folder.iterdir()}
    scripts = [parts[name] for name in _SCRIPTS]
    style = parts["style.css"]
    page = parts["page.html"].replace("{policy}", policy(style, scripts))
    page = page.replace("{style}", style)
    page = page.replace("{scripts}", "\n".join(f"<script>{script}</script>" for script in scripts))
    return page.replace("{data}", data)  # the last: nothing in it is replaced


def _tokenizer(run: Path) -> tuple[Tokenizer | None, str]:
    """That of the run's model: its own once it is finished, before that the one it began with.
    None, and why."""
    try:
        if (run / "config.json").exists():
            return Tokenizer.load(run), ""
        config = tomllib.loads((run / CONFIG).read_text(encoding="utf-8"))
        return Tokenizer.load(config["train"]["init_from"]), ""
    except (OSError, ValueError, KeyError, TypeError, TokenizerError) as error:
        return None, f"Tokens are not shown: the run's tokenizer cannot be read ({error})."


def _thinned(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Some rows, evenly apart, and all that have an evaluation."""
    kept = {row["step"] for row in evenly(rows, _MOST_ROWS)}
    return [row for row in rows if row["step"] in kept or any(map(_is_evaluation, row))]


def _is_evaluation(name: str) -> bool:
    return name.startswith("val_reward.")


def _series(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[float | None]]:
    """Each metric's values, and the seconds of each part of the time as ``time.NAME``; null where
    a row has none."""
    names = dict.fromkeys(name for row in rows for name in row if name.split(".")[0] in _METRICS)
    splits = [time_split(row) if "seconds" in row else {} for row in rows]
    return {
        "step": [row["step"] for row in rows],
        **{name: [_value(row, name) for row in rows] for name in names},
        **{f"time.{name}": [_value(split, name) for split in splits] for name in TIMES},
    }


def _value(row: Mapping[str, Any], name: str) -> float | None:
    value = row.get(name)
    return None if value is None else number(value)
