"""A house to look after: the smallest world with tools."""
