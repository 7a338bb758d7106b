"""Which documents are held out: whole packages first, then single files.

The choice depends on names alone, so that it is the same on every machine and does not move when
documents are added. Runs in ``prepare.py`` after near-duplicate removal.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from pydantic import Field

from selenite.config import Config
from selenite.data.documents import Document, stable_fraction
from selenite.errors import DataError


class SplitConfig(Config):
    """What goes to the held-out split."""

    holdout: tuple[str, ...] = ()  # packages, by name
    package_fraction: float = Field(default=0.0, ge=0, lt=1)  # of packages, by hash of the name
    file_fraction: float = Field(default=0.02, ge=0, lt=1)  # of other files, by hash of the path


def split(
    documents: Sequence[Document], config: SplitConfig
) -> tuple[list[Document], list[Document]]:
    """(training documents, held-out documents), each in the order given.

    Where no document falls to the held-out side, the one with the least hash does. Raises
    ``DataError`` for a named package that is not there and where nothing is left to train on.
    """
    packages = {document.package for document in documents}
    for name in config.holdout:
        if name not in packages:
            near = difflib.get_close_matches(name, packages, n=3) or sorted(packages)[:3]
            raise DataError(
                f"holdout={name!r}: the corpus has no such package (near: {', '.join(near)}); "
                "mend the name or raise max_bytes so that some of its files are in the corpus"
            )
    held_out = {document.key for document in documents if _is_held_out(document, config)}
    if not held_out and documents:
        held_out = {min(documents, key=lambda d: stable_fraction(d.key, "file")).key}
    train = [document for document in documents if document.key not in held_out]
    val = [document for document in documents if document.key in held_out]
    if not train:
        raise DataError(
            f"all {len(documents)} documents are held out, none is left to train on; add sources "
            "or lower split.package_fraction and split.file_fraction"
        )
    return train, val


def _is_held_out(document: Document, config: SplitConfig) -> bool:
    return (
        document.package in config.holdout
        or stable_fraction(document.package, "package") < config.package_fraction
        or stable_fraction(document.key, "file") < config.file_fraction
    )
