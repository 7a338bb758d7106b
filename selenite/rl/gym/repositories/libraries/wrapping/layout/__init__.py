"""Texts in lines of a width."""
