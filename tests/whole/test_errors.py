"""An error that a user can cause or mend ends the installed command with one ERROR line, code 1 and no traceback."""

from __future__ import annotations

import json
import sys
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest

from tap_braze_export.sandbox import Sandbox
from tests.support.runs import command, refusal, selecting, settings, written

if TYPE_CHECKING:
    from pathlib import Path

VALID = {"api_url": "https://rest.iad-01.braze.com", "api_key": "a-secret-key", "segment_ids": ["one"]}
MODES: list[tuple[str, ...]] = [(), ("--test",), ("--discover",)]


pytestmark = [
    pytest.mark.slow,
    pytest.mark.sandbox(users=12, odd_users=False, deny=["users.export.global_control_group"]),
]


def config(folder: Path, **more: Any) -> str:
    """A file with valid settings, some of them changed; None removes one."""
    given = {**VALID, **more}
    return written(folder, {name: value for name, value in given.items() if value is not None})


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_one_line_and_an_exit_code(tmp_path: Path, mode: tuple[str, ...]) -> None:
    """The command itself: code 1, one ERROR line that ends the log, no traceback, nothing on standard output."""
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    lines = (
        command(*mode, "--config", str(broken)).error,
        command(*mode, "--config", config(tmp_path, custom_attributes=["plan"], poll_interval_seconds="often")).error,
        command(*mode, "--config=ENV", TAP_BRAZE_EXPORT_POLL_INTERVAL_SECONDS="often").error,
    )
    assert "broken.json" in lines[0]
    assert all(name in lines[1] for name in ("custom_attributes", "poll_interval_seconds"))
    assert "TAP_BRAZE_EXPORT_POLL_INTERVAL_SECONDS" in lines[2]


# Responses of Braze


def test_wrong_key(sandbox: Sandbox, tmp_path: Path) -> None:
    """The error names the setting, and not the key."""
    ended = command("--config", written(tmp_path, settings(sandbox, tmp_path, api_key="a-guessed-key")))
    assert "api_key" in ended.error
    assert "401" in ended.error
    assert "a-guessed-key" not in ended.stderr


def test_missing_permission(sandbox: Sandbox, tmp_path: Path) -> None:
    """403 names the permission that the key needs."""
    catalog = selecting(["segment_members"])
    given = settings(sandbox, tmp_path, segment_ids=[], global_control_group=True)
    files = ("--config", written(tmp_path, given), "--catalog", written(tmp_path, catalog, "catalog.json"))
    assert "users.export.global_control_group" in command(*files).error


def test_unknown_segment(sandbox: Sandbox, tmp_path: Path) -> None:
    ended = command("--config", written(tmp_path, settings(sandbox, tmp_path, segment_ids=["gone"])))
    assert "gone" in ended.error


def test_no_url_and_no_bucket(tmp_path: Path) -> None:
    with Sandbox(users=5, faults=["url-null"]) as sandbox:
        ended = command("--config", written(tmp_path, settings(sandbox, tmp_path)))
    assert "bucket_url" in ended.error


def test_rejected_lines(tmp_path: Path) -> None:
    """The rows that could be read are written before the run fails."""
    with Sandbox(users=12, odd_users=False, faults=["bad-line"]) as sandbox:
        ended = command("--config", written(tmp_path, settings(sandbox, tmp_path)))
    assert "max_rejected_lines" in ended.error
    assert ended.counts["users"] == 12


# Settings


IMPOSSIBLE: list[tuple[dict[str, Any], list[str]]] = [
    ({"api_url": "http://rest.iad-01.braze.com"}, ["api_url", "https"]),
    ({"api_url": "rest.iad-01.braze.com"}, ["api_url"]),
    ({"api_url": "https://"}, ["api_url"]),
    ({"api_url": "https://[bad"}, ["api_url"]),
    ({"api_url": None}, ["api_url", "TAP_BRAZE_EXPORT_API_URL"]),
    ({"api_key": None}, ["api_key", "TAP_BRAZE_EXPORT_API_KEY"]),
    ({"api_key": " "}, ["api_key"]),
    ({"segment_ids": None}, ["nothing to export", "segment_ids"]),
    ({"segment_ids": [""]}, ["segment_ids"]),
    ({"output_format": "rar"}, ["output_format", "zip, gzip"]),
    ({"poll_interval_seconds": 0}, ["poll_interval_seconds", "at least 1"]),
    ({"concurrent_exports": 101}, ["concurrent_exports", "at most 100"]),
    ({"full_export_days": 36_501}, ["full_export_days", "at most 36500"]),
    ({"export_timeout_minutes": 1.5}, ["export_timeout_minutes", "an integer"]),
    ({"global_control_group": "perhaps"}, ["global_control_group", "true or false"]),
    ({"custom_attributes": {"plan": "text"}}, ["custom_attributes.plan", "string, integer"]),
    ({"bucket_url": "https://bucket.s3.amazonaws.com/p"}, ["bucket_url", "s3://bucket/p"]),
    ({"bucket_url": "s3:///p"}, ["bucket_url", "names no bucket"]),
    ({"bucket_url": "s3://me:secret@bucket/p"}, ["bucket_url", "bucket_options"]),
    ({"fingerprints_url": "https://bucket.s3.amazonaws.com/p"}, ["fingerprints_url is a web", "s3://bucket/p"]),
    ({"fingerprints_url": "s3:///p"}, ["fingerprints_url names no bucket"]),
    ({"fingerprints_url": "s3://me:secret@bucket/p"}, ["fingerprints_url holds credentials", "the environment"]),
    ({"callback_listen": "127.0.0.1:0"}, ["callback_listen", "callback_url"]),
    ({"stream_maps": {"users": {"a": "foo(("}}}, ["stream_maps"]),
    ({"stream_maps": {"users": {"braze_id": None}}}, ["stream_maps", "braze_id"]),
    ({"stream_maps": {"users": 3}}, ["stream_maps"]),
    ({"flattening_enabled": True}, ["flattening_max_depth"]),
    (
        {
            "emit_activate_version_messages": True,
            "batch_config": {"encoding": {"format": "jsonl"}, "storage": {"root": "file:///tmp/x"}},
        },
        ["emit_activate_version_messages", "batch_config"],
    ),
]


def test_settings_that_cannot_work(tmp_path: Path) -> None:
    """The error names the setting and its possible values; nothing is written."""
    for more, told in IMPOSSIBLE:
        error = refusal("--config", config(tmp_path, **more))
        assert all(word in error for word in told), error


@pytest.mark.parametrize("mode", [(), ("--test",)])
def test_fingerprints_without_their_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: tuple[str, ...]
) -> None:
    monkeypatch.setitem(sys.modules, "numpy", None)
    error = refusal(*mode, "--config", config(tmp_path, fingerprints_url=str(tmp_path / "fingerprints")))
    assert "fingerprints_url needs: pip install 'tap-braze-export[fingerprints]'" in error


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("nosuch://bucket", "fingerprints_url starts with nosuch://, which names no storage: use s3://, gs://"),
        ("{}/config.json/here", "cannot be written (Not a directory): name a directory of the tap's own user"),
    ],
)
def test_fingerprints_that_cannot_be_kept(sandbox: Sandbox, tmp_path: Path, url: str, told: str) -> None:
    """The run ends before anything is requested."""
    given = settings(sandbox, tmp_path, fingerprints_url=url.format(tmp_path))
    ended = command("--config", written(tmp_path, given))
    assert told in ended.error
    assert not sandbox.workspace.exports


def test_several_errors_share_a_line(tmp_path: Path) -> None:
    wrong = {"api_key": None, "segment_ids": None, "output_format": "rar", "fingerprints_url": "s3://"}
    ended = command("--config", config(tmp_path, **wrong))
    told = ("api_key", "nothing to export", "output_format", "fingerprints_url names no bucket")
    assert all(words in ended.error for words in told)


