"""Work on files: a total of some, others to be moved, a value to be set in one of several."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

from selenite.rl.gym.mcp.job import Job, State, Words

_Files = Mapping[str, str]
"""Texts by path below the workspace."""


def total(rng: random.Random, words: Words) -> Job:
    """The sum of some invoices, into a new file."""
    person = rng.choice(words.people)
    files, amount = dict[str, str](), 0
    for number in rng.sample(range(1000, 10_000), 6):
        who = person if not files else rng.choice(words.people)
        state = "open" if not files else rng.choice(("open", "paid"))
        euros = rng.randint(20, 900)
        files[f"invoices/{number}.txt"] = f"customer: {who}\neuros: {euros}\nstate: {state}\n"
        amount += euros if (who, state) == (person, "open") else 0
    request = (
        f"{rng.choice(words.please)} Add up the euros of all open invoices of {person} in "
        f"/workspace/invoices, and write the sum alone into a new file /workspace/{person}.txt."
    )
    path = f"{person}.txt"
    call = ("write_file", {"path": f"/workspace/{path}", "content": str(amount)})
    return _job(request, files, {**files, path: str(amount)}, call)


def archive(rng: random.Random, words: Words) -> Job:
    """Files that are done, into another folder."""
    files = dict[str, str]()
    for number in rng.sample(range(100, 1000), 5):
        state = (
            ("done", "waiting")[len(files)] if len(files) < 2 else rng.choice(("done", "waiting"))
        )
        good, city = rng.choice(words.goods), rng.choice(words.cities)
        files[f"inbox/note-{number}.txt"] = f"{good} for {city}\nstate: {state}\n"
    files["archive/readme.txt"] = "What is done is kept here.\n"
    moved = {path for path, text in files.items() if "state: done" in text}
    after = {path.replace("inbox", "archive") if path in moved else path: text
             for path, text in files.items()}  # fmt: skip
    request = (
        f"{rng.choice(words.please)} Move the notes in /workspace/inbox whose state is done into "
        "/workspace/archive, under their own names. Leave everything else as it is."
    )
    calls = [
        ("move_file", {"source": f"/workspace/{path}",
                       "destination": f"/workspace/{path.replace('inbox', 'archive')}"})
        for path in sorted(moved)
    ]  # fmt: skip
    return _job(request, files, after, *calls)


def setting(rng: random.Random, words: Words) -> Job:
    """A value in the file of one shop, which its content tells."""
    cities = rng.sample(words.cities, 3)
    numbers = rng.sample(range(1, 100), 3)
    key, other = rng.sample(("limit", "stock", "rate", "margin"), 2)
    files = {
        f"shops/shop-{number}.ini": (
            f"city = {city}\n{key} = {rng.randint(10, 99)}\n{other} = {rng.randint(10, 99)}\n"
        )
        for number, city in zip(numbers, cities, strict=True)
    }
    path, value = f"shops/shop-{numbers[0]}.ini", rng.randint(100, 999)
    before = next(line for line in files[path].splitlines() if line.startswith(key))
    after = files[path].replace(before, f"{key} = {value}")
    request = (
        f"{rng.choice(words.please)} The files in /workspace/shops are the settings of shops. Set "
        f"the {key} of the shop in {cities[0]} to {value}, and change nothing else."
    )
    edits = [{"oldText": before, "newText": f"{key} = {value}"}]
    call = ("edit_file", {"path": f"/workspace/{path}", "edits": edits})
    return _job(request, files, {**files, path: after}, call)


def _job(
    request: str, before: _Files, after: _Files, *calls: tuple[str, Mapping[str, object]]
) -> Job:
    def prepare(root: Path) -> None:
        for path, text in before.items():
            file = root / "workspace" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)

    def finish(root: Path) -> None:
        for path in before:
            (root / "workspace" / path).unlink()
        for path, text in after.items():
            (root / "workspace" / path).write_text(text)

    return Job("filesystem", request, prepare, finish, _texts, calls)


def _texts(root: Path) -> State:
    """All files; a line's end after the last line does not count."""
    workspace = root / "workspace"
    return {
        str(path.relative_to(workspace)): path.read_bytes().rstrip(b"\n")
        for path in sorted(workspace.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }
