"""A critic that learns in the loop against one that stays, on a task that only they judge.

    python -m experiments.rl_critic [ARM ...]

A small model of K2's kind is taught a little of Morse code, and a little of telling a right letter
from a wrong one (pairs, as a critic is asked). Then it acts: two groups of an iteration are letters
that code judges, six are letters that a critic judges, with a hidden verifier beside it.
``closed``: the critic is the model itself, and learns from the two groups in each step; ``frozen``:
it is the model that the run began with; ``verified``: the two groups alone. Three seeds each,
measured on held-out letters. All is kept under runs/rl-critic. Rows: rl.critic.*.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from benchmarks.results import Reference, record
from experiments.rl_objectives import FIRST, HELD, MODEL, MORSE, TRAIN, VOCABULARY, success
from selenite import LLM, atomic, runtime
from selenite.agent.judges.comparison import LETTERS, comparison
from selenite.agent.randomness import stream
from selenite.chat.tokenizer import Tokenizer
from selenite.clock import SystemClock
from selenite.config import validate
from selenite.model.config import ModelConfig
from selenite.model.hf_adapter import save_pretrained
from selenite.model.init import init_weights
from selenite.model.transformer import Transformer
from selenite.rl.config import RlConfig
from selenite.rl.critic.rubrics import CORE, Rubric
from selenite.rl.gym.logic.morse import CODE
from selenite.rl.gym.questions import SLOT
from selenite.rl.run import rl
from selenite.train.sft import sft
from selenite.train.sft_config import SftConfig

OUT = Path("runs/rl-critic")
NUM_LESSONS = 6_000
LESSONS = 100  # steps
SEEDS = (0, 1, 2)
STEPS = 40
GROUPS, SIZE = 8, 8
JUDGED = 6  # groups
RUBRICS: tuple[Rubric, ...] = ("clarity",)

CRITICS: Mapping[str, dict[str, Any]] = {
    "closed": {"kind": "self", "learns": True},
    "frozen": {"kind": "model"},
    "verified": {},
}
"""Arms, and the critic of each."""


def main(chosen: Sequence[str]) -> None:
    runtime.apply_threads()
    pupil = taught()
    before = success(LLM(pupil, "float32"), 1.0)
    print(f"before: {before:.3f} of held-out letters", flush=True)
    found: dict[str, list[dict[str, float]]] = {}
    for seed in SEEDS:
        for arm in chosen or CRITICS:
            found.setdefault(arm, []).append(acted(pupil, arm, seed))
            told = "  ".join(f"{key} {value:.3f}" for key, value in found[arm][-1].items())
            print(f"{arm} seed {seed}: {told}", flush=True)
    if not chosen:
        report(before, found)


def taught() -> Path:
    """The model that all begin with."""
    letters = {code: letter for letter, code in CODE.items()}
    rows: dict[str, list[dict[str, Any]]] = {"morse": [], "critic": []}
    for number in range(FIRST, FIRST + NUM_LESSONS):
        question = MORSE.question(number)
        right = "".join(letters[sign] for sign in question.text.split("? ")[1].split())
        rng = stream(number, "critic")
        wrong = rng.choice([letter for letter in CODE if letter != right])
        asked = f"{question.text}\n{SLOT}"
        rows["morse"].append(_row([("user", asked)], f"Answer: {right}"))
        place = rng.randrange(2)
        attempts = [f"assistant: Answer: {letter}" for letter in (wrong, right)]
        shown = comparison(
            f"user: {asked}", attempts[1 - place], attempts[place], [CORE[name] for name in RUBRICS]
        )
        rows["critic"].append(_row([(m.role, m.content) for m in shown], LETTERS[place]))
    folder = OUT / "data"
    if not (folder / "critic.jsonl").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        for kind, own in rows.items():
            text = "".join(f"{json.dumps(row)}\n" for row in own)
            atomic.write_text(folder / f"{kind}.jsonl", text)
        start = OUT / "start"
        save_pretrained(init_weights(Transformer(validate(ModelConfig, MODEL, "MODEL")), 0), start)
        texts = [m["content"] for own in rows.values() for row in own for m in row["messages"]]
        Tokenizer.train(texts, VOCABULARY).save(start)
    parts = [
        {"kind": "chat", "name": kind, "weight": weight, "paths": [str(folder / f"{kind}.jsonl")]}
        for kind, weight in (("morse", 1.0), ("critic", 2.0))
    ]
    train = {**TRAIN, "init_from": str(OUT / "start"), "out_dir": str(OUT / "pupil")}
    train |= {"steps": LESSONS, "seq_len": 512}
    values = {"train": train, "parts": parts, "optim": {"lr": 1e-2}}
    sft(validate(SftConfig, values, "lessons"), SystemClock())
    return OUT / "pupil"


def _row(asked: Sequence[tuple[str, str]], answer: str) -> dict[str, Any]:
    turns = [*asked, ("assistant", answer)]
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def acted(pupil: Path, arm: str, seed: int) -> dict[str, float]:
    """One run, to its end: letters read then, and what its critic was worth."""
    out_dir = OUT / f"{arm}-{seed}"
    letters = {"kind": "logic", "puzzles": ["morse"], "tokens": 16}
    environments = [{**letters, "weight": GROUPS - JUDGED}]
    values: dict[str, Any] = {
        "train": {
            **TRAIN,
            "init_from": str(pupil),
            "out_dir": str(out_dir),
            "steps": STEPS,
            "seed": seed,
        },
        "rollouts": {"groups": GROUPS if CRITICS[arm] else GROUPS - JUDGED, "size": SIZE},
        "evaluation": {"tasks": HELD},
        "optim": {"lr": 1e-3},
        "schedule": {"kind": "constant", "warmup_fraction": 0.0},
    }
    if CRITICS[arm]:
        environments.append({**letters, "judged": True, "weight": JUDGED, "seed": 1})
        values["critic"] = {"rubrics": RUBRICS, **CRITICS[arm]}
    values["environments"] = environments
    rl(validate(RlConfig, values, arm), SystemClock())
    rows = [json.loads(line) for line in (out_dir / "metrics.jsonl").read_text().splitlines()]
    found = {"sampled": success(LLM(out_dir, "float32"), 1.0)}
    for key in ("critic_accuracy", "critic_consistent"):
        told = [row[key] for row in rows if key in row]
        if told:
            quarter = max(1, len(told) // 4)
            found[f"{key}_first"] = mean(told[:quarter])
            found[f"{key}_last"] = mean(told[-quarter:])
    return found


def report(before: float, found: Mapping[str, Sequence[Mapping[str, float]]]) -> None:
    """The rows."""
    for arm, seeds in found.items():
        values = [one["sampled"] for one in seeds]
        other = "frozen" if arm == "closed" else "closed"
        told = ", ".join(
            f"{key.replace('_', ' ')} {mean(one[key] for one in seeds):.2f}"
            for key in seeds[0]
            if key != "sampled"
        )
        spread = max(0.1, 2 * stdev(values))
        record(
            f"rl.critic.{arm}",
            f"letters read after {STEPS} iterations, of which {JUDGED} of {GROUPS} groups are "
            f"judged by a critic ({arm})",
            mean(values),
            "share",
            low=max(0.0, mean(values) - spread),
            high=min(1.0, mean(values) + spread),
            runs=len(seeds),
            target=None,
            reference=Reference(
                name=other, value=mean(one["sampled"] for one in found[other]), source="same run"
            ),
            command="python -m experiments.rl_critic",
            note=f"held out, sampled; before {before:.3f}; seeds "
            f"{', '.join(f'{value:.3f}' for value in values)}" + (f"; {told}" if told else ""),
        )


if __name__ == "__main__":
    main(sys.argv[1:])
