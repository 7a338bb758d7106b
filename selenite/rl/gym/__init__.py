"""Environments: tasks by number, episodes that answer, scores made of checks. Free of torch."""
