"""Days, and moments to the minute."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any

from selenite.agent.values.kind import Kind, Value, distinct, unreadable

_MONTHS = [
    *("January", "February", "March", "April", "May", "June", "July", "August", "September"),
    *("October", "November", "December"),
]
_WEEKDAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
_NEAR = {0: "today", 1: "tomorrow", 2: "the day after tomorrow", -1: "yesterday"}


def day_forms(day: date, today: date) -> list[str]:
    """Ways to say a day."""
    month = _MONTHS[day.month - 1]
    found = [
        day.isoformat(),
        f"{month} {day.day}, {day.year}",
        f"{day.day} {month} {day.year}",
        f"{_WEEKDAYS[day.weekday()]}, {month} {day.day}, {day.year}",
    ]
    if day.year == today.year:
        found.append(f"{month} {day.day}")
    away = (day - today).days
    if away in _NEAR:
        found.append(_NEAR[away])
    week = (day - timedelta(days=day.weekday())) - (today - timedelta(days=today.weekday()))
    if week.days == 7:
        found.append(f"{_WEEKDAYS[day.weekday()]} next week")
    elif week.days == 0 and away > 0:
        found.append(f"this {_WEEKDAYS[day.weekday()]}")
    return found


def read_day(text: str, today: date) -> date | None:
    """The day of one of ``day_forms``; None for any other text."""
    for away, name in _NEAR.items():
        if text == name:
            return today + timedelta(days=away)
    if re.fullmatch(r"\d{4}-\d\d-\d\d", text):
        return _made(*map(int, text.split("-")))
    monday = today - timedelta(days=today.weekday())
    if found := re.fullmatch(r"(?:this (\w+)|(\w+) next week)", text):
        weekday = found[1] or found[2]
        if weekday not in _WEEKDAYS:
            return None
        return monday + timedelta(days=_WEEKDAYS.index(weekday) + (7 if found[2] else 0))
    text = re.sub(r"^\w+day, ", "", text)
    if found := re.fullmatch(r"(\w+) (\d+)(?:, (\d{4}))?", text):
        month, day, year = found[1], int(found[2]), int(found[3] or today.year)
    elif found := re.fullmatch(r"(\d+) (\w+) (\d{4})", text):
        month, day, year = found[2], int(found[1]), int(found[3])
    else:
        return None
    return _made(year, _MONTHS.index(month) + 1, day) if month in _MONTHS else None


def _made(year: int, month: int, day: int) -> date | None:
    try:
        return date(year, month, day)
    except ValueError:
        return None


def _is_iso(text: str, of: type[date]) -> bool:
    try:
        of.fromisoformat(text)
    except ValueError:
        return False
    return True


@dataclass(frozen=True)
class Day(Kind):
    """A date, some days from today."""

    least: int = 1
    most: int = 60

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "format": "date"}

    def accepts(self, value: Value) -> bool:
        return isinstance(value, str) and _is_iso(value, date)

    def canonical(self, value: Value) -> Value:
        return date.fromisoformat(value).isoformat()

    def draw(self, rng: random.Random, today: date) -> Value:
        return (today + timedelta(days=rng.randint(self.least, self.most))).isoformat()

    def forms(self, value: Value, today: date) -> list[str]:
        return day_forms(date.fromisoformat(value), today)

    def read(self, text: str, today: date) -> Value:
        day = read_day(text, today)
        if day is None:
            raise unreadable(text, "day")
        return day.isoformat()


@dataclass(frozen=True)
class Moment(Kind):
    """A date with a time, to the quarter of an hour."""

    least: int = 1
    most: int = 30
    opens: int = 8  # hours of the day
    closes: int = 19

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "format": "date-time", "description": "Local time."}

    def accepts(self, value: Value) -> bool:
        return isinstance(value, str) and _is_iso(value, datetime)

    def canonical(self, value: Value) -> Value:
        """Without an offset from UTC, which JSON schema asks for: the time is local anyway."""
        return datetime.fromisoformat(value).replace(tzinfo=None).isoformat()

    def draw(self, rng: random.Random, today: date) -> Value:
        day = today + timedelta(days=rng.randint(self.least, self.most))
        at = time(rng.randint(self.opens, self.closes), rng.choice((0, 0, 15, 30, 45)))
        return datetime.combine(day, at).isoformat()

    def forms(self, value: Value, today: date) -> list[str]:
        moment = datetime.fromisoformat(value)
        hour = f"{(moment.hour - 1) % 12 + 1}"
        half = "am" if moment.hour < 12 else "pm"
        times = [f"{moment:%H:%M}", f"{hour}:{moment:%M} {half}"]
        if moment.minute == 0:
            times.append(f"{hour} {half}")
        days = day_forms(moment.date(), today)
        return distinct([f"{day} at {times[i % len(times)]}" for i, day in enumerate(days)])

    def read(self, text: str, today: date) -> Value:
        said, _, at = text.rpartition(" at ")
        day = read_day(said, today)
        found = re.fullmatch(r"(\d+)(?::(\d\d))?(?: (am|pm))?", at)
        if day is None or found is None:
            raise unreadable(text, "moment")
        hour, minute = int(found[1]), int(found[2] or 0)
        if found[3]:
            hour = hour % 12 + (12 if found[3] == "pm" else 0)
        if hour > 23 or minute > 59:
            raise unreadable(text, "moment")
        return datetime.combine(day, time(hour, minute)).isoformat()
