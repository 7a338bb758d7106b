"""Sudoku of four or six digits, with exactly one solution."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from selenite.rl.gym.environment import Check
from selenite.rl.gym.questions import Question

_BLANK = "."


def sudoku(rng: random.Random, level: int) -> Question:
    """Four by four with few blanks, with many, and six by six."""
    size, height = (4, 2) if level < 3 else (6, 2)
    blanks = (4, 9, 14)[level - 1]
    solution = _filled(rng, size, height)
    given = list(solution)
    for place in rng.sample(range(size * size), size * size):
        if given.count(_BLANK) == blanks:
            break
        digit, given[place] = given[place], _BLANK
        if _num_solutions(given, size, height) > 1:
            given[place] = digit
    rows = _rows("".join(given), size)
    return Question(
        f"Fill in the Sudoku. Each row, each column and each box of {height} rows and "
        f"{size // height} columns has each digit from 1 to {size} once.\n"
        + "\n".join(rows)
        + "\nAnswer with the rows, and a space between two.",
        Grid("".join(given), size, height),
    )


@dataclass(frozen=True)
class Grid:
    """Judges a filled grid."""

    given: str  # row by row
    size: int
    height: int  # of a box

    def __call__(self, text: str) -> Check:
        """Judges a text of rows."""
        rows = text.strip("`* ").split()
        if [len(row) for row in rows] != [self.size] * self.size:
            return Check("answer", 0.0, f"not {self.size} rows of {self.size} digits")
        filled = "".join(rows)
        if any(a not in (_BLANK, b) for a, b in zip(self.given, filled, strict=True)):
            return Check("answer", 0.0, "a given digit was changed")
        digits = {str(digit) for digit in range(1, self.size + 1)}
        width = self.size // self.height
        columns = ["".join(row[i] for row in rows) for i in range(self.size)]
        boxes = [
            "".join(rows[top + y][left : left + width] for y in range(self.height))
            for top in range(0, self.size, self.height)
            for left in range(0, self.size, width)
        ]
        wrong = [line for line in (*rows, *columns, *boxes) if set(line) != digits]
        return Check("answer", 0.0, f"{wrong[0]} lacks a digit") if wrong else Check("answer", 1.0)


def _filled(rng: random.Random, size: int, height: int) -> list[str]:
    """A pattern that is right, with digits, rows and columns moved where that keeps it so."""
    width = size // height
    names = rng.sample([str(digit) for digit in range(1, size + 1)], size)
    bands = rng.sample(range(width), width)
    lines = [band * height + line for band in bands for line in rng.sample(range(height), height)]
    stacks = rng.sample(range(height), height)
    columns = [stack * width + x for stack in stacks for x in rng.sample(range(width), width)]
    return [
        names[(width * (line % height) + line // height + column) % size]
        for line in lines
        for column in columns
    ]


def _num_solutions(given: Sequence[str], size: int, height: int) -> int:
    """0, 1, or 2 for more."""
    count = 0
    for _ in _solutions(list(given), size, height):
        count += 1
        if count == 2:
            break
    return count


def _solutions(grid: list[str], size: int, height: int) -> Iterator[None]:
    if _BLANK not in grid:
        yield
        return
    place = grid.index(_BLANK)
    width, (row, column) = size // height, divmod(place, size)
    seen = set(grid[row * size : (row + 1) * size]) | set(grid[column::size])
    top, left = row - row % height, column - column % width
    for y in range(top, top + height):
        seen |= set(grid[y * size + left : y * size + left + width])
    for digit in map(str, range(1, size + 1)):
        if digit not in seen:
            grid[place] = digit
            yield from _solutions(grid, size, height)
    grid[place] = _BLANK


def _rows(cells: str, size: int) -> list[str]:
    return [cells[first : first + size] for first in range(0, size * size, size)]
