"""Lists as warehouses unload them: several files, a folder, a pattern; and the cells that other programs write."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec
import pytest

from tap_braze_export.errors import ConfigError
from tap_braze_export.resync.identifiers import Identifiers
from tap_braze_export.settings import Settings
from tests.support.fakes import FakeClock
from tests.support.simulation import ScriptedBraze, SimulatedRun

if TYPE_CHECKING:
    from pytest import LogCaptureFixture  # noqa: PT013 - as a type it reads better so

CASES = Path(__file__).parent / "cases"
KEY = b"a key"


def identifiers_of(**config: Any) -> Identifiers:
    return Identifiers(Settings.of({"api_url": "https://braze", "api_key": "k", **config}), clock=FakeClock())


def read(url: str | Path) -> list[tuple[str, str]]:
    """Kind and value of each identifier."""
    return [(each.kind, each.value) for each in identifiers_of(identifiers_url=str(url))]


def written(folder: Path, **contents: str | bytes) -> Path:
    """A folder with files; `ids_csv` becomes ids.csv."""
    folder.mkdir(exist_ok=True)
    for name, content in contents.items():
        path = folder / name.replace("__", "/").replace("_csv", ".csv")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


FOUR = [("external_id", f"ext-{number}") for number in range(4)]


# Several files


def test_a_pattern_and_a_folder_name_all_their_files() -> None:
    """In the order of their names, each with its own header."""
    for url in (
        "shards/ids-*.csv",
        "shards/ids-00000000000?.csv",
        "shards/ids-*[01].csv",
        "shards",
        "shards/",
        "sh*/*",
    ):
        assert read(f"{CASES}/{url}") == FOUR, url


def test_files_behind_a_url() -> None:
    """Folders of a bucket are names only."""
    for number in range(2):
        with fsspec.open(f"memory://unloaded/ids/part-{number}.csv", "w") as file:
            file.write(f"external_id\next-{2 * number}\next-{2 * number + 1}\n")

    for url in ("memory://unloaded/ids", "memory://unloaded/ids/*.csv", "memory://unloaded/*/part-*"):
        assert read(url) == FOUR, url


def test_what_is_no_data_is_left_alone(tmp_path: Path) -> None:
    """Markers and checksums of Spark, empty files, folders; files compressed or of another format are read."""
    written(
        tmp_path,
        a_csv="external_id\next-0\n",
        b_csv=gzip.compress(b"external_id\next-1\n"),
        c='{"external_id": "ext-2"}\n',
        day__d_csv="external_id;name\next-3;x\n",
        e_csv="",
        _SUCCESS="done",
        _temporary__x_csv="external_id\nno\n",
    )
    (tmp_path / ".a.csv.crc").write_bytes(b"crc")

    assert read(tmp_path) == FOUR


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(tmp_path: Path) -> None:
    written(tmp_path, **{"ids[1]_csv": "external_id\next-0\n", "ids1_csv": "external_id\nother\n"})

    assert read(tmp_path / "ids[1].csv") == FOUR[:1]


def test_what_names_no_file_is_told(tmp_path: Path) -> None:
    """With the address, and one line."""
    (tmp_path / "empty").mkdir()
    for url in ("none-*.csv", "empty", "empty/*"):
        with pytest.raises(ConfigError, match=r"identifiers_url .* names no file: check the path"):
            read(tmp_path / url)


def test_rows_are_named_with_their_file(tmp_path: Path, caplog: LogCaptureFixture) -> None:
    """Faults, refusals and errors: a line number alone would not tell where."""
    folder = written(tmp_path / "ids", a_csv="email\na@example.org\nwrong\n", b_csv="email\nb@example.org\nbad@b.org\n")
    braze = ScriptedBraze(FakeClock())
    braze.people = {name: [{"braze_id": name}] for name in ("a@example.org", "b@example.org")}
    braze.refused = {"bad@b.org"}

    run = SimulatedRun(braze, tmp_path / "spool", identifiers_url=str(folder))

    assert len(run.users) == 2
    assert "(identifiers_url b.csv row 3)" in run.resync.failures[0]
    assert "Identifiers left out: identifiers_url a.csv: 1 malformed (row 3)" in caplog.messages
    written(folder, c_csv="nothing\nx\n")
    with pytest.raises(ConfigError, match=r"the first line of identifiers_url c\.csv names none of external_id"):
        read(folder)


def test_a_resync_notices_that_the_files_changed(tmp_path: Path) -> None:
    """One more, one less, another order or content: then it starts over; else it goes on."""
    folder = written(tmp_path / "ids", a_csv="external_id\na\n", b_csv="external_id\nb\n")
    seen = {identifiers_of(identifiers_url=str(folder)).fingerprint(KEY)}
    assert identifiers_of(identifiers_url=f"{folder}/*.csv").fingerprint(KEY) in seen
    for change in ({"c_csv": "external_id\nc\n"}, {"a_csv": "external_id\nb\n", "b_csv": "external_id\na\n"}):
        written(folder, **change)
        seen.add(identifiers_of(identifiers_url=str(folder)).fingerprint(KEY))
    (folder / "c.csv").unlink()
    seen.add(identifiers_of(identifiers_url=str(folder)).fingerprint(KEY))
    (folder / "a.csv").unlink()
    seen.add(identifiers_of(identifiers_url=str(folder)).fingerprint(KEY))

    assert len(seen) == 5


# Cells


def test_what_databases_and_pandas_write_for_no_value(tmp_path: Path, caplog: LogCaptureFixture) -> None:
    """And the decimals that pandas gives to ids in a column with gaps."""
    expected = [("external_id", "4711"), ("email", "person1@example.com")]
    assert read(CASES / "unloaded.csv") == expected
    assert read(CASES / "unloaded.jsonl") == [expected[0], ("external_id", "4712"), expected[1]]
    assert "4 empty" not in caplog.text
    for null in ("NULL", "null", r"\N", "nan", "NaN", "None", "<NA>", "NaT", "", " ", "\u00a0", "\u200b"):
        (tmp_path / "a.csv").write_text(f"external_id,email,phone\n{null},{null},{null}\nx,,\n")
        assert read(tmp_path / "a.csv") == [("external_id", "x")], repr(null)
    (tmp_path / "a.jsonl").write_text('{"external_id": NaN, "email": "a@example.org", "phone": 4930123456.0}\n')
    assert read(tmp_path / "a.jsonl") == [("email", "a@example.org"), ("phone", "4930123456")]


@pytest.mark.fault("Lines", "a list with errors of a spreadsheet in it", "those rows are named, the others asked for")
def test_what_says_that_something_is_wrong_is_named_by_row(tmp_path: Path, caplog: LogCaptureFixture) -> None:
    """Never sent to Braze: errors of spreadsheets, placeholders, digits lost in a float."""
    wrong = ["#N/A", "#REF!", "#NAME?", "#DIV/0!", "#NULL!", "n/a", "NA", "-", "(null)"]
    wrong += ["4,71E+12", "4.71512E+11", "1E+05", "12345678901234567890.0", "9007199254740992.0"]
    for cell in wrong:
        caplog.clear()
        (tmp_path / "a.csv").write_text(f'external_id,phone\n"{cell}",\n,"{cell}"\nx,\n')

        assert read(tmp_path / "a.csv") == [("external_id", "x")], cell
        assert caplog.messages == ["Identifiers left out: identifiers_url: 2 malformed (rows 2, 3)"], cell


CELLS: dict[str, dict[str | None, list[str]]] = {
    "email": {
        "ada@example.org": [
            *("ada@example.org", " ada@example.org ", "\u00a0ada@example.org\u200b", "\ufeffada@example.org"),
            *("ada@exa\u200bmple.org", "ada@example\u00ad.org", "\u200eada@example.org", "\u201cada@example.org\u201d"),
            *("\u201eada@example.org\u201c", "'ada@example.org", "'ada@example.org'", "\u00abada@example.org\u00bb"),
            *("mailto:ada@example.org", "MAILTO:ada@example.org?subject=x", "Ada L. <ada@example.org>"),
            *("<ada@example.org>", '"L., Ada" <ada@example.org>', "ada@example.org;", "ada@example.org,"),
        ],
        "o'brien@example.org": ["o'brien@example.org"],
        None: ["ada", "a@b@c.org", "a@b.org; c@d.org", "a@b.org c@d.org", "@", "a@", "@b.org", "a b@c.org", "ada at b"],
    },
    "phone": {
        "+4930123456": [
            *("+4930123456", "+49 30 123456", "+49\u00a030\u202f123456", "+49-30-123456", "+49 (30) 123456"),
            *("tel:+4930123456", "TEL: +49-30-12 34 56", "'+4930123456", "+49\u201130\u2013123456", "+49.30.123456"),
            *("+49 (0)30 123456", "+49 (0) 30 / 123456".replace(" / ", "/"), "\u200e+49 30 123456\u202c"),
            *("\uff0b\uff14\uff19\uff13\uff10123456", "+49 30/123456", "\u201c+49 30 123456\u201d", "+4930123456.0"),
        ],
        "4930123456": ["4930123456", "4930123456.0", "49 30 123456"],
        "015100000000": ["0151 00000000"],
        None: [
            *("030 123456 / 124", "+49 30 123456, +49 30 123457", "+49 30 123456 ext. 5", "none", "+", "1" * 16),
            *("+49+30123456", "4.93E+10", "+49 30 123456;ext=5", "see note"),
        ],
    },
    "external_id": {
        "4711": [
            "4711",
            "4711.0",
            "4711.00",
            *("4711,0", "4711,00"),
            "'4711",
            "\u00a04711\u00a0",
            "\ufeff4711",
            "4711\u200b",
            "\u201c4711\u201d",
        ],
        "ab'c": ["ab'c"],
        "'tis": ["'tis"],
        "1.2": ["1.2"],
        "v1.0": ["v1.0"],
        "4,000": ["4,000"],
        "4711,5": ["4711,5"],
        "José \U0001f468\u200d\U0001f4bb x": ["José \U0001f468\u200d\U0001f4bb x"],
        "null-4": ["null-4"],
        "007": ["007", "'007", "007.0"],
    },
    "braze_id": {"5f0c": ["5f0c", " 5f0c\u00a0", "\u200b5f0c", "\u201c5f0c\u201d", "'5f0c"]},
    "device_id": {"0D-7": ["0D-7", "\u00a00D-7 ", "0D\u200b-7"]},
}


def test_cells_of_spreadsheets_and_phone_books_are_read_as_they_are_meant(tmp_path: Path) -> None:
    """Or named by row, never sent to Braze as they are; in CSV, JSON lines and settings alike."""
    for kind, meant in CELLS.items():
        for value, spellings in meant.items():
            for spelling in spellings:
                expected = [(kind, value)] if value else []
                quoted = spelling.replace('"', '""')
                (tmp_path / "a.csv").write_text(f'{kind},alias_name,alias_label\n"{quoted}",,\n,a,b\n')
                (tmp_path / "a.jsonl").write_text(json.dumps({kind: spelling}) + '\n{"braze_id": "other"}\n')
                given = identifiers_of(
                    **{f"{kind}s": [spelling], "user_aliases": [{"alias_name": "a", "alias_label": "b"}]}
                )

                assert read(tmp_path / "a.csv")[:-1] == expected, (kind, spelling)
                assert read(tmp_path / "a.jsonl")[:-1] == expected, (kind, spelling)
                from_setting = [(each.kind, each.value) for each in given if each.kind != "user_alias"]
                assert from_setting == expected, (kind, spelling)


def test_headers_of_spreadsheets_are_known(tmp_path: Path) -> None:
    for header in ("\ufeffEmail", '" E-Mail "', "\u201cemail\u201d", "EMAIL\u00a0", "email_address", "Email Address"):
        for delimiter in ",;\t":
            (tmp_path / "a.csv").write_text(f"name{delimiter}{header}\nx{delimiter}a@example.org\n")
            assert read(tmp_path / "a.csv") == [("email", "a@example.org")], (header, delimiter)


def test_no_text_is_sent_that_holds_what_nobody_types(tmp_path: Path) -> None:
    """Of any mixture of signs around and in a number or an address."""
    chance = random.Random(7)
    odd = "\u200b\u00a0\u202f\ufeff\u00ad' \u201c\u201d()-./;,<>\t@+0"
    for _ in range(300):
        noisy = ["".join(chance.choice((sign, sign, sign + chance.choice(odd))) for sign in text)
                 for text in ("+4930123456", "ada@example.org")]  # fmt: skip
        (tmp_path / "a.jsonl").write_text(json.dumps({"phone": noisy[0], "email": noisy[1]}) + '\n{"braze_id": "b"}\n')
        for kind, value in read(tmp_path / "a.jsonl"):
            assert value.isascii(), noisy
            assert value.isprintable(), noisy
            assert " " not in value, noisy
            assert kind != "phone" or value.lstrip("+").isdigit(), noisy
            assert kind != "email" or value.count("@") == 1, noisy
