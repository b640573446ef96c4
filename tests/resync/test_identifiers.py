"""Identifiers from settings and files: in order, each once, and none of them in the log."""

from __future__ import annotations

import json
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest

from tap_braze_export.errors import ConfigError
from tap_braze_export.resync.identifiers import Identifiers
from tap_braze_export.settings import Settings
from tests.support.fakes import FakeClock

if TYPE_CHECKING:
    from pathlib import Path

    from pytest import LogCaptureFixture  # noqa: PT013 - as a type it reads better so

KEY = b"a key"


def identifiers_of(config: dict[str, Any]) -> Identifiers:
    """The identifiers that these settings name."""
    return Identifiers(Settings.of({"api_url": "https://braze", "api_key": "k", **config}), clock=FakeClock())


def read(**config: Any) -> list[tuple[str, ...]]:
    """Kind and value of each identifier, of an alias its label as well."""
    return [tuple(part for part in identifier[:3] if part) for identifier in identifiers_of(config)]


def from_file(path: Path, content: str | bytes) -> list[tuple[str, ...]]:
    """The same of a file."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read(identifiers_url=str(path))


def externals(*values: str) -> list[tuple[str, ...]]:
    return [("external_id", value) for value in values]


# Where they come from


def test_settings_come_before_the_file(tmp_path: Path) -> None:
    """External ids and aliases first, because they share requests."""
    path = tmp_path / "more.csv"
    path.write_text("external_id\nlast\n")

    assert read(
        identifiers_url=str(path),
        emails=["a@example.org"],
        device_ids=["device"],
        phones=["+4930123456"],
        braze_ids=["5f0"],
        user_aliases=[{"alias_name": "lead-1", "alias_label": "crm"}],
        external_ids=["first"],
    ) == [
        ("external_id", "first"),
        ("user_alias", "lead-1", "crm"),
        ("braze_id", "5f0"),
        ("email", "a@example.org"),
        ("phone", "+4930123456"),
        ("device_id", "device"),
        ("external_id", "last"),
    ]


def test_csv_with_every_column(tmp_path: Path) -> None:
    """Columns stand in any order and spelling of case; unknown ones are ignored; each filled cell is an identifier."""
    content = (
        "Name, EMAIL ,external_id,alias_label,alias_name,braze_id,phone,device_id\n"
        "Ada,ada@example.org,4711,,,,,\n"
        "Alan,,,crm,lead-1,,,\n"
        "Kurt,,,,,5f0c,+4930123456,0D-7\n"
    )

    assert from_file(tmp_path / "people.csv", content) == [
        ("external_id", "4711"),
        ("email", "ada@example.org"),
        ("user_alias", "lead-1", "crm"),
        ("braze_id", "5f0c"),
        ("phone", "+4930123456"),
        ("device_id", "0D-7"),
    ]


@pytest.mark.parametrize(
    "content",
    [
        '\ufeffexternal_id\r\n"a,b"\r\n"say ""hi"""\r\n"two words"\r\nJosé-日本-😀\r\n',
        'external_id;name\n"a,b";x\n"say ""hi""";\ntwo words\nJosé-日本-😀;\n',
        'external_id\tname\na,b\t\n"say ""hi"""\t\ntwo words\t\nJosé-日本-😀',
    ],
    ids=["commas, as Excel saves it", "semicolons", "tabs"],
)
def test_csv_dialects(tmp_path: Path, content: str) -> None:
    """Ids with commas, quotes, blanks and any script arrive as they are."""
    assert from_file(tmp_path / "people.csv", content) == externals("a,b", 'say "hi"', "two words", "José-日本-😀")


def test_json_lines(tmp_path: Path) -> None:
    """Objects with the same members as a CSV, plain strings for external ids, and numbers without loss."""
    lines = [
        {"external_id": "4711", "email": None, "shoe_size": 43},
        "plain \u2028 José",
        {"alias_name": "lead-1", "alias_label": "crm"},
        12345678901234567890,
        {"email": " ada@example.org "},
    ]

    assert from_file(tmp_path / "people.jsonl", "\n".join(map(json.dumps, lines))) == [
        ("external_id", "4711"),
        ("external_id", "plain \u2028 José"),
        ("user_alias", "lead-1", "crm"),
        ("external_id", "12345678901234567890"),
        ("email", "ada@example.org"),
    ]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("people.ndjson", '"a"\n"b"\n'),
        ("people.JSON", '"a"\n"b"\n'),
        ("people.txt", '{"external_id": "a"}\n"b"\n'),
        ("people", '"a"\n"b"'),
        ("people.dat", "external_id\na\nb\n"),
        ("people.csv", '"external_id"\na\nb\n'),
    ],
)
def test_format_follows_the_extension_else_the_first_character(tmp_path: Path, name: str, content: str) -> None:
    """A CSV may begin with a quote as well."""
    assert from_file(tmp_path / name, content) == externals("a", "b")


