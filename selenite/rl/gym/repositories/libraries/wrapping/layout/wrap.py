"""Words into lines."""


def wrap(text, width):
    """Lines of at most ``width`` characters; a longer word is cut."""
    lines = []
    line = ""
    for word in text.split():
        while len(word) > width:
            if line:
                lines.append(line)
                line = ""
            lines.append(word[:width])
            word = word[width:]
        if not word:
            continue
        if line and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = word
        elif line:
            line += " " + word
        else:
            line = word
    if line:
        lines.append(line)
    return lines


def shorten(text, width):
    """One line of at most ``width``; what is left out at the end is told by two dots."""
    line = " ".join(text.split())
    if len(line) <= width:
        return line
    kept = line[: width - 2]
    if " " in kept and line[width - 2] != " ":
        kept = kept[: kept.rindex(" ")]
    return kept.rstrip() + ".."
