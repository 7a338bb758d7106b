"""The documents of the sources, written down once: what is rephrased no longer depends on them.

documents/00000.jsonl.zst ... ─► documents.json, last
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from selenite import atomic
from selenite.agent.rephrasing.config import RephrasingConfig
from selenite.agent.rows import write_rows
from selenite.data.documents import Document, ReadReport
from selenite.data.split import split
from selenite.errors import DataError

_RECORD = "documents.json"


@dataclass
class Intake:
    """What was read."""

    documents: int = 0
    num_bytes: int = 0  # of text, as UTF-8
    copies: int = 0  # documents left out for being exact copies of earlier ones
    empty: int = 0  # left out, as are the next two
    generated: int = 0
    invalid_utf8: int = 0
    held_out: list[int] = field(default_factory=list)  # numbers of documents that data holds out
    sha256: dict[str, str] = field(default_factory=dict)  # by file


def documents_path(config: RephrasingConfig, shard: int) -> Path:
    """The file of the documents of a shard."""
    return config.out_dir / "documents" / f"{shard:05d}.jsonl.zst"


def num_shards(config: RephrasingConfig, intake: Intake) -> int:
    """Of a corpus."""
    return -(-intake.documents // config.shard_documents)


def take_in(config: RephrasingConfig, watch: Callable[[int], None]) -> Intake:
    """Reads the sources, unless that is done; ``watch`` is told the number of documents so far.

    Raises ``DataError`` for sources that cannot be read or have no text.
    """
    record = config.out_dir / _RECORD
    if record.exists():
        return Intake(**json.loads(record.read_text(encoding="utf-8")))
    intake, names, rows = Intake(), list[Document](), list[dict[str, Any]]()
    for document in _unlike(config, intake):
        rows.append({"number": intake.documents, "key": document.key, "text": document.text})
        names.append(Document("", document.source, document.package, document.path))
        intake.documents += 1
        intake.num_bytes += len(document.text.encode())
        if len(rows) == config.shard_documents:
            _flush(config, intake, rows)
            watch(intake.documents)
    if not names:
        raise DataError(
            f"the sources {[one.kind for one in config.sources]} have no document; name other files"
        )
    if rows:
        _flush(config, intake, rows)
    if config.split is not None and len(names) > 1:
        _, held_out = split(names, config.split)
        keys = {document.key for document in held_out}
        intake.held_out = [n for n, document in enumerate(names) if document.key in keys]
    atomic.write_text(record, json.dumps(asdict(intake), indent=1))
    return intake


def _unlike(config: RephrasingConfig, intake: Intake) -> Iterator[Document]:
    """The documents of all sources, each with an equal share of the bytes, without copies."""
    report, seen = ReadReport(), set[bytes]()
    share = None
    if config.max_bytes is not None:
        share = max(1, config.max_bytes // len(config.sources))
    for source in config.sources:
        for document in source.documents(share, report):
            digest = hashlib.sha256(document.text.encode()).digest()
            if digest in seen:
                intake.copies += 1
            else:
                seen.add(digest)
                yield document
    report.announce()
    intake.empty, intake.generated = report.empty, report.generated
    intake.invalid_utf8 = len(report.invalid_utf8)


def _flush(config: RephrasingConfig, intake: Intake, rows: list[dict[str, Any]]) -> None:
    path = documents_path(config, (intake.documents - 1) // config.shard_documents)
    intake.sha256[path.relative_to(config.out_dir).as_posix()] = write_rows(path, rows)
    rows.clear()