def test_file_behind_a_url() -> None:
    """Any file system that fsspec knows."""
    import fsspec

    with fsspec.open("memory://bucket/people.csv", "w") as file:
        file.write("external_id\na\n")

    assert read(identifiers_url="memory://bucket/people.csv") == externals("a")


def test_bucket_options_go_with_the_buckets_scheme_only(tmp_path: Path) -> None:
    """Another place must not be sent the bucket's credentials."""
    path = tmp_path / "a.csv"
    path.write_text("external_id\na\n")
    config = {"bucket_options": {"no_such_option_of_a_local_file": 1}, "bucket_url": "s3://bucket"}

    assert read(identifiers_url=str(path), **config) == externals("a")
    settings = Settings.of({"api_url": "https://braze", "api_key": "key", **config})
    assert settings.storage_options("s3://x/a.csv") == config["bucket_options"]
    assert settings.storage_options("gs://x/a.csv") == {}


# Rows that are left out


def test_rows_left_out_are_logged_by_number_never_by_value(tmp_path: Path, caplog: LogCaptureFixture) -> None:
    """Empty, duplicate and malformed ones, with the first five rows of each."""
    content = (
        "external_id,email,phone,alias_name,alias_label\n"
        "first,,,,\n"  # 2
        "first,,,,\n"  # 3 duplicate
        " ,,,,\n"  # 4 empty
        "\n"  # 5 empty
        ",no-at-sign,,,\n"  # 6 malformed
        ",,no digits,,\n"  # 7 malformed
        ",,,a name without label,\n"  # 8 malformed
        '"tab\there",,,,\n'  # 9 malformed
        "one,two@example.org,3,four,five,six\n"  # 10 malformed: more cells than columns
        f"{'x' * 2_001},,,,\n"  # 11 malformed
        "last,,,,\n"  # 12
    )

    assert from_file(tmp_path / "people.csv", content) == externals("first", "last")
    assert caplog.messages == [
        (
            "Identifiers left out: identifiers_url: 1 duplicate (row 3); identifiers_url: 2 empty (rows 4, 5); "
            "identifiers_url: 6 malformed (rows 6, 7, 8, 9, 10, …)"
        )
    ]


@pytest.mark.parametrize(
    "cells",
    [
        {"email": "unknown"},
        {"phone": "n/a"},
        {"device_id": "x" * 2_001},
        {"braze_id": "tab\there"},
        {"alias_name": "a name without label"},
        {"alias_label": "a label without name"},
        {"alias_name": ["no text"], "alias_label": "label"},
        {"alias_name": {}, "alias_label": []},
    ],
)
def test_a_malformed_cell_leaves_out_none_of_the_others(
    tmp_path: Path, caplog: LogCaptureFixture, cells: dict[str, Any]
) -> None:
    """A placeholder in the phone's column must not cost the person whose external id is known."""
    row = {"external_id": "known"} | cells

    assert from_file(tmp_path / "people.jsonl", json.dumps(row)) == externals("known")
    assert caplog.messages == ["Identifiers left out: identifiers_url: 1 malformed (row 1)"]


def test_malformed_json_lines(tmp_path: Path, caplog: LogCaptureFixture) -> None:
    """Neither broken JSON nor other types end the reading."""
    content = b'"first"\n{"external_id": \n[1]\ntrue\n1.5\n{"external_id": {}}\n"\\ud800"\n"\xff"\n\n{}\n"last"\n'

    assert from_file(tmp_path / "people.jsonl", content) == externals("first", "last")
    assert caplog.messages == [
        (
            "Identifiers left out: identifiers_url: 7 malformed (rows 2, 3, 4, 5, 6, …); "
            "identifiers_url: 2 empty (rows 9, 10)"
        )
    ]


def test_duplicates_are_found_between_settings_and_file(tmp_path: Path, caplog: LogCaptureFixture) -> None:
    """The first one counts; the same text of another kind or label is another identifier."""
    path = tmp_path / "people.jsonl"
    path.write_text('{"external_id": "x"}\n{"braze_id": "x"}\n{"alias_name": "x", "alias_label": "l"}\n')

    aliases = [{"alias_name": "x", "alias_label": "l"}, {"alias_name": "x", "alias_label": "m"}]
    assert read(external_ids=["x", "x"], user_aliases=aliases, identifiers_url=str(path)) == [
        ("external_id", "x"),
        ("user_alias", "x", "l"),
        ("user_alias", "x", "m"),
        ("braze_id", "x"),
    ]
    assert caplog.messages == [
        "Identifiers left out: external_ids: 1 duplicate (row 2); identifiers_url: 2 duplicate (rows 1, 3)"
    ]


