"""Questions to an endpoint, and its answers; those that are on the disk are not asked again.

The file of answers is named after what decides them: the questions, the options and the model's
name, so that a run that was interrupted goes on, and other options never mix with it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selenite import atomic
from selenite.chat.openai_form import tool_entry, wire_message
from selenite.client.batch import BatchOptions, run_batch
from selenite.client.batch_file import BatchLine, OutputFile
from selenite.client.endpoint import Endpoint, is_too_long
from selenite.clock import Clock
from selenite.errors import DataError
from selenite.eval.question import Answer, Question, read_call


@dataclass(frozen=True)
class AskOptions:
    """How an endpoint is asked."""

    model: str  # as the endpoint names it
    fingerprint: str  # of its weights, or what else tells it from others of that name
    guided: bool | None = True  # False: our server writes calls without a grammar; None: as it does
    max_tokens: int = 512
    temperature: float = 0.0
    concurrency: int = 16
    retries: int = 6
    timeout: float = 1800.0  # seconds of one try

    def decisive(self) -> dict[str, Any]:
        """What answers follow from."""
        names = ("model", "fingerprint", "guided", "max_tokens", "temperature")
        return {name: getattr(self, name) for name in names}


def ask(
    questions: Sequence[Question],
    endpoint: Endpoint,
    folder: Path,
    options: AskOptions,
    clock: Clock,
    on_answer: Callable[[], None] = lambda: None,
) -> dict[str, Answer]:
    """An answer of each question, by its id. Failed requests are answers with an ``error``."""
    lines = [BatchLine(q.id, _request(q, options)) for q in questions]
    path = folder / f"answers-{_key(lines, options)}.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    with closing(OutputFile(path)) as output:
        for line in lines:
            if line.custom_id in output.done:
                on_answer()
        batch = BatchOptions(None, options.concurrency, options.retries, options.timeout)
        run_batch(lines, output, endpoint, batch, clock, on_answer)
    answers = read_answers(path)
    _forget(path, {name for name, answer in answers.items() if answer.error})
    return answers


def _forget(path: Path, failed: Collection[str]) -> None:
    """Takes answers that are none out of the file: they are asked for again the next time."""
    if failed:
        lines = path.read_text(encoding="utf-8").split("\n")
        kept = [line for line in lines if line and json.loads(line)["custom_id"] not in failed]
        atomic.write_text(path, "".join(f"{line}\n" for line in kept))


def read_answers(path: Path) -> dict[str, Answer]:
    """The answers in a file that ``ask`` wrote."""
    answers = dict[str, Answer]()
    for line in path.read_text(encoding="utf-8").split("\n"):
        if line:
            entry = json.loads(line)
            answers[entry["custom_id"]] = _answer(entry)
    return answers


def _request(question: Question, options: AskOptions) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": options.model,
        "messages": [wire_message(message) for message in question.messages],
        "temperature": options.temperature,
        "max_tokens": options.max_tokens,
    }
    if question.tools:
        body["tools"] = [tool_entry(tool) for tool in question.tools]
    if options.guided is False:
        body["constrain_calls"] = False
    return {"method": "POST", "url": "/v1/chat/completions", "body": body}


def _key(lines: Sequence[BatchLine], options: AskOptions) -> str:
    digest = hashlib.sha256(json.dumps(options.decisive(), sort_keys=True).encode())
    for line in lines:
        digest.update(json.dumps(line.request, sort_keys=True).encode())
    return digest.hexdigest()[:16]


def _answer(entry: Mapping[str, Any]) -> Answer:
    response, error = entry["response"], entry["error"]
    if error is not None:
        if response is not None and is_too_long(json.dumps(response["body"]).encode()):
            return Answer(too_long=True)
        return Answer(error=f"{error['code']}: {error['message']}")
    return read_answer(response["body"])


def read_answer(body: Any) -> Answer:
    """A chat completion; one that is none is a fault of the pipeline."""
    try:
        message = body["choices"][0]["message"]
        calls = tuple(
            read_call(call["function"]["name"], call["function"]["arguments"])
            for call in message.get("tool_calls") or ()
        )
        malformed = len(message.get("malformed") or ())
        text = message.get("content") or ""
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        return Answer(error=f"no chat completion ({error!r})")
    return Answer(str(text), calls, malformed, record=body)


def check_errors(answers: Mapping[str, Answer], most: float = 0.005) -> None:
    """Raises ``DataError`` where more than a share of the answers are faults of the pipeline."""
    faults = [f"{name}: {answer.error}" for name, answer in answers.items() if answer.error]
    if len(faults) > most * len(answers):
        raise DataError(
            f"{len(faults)} of {len(answers)} requests failed, so there is no score. The first: "
            f"{faults[0]}. See to it, and call the same command again: what was answered is kept"
        )