@pytest.mark.parametrize("mode", MODES)
def test_values_of_the_wrong_type_are_not_told(tmp_path: Path, mode: tuple[str, ...]) -> None:
    """Keys and people's identifiers do not reach the log because somebody put them into the wrong shape."""
    wrong = {
        "api_key": ["key-in-a-list"],
        "bucket_options": "options-as-text",
        "emails": [["somebody@example.com"]],
        "external_ids": [{"id": "person-in-an-object"}],
        "user_aliases": ["an-alias-as-text"],
        "phones": {"number": "+4912345"},
    }
    ended = command(*mode, "--config", config(tmp_path, **wrong))
    assert all(name in ended.error for name in wrong)
    for text in ("key-in-a-list", "options-as-text", "somebody", "person-in", "an-alias", "4912345"):
        assert text not in ended.stderr


def test_config_file_that_cannot_be_used(tmp_path: Path) -> None:
    """The error names the file."""
    for mode, content in product(MODES, [b"{", b"[]", b'"text"', b"", b'{"a": "\xff"}', None]):
        path = tmp_path / "broken.json"
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
        error = refusal(*mode, "--config", str(path))
        assert "--config" in error, (mode, content)
        assert "broken.json" in error, (mode, content)


@pytest.mark.parametrize(
    "content",
    ["{", "[]", "{}", '{"streams": 1}', '{"streams": [1]}', '{"streams": [{"stream": "users"}]}', None],
)
def test_catalog_that_cannot_be_used(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "broken.json"
    if content is not None:
        path.write_text(content)
    error = refusal("--config", config(tmp_path), "--catalog", str(path))
    assert "--catalog" in error
    assert "broken.json" in error


@pytest.mark.parametrize("wrapping", ['{"type": "STATE", "value": %s}', '{"singer_state": %s}'])
def test_state_inside_something_else(tmp_path: Path, wrapping: str) -> None:
    """A whole STATE message, and what `meltano state get` prints: as STATE it would say nothing, and cost an export."""
    (tmp_path / "state.json").write_text(wrapping % '{"bookmarks": {}}')

    error = refusal("--config", config(tmp_path), "--state", str(tmp_path / "state.json"))

    assert error.endswith(
        f"has the STATE in its member {wrapping.split(chr(34))[-2]}: make a file of that member alone"
    )


@pytest.mark.parametrize("content", ["{", "[]", '{"bookmarks": []}', '{"bookmarks": {"export_files": 1}}', None])
@pytest.mark.fault("STATE", "a file that holds no STATE", "one line")
def test_state_that_cannot_be_used(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "broken.json"
    if content is not None:
        path.write_text(content)
    error = refusal("--config", config(tmp_path), "--state", str(path))
    assert "--state" in error
    assert "broken.json" in error


VARIABLES: list[tuple[str, str, str]] = [
    ("TAP_BRAZE_EXPORT_POLL_INTERVAL_SECONDS", "often", "an integer"),
    ("TAP_BRAZE_EXPORT_GLOBAL_CONTROL_GROUP", "perhaps", "true or false"),
    ("TAP_BRAZE_EXPORT_BUCKET_OPTIONS", "{hidden-option", "JSON"),
    ("TAP_BRAZE_EXPORT_SEGMENT_IDS", '["one"', "JSON"),
    ("TAP_BRAZE_EXPORT_STREAM_MAPS", "{", "JSON"),
]


def test_environment_that_cannot_be_used() -> None:
    """The error names the variable and its possible values, not its value."""
    for (variable, value, told), mode in product(VARIABLES, MODES):
        error = refusal(*mode, "--config=ENV", **{variable: value})
        assert variable in error, (variable, value, told, mode)
        assert told in error, (variable, value, told, mode)
        assert "hidden-option" not in error, (variable, value, told, mode)


@pytest.mark.fault("Local disk", "spool_dir cannot be written", "one line, before Braze is asked for anything")
def test_unwritable_spool_directory(sandbox: Sandbox, tmp_path: Path) -> None:
    """A file where a directory should be."""
    (tmp_path / "file").write_text("")
    given = settings(sandbox, tmp_path, spool_dir=str(tmp_path / "file" / "spool"))
    for mode in ((), ("--test",)):
        assert "spool_dir" in command(*mode, "--config", written(tmp_path, given)).error


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--frobnicate"], "--frobnicate"),
        (["users"], "users"),
        (["--config"], "--config"),
        (["--about", "--format=xml"], "--format"),
    ],
)
def test_command_line_that_cannot_be_used(arguments: list[str], told: str) -> None:
    """An error that click finds is one line, too."""
    assert told in refusal(*arguments)


