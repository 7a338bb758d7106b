"""Results are data: one row of ``dev/results/`` for each claim, and the page made of them.

A benchmark, experiment or fault campaign calls ``record`` at its end. ``python -m
benchmarks.results`` renders ``dev/RESULTS.md`` from all rows, and ``python -m benchmarks.results
verify ID`` runs a row's command again and compares. A row belongs to a clean commit: with
``ALLOW_DIRTY=1`` in the environment it can be written without one, and says so.
"""

from __future__ import annotations

import argparse
import operator
import os
import shlex
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, FiniteFloat, StringConstraints, model_validator

from selenite.config import Config
from selenite.errors import SeleniteError

ROOT = Path(__file__).resolve().parents[1]
ROWS = ROOT / "dev" / "results"
PAGE = ROOT / "dev" / "RESULTS.md"
FIGURES = ROOT / "docs" / "figures"
DIRECTORY_VARIABLE = "SELENITE_RESULTS_DIR"
"""Environment: where ``record`` writes instead (``verify`` sets it; the tree may be dirty then)."""

COMPARISONS = {"<=": operator.le, ">=": operator.ge, "==": operator.eq}

Text = Annotated[str, StringConstraints(min_length=1, pattern=r"^[^\n|]+$")]
"""One line that may stand in a table."""


class Reference(Config):
    """What a value stands beside: a peer or baseline in the same run, or a paper's number."""

    name: Text
    value: FiniteFloat
    source: Text
    """``same run``, or the paper with its table or figure."""


class Row(Config):
    """One claim with its number and all that is needed to get the number again."""

    id: Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]+(\.[a-z0-9_]+)+$")]
    claim: Text
    value: FiniteFloat
    unit: Text
    """Shares are fractions from 0 to 1; a ratio says over what."""
    low: FiniteFloat
    high: FiniteFloat
    """``[low, high]`` is where the value of a rerun on the same machine must lie."""
    runs: int = Field(ge=1)
    target: Annotated[str, StringConstraints(pattern=r"^(<=|>=|==) -?[0-9.]+(e-?[0-9]+)?$")] | None
    """``<= 1.15``; null: the row only reports."""
    reference: Reference | None
    command: Text
    note: str = ""
    commit: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}(\+dirty)?$")]
    machine: Text
    date: Annotated[str, StringConstraints(pattern=r"^\d{4}-\d{2}-\d{2}$")]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.low <= self.value <= self.high:
            raise ValueError(f"value={self.value} is outside [low={self.low}, high={self.high}]")
        if "\n" in self.note or "|" in self.note:
            raise ValueError("note must be one line without '|': it stands in a table")
        return self

    @property
    def met(self) -> bool | None:
        """Whether the value meets the target; ``None`` without one."""
        if self.target is None:
            return None
        comparison, bound = self.target.split()
        return bool(COMPARISONS[comparison](self.value, float(bound)))


class ResultsError(SeleniteError):
    """A row cannot be recorded, read or reproduced."""


def record(
    id: str,
    claim: str,
    value: float,
    unit: str,
    *,
    low: float,
    high: float,
    runs: int,
    target: str | None,
    reference: Reference | None,
    command: str,
    note: str = "",
) -> Row:
    """Writes the row ``id`` with today's date, this machine and the checked-out commit.

    Raises pydantic's ``ValidationError`` for a field that breaks its rule, and ``ResultsError``
    on changed or untracked files (the measured numbers are printed first, so none is lost).
    """
    elsewhere = os.environ.get(DIRECTORY_VARIABLE)
    commit, is_clean = _commit()
    row = Row(
        id=id,
        claim=claim,
        value=value,
        unit=unit,
        low=low,
        high=high,
        runs=runs,
        target=target,
        reference=reference,
        command=command,
        note=note,
        commit=commit if is_clean else f"{commit}+dirty",
        machine=machine(),
        date=datetime.now(UTC).date().isoformat(),
    )
    text = row.model_dump_json(indent=2) + "\n"
    print(text, end="")
    if not (is_clean or elsewhere or os.environ.get("ALLOW_DIRTY") == "1"):
        raise ResultsError(
            f"row {id} is not written: the checkout has changes, so no commit gives its number; "
            "commit them and measure again, or set ALLOW_DIRTY=1 for a row marked dirty"
        )
    directory = Path(elsewhere) if elsewhere else ROWS
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{id}.json").write_text(text, encoding="utf-8")
    return row


