"""Level 2: a loop that keeps something, or two steps."""

from __future__ import annotations

import random

from selenite.rl.gym.code.problem import Problem, condition, letters, numbers, problem


def total(rng: random.Random) -> Problem:
    """A sum of some and a price for others."""
    (text, test), (other_text, other_test) = condition(rng), condition(rng)
    price = rng.randint(2, 9)
    return problem(
        f"Return the sum of those of `numbers` that are {text}, minus {price} for each that is "
        f"{other_text}. A number can be both.",
        f"""
        def total(numbers):
            result = 0
            for n in numbers:
                if {test}:
                    result += n
                if {other_test}:
                    result -= {price}
            return result
        """,
        lambda r: (numbers(r),),
    )


def running(rng: random.Random) -> Problem:
    """Running totals with a bound."""
    cap, start = rng.randint(6, 20), rng.randint(1, 4)
    return problem(
        f"Return the list of running totals of `numbers`, one for each number, beginning at "
        f"{start} before the first. A total above {cap} becomes 0 at once, and so stands in the "
        "list.",
        f"""
        def running(numbers):
            total = {start}
            found = []
            for n in numbers:
                total += n
                if total > {cap}:
                    total = 0
                found.append(total)
            return found
        """,
        lambda r: ([r.randint(-2, 9) for _ in range(r.randint(0, 9))],),
    )


def words(rng: random.Random) -> Problem:
    """Some words of a text, joined again."""
    least, sign = rng.randint(2, 4), rng.choice("-/_+")
    order, reverse = rng.choice([("in their order", ""), ("the last one first", "[::-1]")])
    return problem(
        f"Return the words of `text` that have at least {least} letters, {order}, joined by "
        f"{sign!r}. Words are separated by single spaces.",
        f"""
        def words(text):
            return "{sign}".join([word for word in text.split() if len(word) >= {least}]{reverse})
        """,
        lambda r: (" ".join(filter(None, (letters(r, "abcdefgh", 6) for _ in range(6)))),),
    )


def occurrences(rng: random.Random) -> Problem:
    """Frequent letters."""
    least, other = rng.randint(2, 3), rng.choice("xyz")
    return problem(
        f"Return a dictionary from each letter that occurs at least {least} times in `text` to how "
        f"often it does. {other!r} is left out.",
        f"""
        def occurrences(text):
            counts = {{}}
            for c in text:
                if c != "{other}":
                    counts[c] = counts.get(c, 0) + 1
            return {{c: number for c, number in counts.items() if number >= {least}}}
        """,
        lambda r: (letters(r, f"abcd{other}", 14),),
    )


def digits(rng: random.Random) -> Problem:
    """Digits in some base."""
    base, times = rng.randint(3, 9), rng.randint(2, 5)
    word, rest = rng.choice([("odd", 1), ("even", 0)])
    return problem(
        f"Return the sum of the digits that the whole number `n`, at least 0, has in base {base}, "
        f"where each {word} digit counts {times} times.",
        f"""
        def digits(n):
            result = 0
            while n > 0:
                digit = n % {base}
                if digit % 2 == {rest}:
                    digit *= {times}
                result += digit
                n //= {base}
            return result
        """,
        lambda r: (r.randint(0, 10 ** r.randint(1, 5)),),
    )


def longest(rng: random.Random) -> Problem:
    """The longest stretch."""
    step = rng.randint(0, 3)
    text, test = rng.choice(
        [
            (f"more than {step} greater than", f"n - before > {step}"),
            (f"more than {step} less than", f"before - n > {step}"),
            (f"at most {step} away from", f"abs(n - before) <= {step}"),
        ]
    )
    return problem(
        f"Return the length of the longest stretch of neighbours in `numbers` in which each number "
        f"after the first is {text} the one before it; 0 where there are no numbers.",
        f"""
        def longest(numbers):
            best = length = 0
            before = None
            for n in numbers:
                if before is not None and {test}:
                    length += 1
                else:
                    length = 1
                before = n
                best = max(best, length)
            return best
        """,
        lambda r: ([r.randint(0, 7) for _ in range(r.randint(0, 10))],),
    )


def shift(rng: random.Random) -> Problem:
    """Letters moved in the alphabet."""
    by = rng.choice([*range(-9, 0), *range(1, 10)])
    where = f"{abs(by)} places {'further' if by > 0 else 'back'}"
    return problem(
        f"Return `text` with each letter from a to z replaced by the one {where} in the alphabet, "
        "which begins again at its end. All other characters stay.",
        f"""
        def shift(text):
            found = ""
            for c in text:
                if "a" <= c <= "z":
                    c = chr((ord(c) - 97 + {by}) % 26 + 97)
                found += c
            return found
        """,
        lambda r: (letters(r, "aabcdjklmnwxyzz -!{`", 12),),
    )


KINDS = (total, running, words, occurrences, digits, longest, shift)
