"""`--test` lists for each subject if it works, fails or cannot be checked, and starts no export."""

from __future__ import annotations

import json
import logging
import re
import uuid
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import fsspec
import pytest

from tap_braze_export.errors import TapError
from tap_braze_export.exports.scope import OTHER_ROWS, TOO_OLD
from tap_braze_export.preflight import check
from tap_braze_export.sandbox import Sandbox
from tap_braze_export.settings import Settings
from tests.support.fakes import FakeClock, Server
from tests.support.night import at_night
from tests.support.runs import Ended, Output, command, selecting, settings, written

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.clouds import Store
    from tests.support.s3 import ScriptedS3

pytestmark = pytest.mark.slow


LOGGER = logging.getLogger("tap-braze-export")


def settings_at(api_url: str, folder: Path) -> Settings:
    """Settings with two segments, for a Braze at this address."""
    return Settings.of({"api_url": api_url, "api_key": "k", "segment_ids": ["s", "t"], "spool_dir": str(folder / "s")})


def checked(sandbox: Sandbox, tmp_path: Path, **more: Any) -> Ended:
    """Run --test, which writes nothing to standard output and starts no export."""
    ended = command("--test", "--config", written(tmp_path, settings(sandbox, tmp_path, **more)))
    assert ended.stdout == b""
    assert not [call for call in sandbox.calls if call.method != "GET"]
    assert not sandbox.workspace.exports
    return ended


def checklist(ended: Ended) -> dict[str, str]:
    """The verdict on each subject, without remarks."""
    return {subject: verdict.partition(" (")[0] for subject, verdict in remarks(ended).items()}


def remarks(ended: Ended) -> dict[str, str]:
    """The verdict on each subject."""
    lines = [line.split(" | ", 3)[3] for line in ended.stderr.splitlines() if "| INFO" in line]
    return dict(line.split(": ", 1) for line in lines if ": " in line)


def test_all_is_well(tmp_path: Path) -> None:
    """The checklist covers key, segments, bucket, spool directory and permissions."""
    bucket = tmp_path / "bucket"
    bucket.mkdir()
    with Sandbox(users=5) as sandbox:
        more = {"segment_ids": ["all-users", "vip-users"], "global_control_group": True, "bucket_url": str(bucket)}
        ended = checked(sandbox, tmp_path, **more)
        asked = [(call.path, call.query) for call in sandbox.calls]
    assert ended.code == 0, ended.stderr
    assert checklist(ended) == {
        "API key": "works",
        "Segment all-users": "works",
        "Segment vip-users": "works",
        "Bucket": "works",
        "Spool directory": "works",
        "Permission users.export.segment": "cannot be checked",
        "Permission users.export.global_control_group": "cannot be checked",
    }
    assert asked == [("/segments/details", {"segment_id": name}) for name in ("all-users", "vip-users")]
    assert "All users" in ended.stderr


def test_unknown_settings_fail(tmp_path: Path) -> None:
    """A run warns of them; a test of the settings does not call them right. Their values are not shown."""
    with Sandbox(users=5) as sandbox:
        ended = checked(sandbox, tmp_path, segment_id="hidden", workerz=2)
    assert ended.error == (
        "Settings: unknown: segment_id (did you mean segment_ids?), workerz (did you mean workers?); a run ignores"
        " them: remove or correct them"
    )
    assert checklist(ended)["Settings"] == "fails"
    assert checklist(ended)["Segment all-users"] == "works"
    assert "hidden" not in ended.stderr


def test_wrong_key(tmp_path: Path) -> None:
    """A single request is sent; the error is one line, says that the key is unknown, and does not hold it."""
    with Sandbox(users=5) as sandbox:
        more = {"segment_ids": ["all-users", "vip-users"], "api_key": "a-guessed-key"}
        ended = checked(sandbox, tmp_path, **more)
        assert len(sandbox.calls) == 1
    assert ended.error.startswith("API key: ")
    assert "401" in ended.error
    assert "does not know this key: copy api_key from Braze again" in ended.error
    assert "a-guessed-key" not in ended.stderr
    assert checklist(ended) == {
        "API key": "fails",
        "Segment all-users": "cannot be checked",
        "Segment vip-users": "cannot be checked",
        "Spool directory": "works",
        "Permission users.export.segment": "cannot be checked",
    }


