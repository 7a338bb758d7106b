"""Configs: frozen pydantic models, each beside the class it configures.

``Config`` is the base of all of them. A run is one TOML file, which may name base files, plus
dotted overrides from the command line (``optim.lr=3e-3``). ``load`` turns these into a config, or
into one ``ConfigError`` that names every wrong key; ``dump`` writes the resolved config beside
the run. TOML has no null: the string ``none`` stands for it wherever the field admits null.
"""

from __future__ import annotations

import datetime
import difflib
import tomllib
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import tomli_w
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails, to_jsonable_python

from selenite.atomic import write_text
from selenite.errors import ConfigError

BASE_KEY = "base"
"""Top-level key of a TOML file: one file or several, relative to it, merged left to right."""


class Config(BaseModel):
    """Base of every config: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


C = TypeVar("C", bound=Config)


def load(cls: type[C], path: str | Path, overrides: Sequence[str] = ()) -> C:
    """Reads the TOML file ``path`` (with its bases), applies ``key.path=value`` overrides in order.

    Raises ``ConfigError`` for a file that is missing or not TOML, an unknown key (naming the
    nearest known ones), and a value of the wrong type or out of range; all wrong keys at once.
    """
    assert BASE_KEY not in cls.model_fields, f"{cls.__name__}.{BASE_KEY} is a reserved key"
    data = _read(Path(path), seen=())
    for override in overrides:
        _apply(data, override)
    return validate(cls, data, source=str(path))


def validate(cls: type[C], data: dict[str, Any], source: str) -> C:
    """A config from nested tables; ``source`` opens the message of the ``ConfigError``."""
    try:
        return cls.model_validate(_nulls(data, [cls]))
    except ValidationError as error:
        lines = list(dict.fromkeys(_describe(cls, data, e) for e in _causes(error.errors())))
        raise ConfigError("\n  ".join([f"{source}:", *lines])) from None


def dump(config: Config, path: str | Path) -> None:
    """Writes ``config`` as TOML that ``load`` reads back to an equal config.

    The file appears whole or not at all. Raises ``StorageError`` when it cannot be written.
    """
    write_text(Path(path), tomli_w.dumps(_plain(config)))


# --- files and overrides -> nested tables


def _read(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    """The tables of a TOML file, laid over those of its bases."""
    if path.resolve() in seen:
        raise ConfigError(f"{path}: names itself as a base, by way of {seen[-1]}")
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text: byte {error.start} cannot be read") from None
    except FileNotFoundError:
        near = sorted(p.name for p in path.parent.glob("*.toml")) if path.parent.is_dir() else []
        there = f"in {path.parent} there are: {', '.join(near)}" if near else "check the path"
        raise ConfigError(f"{path}: no such config file; {there}") from None
    except OSError as error:
        raise ConfigError(f"{path}: the config cannot be read ({error.strerror})") from error

    bases = data.pop(BASE_KEY, [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ConfigError(f"{path}: {BASE_KEY} = {bases!r}: must be a file name or a list of them")
    merged: dict[str, Any] = {}
    for base in bases:
        merged = _merge(merged, _read(path.parent / base, (*seen, path.resolve())))
    return _merge(merged, data)


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Tables are merged key by key; any other value, lists included, is replaced."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            value = _merge(old, value)
        merged[key] = value
    return merged


def _apply(data: dict[str, Any], override: str) -> None:
    """Sets one ``key.path=value`` in ``data``; a number in the path is a place in a list."""
    path, equals, text = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(f"override {override!r}: must look like optim.lr=3e-3")
    node: Any = data
    for depth, key in enumerate(keys):
        place = _place(node, key, override, ".".join(keys[:depth]))
        if depth == len(keys) - 1:
            node[place] = _literal(text.strip())
        elif isinstance(node, dict):
            node = node.setdefault(key, {})
        else:
            node = node[place]


def _place(node: Any, key: str, override: str, where: str) -> str | int:
    """``key`` as an index of ``node``, which must be a table or a list long enough."""
    if isinstance(node, dict):
        return key
    if not isinstance(node, list):
        raise ConfigError(f"override {override!r}: {where} is {node!r}, which has no keys")
    if not key.isdecimal() or int(key) >= len(node):
        raise ConfigError(
            f"override {override!r}: {where} is a list of {len(node)}; "
            f"{key!r} is not a place in it (they count from 0)"
        )
    return int(key)


def _literal(text: str) -> Any:
    """A TOML literal, or else the bare word as a string (dates are words too)."""
    try:
        value = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    dates = datetime.date | datetime.time
    return text if len(value) > 1 or isinstance(value["value"], dates) else value["value"]


# --- null, in a format without it


def _nulls(value: Any, annotations: list[Any]) -> Any:
    """``value`` with each string ``none`` made null where ``annotations`` admit null."""
    if value == "none" and types.NoneType in annotations:
        return None
    if isinstance(value, dict):
        return {
            key: _nulls(item, _children(annotations, value, key)) for key, item in value.items()
        }
    if isinstance(value, list):
        return [_nulls(item, _children(annotations, value, i)) for i, item in enumerate(value)]
    return value


def _plain(value: Any) -> Any:
    """``value`` in TOML's types; a field that is null, and is so by default, is left out."""
    if value is None:
        return "none"
    if isinstance(value, Config):
        fields = type(value).model_fields
        null_by_default = {name for name, field in fields.items() if field.default is None}
        return {
            name: _plain(item)
            for name, item in value
            if item is not None or name not in null_by_default
        }
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return to_jsonable_python(value, inf_nan_mode="constants")


