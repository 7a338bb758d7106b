"""Requests that a policy forbids, and twins of them that it allows."""
