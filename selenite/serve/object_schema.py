"""The part of a tool's schema that objects have: the arguments of a call are never anything else.

A grammar of the schema as it stands would let a model write ``5`` where the schema speaks of
``anyOf`` or of nothing at all, and follows the first of several parts that should all hold. So
what stands at the root is worked out into alternatives, each a plain object; below the root, the
schema stays as it is.
"""

from __future__ import annotations

from typing import Any

from selenite.errors import ConfigError

Schema = dict[str, Any]

_PARTS = ("$ref", "allOf", "anyOf", "oneOf", "enum", "const")
_LARGEST = 64  # alternatives: parts multiply


def object_schema(schema: Schema) -> Schema:
    """What of ``schema`` an object can be.

    Raises ``ConfigError`` where no object is of it, and where it has too many alternatives.
    """
    try:
        alternatives = _alternatives(schema, schema, ())
    except RecursionError as error:
        raise ConfigError("its parts are nested too deep; mend or simplify it") from error
    if not alternatives:
        kind = f" (type={schema['type']!r})" if "type" in schema else ""
        raise ConfigError(f"no object is of it{kind}, and the arguments of a call are one")
    rest = {key: value for key, value in schema.items() if key not in _PARTS}  # pointers lead here
    if len(alternatives) == 1:
        return {**rest, **alternatives[0]}
    return {**rest, "type": "object", "anyOf": alternatives}


def _alternatives(schema: Any, root: Schema, followed: tuple[str, ...]) -> list[Schema]:
    """Plain objects; what is of one of them is of the schema."""
    if schema is True:
        return [{"type": "object"}]
    if not isinstance(schema, dict):
        return []
    kinds = schema.get("type", "object")
    if "object" not in (kinds if isinstance(kinds, list) else [kinds]):
        return []
    if "const" in schema or "enum" in schema:
        values = [schema["const"]] if "const" in schema else schema["enum"]
        objects = [v for v in values if isinstance(v, dict)] if isinstance(values, list) else []
        return [{"type": "object", "enum": objects}] if objects else []
    plain = {key: value for key, value in schema.items() if key not in _PARTS}
    start = _with_required({**plain, "type": "object"})
    found = [start] if start else []
    for options in _options(schema, root, followed):
        found = [both for one in found for other in options if (both := _both(one, other))]
        if len(found) > _LARGEST:
            raise ConfigError(f"over {_LARGEST} alternatives at the root; leave some out")
    return found


def _options(schema: Schema, root: Schema, followed: tuple[str, ...]) -> list[list[Schema]]:
    """By each part that must hold: the alternatives that it leaves."""
    options = []
    if "$ref" in schema:
        pointer = schema["$ref"]
        if pointer in followed:
            raise ConfigError(f"{pointer!r} leads to itself")
        options.append(_alternatives(_target(pointer, root), root, (*followed, pointer)))
    for part in _list_of(schema, "allOf"):
        options.append(_alternatives(part, root, followed))
    for key in ("anyOf", "oneOf"):
        if key in schema:
            parts = [_alternatives(part, root, followed) for part in _list_of(schema, key)]
            options.append([one for some in parts for one in some])
    return options


def _list_of(schema: Schema, key: str) -> list[Any]:
    parts = schema.get(key, [])
    if not isinstance(parts, list):
        raise ConfigError(f"{key} must be a list")
    return parts


def _target(pointer: Any, root: Schema) -> Any:
    if not isinstance(pointer, str) or not pointer.startswith("#"):
        raise ConfigError(f"$ref={pointer!r}: only references into the schema itself are followed")
    found: Any = root
    for part in pointer[1:].split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(found, list) and name.isdigit() and int(name) < len(found):
            found = found[int(name)]
        elif isinstance(found, dict) and name in found:
            found = found[name]
        else:
            raise ConfigError(f"$ref={pointer!r} leads nowhere")
    return found


def _both(one: Schema, other: Schema) -> Schema | None:
    """What is of both objects; None where nothing is."""
    if "enum" in one or "enum" in other:
        chosen, plain = (one, other) if "enum" in one else (other, one)
        if "enum" not in plain:
            return chosen
        shared = [value for value in chosen["enum"] if value in plain["enum"]]
        return {**chosen, "enum": shared} if shared else None
    properties: Schema = {}
    for side, across in ((one, other), (other, one)):
        closed = across.get("additionalProperties") is False
        listed = _object_of(across, "properties")
        for name, value in _object_of(side, "properties").items():
            if (name in listed or not closed) and properties.get(name, True) in (True, {}):
                properties[name] = value
    required = [*dict.fromkeys(_required(one) + _required(other))]
    both = {**one, **other, "properties": properties, "required": required}
    if False in (one.get("additionalProperties"), other.get("additionalProperties")):
        both["additionalProperties"] = False
    return _with_required(both)


def _with_required(plain: Schema) -> Schema | None:
    """The object with all its required properties listed; None where one of them cannot be."""
    listed = _object_of(plain, "properties")
    unlisted = [name for name in _required(plain) if name not in listed]
    if not unlisted:
        return plain
    others = plain.get("additionalProperties", True)
    if others is False:
        return None
    return {**plain, "properties": {**listed, **dict.fromkeys(unlisted, others)}}


def _required(schema: Schema) -> list[str]:
    names = _list_of(schema, "required")
    if not all(isinstance(name, str) for name in names):
        raise ConfigError("required must be a list of names")
    return names


def _object_of(schema: Schema, key: str) -> Schema:
    found = schema.get(key, {})
    if not isinstance(found, dict):
        raise ConfigError(f"{key} must be an object")
    return found
