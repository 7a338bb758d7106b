"""Level 3: a small algorithm."""

from __future__ import annotations

import random

from selenite.rl.gym.code.problem import Problem, letters, problem


def merge(rng: random.Random) -> Problem:
    """Ranges joined."""
    gap = rng.randint(0, 4)
    return problem(
        f"`ranges` is a list of ranges [start, end]. Join ranges where the later one starts at "
        f"most {gap} after the earlier one's end, and return the list of what is left, as "
        "[start, end], by their starts.",
        f"""
        def merge(ranges):
            found = []
            for start, end in sorted(ranges):
                if found and start - found[-1][1] <= {gap}:
                    found[-1][1] = max(found[-1][1], end)
                else:
                    found.append([start, end])
            return found
        """,
        lambda r: ([[a := r.randint(0, 30), a + r.randint(0, 6)] for _ in range(r.randint(0, 6))],),
    )


def encode(rng: random.Random) -> Problem:
    """Runs of a character written shorter."""
    least = rng.randint(2, 4)
    text, written = rng.choice(
        [
            ("its length and then the character", "{length}{text[start]}"),
            ("the character and then its length", "{text[start]}{length}"),
        ]
    )
    return problem(
        f"Return `text` with each longest run of at least {least} equal characters replaced by "
        f"{text}. Shorter runs stay.",
        f"""
        def encode(text):
            found = ""
            start = 0
            for place in range(1, len(text) + 1):
                if place == len(text) or text[place] != text[start]:
                    length = place - start
                    found += f"{written}" if length >= {least} else text[start:place]
                    start = place
            return found
        """,
        lambda r: ("".join(r.choice("abc") * r.randint(1, 5) for _ in range(r.randint(0, 6))),),
    )


_OPERATORS = {
    "+": ("the sum", "a + b"),
    "-": ("the first minus the second", "a - b"),
    "*": ("the product", "a * b"),
    "<": ("the smaller", "min(a, b)"),
    ">": ("the greater", "max(a, b)"),
}


def postfix(rng: random.Random) -> Problem:
    """A calculation with a stack."""
    signs = rng.sample(sorted(_OPERATORS), 3)
    factor = rng.randint(2, 5)
    meanings = "; ".join(f"`{sign}` {_OPERATORS[sign][0]}" for sign in signs)
    branches = "".join(
        f"""
                elif token == "{sign}":
                    b = stack.pop()
                    a = stack.pop()
                    stack.append({_OPERATORS[sign][1]})"""
        for sign in signs
    )
    return problem(
        f"`text` has tokens with single spaces between them. A whole number goes on a stack. An "
        f"operator takes the two numbers on top, the second of which is the topmost, and puts one "
        f"there: {meanings}. `!` multiplies the number on top by {factor}. Return the number "
        "on top at the end.",
        f"""
        def postfix(text):
            stack = []
            for token in text.split():
                if token == "!":
                    stack.append(stack.pop() * {factor}){branches}
                else:
                    stack.append(int(token))
            return stack[-1]
        """,
        lambda r: (_expression(r, signs, r.randint(0, 4)),),
    )


def _expression(rng: random.Random, signs: list[str], operators: int) -> str:
    if operators == 0:
        return str(rng.randint(0, 9))
    left = rng.randint(0, operators - 1)
    parts = _expression(rng, signs, left), _expression(rng, signs, operators - 1 - left)
    return " ".join([*parts, rng.choice(signs), *(["!"] if rng.random() < 0.3 else [])])


def regions(rng: random.Random) -> Problem:
    """Regions of a grid."""
    least = rng.randint(1, 3)
    near, text = rng.choice(
        [
            ("abs(i - row) + abs(j - column) == 1", "above, below, left or right of it"),
            ("max(abs(i - row), abs(j - column)) == 1", "beside it, at its corners too"),
        ]
    )
    return problem(
        f"`grid` is a list of equally long strings of `#` and `.`. Two `#` are of one region where "
        f"one is {text}, or where a chain of such neighbours leads from one to the other. Return "
        f"how many regions have at least {least} `#`.",
        f"""
        def regions(grid):
            cells = [(i, j) for i, line in enumerate(grid) for j, c in enumerate(line) if c == "#"]
            found = 0
            while cells:
                region = [cells.pop()]
                for row, column in region:
                    new = [(i, j) for i, j in cells if {near}]
                    cells = [cell for cell in cells if cell not in new]
                    region += new
                if len(region) >= {least}:
                    found += 1
            return found
        """,
        lambda r: (_grid(r),),
    )