def test_unknown_option() -> None:
    assert "--frobnicate" in command("--frobnicate").error


def test_stream_map_that_fails_on_a_row(sandbox: Sandbox, tmp_path: Path) -> None:
    """An expression that some row breaks: the error names the stream and not the row."""
    for expression in ("random_bucket + email", "int(email)", "custom_attributes['unheard of']"):
        given = settings(sandbox, tmp_path, stream_maps={"users": {"x": expression}})
        error = refusal("--config", written(tmp_path, given))
        assert error.startswith("stream_maps: an expression for users fails")
        assert not error.endswith(".")
        assert "Unforeseen" not in error
        assert "@" not in error


def test_unknown_log_level_is_no_failure(sandbox: Sandbox, tmp_path: Path) -> None:
    """LOGLEVEL=verbose is reported and ignored."""
    path = written(tmp_path, settings(sandbox, tmp_path))
    ended = command("--config", path, LOGLEVEL="verbose", TAP_BRAZE_EXPORT_LOGLEVEL="10")
    assert ended.code == 0
    for variable in ("LOGLEVEL", "TAP_BRAZE_EXPORT_LOGLEVEL"):
        assert f"| {variable} names no log level" in ended.stderr
    assert not ended.errors


def test_log_level_silences_all_but_errors(tmp_path: Path) -> None:
    ended = command("--config", config(tmp_path, segment_ids=None), LOGLEVEL="ERROR")
    assert ended.stderr.splitlines() == [line for line in ended.stderr.splitlines() if ended.error in line]


# Secrets


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variable", "maps"),
    [("LOGLEVEL", {}), ("TAP_BRAZE_EXPORT_LOGLEVEL", {"users": {"mail": "email", "__filter__": "email"}})],
)
def test_nothing_secret_in_the_most_talkative_log(
    sandbox: Sandbox, tmp_path: Path, variable: str, maps: dict[str, Any]
) -> None:
    """Neither the key nor a signature nor anybody's data is logged, whatever the level."""
    sandbox.set_faults("bad-line", "connection-reset", "damaged-once")
    given = settings(sandbox, tmp_path, stream_maps=maps, poll_interval_seconds=1)
    given["bucket_options"] = {"secret": "an-option-value"}
    ended = command("--config", written(tmp_path, given), **{variable: "DEBUG"})
    sandbox.set_faults()
    assert "max_rejected_lines" in ended.errors[0]
    assert ended.counts["users"] > 10
    values = {
        str(value)
        for stream in ("users", "devices", "push_tokens", "user_aliases")
        for row in ended.rows(stream)
        for name, value in row.items()
        if name in PERSONAL and isinstance(value, str) and len(value) > 5
    }
    assert len(values) > 50
    for secret in ("sandbox-key", "X-Amz", "Signature", "an-option-value", "5fbd99bac125ca40511f2cb1", *values):
        assert secret not in ended.stderr


PERSONAL = (
    "braze_id",
    "external_id",
    "email",
    "mail",
    "phone",
    "token",
    "device_id",
    "idfv",
    "alias_name",
    "home_city",
)


