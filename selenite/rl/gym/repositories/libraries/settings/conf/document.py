"""A whole text."""

from conf.values import parse_value


class SettingsError(ValueError):
    """Says in which line something is wrong."""


def parse(text):
    """Values by section and name; those before any section are in the section ''."""
    found = {}
    section = ""
    for number, line in enumerate(text.splitlines(), 1):
        line = strip_comment(line).strip()
        if not line:
            continue
        if line.startswith("[") and line.endswith("]") and "=" not in line:
            section = line[1:-1].strip()
            found.setdefault(section, {})
            continue
        name, sign, value = line.partition("=")
        if not sign or not name.strip():
            raise SettingsError(f"line {number}: no name and value")
        values = found.setdefault(section, {})
        if name.strip() in values:
            raise SettingsError(f"line {number}: {name.strip()} again")
        values[name.strip()] = parse_value(value)
    return found


def strip_comment(line):
    """The line up to a # that is not inside quotes."""
    quoted = False
    for place, c in enumerate(line):
        if c == '"':
            quoted = not quoted
        if c == "#" and not quoted:
            return line[:place]
    return line


def merge(base, other):
    """The settings of both; those of the other one count where both have one."""
    merged = {section: dict(values) for section, values in base.items()}
    for section, values in other.items():
        merged.setdefault(section, {}).update(values)
    return merged


def lookup(settings, path, default=None):
    """A value by ``section.name``, or by ``name`` alone for the section ''."""
    section, dot, name = path.rpartition(".")
    values = settings.get(section, {})
    if name in values:
        return values[name]
    if dot and default is None:
        return lookup(settings, name)
    return default
