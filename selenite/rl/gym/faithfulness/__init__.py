"""Answers from a text that nobody can know by heart, looked at sentence by sentence."""
