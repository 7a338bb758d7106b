"""Sets of whole numbers as spans [start, end), where the end is not included."""
