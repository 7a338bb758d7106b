"""Does a server serve what was trained? The checks of Kimi's vendor verifier, of any endpoint.

- Schema accuracy: of the replies that end in calls, those whose calls all fit their schemas.
- Trigger: calls or none; precision, recall and F1 against the same weights, decoded greedily in
  float32 by the plain decoder, which shares the trainer's forward pass. Both without a grammar.
- Ids of calls: functions.NAME:IDX, counted over the conversation.
- Grammar: calls that were valid without one are the same with it.

Kimi's own tool asks 4,000 requests at temperature 1 and expects a similarity of 0.73 to 0.80;
greedily, and by our own engine, it must be 1.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.table import Table

from selenite.chat.conversation import Conversation
from selenite.chat.events import collect
from selenite.chat.schema import ToolSchemas
from selenite.chat.tokenizer import Tokenizer
from selenite.eval.question import Answer, Question, read_call
from selenite.model.decode import decode
from selenite.model.hf_adapter import load_pretrained
from selenite.types import SamplingParams, ToolCall

_BATCH = 16


@dataclass(frozen=True)
class Trigger:
    """Who called: both, the server alone, the reference alone."""

    both: int
    server: int
    reference: int

    @property
    def precision(self) -> float:
        return _share(self.both, self.both + self.server)

    @property
    def recall(self) -> float:
        return _share(self.both, self.both + self.reference)

    @property
    def f1(self) -> float:
        """1 where nobody called."""
        return _share(2 * self.both, 2 * self.both + self.server + self.reference)


@dataclass(frozen=True)
class VendorReport:
    """What was found; of answers that came."""

    answers: int
    errors: int  # requests that failed: in none of the rest
    with_calls: int
    valid: int  # of those
    wrong_ids: int  # calls
    trigger: Trigger
    free_valid: int  # answers whose calls were valid without a grammar
    changed: int  # of those, that are others with it

    @property
    def schema_accuracy(self) -> float:
        return _share(self.valid, self.with_calls)


def check(
    questions: Sequence[Question],
    guided: Mapping[str, Answer],
    free: Mapping[str, Answer],
    reference: Mapping[str, Answer],
) -> VendorReport:
    """The report on a server's answers. ``free`` are those without a grammar; where a server has no
    such mode, the same."""
    asked = [q for q in questions if not guided[q.id].error]
    called = [q for q in asked if guided[q.id].calls]
    theirs = {q.id for q in asked if _has_begun(reference[q.id])}
    ours = {q.id for q in asked if _has_begun(free[q.id])}
    valid_free = [q for q in asked if free[q.id].calls and _is_valid(q, free[q.id])]
    return VendorReport(
        answers=len(asked),
        errors=len(questions) - len(asked),
        with_calls=len(called),
        valid=sum(_is_valid(q, guided[q.id]) for q in called),
        wrong_ids=sum(_wrong_ids(q, guided[q.id]) for q in called),
        trigger=Trigger(len(ours & theirs), len(ours - theirs), len(theirs - ours)),
        free_valid=len(valid_free),
        changed=sum(guided[q.id].calls != free[q.id].calls for q in valid_free),
    )


def reference_answers(
    directory: Path, questions: Sequence[Question], max_tokens: int
) -> dict[str, Answer]:
    """What the weights say by themselves: greedily, in float32, without a server or a grammar."""
    tokenizer = Tokenizer.load(directory)
    model = load_pretrained(directory, torch.float32)
    found = dict[str, Answer]()
    for start in range(0, len(questions), _BATCH):
        batch = questions[start : start + _BATCH]
        talks = [Conversation.start(tokenizer, q.tools).extended(q.messages) for q in batch]
        prompts = [talk.prompt_ids() for talk in talks]
        params = [SamplingParams(temperature=0, max_tokens=max_tokens)] * len(batch)
        stop = frozenset(talks[0].profile.stop_ids(tokenizer))
        for question, talk, written in zip(
            batch, talks, decode(model, prompts, params, stop), strict=True
        ):
            parser = talk.parser(tools_offered=bool(question.tools))
            reply = collect([*parser.feed_ids(written.token_ids), *parser.finish()])
            calls = tuple(read_call(call.name, call.arguments) for call in reply.calls)
            found[question.id] = Answer(reply.content, calls, len(reply.malformed))
    return found


def _has_begun(answer: Answer) -> bool:
    """Whether it meant to call, whatever came of it."""
    return bool(answer.calls or answer.malformed)


def _is_valid(question: Question, answer: Answer) -> bool:
    schemas = ToolSchemas(question.tools)
    calls = [ToolCall(call.name, json.dumps(call.arguments), "") for call in answer.calls]
    is_whole = all(call.arguments is not None for call in answer.calls) and not answer.malformed
    return is_whole and all(schemas.check(call).valid for call in calls)


def _wrong_ids(question: Question, answer: Answer) -> int:
    first = sum(len(message.tool_calls) for message in question.messages)
    entries = answer.record["choices"][0]["message"]["tool_calls"]
    return sum(
        entry.get("id") != f"functions.{entry['function']['name']}:{number}"
        for number, entry in enumerate(entries, first)
    )


def table(report: VendorReport) -> Table:
    """For people."""
    shown = Table("check", "value", "of", title="vendor checks")
    trigger = report.trigger
    replies, valid = f"{report.with_calls} replies", f"{report.free_valid} valid replies"
    shown.add_row("schema accuracy", f"{report.schema_accuracy:.3f}", replies)
    shown.add_row("trigger F1", f"{trigger.f1:.3f}", f"{report.answers} answers")
    shown.add_row("  precision, recall", f"{trigger.precision:.3f}, {trigger.recall:.3f}", "")
    shown.add_row("calls with another id", str(report.wrong_ids), "")
    shown.add_row("changed by the grammar", str(report.changed), valid)
    shown.add_row("requests that failed", str(report.errors), "")
    return shown


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 1.0
