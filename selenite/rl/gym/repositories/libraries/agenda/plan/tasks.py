"""Tasks and what they wait for."""


class Plan:
    """Tasks with hours and the names of the tasks that come before them."""

    def __init__(self):
        self.hours = {}
        self.before = {}

    def add(self, name, hours, after=()):
        """Adds a task; those that it waits for must be there."""
        for other in after:
            if other not in self.hours:
                raise KeyError(other)
        self.hours[name] = hours
        self.before[name] = list(after)

    def order(self):
        """All tasks, each after those it waits for, else by name."""
        done = []
        while len(done) < len(self.hours):
            ready = [
                name
                for name in self.hours
                if name not in done and all(other in done for other in self.before[name])
            ]
            done.append(min(ready))
        return done

    def earliest(self):
        """The hour at which each task can end when nobody has to share."""
        ends = {}
        for name in self.order():
            start = max([ends[other] for other in self.before[name]], default=0)
            ends[name] = start + self.hours[name]
        return ends

    def critical(self):
        """A chain of tasks that takes as long as all of them, the first task first."""
        ends = self.earliest()
        if not ends:
            return []
        name = min(name for name in ends if ends[name] == max(ends.values()))
        chain = [name]
        while self.before[name]:
            name = max(self.before[name], key=lambda other: ends[other])
            chain.append(name)
        return chain[::-1]