# Errors


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("Ada Lovelace\n4711\n", "names none of external_id, braze_id, email, phone, device_id, alias_name"),
        ("external_id\n\n", "there is no usable identifier to resync: identifiers_url: 1 empty (row 2)"),
        ("external_id\n" + "4711 " * 300_000, "line 2 of identifiers_url is longer than 1 MiB"),
    ],
)
def test_file_that_cannot_be_meant_is_a_configuration_error(tmp_path: Path, content: str, message: str) -> None:
    """It names the problem and holds nothing of the file."""
    with pytest.raises(ConfigError) as caught:
        from_file(tmp_path / "people.csv", content)

    assert message in str(caught.value)
    assert "4711" not in str(caught.value)
    assert "Ada" not in str(caught.value)


@pytest.mark.parametrize("read_it", [list, lambda identifiers: identifiers.fingerprint(KEY)], ids=["read", "hash"])
def test_missing_file_is_a_configuration_error(tmp_path: Path, read_it: Any) -> None:
    """With its path."""
    with pytest.raises(ConfigError, match=r"identifiers_url .*/none\.csv names a file that does not exist"):
        read_it(identifiers_of({"identifiers_url": str(tmp_path / "none.csv")}))


def test_errors_name_the_address_without_its_secrets() -> None:
    """A signed address, or one with a password, must not get into a log."""
    url = "memory://user:secret@host/none.csv?signature=secret"

    with pytest.raises(ConfigError) as caught:
        read(identifiers_url=url)

    assert "memory://host/none.csv" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_unknown_scheme_is_a_configuration_error() -> None:
    """As is one whose library is not installed."""
    with pytest.raises(ConfigError, match="identifiers_url"):
        read(identifiers_url="nonsense://host/a.csv")


def test_empty_file_is_no_error(tmp_path: Path) -> None:
    """An upstream query may well find nobody."""
    assert from_file(tmp_path / "a.csv", "") == []
    assert from_file(tmp_path / "b.csv", "external_id\n") == []
    assert from_file(tmp_path / "c.jsonl", "") == []


# The fingerprint


def test_fingerprint_changes_with_the_source_alone(tmp_path: Path) -> None:
    """With each setting, the file's content and the key, without which nobody can guess; not with the file's name."""
    first, second = tmp_path / "1.csv", tmp_path / "2.csv"
    first.write_text("external_id\na\nb\n")
    second.write_text("external_id\na\nb\n")
    original = identifiers_of({"external_ids": ["x"], "identifiers_url": str(first)})

    fingerprint = original.fingerprint(KEY)

    assert identifiers_of({"external_ids": ["x"], "identifiers_url": str(second)}).fingerprint(KEY) == fingerprint
    assert identifiers_of({"external_ids": ["y"], "identifiers_url": str(first)}).fingerprint(KEY) != fingerprint
    assert identifiers_of({"emails": ["x"], "identifiers_url": str(first)}).fingerprint(KEY) != fingerprint
    assert original.fingerprint(b"another key") != fingerprint
    first.write_text("external_id\na\nc\n")
    assert original.fingerprint(KEY) != fingerprint


# Memory


@pytest.mark.slow
def test_identifiers_are_remembered_as_digests(tmp_path: Path) -> None:
    """Of 50,000 identifiers of 200 characters, less than 130 bytes each are in memory."""
    path = tmp_path / "long.csv"
    path.write_text("external_id\n" + "".join(f"{number:0200d}\n" for number in range(50_000)))
    tracemalloc.start()
    count = sum(1 for _ in identifiers_of({"identifiers_url": str(path)}))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert count == 50_000
    assert peak / 50_000 < 130


def test_long_file_is_read_as_a_stream(tmp_path: Path) -> None:
    """Of a file of 8 MB never as much as a half is in memory."""
    path = tmp_path / "long.csv"
    path.write_text("external_id\n" + "".join(f"{number:0799d}\n" for number in range(10_000)))
    tracemalloc.start()
    count = sum(1 for _ in identifiers_of({"identifiers_url": str(path)}))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert count == 10_000
    assert peak < 4_000_000
