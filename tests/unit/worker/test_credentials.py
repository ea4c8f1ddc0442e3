"""Names lead to the worker's own secrets, which show nowhere else."""

from pathlib import Path
from typing import Any

import pytest

from worker.config import CredentialsInvalid, child_environment, load_credentials
from worker.credentials import Credentials
from worker.failure import JobFailed

KNOWN = Credentials(
    {
        "pg_local": {"type": "postgres", "db_host": "db", "db_user": "ann", "db_password": "hunter22"},
        "api": {"type": "bearer", "token": "tok-12345"},
        "dsn": {"dsn": "postgresql://ann:pa55word@db/x"},
    }
)


@pytest.mark.parametrize("auth", ["api", {"credential": "api"}, {"type": "bearer", "credential": "api"}])
def test_auth_is_a_name_or_a_mapping_with_one(auth: Any) -> None:
    assert KNOWN.find(auth).require("token") == "tok-12345"


def test_type_in_auth_goes_over_the_credentials_own() -> None:
    assert KNOWN.find({"type": "api_key", "credential": "api"}).fields["type"] == "api_key"


def test_names_of_the_reference_are_understood() -> None:
    assert KNOWN.find("pg_local").fields["host"] == "db"


def test_missing_credential_is_named() -> None:
    with pytest.raises(JobFailed, match="start it with REPRISE_CREDENTIAL_NO_PE, ") as caught:
        KNOWN.find("no-pe")
    assert caught.value.type == "credential_not_found"


@pytest.mark.parametrize("auth", [{"token": "inline"}, {"credential": "api", "token": "inline"}, 3, []])
def test_secret_in_the_job_is_refused_and_not_repeated(auth: Any) -> None:
    with pytest.raises(JobFailed) as caught:
        KNOWN.find(auth)
    assert caught.value.type == "input_invalid"
    assert "inline" not in str(caught.value)


def test_every_secret_is_scrubbed_and_nothing_else() -> None:
    text = "ann@db: hunter22 tok-12345 pa55word Basic YW5uOmh1bnRlcjIy"
    assert KNOWN.scrub(text) == "ann@db: [redacted] [redacted] [redacted] Basic [redacted]"


def test_credential_does_not_show_its_fields() -> None:
    assert "hunter22" not in repr(KNOWN.find("pg_local"))


@pytest.mark.parametrize("text", ["api:\n  token: abcd", '{"api": {"token": "abcd"}}'])
def test_file_is_yaml_or_json(tmp_path: Path, text: str) -> None:
    path = tmp_path / "credentials"
    path.write_text(text)
    assert load_credentials(path).find("api").require("token") == "abcd"


@pytest.mark.parametrize("text", ["- a", "api: secret1", "api: {secret1", '{"api" secret1'])
def test_bad_file_is_refused_without_showing_it(tmp_path: Path, text: str) -> None:
    path = tmp_path / "credentials"
    path.write_text(text)
    with pytest.raises(CredentialsInvalid, match="credentials") as caught:
        load_credentials(path)
    assert "secret1" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "field", "expected"),
    [
        ('{"type": "bearer", "token": "abcd"}', "token", "abcd"),
        ("{type: bearer, token: abcd}", "token", "abcd"),
        ("postgresql://ann:secret@db/x", "dsn", "postgresql://ann:secret@db/x"),
        ("abcd", "token", "abcd"),
        ("user:abcd", "token", "user:abcd"),
    ],
)
def test_variable_holds_a_mapping_an_address_or_a_token(
    monkeypatch: pytest.MonkeyPatch, value: str, field: str, expected: str
) -> None:
    monkeypatch.setenv("REPRISE_CREDENTIAL_MY_API", value)
    assert load_credentials(None).find("my-api").fields[field] == expected


def test_variable_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "credentials"
    path.write_text("api: {token: from-file}")
    monkeypatch.setenv("REPRISE_CREDENTIAL_API", "from-variable")
    assert load_credentials(path).find("api").require("token") == "from-variable"


def test_code_of_jobs_sees_nothing_of_reprise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPRISE_CREDENTIAL_API", "abcd")
    monkeypatch.setenv("COLOUR", "blue")
    environment = child_environment()
    assert environment["COLOUR"] == "blue"
    assert not [name for name in environment if name.startswith("REPRISE_")]
