"""Documents to rephrase: English articles, each with facts of its own, and others."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from selenite.agent.rephrasing.config import RephrasingConfig

_PEOPLE = ["Marie Lindqvist", "Jonas Okafor", "Priya Raman", "Tomás Herrera", "Aiko Brandt"]
_PLACES = ["Uppsala", "Lagos", "Chennai", "Valparaíso", "Kyoto"]
_THINGS = ["lighthouse", "printing press", "seed bank", "tide mill", "observatory"]

GERMAN = (
    "# Der Leuchtturm\n\nDer Leuchtturm wurde im Jahr 1887 von einem Ingenieur gebaut, der aus dem "
    "Norden kam. Er ist heute nicht mehr in Betrieb, aber man kann ihn noch besuchen, wenn das "
    "Wetter gut ist. Im Sommer sind es oft mehr als 200 Leute am Tag, die auf den Turm steigen. "
    "Das Licht war bei klarer Sicht bis zu 40 Kilometer weit zu sehen.\n"
)
CODE = "\n".join(
    f"def function_{n}(a, b):\n    result = a[{n}] + b.value\n    return result\n"
    for n in range(20)
)
SHORT = "Just a line."


def article(number: int) -> str:
    """A document of about 1,800 characters; its facts follow from the number."""
    rng = random.Random(number)
    who, other = rng.sample(_PEOPLE, 2)
    place, thing = rng.choice(_PLACES), rng.choice(_THINGS)
    year, cost = rng.randint(1801, 1950), rng.randint(11, 99) * 1000
    return f"""# The {thing} of {place}

The {thing} of {place} was founded by {who} on {rng.randint(1, 28)} March {year}. In {year + 3}, a \
storm destroyed the roof. Because the town had no money, the roof was not repaired for \
{rng.randint(3, 9)} years. The work finally cost {cost:,} crowns, and it was paid by {other}, who \
had made a fortune with sugar. However, the building was too small from the first day, and many \
visitors had to wait.

At the time, {who} wrote: "We have built a {thing} for those who come after us." This sentence is \
known to almost every child in {place}. Usually it is quoted without the part that follows. In \
order to save coal, the {thing} was heated only on Sundays. Therefore, the guards often wore coats.

## Today

The {thing} is a museum, and it is open from April to October. It contains several rooms, such as:

- the room of {other}, with {rng.randint(20, 60)} letters
- a workshop
- the cellar, where `catalogue_{number}.csv` is kept on an old computer

The catalogue is read by a small program:

```python
rows = [line.split(";") for line in open("catalogue_{number}.csv")]

print(len(rows), "{place}")
```

If the program fails, the guards use paper. They need about {rng.randint(2, 9) * 10} minutes for a \
page, which is a long time. The archive of the {thing} is located in {place}, and more information \
is on https://example.org/{thing.replace(" ", "-")}/{number}. Although few people know it, the \
museum has no debts. It receives about {rng.randint(3, 9)},500 visitors each year, mainly because \
the schools of {place} come every spring.
"""


def corpus(folder: Path, documents: Iterable[str]) -> Path:
    """A file of JSON lines."""
    path = folder / "articles.jsonl"
    lines = (json.dumps({"text": text}, ensure_ascii=False) for text in documents)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def settings(out: Path, source: Path, **changes: Any) -> RephrasingConfig:
    """A config that reads ``source`` whole."""
    fields = {"seed": 3, "split": None, "most_kept": 0.25, "shard_documents": 8, "workers": 1}
    sources = ({"kind": "jsonl", "paths": (str(source),)},)
    return RephrasingConfig(out_dir=out, sources=sources, **{**fields, **changes})
