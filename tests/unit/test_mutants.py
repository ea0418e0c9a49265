"""The table of mutants is in step with the source and with the docs."""

from __future__ import annotations

import ast

import pytest

from tests.mutants import DOC, MUTANTS, document, mutate


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda each: each.protection)
def test_every_protection_is_where_the_table_says(mutant):
    """Once, and what takes its place is still a program."""
    text = mutate(mutant)
    if mutant.file.endswith(".py"):
        ast.parse(text)
    assert mutant.tests


def test_the_docs_list_every_protection_as_caught():
    """`make mutants` wrote them."""
    assert DOC.read_text() == document(set())