def test_unknown_segment(tmp_path: Path) -> None:
    """The error names the unknown segment; the other one is still checked."""
    with Sandbox(users=5) as sandbox:
        ended = checked(sandbox, tmp_path, segment_ids=["gone", "all-users"])
    assert ended.error.startswith("Segment gone: ")
    assert "all-users" not in ended.error
    assert checklist(ended)["API key"] == "works"
    assert checklist(ended)["Segment gone"] == "fails"
    assert checklist(ended)["Segment all-users"] == "works"


@pytest.mark.parametrize("mode", at_night(["--test", "--test=schemas", "--discover"], but=["--test"]))
def test_the_last_line_says_why_also_if_python_warns(tmp_path: Path, mode: str) -> None:
    """Meltano names a catalog and a state, and shows Python's warnings: none of a file that was left open follows."""
    files = [f"--{name}={written(tmp_path, {'streams': []}, f'{name}.json')}" for name in ("state", "catalog")]
    given = {"api_url": "https://x", "api_key": "k", "segment_ids": {"of": "a wrong type"}}
    config = written(tmp_path, given)
    ended = command(*files, "--config", config, mode, PYTHONWARNINGS="always::ResourceWarning")
    assert "segment_ids" in ended.error or "--test" in ended.error
    assert "ResourceWarning" not in ended.stderr


@pytest.mark.parametrize("segment_ids", [["gone"], ["gone", "gone-too"]])
def test_a_key_is_not_blamed_for_unknown_segments(tmp_path: Path, segment_ids: list[str]) -> None:
    """Braze looks for a segment only after the key and its permissions: a 400 shows that these are right."""
    with Sandbox(users=5) as sandbox:
        ended = checked(sandbox, tmp_path, segment_ids=segment_ids)
    assert checklist(ended)["API key"] == "works"
    assert [checklist(ended)[f"Segment {name}"] for name in segment_ids] == ["fails"] * len(segment_ids)


