"""Orders: several articles that are shipped together or not at all."""


class Order:
    """Lines of (article, number, price in cents)."""

    def __init__(self, stock):
        self.stock = stock
        self.lines = []
        self.state = "open"

    def add(self, article, number, price):
        """Adds a line; a line for the same article at the same price grows."""
        for place, (name, count, cents) in enumerate(self.lines):
            if name == article and cents == price:
                self.lines[place] = (name, count + number, cents)
                return
        self.lines.append((article, number, price))

    def total(self):
        """In cents. From ten pieces of a line on, one in ten is free."""
        return sum((count - count // 10) * cents for _, count, cents in self.lines)

    def confirm(self):
        """Reserves everything, or nothing, and says which."""
        needed = {}
        for article, count, _ in self.lines:
            needed[article] = needed.get(article, 0) + count
        if any(count > self.stock.available(article) for article, count in needed.items()):
            return False
        for article, count in needed.items():
            self.stock.reserve(article, count)
        self.state = "confirmed"
        return True

    def ship(self):
        """Ships a confirmed order; returns the number of pieces."""
        if self.state != "confirmed":
            raise ValueError("not confirmed")
        pieces = 0
        for article, count, _ in self.lines:
            self.stock.ship(article, count)
            pieces += count
        self.state = "shipped"
        return pieces