# --- what a key may hold, and the words for one that is wrong


def _alternatives(annotation: Any) -> list[Any]:
    """The members of a union, however nested; any other annotation alone."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _alternatives(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return [member for arg in get_args(annotation) for member in _alternatives(arg)]
    return [annotation]


def _children(annotations: list[Any], value: Any, key: Any) -> list[Any]:
    """What ``value[key]`` may be, where ``value`` may be any of ``annotations``."""
    found: list[Any] = []
    for annotation in annotations:
        origin, args = get_origin(annotation), get_args(annotation)
        if _is_config(annotation):
            field = annotation.model_fields.get(key) if _fits(annotation, value) else None
            found += _alternatives(field.annotation) if field else []
        elif origin is dict:
            found += _alternatives(args[1])
        elif origin in (list, tuple):
            found += [member for arg in args if arg is not ... for member in _alternatives(arg)]
    return found


def _is_config(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Config)


def _fits(cls: type[Config], value: Any) -> bool:
    """Whether no tag in ``value`` (a field of fixed words, as in a tagged union) rules it out."""
    return not any(
        get_origin(field.annotation) is Literal
        and name in value
        and value[name] not in get_args(field.annotation)
        for name, field in cls.model_fields.items()
    )


def _keys(
    cls: type[Config], prefix: str = "", above: tuple[type[Config], ...] = ()
) -> Iterator[str]:
    """Dotted paths of all keys of ``cls``, those inside lists left out."""
    for name, field in cls.model_fields.items():
        yield prefix + name
        for member in _alternatives(field.annotation):
            if _is_config(member) and member not in above:
                yield from _keys(member, f"{prefix}{name}.", (*above, cls))


def _nearest(cls: type[Config], path: list[Any], siblings: list[str]) -> list[str]:
    """Known dotted keys like the unknown ``path``: misspelt here first, then placed elsewhere."""
    name, prefix = str(path[-1]), [str(key) for key in path[:-1]]
    here = [".".join([*prefix, key]) for key in difflib.get_close_matches(name, siblings)]
    everywhere = list(_keys(cls))
    same_name = [key for key in everywhere if key.rpartition(".")[2] == name]
    similar = difflib.get_close_matches(".".join([*prefix, name]), everywhere)
    return list(dict.fromkeys(here + same_name + similar))[:3]


def _causes(errors: list[ErrorDetails]) -> list[ErrorDetails]:
    """Without the lists that pydantic finds too short only for having dropped wrong items."""
    above = {error["loc"][:depth] for error in errors for depth in range(len(error["loc"]))}
    return [e for e in errors if e["type"] != "too_short" or e["loc"] not in above]


def _describe(cls: type[Config], data: dict[str, Any], error: ErrorDetails) -> str:
    """One line for one of pydantic's errors: dotted path, value, rule."""
    path: list[Any] = []
    node: Any = data
    annotations: list[Any] = [cls]
    siblings: list[str] = []
    for position, key in enumerate(error["loc"]):
        is_last = position == len(error["loc"]) - 1
        inside = key in node if isinstance(node, dict) else isinstance(key, int)
        if not inside and not (is_last and error["type"] == "missing"):
            continue  # pydantic names the member of a union here: no key of the file
        models = [a for a in annotations if _is_config(a) and _fits(a, node)]
        siblings = [name for model in models for name in model.model_fields]
        annotations = _children(annotations, node, key)
        path.append(key)
        node = node[key] if inside else None
    dotted = ".".join(str(key) for key in path)

    if error["type"] == "extra_forbidden":
        near = _nearest(cls, path, siblings)
        known = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(siblings)}"
        return f"{dotted}: unknown key; {known}"
    if error["type"] == "missing":
        return f"{dotted}: required, and not given"
    rule = error["msg"].removeprefix("Value error, ").replace("Input should", "should", 1)
    value = "" if isinstance(error["input"], dict | Config) else f" = {error['input']!r}"
    return f"{dotted}{value}: {rule}" if dotted else rule
