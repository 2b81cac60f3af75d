"""The grammar: what becomes which tree, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugin.assemble.bexpr_syntax import BexprError, Binary, Match, Not, Operator, parse

A = Match(("A",), Operator.EQUAL, "1")
B = Match(("B",), Operator.EQUAL, "2")
C = Match(("C",), Operator.EQUAL, "3")


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("A==1", A),
        (" A  ==\n1 ", A),
        ("(A == 1)", A),
        ("( ( A == 1 ) )", A),
        ("A != 1", Match(("A",), Operator.NOT_EQUAL, "1")),
        ('A == "x y"', Match(("A",), Operator.EQUAL, "x y")),
        ('A == `x"y`', Match(("A",), Operator.EQUAL, 'x"y')),
        (r'A == "a\tb\\\x41\u00e9"', Match(("A",), Operator.EQUAL, "a\tb\\Aé")),
        ("A == -1.5", Match(("A",), Operator.EQUAL, "-1.5")),
        ("A.B.c_1 == v1", Match(("A", "B", "c_1"), Operator.EQUAL, "v1")),
        ('A["my key"].B == 1', Match(("A", "my key", "B"), Operator.EQUAL, "1")),
        ("A == b.c", Match(("A",), Operator.EQUAL, "b.c")),
        ("A contains x", Match(("A",), Operator.IN, "x")),
        ("A not  contains x", Match(("A",), Operator.NOT_IN, "x")),
        ("x in A", Match(("A",), Operator.IN, "x")),
        ('"x" not in A.B', Match(("A", "B"), Operator.NOT_IN, "x")),
        ("A matches `^v`", Match(("A",), Operator.MATCHES, "^v")),
        ("A not matches `^v`", Match(("A",), Operator.NOT_MATCHES, "^v")),
        ("A is empty", Match(("A",), Operator.IS_EMPTY)),
        ("A is not empty", Match(("A",), Operator.IS_NOT_EMPTY)),
        ("not A == 1", Not(A)),
        ("not not A == 1", Not(Not(A))),
        ("A == 1 and B == 2 or C == 3", Binary(False, Binary(True, A, B), C)),
        ("A == 1 or B == 2 and C == 3", Binary(False, A, Binary(True, B, C))),
        ("(A == 1 or B == 2) and C == 3", Binary(True, Binary(False, A, B), C)),
        ("not A == 1 and B == 2", Binary(True, Not(A), B)),
        ("not (A == 1 and B == 2)", Not(Binary(True, A, B))),
        ("notary == 1", Match(("notary",), Operator.EQUAL, "1")),
    ],
)
def test_what_an_expression_means(text: str, tree: object) -> None:
    assert parse(text) == tree


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "A",
        "A ==",
        "== 1",
        "A = 1",
        "A == 1 and",
        "A == 1 B == 2",
        "(A == 1",
        "A == 1)",
        "not(A == 1)",
        "(A == 1)and (B == 2)",
        "A == 'x'",
        'A == "x',
        "A == 01",
        "A == 1x",
        "A == v1-beta",
        "A[b] == 1",
        'A["b" == 1',
        "A. == 1",
        "x in",
        "x in 1",
        r'A == "\q"',
        r'A == "\ud800"',
        'A == "line\nbreak"',
        "not " * 200 + "A == 1",
    ],
)
def test_what_is_refused(text: str) -> None:
    with pytest.raises(BexprError):
        parse(text)


def test_the_error_says_where() -> None:
    with pytest.raises(BexprError, match=r"expected a value before '\?' of the filter"):
        parse("A == ?")


@given(st.lists(st.sampled_from(["A", ".", "==", " ", "not", "in", "(", ")", '"', "`", "[", "1", "and", "is empty"])))
def test_any_text_is_a_tree_or_an_error(tokens: list[str]) -> None:
    try:
        tree = parse("".join(tokens))
    except BexprError:
        return
    assert isinstance(tree, Match | Not | Binary)
