"""Amounts as text, and divided without losing a cent."""


def parse(text):
    """Cents of a text such as ``1,234.5`` or ``-3``."""
    sign = 1
    text = text.strip().replace(",", "")
    if text.startswith("-"):
        sign = -1
        text = text[1:]
    whole, _, part = text.partition(".")
    if len(part) > 2:
        raise ValueError("more than two decimals")
    return sign * (int(whole) * 100 + int((part + "00")[:2]))


def show(cents):
    """The text of an amount, with a comma between thousands."""
    sign = "-" if cents < 0 else ""
    cents = abs(cents)
    return f"{sign}{cents // 100:,}.{cents % 100:02d}"


def split(cents, parts):
    """Nearly equal parts that add up; the first ones are greater."""
    each = cents // parts
    rest = cents % parts
    return [each + 1 if place < rest else each for place in range(parts)]
