"""A corpus in other forms: chat JSON lines, parquet for ``datasets``, ids of a vocabulary."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from selenite import atomic
from selenite.chat.supervision import supervise
from selenite.chat.tokenizer import Tokenizer
from selenite.errors import ConfigError, MissingExtraError, StorageError
from selenite.types import Message, ToolCall, ToolSpec

Row = Mapping[str, Any]
_BATCH = 1000  # rows of a row group


def export(rows: Iterable[Row], path: Path, form: str, tokenizer: Path | None = None) -> int:
    """Writes rows of a corpus to a file; returns how many.

    Args:
        rows: as ``pipeline.trajectories`` reads them.
        path: of the file.
        form: ``chat``, ``tokens`` or ``parquet``.
        tokenizer: of ``tokens``: the directory of a tokenizer with a chat template.

    The file appears whole or not at all, unless it is a pipe. Raises ``ConfigError`` for another
    form, for tokens without a tokenizer and a tokenizer without tokens, ``StorageError`` when the
    disk refuses.
    """
    if tokenizer is not None and form != "tokens":
        raise ConfigError(f"tokenizer={tokenizer}: is for form=tokens, and form is {form}")
    write = _writer(form, tokenizer)
    if path.is_dir():
        raise StorageError(f"{path}: is a folder; give the name of a file in it")
    if path.exists() and not path.is_file():  # such as /dev/stdout
        return write(rows, path)
    with atomic.replacing(path) as part:
        return write(rows, part)


def _writer(form: str, tokenizer: Path | None) -> Callable[[Iterable[Row], Path], int]:
    match form:
        case "chat":
            return lambda rows, path: _lines(map(chat_row, rows), path)
        case "parquet":
            return _parquet
        case "tokens":
            if tokenizer is None:
                raise ConfigError("form=tokens: give the directory of a tokenizer")
            token_row = _token_row(Tokenizer.load(tokenizer))
            return lambda rows, path: _lines(map(token_row, rows), path)
    raise ConfigError(f"form={form!r}: must be chat, tokens or parquet")


def chat_row(row: Row) -> dict[str, Any]:
    """A conversation as fine-tuning services take it; ``weight`` 0 means: no loss on this turn."""
    messages = [dict(message) for message in row["messages"]]
    for place in row["untrained"]:
        messages[place]["weight"] = 0
    return {"messages": messages, "tools": row["tools"], "parallel_tool_calls": True}


def read_messages(row: Row) -> tuple[list[Message], list[ToolSpec]]:
    """A row's conversation and tools."""
    messages = [
        Message(
            message["role"],
            message["content"] or "",
            tool_calls=tuple(
                ToolCall(call["function"]["name"], call["function"]["arguments"], call["id"])
                for call in message.get("tool_calls", ())
            ),
            tool_call_id=message.get("tool_call_id"),
        )
        for message in row["messages"]
    ]
    functions = (tool["function"] for tool in row["tools"])
    tools = [ToolSpec(f["name"], f["description"], f["parameters"]) for f in functions]
    return messages, tools


def _token_row(tokenizer: Tokenizer) -> Callable[[Row], dict[str, Any]]:
    def made(row: Row) -> dict[str, Any]:
        messages, tools = read_messages(row)
        found = supervise(tokenizer, messages, tools, row["untrained"])
        mask = [int(is_on) for is_on in found.is_trained]
        return {
            "id": row["id"],
            "input_ids": list(found.ids),
            "loss_mask": mask,
            "spans": list(map(list, found.turns)),
        }

    return made


def _lines(rows: Iterable[Mapping[str, Any]], path: Path) -> int:
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            count += 1
            file.write(f"{json.dumps(row, ensure_ascii=False)}\n")
    return count


def _parquet(rows: Iterable[Row], path: Path) -> int:
    """Schemas differ from tool to tool, so tools and arguments are columns of JSON text."""
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise MissingExtraError("pyarrow", "agent", "parquet files") from error
    text = pa.string()
    function = pa.struct([("name", text), ("arguments", text)])
    call = pa.struct([("id", text), ("type", text), ("function", function)])
    message = pa.struct(
        [("role", text), ("content", text), ("tool_calls", pa.list_(call)), ("tool_call_id", text)]
    )
    schema = pa.schema(
        [
            ("id", text),
            ("split", text),
            ("class", text),
            ("template", text),
            ("messages", pa.list_(message)),
            ("tools", text),
            ("untrained", pa.list_(pa.int32())),
        ]
    )
    count, batch = 0, list[dict[str, Any]]()
    with parquet.ParquetWriter(path, schema) as writer:

        def flush() -> None:
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))
            batch.clear()

        for row in rows:
            count += 1
            own = {name: row[name] for name in ("id", "split", "messages", "untrained")}
            task = {name: row["task"][name] for name in ("class", "template")}
            tools = json.dumps(row["tools"], ensure_ascii=False)
            batch.append({**own, **task, "tools": tools})
            if len(batch) == _BATCH:
                flush()
        flush()
    return count
