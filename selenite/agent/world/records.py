"""The state of a world: records by entity and id, with a hash that no order changes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

Record = Mapping[str, Any]
Tables = dict[str, dict[str, Record]]

_MODULUS = 2**128


def canonical(value: Any) -> str:
    """JSON of a value, in which neither keys nor lists have an order."""
    return json.dumps(_ordered(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _ordered(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _ordered(item) for key, item in value.items()}
    if isinstance(value, list):
        return sorted(map(_ordered, value), key=lambda item: json.dumps(item, sort_keys=True))
    return value


class Records:
    """Records are replaced and never changed, so that a snapshot shares them."""

    def __init__(self, tables: Mapping[str, Mapping[str, Record]]) -> None:
        self._tables: Tables = {entity: dict(table) for entity, table in tables.items()}
        self._sum = 0
        for entity, table in self._tables.items():
            for id, record in table.items():
                self._sum += _record_digest(entity, id, record)

    def __iter__(self) -> Iterator[tuple[str, str, Record]]:
        """Every record: its entity, its id, and itself."""
        for entity, table in self._tables.items():
            for id, record in table.items():
                yield entity, id, record

    def of(self, entity: str) -> Mapping[str, Record]:
        """The records of an entity by id, in order of their creation."""
        return self._tables.get(entity, {})

    def find(self, entity: str, id: str) -> Record | None:
        """One record; None where there is none."""
        return self.of(entity).get(id)

    def put(self, entity: str, id: str, record: Record) -> None:
        """Stores a record, which must not be changed from now on."""
        self._forget(entity, id)
        self._tables.setdefault(entity, {})[id] = record
        self._sum += _record_digest(entity, id, record)

    def remove(self, entity: str, id: str) -> None:
        """Takes a record away; it must be there."""
        self._forget(entity, id)
        del self._tables[entity][id]

    def _forget(self, entity: str, id: str) -> None:
        old = self.find(entity, id)
        if old is not None:
            self._sum -= _record_digest(entity, id, old)

    def copy(self) -> Records:
        """The same records, to be changed apart."""
        found = Records({})
        found._tables = {entity: dict(table) for entity, table in self._tables.items()}
        found._sum = self._sum
        return found

    def digest(self) -> str:
        """Equal for equal records, whatever the order in which they or their lists were made.

        The sum of the records' hashes: a change costs as much as the record, not as the state.
        """
        return f"{self._sum % _MODULUS:032x}"

    def tables(self) -> dict[str, dict[str, dict[str, Any]]]:
        """All of it as JSON."""
        return {
            entity: {id: dict(record) for id, record in table.items()}
            for entity, table in self._tables.items()
        }


def _record_digest(entity: str, id: str, record: Record) -> int:
    text = f"{entity}\0{id}\0{canonical(record)}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "big")
