"""One value."""


def parse_value(text):
    """A number, yes or no, a list between brackets, or a text, which may be quoted."""
    text = text.strip()
    if text in ("yes", "no"):
        return text == "yes"
    if text.startswith("[") and text.endswith("]"):
        return [parse_value(part) for part in split_list(text[1:-1])]
    if len(text) >= 2 and text[0] == text[-1] == '"':
        return text[1:-1]
    digits = text[1:] if text.startswith("-") else text
    if digits.isdigit():
        return int(text)
    return text


def split_list(text):
    """The parts between commas; those inside quotes or inner brackets do not count."""
    parts, part = [], ""
    depth, quoted = 0, False
    for c in text:
        if c == '"':
            quoted = not quoted
        elif c == "[" and not quoted:
            depth += 1
        elif c == "]" and not quoted:
            depth -= 1
        if c == "," and depth == 0 and not quoted:
            parts.append(part)
            part = ""
        else:
            part += c
    if part.strip() or parts:
        parts.append(part)
    return parts
