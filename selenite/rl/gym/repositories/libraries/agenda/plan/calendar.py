"""Hours on days."""

NAMES = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]


def is_workday(day):
    """Day 0 is a Monday."""
    return day % 7 < 5


def spread(hours, start, per_day=8):
    """(day, hours) for work that begins on a day and rests at weekends."""
    parts = []
    day = start
    while hours > 0:
        if is_workday(day):
            part = min(hours, per_day)
            parts.append((day, part))
            hours -= part
        day += 1
    return parts


def share(plan, people):
    """Who does which task: the next one in order goes to who has the least to do."""
    load = dict.fromkeys(people, 0)
    work = {person: [] for person in people}
    for name in plan.order():
        person = min(load, key=lambda one: (load[one], one))
        load[person] += plan.hours[name]
        work[person].append(name)
    return work


def label(day):
    """Week and day, such as ``2 Tue``; the first week is 1."""
    return f"{day // 7 + 1} {NAMES[day % 7]}"
