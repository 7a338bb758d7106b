"""What reinforcement learning adds to a small model, by objective and by what is left out.

    python -m experiments.rl_objectives [RUN ...]

A small model of K2's kind (latent attention, experts) is made from nothing: its lessons are letters
in Morse code (the gym's ``logic``), too few to be sure of them, and problems of ``math``, which no
run acts on: their loss shows what is forgotten. From there each of RUNS acts on letters that the
lessons had none of, with three seeds and as many attempts a step, and is measured greedily on the
same held-out letters. ``lessons`` goes on with the lessons instead, for the time that ``k2`` takes.
All is kept under runs/rl-objectives, so that a second call goes on. Rows: rl.objectives.*.
Figure: docs/figures/rl_objectives.png.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from benchmarks.results import FIGURES, Reference, record
from selenite import LLM, SamplingParams, atomic, runtime
from selenite.chat.conversation import Conversation
from selenite.chat.profile import detect_profile
from selenite.chat.tokenizer import Tokenizer
from selenite.clock import SystemClock
from selenite.config import validate
from selenite.model.config import ModelConfig
from selenite.model.hf_adapter import save_pretrained
from selenite.model.init import init_weights
from selenite.model.transformer import Transformer
from selenite.rl.config import RlConfig
from selenite.rl.gym.environment import HELD_OUT
from selenite.rl.gym.logic.morse import CODE
from selenite.rl.gym.logic.puzzles import logic_questions
from selenite.rl.gym.math_problems import math_questions
from selenite.rl.gym.questions import SLOT, Question
from selenite.rl.run import rl
from selenite.train.evaluate import evaluate
from selenite.train.sft import sft
from selenite.train.sft_config import SftConfig
from selenite.train.sft_data import read_data

OUT = Path("runs/rl-objectives")
FIGURE = FIGURES / "rl_objectives.png"
FIRST = 5_000_000  # numbers of the lessons' problems; the runs act on those from 0 on
NUM_LESSONS = 6_000
LESSONS = 61  # steps
SEEDS = (0, 1, 2)
STEPS = 50
SMALL_FIRST = sorted(range(-1000, 10_000), key=abs)
HELD = 200  # problems that are measured on
VOCABULARY = 800
MODEL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 128,
    "num_layers": 4,
    "num_heads": 4,
    "q_lora_rank": 64,
    "kv_lora_rank": 32,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 16,
    "v_head_dim": 32,
    "ffn_hidden_size": 256,
    "max_positions": 512,
    "moe": {
        "num_experts": 8,
        "experts_per_token": 2,
        "expert_hidden_size": 96,
        "routed_scaling_factor": 1.414,
    },
}
TRAIN = {"seq_len": 256, "batch_tokens": 4096, "micro_batch_tokens": 4096, "dtype": "float32"}
GROUPS, SIZE = 16, 8
MORSE, MATH = logic_questions(1, 0, ("morse",), 64), math_questions(1)

RUNS: Mapping[str, dict[str, Any]] = {
    "k2": {},
    "grpo": {"objective": {"kind": "grpo"}},
    "dapo": {"objective": {"kind": "dapo"}},
    "gspo": {"objective": {"kind": "gspo"}},
    "k25": {"objective": {"kind": "k25"}},
    "k2-twice": {"rollouts": {"updates": 2}},
    "k2-cooling": {"rollouts": {"temperature": 1.2, "last_temperature": 0.7}},
    "k2-ptx": {"ptx": True},
    "k2-pool": {"rollouts": {"pool": 256}},
    "k2-ahead": {"rollouts": {"ahead": 8, "most_stale": 2}},
}
"""Runs, and how each differs from the first."""


def main(chosen: Sequence[str]) -> None:
    runtime.apply_threads()
    pupil, seconds_a_lesson = taught()
    before = measured(pupil)
    found: dict[str, list[dict[str, float]]] = {}
    for seed in SEEDS:  # a call that is interrupted has whole seeds
        for name in chosen or RUNS:
            found.setdefault(name, []).append(acted(pupil, name, seed))
        if not chosen:
            lessons = round(found["k2"][-1]["seconds"] / seconds_a_lesson)
            found.setdefault("lessons", []).append(more_lessons(pupil, seed, lessons))
    show(before, found)
    if not chosen:
        report(before, found)
        draw(before, found)


def questions() -> Iterator[tuple[str, Question, str]]:
    """The lessons: of what, the question, and its answer."""
    letters = {code: letter for letter, code in CODE.items()}
    for number in range(FIRST, FIRST + NUM_LESSONS):
        problem = MATH.question(number)
        # The judge knows the answer, and says so once it is asked about it.
        answer = next(n for n in SMALL_FIRST if problem.judge(str(n)).value == 1)
        yield "math", problem, str(answer)
        code = MORSE.question(number)
        told = "".join(letters[sign] for sign in code.text.split("? ")[1].split())
        assert code.judge(told).value == 1
        yield "morse", code, told


def taught() -> tuple[Path, float]:
    """The model that all begin with, and the seconds of one of its steps."""
    rows: dict[str, list[dict[str, Any]]] = {"math": [], "morse": []}
    folder = OUT / "data"
    if not (folder / "math.jsonl").is_file():
        for kind, question, answer in questions():
            turns = (("user", f"{question.text}\n{SLOT}"), ("assistant", f"Answer: {answer}"))
            rows[kind].append({"messages": [{"role": r, "content": c} for r, c in turns]})
        folder.mkdir(parents=True, exist_ok=True)
        for kind, own in rows.items():
            text = "".join(f"{json.dumps(row)}\n" for row in own)
            atomic.write_text(folder / f"{kind}.jsonl", text)
        texts = [m["content"] for own in rows.values() for row in own for m in row["messages"]]
        start = OUT / "start"
        save_pretrained(init_weights(Transformer(validate(ModelConfig, MODEL, "MODEL")), 0), start)
        Tokenizer.train(texts, VOCABULARY).save(start)
    config = lessons_config(OUT / "start", OUT / "pupil", 0, LESSONS)
    begun = time.monotonic()
    sft(config, SystemClock())
    seconds = OUT / "lesson_seconds"
    if not seconds.is_file():
        atomic.write_text(seconds, str((time.monotonic() - begun) / config.train.num_steps))
    return OUT / "pupil", float(seconds.read_text())


def lessons_config(init_from: Path, out_dir: Path, seed: int, steps: int) -> SftConfig:
    parts = [
        {
            "kind": "chat",
            "name": kind,
            "weight": 1.0,
            "paths": [str(OUT / "data" / f"{kind}.jsonl")],
        }
        for kind in ("math", "morse")
    ]
    train = {
        **TRAIN, "init_from": str(init_from), "out_dir": str(out_dir), "steps": steps, "seed": seed
    }  # fmt: skip
    values = {"train": train, "parts": parts, "optim": {"lr": 1e-2}}
    return validate(SftConfig, values, "lessons")


def acted(pupil: Path, name: str, seed: int) -> dict[str, float]:
    """One run, to its end, and what its model can do then."""
    out_dir = OUT / f"{name}-{seed}"
    changes = dict(RUNS[name])
    rollouts = {"groups": GROUPS, "size": SIZE, **changes.pop("rollouts", {})}
    if changes.pop("ptx", False):
        lessons = lessons_config(pupil, out_dir, seed, 1).model_dump(mode="json")["parts"]
        changes["ptx"] = [{**part, "held_out": 0.0} for part in lessons if part["name"] == "math"]
    values = {
        "train": {
            **TRAIN,
            "init_from": str(pupil),
            "out_dir": str(out_dir),
            "steps": STEPS * rollouts.get("updates", 1),
            "seed": seed,
        },
        "environments": [{"kind": "logic", "puzzles": ["morse"], "tokens": 16}],
        "rollouts": rollouts,
        "evaluation": {"tasks": HELD},
        "optim": {"lr": 1e-3},
        "schedule": {"kind": "constant", "warmup_fraction": 0.0},
        **changes,
    }
    rl(validate(RlConfig, values, name), SystemClock())
    lines = (out_dir / "metrics.jsonl").read_text().splitlines()
    seconds = sum(json.loads(line).get("seconds", 0.0) for line in lines)
    return {**measured(out_dir), "seconds": seconds}


def more_lessons(pupil: Path, seed: int, steps: int) -> dict[str, float]:
    out_dir = OUT / f"lessons-{seed}"
    sft(lessons_config(pupil, out_dir, seed, steps), SystemClock())
    return measured(out_dir)


def measured(directory: Path) -> dict[str, float]:
    """Success on held-out letters, greedy and sampled as in the runs, and nats a token of the
    answers of held-out problems."""
    llm = LLM(directory, "float32")
    held_out = read_data(lessons_config(directory, OUT / "measured", 0, 1)).held_out
    return {
        "greedy": success(llm, 0.0),
        "sampled": success(llm, 1.0),
        "math": evaluate(llm.model, held_out["math"]).loss,
    }


def success(llm: LLM, temperature: float) -> float:
    """On held-out letters, one attempt at each."""
    profile = detect_profile(llm.tokenizer)[0]
    start = Conversation.start(llm.tokenizer, (), profile)
    ends = tuple(profile.stop_ids(llm.tokenizer))
    episodes = [MORSE.begin(HELD_OUT + number) for number in range(HELD)]
    asked = [start.extended(episode.opening) for episode in episodes]
    params = [
        SamplingParams(temperature=temperature, max_tokens=16, stop_token_ids=ends, seed=number)
        for number in range(HELD)
    ]
    said = llm.generate([one.prompt_ids() for one in asked], params)
    for episode, one, completion in zip(episodes, asked, said, strict=True):
        episode.reply(one.with_reply(completion.token_ids).messages[-1])
    return mean(episode.score().value for episode in episodes)


def show(before: Mapping[str, float], found: Mapping[str, Sequence[Mapping[str, float]]]) -> None:
    """A line for each run: means over seeds, and their deviation."""
    print(f"{'':12}" + "".join(f"{kind:>15}" for kind in before) + f"{'seconds':>9}")
    print(f"{'before':12}" + "".join(f"{value:15.3f}" for value in before.values()))
    for name, seeds in found.items():
        spreads = [spread(seeds, kind) for kind in before]
        cells = "".join(f"{value:8.3f} ±{deviation:.3f}" for value, deviation in spreads)
        seconds = mean(one.get("seconds", float("nan")) for one in seeds)
        print(f"{name:12}{cells}{seconds:9.0f}")


def spread(seeds: Sequence[Mapping[str, float]], kind: str) -> tuple[float, float]:
    """Mean and deviation over seeds."""
    values = [one[kind] for one in seeds]
    return mean(values), stdev(values) if len(values) > 1 else 0.0


def report(before: Mapping[str, float], found: Mapping[str, Sequence[Mapping[str, float]]]) -> None:
    """The rows."""
    for name, seeds in found.items():
        (value, deviation), (loss, _) = spread(seeds, "sampled"), spread(seeds, "math")
        other = "k2" if name == "lessons" else "lessons"
        record(
            f"rl.objectives.{name.replace('-', '_')}",
            f"letters read after {STEPS} iterations of {GROUPS} x {SIZE} attempts ({name})",
            value,
            "share",
            low=max(0.0, value - max(0.1, 2 * deviation)),
            high=min(1.0, value + max(0.1, 2 * deviation)),
            runs=len(seeds),
            target=None,
            reference=Reference(
                name=other, value=spread(found[other], "sampled")[0], source="same run"
            ),
            command="python -m experiments.rl_objectives",
            note=f"held out, sampled; before {before['sampled']:.3f}; deviation {deviation:.3f}; "
            f"greedy {before['greedy']:.3f} to {spread(seeds, 'greedy')[0]:.3f}; "
            f"loss of what no run acts on {before['math']:.3f} to {loss:.3f} nats a token",
        )


def draw(before: Mapping[str, float], found: Mapping[str, Sequence[Mapping[str, float]]]) -> None:
    """What each run learnt, and what it forgot."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 3.8), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    titles = {"sampled": "letters read, sampled", "math": "nats a token of what no run acts on"}
    places = range(len(found))
    for axes, (kind, title) in zip(panels, titles.items(), strict=True):
        spreads = [spread(seeds, kind) for seeds in found.values()]
        axes.errorbar(
            [value for value, _ in spreads], places, xerr=[d for _, d in spreads], fmt="o",
            color="#2a6fdb", capsize=3,
        )  # fmt: skip
        axes.axvline(before[kind], color="#ff7a59", linewidth=1.0, label="before")
        axes.set_xlabel(title)
        axes.legend(frameon=False)
    panels[0].set_yticks(places, list(found))
    panels[0].invert_yaxis()
    FIGURE.parent.mkdir(exist_ok=True)
    figure.savefig(FIGURE, dpi=110, facecolor="white")


if __name__ == "__main__":
    main(sys.argv[1:])
