"""A shard: the rephrasings of a range of documents, in a file that ``data`` reads, and their tally.

A shard follows from its range alone. Its tally is written last, so that what was interrupted is
made again and what is there is never made twice.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selenite import atomic
from selenite.agent.rephrasing.backends import Backends
from selenite.agent.rephrasing.config import RephrasingConfig
from selenite.agent.rephrasing.document import DocumentRephraser, Outcome
from selenite.agent.rephrasing.fidelity import Fault
from selenite.agent.rephrasing.intake import documents_path
from selenite.agent.rephrasing.tally import Tally, count
from selenite.agent.rows import read_rows, write_rows
from selenite.errors import EndpointError

HELD_OUT = "held_out"


def tally_path(config: RephrasingConfig, number: int) -> Path:
    """Of a shard; it is there when the shard is."""
    return config.out_dir / "shards" / f"{number:05d}.json"


def make_shard(
    config: RephrasingConfig, held_out: frozenset[int], backends: Backends, number: int
) -> Tally:
    """Makes a shard, unless it is there.

    Raises ``EndpointError``, and writes nothing, where endpoints fail for too many rephrasings:
    what is lost to them would not come back.
    """
    known = tally_path(config, number)
    if known.exists():
        return Tally(**json.loads(known.read_text(encoding="utf-8")))
    tally, rows, failed = Tally(number), list[dict[str, Any]](), 0
    documents = list(read_rows(documents_path(config, number)))
    due = config.rounds * sum(document["number"] not in held_out for document in documents)
    for document in documents:
        tally.documents += 1
        if document["number"] in held_out:
            tally.rephrasings += config.rounds
            count(tally.dropped, {HELD_OUT: config.rounds})
            continue
        rephraser = DocumentRephraser(document["number"], document["text"], config, backends)
        for round_number in range(config.rounds):
            outcome = rephraser.rephrase(round_number)
            if outcome.fault is not None and outcome.fault.is_of_endpoint:
                failed += 1
                if failed > config.most_failed * due:
                    raise _outage(number, failed, due, outcome.fault)
            _note(tally, outcome, document)
            if outcome.text:
                rows.append(_row(document, round_number, outcome))
    name = f"shards/{number:05d}.jsonl.zst"
    tally.sha256[name] = write_rows(config.out_dir / name, rows)
    tally.check_integrity()
    atomic.write_text(known, json.dumps(vars(tally), indent=1))
    return tally


def _outage(number: int, failed: int, due: int, last: Fault) -> EndpointError:
    return EndpointError(
        f"shard {number}: endpoints failed for {failed} of {due} rephrasings (the last: "
        f"{last.reason}: {last.detail}); see to the endpoint and run the same command again, which "
        "goes on from here, or allow more with most_failed"
    )


def _note(tally: Tally, outcome: Outcome, document: Mapping[str, Any]) -> None:
    tally.rephrasings += 1
    count(tally.faults, outcome.faults)
    if outcome.fault is not None:
        count(tally.dropped, {outcome.fault.reason: 1})
        return
    tally.kept += 1
    tally.chars_in += len(document["text"])
    tally.chars_out += len(outcome.text)
    tally.chunks += outcome.chunks
    tally.verbatim += outcome.verbatim
    count(tally.stayed, outcome.stayed)
    count(tally.styles, {outcome.style.name: 1})
    count(tally.perspectives, {outcome.perspective.name: 1})
    count(tally.backends, {outcome.backend: 1})


def _row(document: Mapping[str, Any], round_number: int, outcome: Outcome) -> dict[str, Any]:
    return {
        "id": f"{document['number']}-{round_number}",
        "text": outcome.text,
        "source": document["key"],
        "round": round_number,
        "style": outcome.style.name,
        "perspective": outcome.perspective.name,
        "backend": outcome.backend,
        "stayed": sum(outcome.stayed.values()),
    }