def _grid(rng: random.Random) -> list[str]:
    width, filled = rng.randint(2, 7), rng.choice([0.3, 0.5])
    return [
        "".join("#" if rng.random() < filled else "." for _ in range(width))
        for _ in range(rng.randint(0, 6))
    ]


def robot(rng: random.Random) -> Problem:
    """A walk on a torus."""
    width, height = rng.randint(4, 9), rng.randint(4, 9)
    turns = rng.choice([("L", "R"), ("<", ">"), ("a", "d")])
    return problem(
        f"A robot stands at x=0, y=0 and looks to where y grows. `moves` is a string: "
        f"{turns[0]!r} turns it left, {turns[1]!r} turns it right, and a digit moves it so many "
        f"steps ahead. Whoever leaves the field of x from 0 to {width - 1} and y from 0 to "
        f"{height - 1} comes in again on the opposite side. Return [x, y].",
        f"""
        def robot(moves):
            x = y = dx = 0
            dy = 1
            for move in moves:
                if move == "{turns[0]}":
                    dx, dy = -dy, dx
                elif move == "{turns[1]}":
                    dx, dy = dy, -dx
                else:
                    x = (x + dx * int(move)) % {width}
                    y = (y + dy * int(move)) % {height}
            return [x, y]
        """,
        lambda r: (letters(r, "".join(turns) + "12345", 9),),
    )


def brackets(rng: random.Random) -> Problem:
    """Brackets that fit."""
    deepest = rng.randint(2, 4)
    first, second = rng.sample(["()", "[]", "{}", "<>"], 2)
    openers = first[0] + second[0]
    return problem(
        f"`text` has brackets {first} and {second} among other characters. Return the index of the "
        f"first bracket that is wrong: one that closes what is not open, or not open last, or one "
        f"that opens when {deepest} are open. If none is wrong, return -1 where all are closed at "
        "the end, and -2 otherwise.",
        f"""
        def brackets(text):
            opens = {{"{first[1]}": "{first[0]}", "{second[1]}": "{second[0]}"}}
            stack = []
            for place, c in enumerate(text):
                if c in "{openers}":
                    if len(stack) >= {deepest}:
                        return place
                    stack.append(c)
                elif c in opens and (not stack or stack.pop() != opens[c]):
                    return place
            return -2 if stack else -1
        """,
        lambda r: (_bracketed(r, first, second),),
    )


def _bracketed(rng: random.Random, first: str, second: str) -> str:
    def nested(depth: int) -> str:
        inner = "".join(nested(depth - 1) for _ in range(rng.randint(0, 2))) if depth else "x"
        return inner.join(rng.choice([first, second]))

    text = "".join(nested(rng.randint(0, 4)) for _ in range(rng.randint(0, 2)))
    if text and rng.random() < 0.4:
        place = rng.randrange(len(text))
        return text[:place] + rng.choice(["", *first, *second]) + text[place + 1 :]
    return text


def coins(rng: random.Random) -> Problem:
    """The fewest coins."""
    values = sorted(rng.sample(range(2, 12), 3))
    return problem(
        f"There are coins of {values[0]}, {values[1]} and {values[2]}, as many as one likes. "
        "Return the least number of coins that make `amount`, at least 0, or -1 where none do.",
        f"""
        def coins(amount):
            fewest = [0]
            for target in range(1, amount + 1):
                ways = [fewest[target - coin] for coin in {values} if coin <= target]
                ways = [way for way in ways if way >= 0]
                fewest.append(min(ways) + 1 if ways else -1)
            return fewest[amount]
        """,
        lambda r: (r.randint(0, 60),),
    )


def ranking(rng: random.Random) -> Problem:
    """Totals by name, sorted."""
    places, least = rng.randint(2, 3), rng.randint(3, 8)
    return problem(
        f"`entries` is a list of [name, points], in which names come several times. Return the "
        f"names of those with at least {least} points in all, the most points first, and among "
        f"equals by the alphabet; at most {places} names.",
        f"""
        def ranking(entries):
            totals = {{}}
            for name, points in entries:
                totals[name] = totals.get(name, 0) + points
            found = [name for name in totals if totals[name] >= {least}]
            found.sort(key=lambda name: (-totals[name], name))
            return found[:{places}]
        """,
        lambda r: ([[r.choice("abcde"), r.randint(0, 6)] for _ in range(r.randint(0, 10))],),
    )


KINDS = (merge, encode, postfix, regions, robot, brackets, coins, ranking)
