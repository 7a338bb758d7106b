"""The split: disjoint, stable under additions, whole packages held out."""

from __future__ import annotations

import pytest

from selenite.data.documents import Document
from selenite.data.split import SplitConfig, split
from selenite.errors import DataError


def _corpus(packages: int, files: int) -> list[Document]:
    return [
        Document("text", "test", f"package{p}", f"package{p}/{f}.py")
        for p in range(packages)
        for f in range(files)
    ]


def test_each_document_is_on_one_side_and_order_stays():
    documents = _corpus(10, 100)
    train, val = split(documents, SplitConfig(file_fraction=0.1))
    assert sorted([*train, *val], key=documents.index) == documents
    assert [d for d in documents if d in set(train)] == train
    # 1000 draws of 0.1: five standard deviations are 47.
    assert abs(len(val) - 100) < 48


def test_named_packages_are_held_out_whole():
    train, val = split(_corpus(5, 20), SplitConfig(holdout=("package3",), file_fraction=0))
    assert {document.package for document in val} == {"package3"}
    assert len(val) == 20
    assert "package3" not in {document.package for document in train}


def test_a_fraction_of_packages_is_held_out_whole():
    train, val = split(_corpus(200, 2), SplitConfig(package_fraction=0.2, file_fraction=0))
    held_out = {document.package for document in val}
    assert not held_out & {document.package for document in train}
    # 200 draws of 0.2: five standard deviations are 28.
    assert abs(len(held_out) - 40) < 29


def test_adding_documents_moves_none_across():
    config = SplitConfig(package_fraction=0.1, file_fraction=0.1)
    _, before = split(_corpus(10, 50), config)
    _, after = split(_corpus(20, 60), config)
    small = set(_corpus(10, 50))
    assert set(after) & small == set(before)


def test_there_is_always_something_held_out_and_something_to_train_on():
    train, val = split(_corpus(1, 3), SplitConfig(file_fraction=0))
    assert (len(train), len(val)) == (2, 1)
    with pytest.raises(DataError, match="all 1 documents are held out"):
        split(_corpus(1, 1), SplitConfig())


def test_a_package_that_is_not_there_is_named_with_its_neighbours():
    with pytest.raises(DataError, match=r"holdout='package33'.*near: package3"):
        split(_corpus(5, 5), SplitConfig(holdout=("package33",)))
