"""A store: what is in stock, and orders that take from it."""
