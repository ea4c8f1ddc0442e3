"""Where a SQL step's statements stand, and where one ends and the next begins."""

from typing import Any

import pytest

from worker.executors.sql_input import commands_of, only_reads, statements_of
from worker.failure import JobFailed

STANDARD_BODY = """CREATE OR REPLACE FUNCTION f(a int) RETURNS int LANGUAGE sql
BEGIN ATOMIC
  SELECT CASE WHEN a > 1 THEN 2 END;
  SELECT a;
END"""
RULE = "CREATE RULE twice AS ON INSERT TO t DO (SELECT 1; SELECT 2)"


@pytest.mark.parametrize(
    "statements",
    [[STANDARD_BODY, "SELECT f(1)"], ["BEGIN", "SELECT 1", "END"], [RULE, "SELECT ')'", "SELECT 3"]],
)
def test_semicolon_inside_of_a_body_ends_no_statement(statements: list[str]) -> None:
    assert statements_of("; ".join(statements)) == statements


@pytest.mark.parametrize(
    ("text", "statements"),
    [
        ("select 1", ["select 1"]),
        (" select 1 ; select 2 ;\n", ["select 1", "select 2"]),
        ("select ';' ; select \"a;b\" from t", ["select ';'", 'select "a;b" from t']),
        ("select 'it''s; fine'; select 2", ["select 'it''s; fine'", "select 2"]),
        (r"select E'a\';b'; select 2", [r"select E'a\';b'", "select 2"]),
        (r"select 'a\'; select 2", [r"select 'a\'", "select 2"]),
        ("do $$ begin; end $$; select 2", ["do $$ begin; end $$", "select 2"]),
        ("do $x$ $$;$$ $x$; select 2", ["do $x$ $$;$$ $x$", "select 2"]),
        ("select $1; select a$b$c; select 2", ["select $1", "select a$b$c", "select 2"]),
        ("select 1 -- one; two\n; select 2", ["select 1 -- one; two", "select 2"]),
        ("select 1 /* a; /* b; */ c; */; select 2", ["select 1 /* a; /* b; */ c; */", "select 2"]),
        ("-- nothing here;\n; /* nor ; here */ ;", []),
        ("select 'open; end", ["select 'open", "end"]),
    ],
)
def test_statement_ends_at_a_semicolon_that_is_code(text: str, statements: list[str]) -> None:
    assert statements_of(text) == statements


@pytest.mark.parametrize(
    ("given", "commands"),
    [
        ({"command": "a"}, ["a"]),
        ({"commands": ["a", "b"]}, ["a", "b"]),
        ({"commands": "a; b"}, ["a; b"]),
        ({"query": "c", "command": "a"}, ["a", "c"]),
    ],
)
def test_commands_stand_under_three_names(given: dict[str, Any], commands: list[str]) -> None:
    assert commands_of(given) == commands


@pytest.mark.parametrize(
    "given", [{}, {"command": " "}, {"commands": []}, {"commands": [1]}, {"query": {"a": 1}}]
)
def test_step_without_sql_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(JobFailed) as caught:
        commands_of(given)
    assert caught.value.type == "input_invalid"


@pytest.mark.parametrize(
    ("statement", "reads"),
    [
        ("select 1", True),
        ("/* all */ -- of it\n (VALUES (1))", True),
        ("with a as (select 1) table a", True),
        ("with a as (delete from t returning *) select * from a", False),
        ("select * into copy from t", False),
        ("insert into t values (1) returning a", False),
        ("create table t as select 1", False),
        ("explain select 1", False),
    ],
)
def test_query_is_what_surely_only_reads(statement: str, reads: bool) -> None:
    assert only_reads(statement) is reads
