"""Lines that fill a width."""


def right(line, width):
    """The line moved to the right end."""
    return " " * (width - len(line)) + line


def center(line, width):
    """The line in the middle; an odd space is on the right."""
    free = width - len(line)
    left = free // 2
    return " " * left + line + " " * (free - left)


def justify(line, width):
    """The words spread over the width; the first gaps get what is left over."""
    words = line.split()
    if len(words) < 2:
        return line
    free = width - sum(len(word) for word in words)
    gaps = len(words) - 1
    spread = words[0]
    for place, word in enumerate(words[1:]):
        spaces = free // gaps
        if place < free % gaps:
            spaces += 1
        spread += " " * spaces + word
    return spread


def columns(rows, gap=2):
    """Rows of cells as lines; each column is as wide as its widest cell."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [cell + " " * (width - len(cell)) for cell, width in zip(row, widths, strict=True)]
        lines.append((" " * gap).join(cells).rstrip())
    return lines