def test_refusals_that_do_not_concern_the_key(server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A status that says nothing of the key proves it neither right nor without permissions."""
    caplog.set_level(logging.INFO)
    server.answers = [(405, {}, b"")]
    with pytest.raises(TapError, match="refused with 405"):
        check(settings_at(server.url, tmp_path), clock=FakeClock(), logger=LOGGER)
    assert "API key: cannot be checked (none of Braze's responses shows it)" in caplog.messages


def test_missing_permission_to_look_at_segments(tmp_path: Path) -> None:
    """An export may work without the permission segments.details, so its lack is no failure."""
    with Sandbox(users=5, deny=["segments.details"]) as sandbox:
        ended = checked(sandbox, tmp_path)
    assert ended.code == 0
    assert checklist(ended)["Segment all-users"] == "cannot be checked"
    assert checklist(ended)["API key"] == "cannot be checked"
    assert "segments.details" in ended.stderr
    assert "Braze does not call it wrong" in ended.stderr


@pytest.mark.parametrize(
    ("deny", "key", "permission"),
    [([], "works", "works"), (["custom_attributes.get"], "cannot be checked", "cannot be checked")],
)
def test_key_without_segments(tmp_path: Path, deny: list[str], key: str, permission: str) -> None:
    """For the control group alone a request for custom attributes shows if the key works."""
    with Sandbox(users=5, deny=deny) as sandbox:
        ended = checked(sandbox, tmp_path, segment_ids=[], global_control_group=True)
    assert ended.code == 0
    assert checklist(ended)["API key"] == key
    assert checklist(ended)["Permission custom_attributes.get"] == permission


def test_resync(tmp_path: Path) -> None:
    """Segments are not checked; no identifier is sent or logged."""
    with Sandbox(users=5) as sandbox:
        ended = checked(sandbox, tmp_path, emails=["somebody@example.com"])
        assert [call.path for call in sandbox.calls] == ["/custom_attributes"]
    assert ended.code == 0
    assert "somebody" not in ended.stderr
    assert checklist(ended) == {
        "API key": "works",
        "Permission custom_attributes.get": "works",
        "Spool directory": "works",
        "Permission users.export.ids": "cannot be checked",
    }


def test_permission_that_discovery_needs(tmp_path: Path) -> None:
    """discover_custom_attributes without custom_attributes.get is a failure."""
    with Sandbox(users=5, deny=["custom_attributes.get"]) as sandbox:
        ended = checked(sandbox, tmp_path, discover_custom_attributes=True)
    assert "custom_attributes.get" in ended.error
    assert "discover_custom_attributes" in ended.error


def test_bucket_and_spool_directory(tmp_path: Path) -> None:
    """One error line names everything that fails."""
    (tmp_path / "file").write_text("")
    with Sandbox(users=5) as sandbox:
        more = {"bucket_url": str(tmp_path / "gone"), "spool_dir": str(tmp_path / "file" / "spool")}
        ended = checked(sandbox, tmp_path, **more)
    assert "Bucket: " in ended.error
    assert "Spool directory: " in ended.error
    assert checklist(ended)["Segment all-users"] == "works"


@pytest.mark.parametrize("url", ["s3://bucket/exports", "s3://bucket"])
def test_braze_s_folder_beside_the_bucket_url(
    tmp_path: Path, scripted_s3: ScriptedS3, s3_options: dict[str, Any], url: str
) -> None:
    """It is named: the bucket works, and yet a run would find nothing."""
    prefix = "/exports//" if url.endswith("exports") else "exports/"
    scripted_s3.objects[f"{prefix}segment-export/seg/2026-01-02/x/a.zip"] = b"zip"
    with Sandbox(users=5) as sandbox:
        ended = checked(sandbox, tmp_path, bucket_url=url, bucket_options=s3_options)
    assert ended.code == 0
    expected = f"Bucket: works (it holds no segment-export/ yet, but s3://bucket/{prefix}segment-export/ is there)"
    assert expected in ended.stderr


def test_shared_directory_is_no_spool_directory(tmp_path: Path) -> None:
    """A directory such as /tmp is refused and keeps its permissions."""
    shared = tmp_path / "tmp"
    shared.mkdir()
    shared.chmod(0o1777)
    with Sandbox(users=5) as sandbox:
        ended = checked(sandbox, tmp_path, spool_dir=str(shared))
    assert "spool_dir" in ended.error
    assert shared.stat().st_mode & 0o7777 == 0o1777


def test_a_home_that_cannot_be_written_is_told_as_the_default(tmp_path: Path) -> None:
    """One check that fails; the others are still made."""
    with Sandbox(users=5) as sandbox:
        config = {name: value for name, value in settings(sandbox, tmp_path).items() if name != "spool_dir"}
        ended = command("--test", "--config", written(tmp_path, config), HOME="/dev/null")
    assert ended.error.startswith(
        "Spool directory: spool_dir is not set, and its default cannot be used: spool_dir /dev"
    )
    assert checklist(ended)["Segment all-users"] == "works"


def test_fingerprints_are_tried_out(tmp_path: Path) -> None:
    """As a run would use them, and nothing is left of it; a directory that is not there yet is made."""
    with Sandbox(users=5) as sandbox:
        ended = checked(sandbox, tmp_path, fingerprints_url=str(tmp_path / "made" / "fingerprints"))
    assert ended.code == 0
    assert "Fingerprints: works (they can be listed, written and removed)" in ended.stderr
    assert list((tmp_path / "made").rglob("*")) == [tmp_path / "made" / "fingerprints"]


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("{}/file/fingerprints", "fingerprints_url {}/file/fingerprints cannot be written (Not a directory)"),
        ("{}/file", "fingerprints_url {}/file cannot be written (Not a directory)"),
        ("nosuch://fingerprints", "fingerprints_url starts with nosuch://, which names no storage: use s3://"),
    ],
)
def test_fingerprints_that_cannot_be_written(tmp_path: Path, place: str, reason: str) -> None:
    (tmp_path / "file").write_text("")
    with Sandbox(users=5) as sandbox:
        ended = checked(sandbox, tmp_path, fingerprints_url=place.format(tmp_path))
    assert ended.error.startswith(f"Fingerprints: {reason.format(tmp_path)}")
    assert checklist(ended)["Fingerprints"] == "fails"


@pytest.mark.external
def test_fingerprints_in_a_bucket_need_more_than_the_export(store: Store, tmp_path: Path) -> None:
    """Credentials that may only list and read do for the bucket, not for fingerprints; no secret is told."""
    url = store.at(f"fingerprints-{uuid.uuid4().hex}")
    with Sandbox(users=5) as sandbox:
        of_reader, of_writer = (
            checked(sandbox, tmp_path, bucket_url=store.url, bucket_options=options, fingerprints_url=url)
            for options in (store.reader, store.writer)
        )
    assert checklist(of_reader) | {"Bucket": "works", "Fingerprints": "fails"} == checklist(of_reader)
    assert of_reader.error.startswith(
        "Fingerprints: the storage of fingerprints cannot be written: PermissionError (Acc"
    )
    assert "may list, get, put and delete objects" in of_reader.error
    assert not [secret for secret in store.secrets if secret in of_reader.stderr]
    assert checklist(of_writer) | {"Bucket": "works", "Fingerprints": "works"} == checklist(of_writer)
    files = fsspec.filesystem("s3", **store.writer, skip_instance_cache=True)
    assert [path for path in files.find(url) if path.endswith("running")] == []


def test_bucket_options_are_not_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A library's error about its options puts none of them into log or error."""
    options = {"key": "ACCESS-KEY", "nonsense": "hidden-value"}
    with Sandbox(users=5) as sandbox:
        config = settings(sandbox, tmp_path, bucket_url="s3://bucket", bucket_options=options)
        with pytest.raises(TapError, match=r"^Bucket: ") as raised:
            check(Settings.of(config), clock=FakeClock(), logger=LOGGER)
    for secret in options.values():
        assert secret not in caplog.text
        assert secret not in str(raised.value)


def test_schemas_only(tmp_path: Path) -> None:
    """--test=schema is the SDK's: it writes the SCHEMA messages of all streams and sends no request."""
    with Sandbox(users=5) as sandbox:
        ended = command("--test=schema", "--config", written(tmp_path, settings(sandbox, tmp_path)))
        assert not sandbox.calls
    assert ended.code == 0
    assert len(ended.schemas) == 14
    assert ended.kinds == ["SCHEMA"]


def test_any_other_kind_of_test_is_refused(tmp_path: Path) -> None:
    """A misspelt value does not start a run."""
    with Sandbox(users=5) as sandbox:
        ended = command("--test=schemas", "--config", written(tmp_path, settings(sandbox, tmp_path)))
        assert not sandbox.calls
    assert "--test" in ended.error


def test_an_unreachable_braze_is_told_soon(tmp_path: Path) -> None:
    """The check ends within a minute, sooner than a run would: after the tries of one request, not of one a segment."""
    clock = FakeClock()
    started = clock.now()
    with pytest.raises(TapError, match=r"^Connection to Braze: .*no connection to the host of api_url 127.0.0.1:9 "):
        check(settings_at("http://127.0.0.1:9", tmp_path), clock=clock, logger=LOGGER)
    assert clock.now() - started < 20


@pytest.mark.parametrize(
    ("api_url", "reason"),
    [
        ("http://127.0.0.1:9", "connection refused"),
        ("https://rest.iad-99.braze.invalid", "there is no host of this name"),
    ],
)
def test_a_dead_host_is_told_as_such(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, api_url: str, reason: str
) -> None:
    """The one failure is the connection: nothing is said of permissions, and no repetition lasted 0 minutes."""
    with pytest.raises(TapError) as raised, caplog.at_level(logging.INFO, LOGGER.name):
        check(settings_at(api_url, tmp_path), clock=FakeClock(), logger=LOGGER)
    assert f"api_url {api_url.partition('://')[2]} ({reason}" in str(raised.value)
    assert str(raised.value).endswith(
        "; check api_url, and that the firewall and the proxy settings of this machine let its requests through"
    )
    assert "permission" not in str(raised.value)
    assert "0 min" not in str(raised.value)
    told = [message for message in caplog.messages if message.startswith(("Connection", "API key", "Segment"))]
    assert told == [
        "Connection to Braze: fails (the last line says why)",
        "API key: cannot be checked (without a response from Braze)",
        "Segment s: cannot be checked (without a response from Braze)",
        "Segment t: cannot be checked (without a response from Braze)",
    ]


def test_a_host_that_is_no_braze_is_told_as_such(tmp_path: Path, server: Server) -> None:
    """A page of a proxy or of the dashboard is no answer about the key or a segment."""
    server.answers = [(200, {}, b"<html>Sign in</html>")]
    with pytest.raises(TapError, match=r"^Connection to Braze: .*is api_url the REST endpoint"):
        check(settings_at(server.url, tmp_path), clock=FakeClock(), logger=LOGGER)


@pytest.mark.parametrize("content", [b"{}", b'{"message": "error"}', b'{"error": "sign in"}', b'{"name": "proxy"}'])
def test_json_of_a_proxy_is_no_key_that_works(
    tmp_path: Path, server: Server, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    """Neither key nor segment is called right: only Braze's own success shows that."""
    server.answers = [(200, {}, content)]
    with pytest.raises(TapError, match=r"^Connection to Braze: .*JSON that is not Braze's"), caplog.at_level("INFO"):
        check(settings_at(server.url, tmp_path), clock=FakeClock(), logger=LOGGER)
    assert "API key: cannot be checked (without a response from Braze)" in caplog.messages
    assert "Segment s: cannot be checked (without a response from Braze)" in caplog.messages


# Without anything to export


def test_segments_are_listed_where_none_is_set(tmp_path: Path) -> None:
    """The error stays the one about the settings; the first 20 of all pages are listed, oldest first."""
    with Sandbox(users=5) as sandbox:
        for number in range(120):
            sandbox.add_segment(f"segment-{number}", [])
        ended = checked(sandbox, tmp_path, segment_ids=[])
        asked = [(call.path, call.query["page"]) for call in sandbox.calls]
    assert asked == [("/segments/list", "0"), ("/segments/list", "1")]
    assert "nothing to export" in ended.error
    assert ended.code == 1
    listed = [line.split(" | ", 3)[3] for line in ended.stderr.splitlines() if "| INFO" in line]
    assert listed[:2] == ["Segments of this workspace, for segment_ids:", "  all-users  All users"]
    assert len(listed) == 22
    assert listed[-1] == "  … and 103 more"


@pytest.mark.parametrize(
    ("more", "reason"),
    [({}, "lacks the permission segments.list"), ({"api_key": "guessed"}, "Braze does not know this key")],
)
def test_segments_that_cannot_be_listed_are_no_failure(tmp_path: Path, more: dict[str, Any], reason: str) -> None:
    """A line says why there is no list; the one error is that nothing is set."""
    with Sandbox(users=5, deny=["segments.list"]) as sandbox:
        ended = checked(sandbox, tmp_path, segment_ids=None, **more)
    assert reason in ended.stderr
    assert ended.error.startswith("Configuration: nothing to export")


def test_no_segment_is_listed_where_other_settings_are_wrong(tmp_path: Path) -> None:
    """The key is not sent anywhere with settings that are refused."""
    with Sandbox(users=5) as sandbox:
        ended = checked(sandbox, tmp_path, segment_ids=[], callback_listen="127.0.0.1:0")
        assert not sandbox.calls
    assert "callback_url" in ended.error


# Help


def test_help_describes_the_taps_own_test() -> None:
    """It says what is checked, that it costs nothing, and its exit code; not the SDK's record for each stream."""
    ended = command("--help")
    assert b"--test [=schema] " in ended.stdout
    assert b"--test TEXT" not in ended.stdout
    told = " ".join(ended.stdout.decode().split())
    assert ended.code == 0
    for words in ("starts no export", "costs nothing", "exit code", "--test=schema", "permissions", "bucket"):
        assert words in told
    assert "single record" not in told


def test_it_says_whom_the_next_run_asks_for(tmp_path: Path) -> None:
    """By the STATE that it is given; without one nobody can know, and another selection needs a full export."""
    subject = "Next export of segment all-users"
    with Sandbox(users=5) as sandbox:
        config = written(tmp_path, settings(sandbox, tmp_path, incremental=True))
        catalog = tmp_path / "catalog.json"
        catalog.write_bytes(command("--discover").stdout)
        run = Output(command("--config", config, "--catalog", str(catalog)).stdout)
        state = tmp_path / "state.json"
        state.write_text(json.dumps(run.states[-1]))
        given = ["--test", "--config", config, "--state", str(state), "--catalog"]
        without = remarks(command("--test", "--config", config))[subject]
        known = remarks(command(*given, str(catalog)))[subject]
        catalog.write_text(json.dumps(selecting(["users"])))
        other = remarks(command(*given, str(catalog)))[subject]
        state.write_text(re.sub(r'"full_at": "\d{4}', '"full_at": "2020', state.read_text()))
        measures = settings(sandbox, tmp_path, incremental=True, fingerprints_url=str(tmp_path))
        due = remarks(command("--test", "--config", written(tmp_path, measures), "--state", str(state)))[subject]
        at = datetime.fromisoformat(run.rows("users")[0]["exported_at"])

    assert without == "cannot be checked (STATE decides if it is incremental: give that of the last run with --state)"
    since, again = at - timedelta(hours=1), at + timedelta(days=7)
    assert known == f"works (incremental since {since:%Y-%m-%dT%H:%M:%SZ}; full again on {again:%Y-%m-%d})"
    assert other == f"works (full export ({OTHER_ROWS}))"
    assert due.startswith(f"works (full export ({TOO_OLD}), after an incremental one that measures the filter")


def test_identifiers_are_counted_by_kind_without_their_content(tmp_path: Path) -> None:
    """Of the first file; one that cannot be read, or has nothing usable, fails."""
    folder = tmp_path / "ids"
    folder.mkdir()
    (folder / "a.csv").write_text("external_id,email\n4711,ada@example.org\n4712,\n,wrong\n")
    (folder / "b.csv").write_text("external_id\n4713\n")
    with Sandbox(users=5) as sandbox:
        whole = checked(sandbox, tmp_path, segment_ids=None, identifiers_url=str(folder))
        single = checked(sandbox, tmp_path, segment_ids=None, identifiers_url=str(folder / "b.csv"))
        (folder / "b.csv").write_text("email\nwrong\n")
        useless = checked(sandbox, tmp_path, segment_ids=None, identifiers_url=str(folder / "b.csv"))
        missing = checked(sandbox, tmp_path, segment_ids=None, identifiers_url=str(folder / "*.jsonl"))

    assert (
        "Identifiers: works (2 files; in the first of them 2 external_id, 1 email; left out: identifiers_url a.csv:"
        " 1 malformed (row 4))"
    ) in whole.stderr
    assert "ada" not in whole.stderr
    assert "471" not in whole.stderr
    assert "Identifiers: works (1 external_id)" in single.stderr
    assert (useless.code, missing.code) == (1, 1)
    assert "there is no usable identifier to resync: identifiers_url: 1 malformed (row 2)" in useless.error
    assert "names no file: check the path" in missing.error
