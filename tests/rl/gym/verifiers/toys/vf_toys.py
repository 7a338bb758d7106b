"""Environments of ``verifiers`` for tests; run by the interpreter that has it."""

from __future__ import annotations

import asyncio
import os
import threading

import verifiers as vf
from datasets import Dataset


def rows(n: int) -> Dataset:
    return Dataset.from_list(
        [{"question": f"What is {number} + 1?", "answer": str(number + 1)} for number in range(n)]
    )


def right(completion, answer) -> float:
    return float(completion[-1].content == answer)


def broken(completion) -> float:
    raise ZeroDivisionError("a grader's bug")


def all_alike(completions) -> list[float]:
    return [1.0 for _ in completions]


async def add(a: int, b: int) -> str:
    """Adds two numbers."""
    print("on stdout, where answers are")
    return str(a + b)


class Guess(vf.MultiTurnEnv):
    """Says higher or lower, and has tricks up its sleeve."""

    def __init__(self, trick: str, together: int, **kwargs):
        super().__init__(**kwargs)
        self._trick = trick
        self._barrier = asyncio.Barrier(together)

    async def get_prompt_messages(self, state):
        messages = await super().get_prompt_messages(state)
        return messages[1:] if state.get("forgets") else messages

    async def env_response(self, messages, state, **kwargs):
        said = messages[-1].content
        if self._trick == "together":
            await self._barrier.wait()
        if said == "die":
            os._exit(3)
        if said == "hang":
            await asyncio.Event().wait()
        if said == "hang all":
            threading.Event().wait()
        if said == "raise":
            raise ValueError("it has a bug")
        if said == "fail":
            raise vf.SandboxError("no sandbox is left")
        if said == "forget":
            state["forgets"] = True
            return [{"role": "user", "content": "Again."}]
        if said == state["answer"]:
            state["final_env_response"] = [{"role": "user", "content": "Right."}]
            return state["final_env_response"]
        word = "Higher." if int(said) < int(state["answer"]) else "Lower."
        return [{"role": "user", "content": word}]


def load_environment(kind: str, n: int = 20, trick: str = "", together: int = 1):
    prompt = "Say a number."
    if kind == "single":
        weights = vf.Rubric(funcs=[right, len_of_last], weights=[2.0, -1.0])
        return vf.SingleTurnEnv(dataset=rows(n), rubric=weights, system_prompt=prompt)
    if kind == "tools":
        return vf.ToolEnv(dataset=rows(n), tools=[add], rubric=vf.Rubric(funcs=[right]))
    if kind == "guess":
        rubric = vf.Rubric(funcs=[found])
        return Guess(trick, together, dataset=rows(n), eval_dataset=rows(3), rubric=rubric)
    funcs = {"broken": [right, broken], "group": [all_alike]}[kind]
    single = vf.SingleTurnEnv(dataset=rows(n), rubric=vf.Rubric(funcs=funcs))
    return vf.EnvGroup([single], ["single"]) if trick == "in a group" else single


def len_of_last(completion) -> float:
    return len(completion[-1].content) / 100


def found(state) -> float:
    return 1 / len(state["trajectory"])
