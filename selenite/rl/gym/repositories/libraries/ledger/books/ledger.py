"""Accounts and entries."""

from books.money import show


class Ledger:
    """Each entry moves an amount from one account to another."""

    def __init__(self):
        self.entries = []
        self.limits = {}

    def limit(self, account, cents):
        """The account may not fall below this balance."""
        self.limits[account] = cents

    def balance(self, account, until=None):
        """After the entries up to a day, that day included; None: after all."""
        total = 0
        for day, source, target, cents in self.entries:
            if until is not None and day > until:
                continue
            if source == account:
                total -= cents
            if target == account:
                total += cents
        return total

    def move(self, day, source, target, cents):
        """Books an amount and says whether the source's limit allows it."""
        if cents <= 0:
            raise ValueError("an amount must be positive")
        if source in self.limits and self.balance(source) - cents < self.limits[source]:
            return False
        self.entries.append((day, source, target, cents))
        return True

    def accounts(self):
        """All names that entries have, sorted."""
        return sorted({name for _, source, target, _ in self.entries for name in (source, target)})

    def statement(self, account):
        """Lines with day, amount and balance of the account, by day."""
        lines, total = [], 0
        for day, source, _, cents in sorted(
            entry for entry in self.entries if account in entry[1:3]
        ):
            change = -cents if source == account else cents
            total += change
            lines.append(f"{day} {show(change)} {show(total)}")
        return lines
