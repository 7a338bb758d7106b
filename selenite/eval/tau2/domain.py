"""Runs inside the sandbox: tasks and environments of one domain, tau2's own orchestrator and its
own evaluator."""

from __future__ import annotations

import importlib
import pickle
import signal
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any

_CALL_SECONDS = 2.0  # of the processor
_MAX_STEPS, _MAX_ERRORS = 200, 10  # tau2's own defaults
_PARTS = ("agent.llm_agent", "evaluator.evaluator", "orchestrator.orchestrator")


class Domain:
    """Tasks and environments of one domain."""

    def __init__(self, name: str, split: str) -> None:
        from tau2.data_model.tasks import Task  # type: ignore[import-not-found]
        from tau2.environment.db import DB  # type: ignore[import-not-found]
        from tau2.utils import DATA_DIR  # type: ignore[import-not-found]
        from tau2.utils.io_utils import load_file  # type: ignore[import-not-found]

        for part in _PARTS:  # once, and not in each episode's process
            importlib.import_module(f"tau2.{part}")
        self.name = name
        parsed: dict[tuple[type, str], bytes] = {}

        def load(cls: type[Any], path: str) -> Any:
            """As tau2's own does; what was parsed once is copied."""
            key = cls, str(path)
            if key not in parsed:
                parsed[key] = pickle.dumps(cls.model_validate(load_file(path)))
            return pickle.loads(parsed[key])

        DB.load = classmethod(load)
        module = importlib.import_module(f"tau2.domains.{name}.environment")
        self._make = module.get_environment
        folder = DATA_DIR / "tau2" / "domains" / name
        splits = load_file(folder / "split_tasks.json")
        if split not in splits:
            raise SystemExit(f"split {split!r} of {name}: must be one of {', '.join(splits)}")
        wanted = set(splits[split])
        tasks = load_file(folder / "tasks.json")
        entries = [entry for entry in tasks if entry["id"] in wanted]
        self.tasks = {entry["id"]: Task.model_validate(entry) for entry in entries}
        if self.environment().user_tools is not None:
            environment = self.environment(solo_mode=True)
            # That no two tools have one name is seen now, and takes long.
            type(environment).validate_solo_mode = lambda environment: None

    def environment(self, solo_mode: bool = False) -> Any:
        """A new one. Numbers that tools draw are the same ones in each, so that calls that are
        made again give the same."""
        drawn = count(1)
        uuid.uuid4 = lambda: uuid.UUID(int=next(drawn) << 96)
        found = self._make(solo_mode=solo_mode)
        found.make_tool_call = _limited(found.make_tool_call)
        return found

    def describe(self) -> dict[str, Any]:
        """The tasks, the tools of both sides, and which of those change something."""
        environment = self.environment()
        has_user_tools = environment.user_tools is not None
        kits = [environment.tools, *([environment.user_tools] if has_user_tools else [])]
        return {
            "tasks": [task.model_dump(mode="json") for task in self.tasks.values()],
            "agent": _schemas(environment.get_tools()),
            "user": _schemas(environment.get_user_tools()) if has_user_tools else [],
            "writes": [n for kit in kits for n in kit.tools if kit.tool_type(n).value == "write"],
        }

    def gold(self, id: str, solo: bool) -> dict[str, Any]:
        """What an agent is told of a task, and what the calls that are right return in turn."""
        from tau2.data_model.message import ToolCall  # type: ignore[import-not-found]

        task = self.tasks[id]
        environment = self.environment(solo)
        state = task.initial_state
        history: list[Any] = []
        if state is not None:
            history = state.message_history or []
            environment.set_state(state.initialization_data, state.initialization_actions, history)
        agent = _agent(environment, task, solo)
        results = []
        for number, action in enumerate(task.evaluation_criteria.actions or []):
            requestor = "assistant" if solo else action.requestor
            call = ToolCall(
                id=str(number), name=action.name, arguments=action.arguments, requestor=requestor
            )
            results.append(environment.get_response(call).content)
        return {
            "system": agent.system_prompt,
            "history": [plain(message) for message in history],
            "results": results,
        }

    def play(self, id: str, solo: bool) -> dict[str, Any]:
        """One task under tau2's orchestrator, and its evaluator's verdict."""
        from tau2.evaluator.evaluator import (  # type: ignore[import-not-found]
            EvaluationType,
            evaluate_simulation,
        )
        from tau2.orchestrator.orchestrator import Orchestrator  # type: ignore[import-not-found]
        from tau2.user.user_simulator import (  # type: ignore[import-not-found]
            DummyUser,
            UserSimulator,
        )

        task, environment = self.tasks[id], self.environment(solo)
        agent = _agent(environment, task, solo)
        if solo:
            user = DummyUser()
        else:
            user = UserSimulator(
                tools=None if environment.user_tools is None else [],  # as in _agent
                instructions=str(task.user_scenario),
                llm="user",
            )
        run = Orchestrator(
            domain=self.name,
            agent=agent,
            user=user,
            environment=environment,
            task=task,
            max_steps=_MAX_STEPS,
            max_errors=_MAX_ERRORS,
            solo_mode=solo,
        ).run()
        found = evaluate_simulation(run, task, EvaluationType.ALL, solo, self.name)
        return {
            "reward": found.reward,
            "parts": {part.value: v for part, v in (found.reward_breakdown or {}).items()},
            "ended": run.termination_reason.value,
        }


def _agent(environment: Any, task: Any, solo: bool) -> Any:
    from tau2.agent.llm_agent import LLMAgent, LLMSoloAgent  # type: ignore[import-not-found]

    # Tools go to the model alone, by whoever answers ``generate``; their schemas take long.
    policy = environment.get_policy()
    if solo:
        return LLMSoloAgent(tools=[], domain_policy=policy, task=task, llm="agent")
    return LLMAgent(tools=[], domain_policy=policy, llm="agent")


def _schemas(tools: Sequence[Any]) -> list[dict[str, Any]]:
    return [tool.openai_schema["function"] for tool in tools]


def plain(message: Any) -> dict[str, Any]:
    """A message as it is told."""
    # By hand: arguments may be deeper than pydantic writes.
    kept = ("role", "content", "id", "requestor", "error")
    fields = {name: vars(message)[name] for name in kept if vars(message).get(name) is not None}
    calls = getattr(message, "tool_calls", None)
    return fields | ({"tool_calls": [dict(vars(call)) for call in calls]} if calls else {})


def _limited(call: Any) -> Any:
    def limited(*arguments: Any, **options: Any) -> Any:
        with _alarm():
            return call(*arguments, **options)

    return limited


@contextmanager
def _alarm() -> Iterator[None]:
    def ring(signal: int, frame: object) -> None:
        raise TimeoutError("the call does not end")

    signal.signal(signal.SIGVTALRM, ring)
    signal.setitimer(signal.ITIMER_VIRTUAL, _CALL_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
