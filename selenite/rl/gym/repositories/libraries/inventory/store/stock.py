"""What is in stock."""


class Stock:
    """Counts by article. Reserved pieces are in stock, but not available."""

    def __init__(self, low=3):
        self.low = low  # an article with fewer available pieces must be ordered again
        self.counts = {}
        self.reserved = {}

    def receive(self, article, number):
        """Adds pieces; there must be at least one."""
        if number < 1:
            raise ValueError("nothing to receive")
        self.counts[article] = self.counts.get(article, 0) + number

    def available(self, article):
        """Pieces that nobody has reserved."""
        return self.counts.get(article, 0) - self.reserved.get(article, 0)

    def reserve(self, article, number):
        """Reserves pieces and says whether there were enough."""
        if number > self.available(article):
            return False
        self.reserved[article] = self.reserved.get(article, 0) + number
        return True

    def ship(self, article, number):
        """Takes reserved pieces out of stock."""
        if number > self.reserved.get(article, 0):
            raise ValueError("not reserved")
        self.reserved[article] -= number
        self.counts[article] -= number

    def running_low(self):
        """Articles with fewer available pieces than ``low``, by name."""
        return sorted(name for name in self.counts if self.available(name) < self.low)
