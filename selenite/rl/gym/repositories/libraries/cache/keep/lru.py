"""A cache that drops what was used longest ago."""


class LRU:
    """At most ``room`` values; a value is as old as its last use, and dies after ``ttl``."""

    def __init__(self, room, ttl=None):
        self.room = room
        self.ttl = ttl
        self.values = {}  # key to (value, when it was put); the last one used comes last
        self.hits = 0
        self.misses = 0

    def put(self, key, value, now):
        """Keeps a value, in place of one under the same key."""
        self.values.pop(key, None)
        self.expire(now)
        while len(self.values) >= self.room:
            oldest = next(iter(self.values))
            del self.values[oldest]
        self.values[key] = (value, now)

    def get(self, key, now, default=None):
        """A value that is still alive; it becomes the last one used."""
        if key in self.values:
            value, put = self.values.pop(key)
            if self.ttl is None or now - put < self.ttl:
                self.values[key] = (value, put)
                self.hits += 1
                return value
        self.misses += 1
        return default

    def expire(self, now):
        """Drops what is dead and says how many that were."""
        if self.ttl is None:
            return 0
        dead = [key for key, (_, put) in self.values.items() if now - put >= self.ttl]
        for key in dead:
            del self.values[key]
        return len(dead)

    def keys(self):
        """The one used longest ago first."""
        return list(self.values)
