"""Work in a database: rows to be changed or taken out over two tables, and a table of totals."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from selenite.rl.gym.mcp.job import Job, State, Words

_TABLES = (
    "CREATE TABLE customers (name TEXT PRIMARY KEY, city TEXT)",
    "CREATE TABLE orders (id INTEGER PRIMARY KEY, customer TEXT, goods TEXT, pieces INTEGER, "
    "state TEXT)",
)
_MOST_ROWS = 10_000  # of a table that is read


def ship(rng: random.Random, words: Words) -> Job:
    """Orders that another table selects, to be changed."""
    tables = _Tables(rng, words)
    city = tables.home[tables.orders[0][1]]
    request = (
        "In the database, set the state of all open orders of customers from "
        f"{city} to 'shipped'. Leave the other rows as they are."
    )
    return tables.job(
        f"{rng.choice(words.please)} {request}",
        "write_query",
        "UPDATE orders SET state = 'shipped' WHERE state = 'open' AND customer IN "
        f"(SELECT name FROM customers WHERE city = '{city}')",
    )


def remove(rng: random.Random, words: Words) -> Job:
    """Orders to be taken out."""
    tables = _Tables(rng, words)
    goods, pieces = tables.orders[0][2], tables.orders[0][3] + 1
    request = (
        f"In the database, take out all orders of {goods} with fewer than {pieces} pieces, and "
        "nothing else."
    )
    return tables.job(
        f"{rng.choice(words.please)} {request}",
        "write_query",
        f"DELETE FROM orders WHERE goods = '{goods}' AND pieces < {pieces}",
    )


def totals(rng: random.Random, words: Words) -> Job:
    """A new table of sums."""
    tables = _Tables(rng, words)
    name = rng.choice(("totals", "sums", "per_customer"))
    request = (
        f"In the database, make a new table {name} with the columns customer and pieces: for each "
        "customer that has orders, the sum of the pieces of all of them."
    )
    return tables.job(
        f"{rng.choice(words.please)} {request}",
        "create_table",
        f"CREATE TABLE {name} AS SELECT customer, SUM(pieces) AS pieces FROM orders "
        "GROUP BY customer",
    )


class _Tables:
    """Customers and their orders. The first order is open, so that each task changes something."""

    def __init__(self, rng: random.Random, words: Words) -> None:
        people = rng.sample(words.people, 4)
        cities = rng.sample(words.cities, 3)
        self.home = {person: rng.choice(cities) for person in people}
        self.orders: Sequence[tuple[int, str, str, int, str]] = [
            (
                number,
                rng.choice(people),
                rng.choice(words.goods),
                rng.randint(2, 30),
                "open" if not place else rng.choice(("open", "paid")),
            )
            for place, number in enumerate(rng.sample(range(100, 1000), 10))
        ]

    def job(self, request: str, tool: str, query: str) -> Job:
        """The task whose end a query makes."""

        def prepare(root: Path) -> None:
            database = _database(root)
            database.parent.mkdir(parents=True)
            (root / "workspace").mkdir(exist_ok=True)
            with closing(sqlite3.connect(database)) as opened, opened:
                for table in _TABLES:
                    opened.execute(table)
                opened.executemany("INSERT INTO customers VALUES (?, ?)", self.home.items())
                opened.executemany("INSERT INTO orders VALUES (?, ?, ?, ?, ?)", self.orders)

        def finish(root: Path) -> None:
            with closing(sqlite3.connect(_database(root))) as opened, opened:
                opened.execute(query)

        return Job("sqlite", request, prepare, finish, _rows, [(tool, {"query": query})])


def _database(root: Path) -> Path:
    return root / "private" / "sqlite" / "data.db"


def _rows(root: Path) -> State:
    """Of each table its columns' names and its rows, in whatever order they are; of all else its
    definition, for a view can take forever to read."""
    found = dict[str, object]()
    with closing(sqlite3.connect(f"file:{_database(root)}?mode=ro", uri=True)) as opened:
        parts = opened.execute("SELECT type, name, sql FROM sqlite_master").fetchall()
        for kind, name, definition in parts:
            if kind != "table":
                found[f"{kind} {name}"] = definition
                continue
            quoted = name.replace('"', '""')
            rows = opened.execute(f'SELECT * FROM "{quoted}"')
            columns = [column[0].lower() for column in rows.description]
            found[name.lower()] = (columns, sorted(rows.fetchmany(_MOST_ROWS), key=repr))
    return found
