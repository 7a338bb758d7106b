"""Puzzles, each with a generator and a checker that shares no code with it."""
