from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankloom.schema import Expression, parse_expression

OPERATORS = ["==", "!=", ">=", "<=", ">", "<"]
names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.]{0,8}", fullmatch=True)
numbers = st.floats(allow_nan=False, allow_infinity=False)
gaps = st.sampled_from(["", " ", "  "])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("click", Expression("click")),
        (" click ", Expression("click")),
        ("rating >= 4", Expression("rating", ">=", 4.0)),
        ("rating>=4", Expression("rating", ">=", 4.0)),
        ("a.b_2 < -.5e-1", Expression("a.b_2", "<", -0.05)),
        ("event == 'buy it'", Expression("event", "==", "buy it")),
        ('event != "it\'s"', Expression("event", "!=", "it's")),
        ("event == ''", Expression("event", "==", "")),
        ("event == '4'", Expression("event", "==", "4")),
    ],
)
def test_reads_a_column_or_a_comparison(text: str, expected: Expression) -> None:
    assert parse_expression(text) == expected


@given(names, st.sampled_from(OPERATORS), numbers, gaps, gaps)
def test_a_written_comparison_with_a_number_reads_back(
    name: str, operator: str, number: float, before: str, after: str
) -> None:
    text = f"{before}{name}{after}{operator}{before}{number!r}{after}"
    assert parse_expression(text) == Expression(name, operator, number)


@given(names, st.sampled_from(OPERATORS), st.text(string.printable), st.sampled_from("'\""))
def test_a_quoted_text_reads_back_or_is_refused(
    name: str, operator: str, literal: str, quote: str
) -> None:
    text = f"{name} {operator} {quote}{literal}{quote}"
    if quote in literal or "\n" in literal:
        with pytest.raises(ValueError, match="must be a column"):
            parse_expression(text)
    else:
        assert parse_expression(text) == Expression(name, operator, literal)


@given(st.text(alphabet="ab 14.'\"=<>!()+-*,", max_size=12))
def test_anything_is_read_as_what_it_says_or_refused(text: str) -> None:
    try:
        read = parse_expression(text)
    except ValueError:
        return
    assert set(read.column) <= set("ab14.")
    assert not read.column[0].isdigit()
    assert (read.operator is None) == (read.literal is None)
    # Column, operator and literal are all of the text: nothing was skipped.
    rest = text.strip().removeprefix(read.column).strip()
    if read.operator is None:
        assert not rest
    else:
        rest = rest.removeprefix(read.operator).strip()
        written = rest[1:-1] if isinstance(read.literal, str) else float(rest)
        assert written == read.literal


@pytest.mark.parametrize(
    "text",
    [
        "",
        "4",
        "rating =  4",
        "rating === 4",
        "rating > = 4",
        "rating >= four",
        "4 <= rating",
        "a and b",
        "a == 1 or b == 2",
        "a == 'x' == 'y'",
        "a == 'x",
        "a == 'x\"",
        "a >= nan",
        "a >= inf",
        "a >= 1e999",
        "a >= 0x10",
        "f(a)",
        "a; import os",
        "a == __import__('os')",
        "a\nb",
    ],
)
def test_anything_else_is_refused_and_shown(text: str) -> None:
    with pytest.raises(ValueError, match="must be a column") as caught:
        parse_expression(text)
    assert str(caught.value).endswith(f"Got {text!r}.")