def read(directory: Path = ROWS) -> dict[str, Row]:
    """All rows by id; raises ``ResultsError`` for a file that is not a row or is misnamed."""
    rows = {}
    for path in sorted(directory.glob("*.json")):
        try:
            row = Row.model_validate_json(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ResultsError(f"{path}: not a result row: {error}") from None
        if row.id != path.stem:
            raise ResultsError(f"{path}: holds the row {row.id!r}; name the file after it")
        rows[row.id] = row
    return rows


def machine() -> str:
    """This machine in one line: processor, cores this process may use, instruction sets, torch."""
    from selenite.runtime import describe_machine  # torch, which rendering does not need

    facts = describe_machine()
    has = [flag for flag in ("avx512_bf16", "amx_bf16") if facts[flag] == "True"]
    cores, torch = f"{facts['cores']} cores", f"torch {facts['torch']}"
    return ", ".join([facts["cpu"], cores, facts["capability"], *has, torch])


def _commit() -> tuple[str, bool]:
    """HEAD, and whether the tree is as committed. Rows, their page and figures do not count."""

    def git(*arguments: str) -> str:
        try:
            done = subprocess.run(
                ["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True
            )
        except (OSError, subprocess.CalledProcessError) as error:
            raise ResultsError(f"{ROOT}: rows are recorded in a git checkout ({error})") from None
        return done.stdout

    own = [f":(exclude){path.relative_to(ROOT)}" for path in (ROWS, PAGE, FIGURES)]
    changes = git("status", "--porcelain", "--untracked-files=all", "--", ".", *own)
    return git("rev-parse", "HEAD").strip(), not changes


# --- the page


def render(rows: dict[str, Row]) -> str:
    """``dev/RESULTS.md`` as text, a pure function of the rows."""
    lines = [
        "# Results",
        "",
        "Made by `make results` from `dev/results/*.json`; do not edit. `make verify ROW=id` runs",
        "a row's command again and compares the value with its range.",
        "",
        "| row | claim | value (range, runs) | target | met | reference "
        "| command | commit | machine | date | note |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [_table_line(row) for row in rows.values()]
    return "\n".join(lines) + "\n"


def _table_line(row: Row) -> str:
    met = {None: "–", True: "yes", False: "**no**"}[row.met]
    reference = "–"
    if row.reference:
        reference = f"{row.reference.name}: {row.reference.value:.6g} ({row.reference.source})"
    sha, _, dirty = row.commit.partition("+")
    cells = [
        f"`{row.id}`",
        row.claim,
        f"{row.value:.6g} {row.unit} ({row.low:.6g} to {row.high:.6g}, {row.runs})",
        row.target or "–",
        met,
        reference,
        f"`{row.command}`",
        sha[:10] + (f" ({dirty})" if dirty else ""),
        row.machine,
        row.date,
        row.note or "–",
    ]
    return "| " + " | ".join(cells) + " |"


# --- measuring again


def verify(row: Row) -> tuple[float, bool]:
    """Runs ``row.command`` anew: its value, and whether it lies in ``[low, high]``.

    Raises ``ResultsError`` when the command fails or does not produce the row.
    """
    with tempfile.TemporaryDirectory() as directory:
        arguments = shlex.split(row.command)
        if arguments[0] == "python":
            arguments[0] = sys.executable
        done = subprocess.run(
            arguments, cwd=ROOT, env={**os.environ, DIRECTORY_VARIABLE: directory}
        )
        if done.returncode:
            raise ResultsError(f"{row.id}: {row.command!r} failed with exit {done.returncode}")
        again = read(Path(directory)).get(row.id)
        if again is None:
            raise ResultsError(f"{row.id}: {row.command!r} does not record this row")
    return again.value, row.low <= again.value <= row.high


def main() -> int:
    """Renders the page, or verifies one row; the exit code says whether the row holds."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.results", description=__doc__)
    parser.add_argument("action", nargs="?", choices=["render", "verify"], default="render")
    parser.add_argument("row", nargs="?", help="id of the row to verify")
    arguments = parser.parse_args()
    action: Literal["render", "verify"] = arguments.action
    try:
        rows = read()
        if action == "render":
            PAGE.write_text(render(rows), encoding="utf-8")
            print(f"{PAGE.relative_to(ROOT)}: {len(rows)} rows")
            return 0
        if arguments.row not in rows:
            raise ResultsError(f"no row {arguments.row!r}; there are: {', '.join(rows) or 'none'}")
        row = rows[arguments.row]
        value, holds = verify(row)
    except ResultsError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    verdict = "holds" if holds else "DOES NOT HOLD"
    print(
        f"{row.id}: {value:.6g} {row.unit}, recorded {row.value:.6g} in [{row.low:.6g}, "
        f"{row.high:.6g}]: {verdict}"
    )
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
