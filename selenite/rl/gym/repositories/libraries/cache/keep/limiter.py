"""How often something may be done."""


class Limiter:
    """At most ``most`` times within ``window`` seconds, by name."""

    def __init__(self, most, window):
        self.most = most
        self.window = window
        self.times = {}

    def recent(self, name, now):
        """When it was done within the window."""
        return [time for time in self.times.get(name, []) if now - time < self.window]

    def allow(self, name, now):
        """Does it, if it may be done."""
        recent = self.recent(name, now)
        allowed = len(recent) < self.most
        if allowed:
            recent.append(now)
        self.times[name] = recent
        return allowed

    def wait(self, name, now):
        """Seconds until it may be done again; 0: at once."""
        recent = self.recent(name, now)
        if len(recent) < self.most:
            return 0
        return recent[len(recent) - self.most] + self.window - now


def backoff(tries, first=1, most=60):
    """Seconds to wait after so many tries: twice as long each time, up to a bound."""
    if tries == 0:
        return 0
    return min(first * 2 ** (tries - 1), most)