def test_state_holds_no_secret(sandbox: Sandbox, tmp_path: Path) -> None:
    ended = command("--config", written(tmp_path, settings(sandbox, tmp_path)))
    text = json.dumps(ended.states)
    assert "sandbox-key" not in text
    assert "://" not in text
    assert not [user for user in ended.ids() if user in text]


# What needs no configuration


def test_discovery_without_configuration() -> None:
    """Standard output is the catalog and nothing else."""
    ended = command("--discover")
    assert ended.code == 0
    streams = json.loads(ended.stdout)["streams"]
    assert len(streams) == 14
    roots = {
        stream["tap_stream_id"]: item["metadata"]
        for stream in streams
        for item in stream["metadata"]
        if not item["breadcrumb"]
    }
    deselected = [stream for stream, root in roots.items() if root.get("selected-by-default") is False]
    assert sorted(deselected) == ["invalid_user_ids", "segment_members"]


@pytest.mark.slow
def test_about() -> None:
    """Text, JSON and markdown, all of them with the settings, marked secret where they are."""
    text, as_json, markdown = (command("--about", *more) for more in ([], ["--format=json"], ["--format=markdown"]))
    assert {ended.code for ended in (text, as_json, markdown)} == {0}
    lines = text.stdout.decode().splitlines()
    assert lines[0].startswith("tap-braze-export ")
    assert lines[1].startswith("Python 3.")
    row = "| api_url | True | None | REST endpoint of the instance, such as https://rest.iad-01.braze.com |"
    assert row in lines
    about = json.loads(as_json.stdout)
    secrets = [name for name, setting in about["settings"]["properties"].items() if setting.get("secret")]
    assert secrets == ["api_key", "bucket_options"]
    assert {"batch", "catalog", "discover", "state", "stream-maps"} <= set(about["capabilities"])
    assert b"| api_url |" in markdown.stdout


def test_version_and_help() -> None:
    assert command("--version").stdout.startswith(b"tap-braze-export v")
    shown = command("--help").stdout
    assert b"--catalog" in shown
    for words in (
        b"--config config.json --test ",
        b"| target-jsonl",
        b"TAP_BRAZE_EXPORT_<SETTING>",
        b"Format of --about",
    ):
        assert words in shown


@pytest.mark.slow
def test_settings_from_the_environment(sandbox: Sandbox, tmp_path: Path) -> None:
    """--config=ENV alone is enough: texts, lists as JSON or with commas, integers, booleans, objects."""
    given = {
        "API_URL": sandbox.api_url,
        "API_KEY": sandbox.api_key,
        "SEGMENT_IDS": '["all-users", "vip-users"]',
        "SPOOL_DIR": str(tmp_path / "spool"),
        "POLL_INTERVAL_SECONDS": "1",
        "GLOBAL_CONTROL_GROUP": "false",
        "CUSTOM_ATTRIBUTES": '{"plan": "string"}',
    }
    variables = {f"TAP_BRAZE_EXPORT_{name}": value for name, value in given.items()}
    ended = command("--config=ENV", **variables)
    assert ended.code == 0, ended.stderr
    assert sorted(row["segment_id"] for row in ended.rows("export_files")) == ["all-users", "vip-users"]
    commas = command("--config=ENV", **variables | {"TAP_BRAZE_EXPORT_SEGMENT_IDS": "vip-users,all-users"})
    assert sorted(row["segment_id"] for row in commas.rows("export_files")) == ["all-users", "vip-users"]


def test_environment_overrides_the_file(sandbox: Sandbox, tmp_path: Path) -> None:
    path = written(tmp_path, settings(sandbox, tmp_path))
    ended = command("--config", path, "--config=ENV", TAP_BRAZE_EXPORT_SEGMENT_IDS='["vip-users"]')
    assert [row["segment_id"] for row in ended.rows("export_files")] == ["vip-users"]
