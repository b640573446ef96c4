"""Whatever a configuration holds: a run, or its errors in one line that names the setting."""

from __future__ import annotations

import json
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from singer_sdk.exceptions import SingerSDKError

from tap_braze_export.errors import ConfigError, TapError
from tap_braze_export.singer.command import describe
from tap_braze_export.singer.given_files import read_config
from tests.support.fakes import FakeClock
from tests.support.hostile import few_examples, odd_variants
from tests.support.runs import selecting, settings, sync
from tests.test_settings import SCHEMAS

if TYPE_CHECKING:
    from pathlib import Path

    from tap_braze_export.sandbox import Sandbox

pytestmark = pytest.mark.sandbox(users=3, odd_users=False)
GOOD: dict[str, Any] = {
    **dict.fromkeys(SCHEMAS),
    "segment_ids": ["all-users"],
    "user_aliases": [{"alias_name": "n", "alias_label": "l"}],
    "custom_attributes": {"plan": "string"},
    "extra_export_fields": ["more"],
    "bucket_options": {"key": "k"},
    "callback_url": "http://127.0.0.1:9/braze",
    "batch_config": {"encoding": {"format": "jsonl"}, "storage": {"root": "out", "prefix": ""}, "batch_size": 5},
    "stream_maps": {
        "users": {"mail": "email", "__filter__": "email", "__key_properties__": ["braze_id"]},
        "people": {"__source__": "users", "phone": None, "__else__": None},
    },
    "stream_map_config": {"salt": "s"},
    "faker_config": {"seed": 1, "locale": ["en"]},
    "flattening_enabled": True,
    "flattening_max_depth": 1,
}
"""Settings with a value at every place."""
USERS = selecting(["users", "export_files"])
NOT_TRIED = ("api_url", "dask_scheduler")
"""Settings whose odd values may name a host."""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Odd paths are made there."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def outcome(config: dict[str, Any]) -> str:
    """The line in which a run ends that fails."""
    try:
        # The clock goes on by itself: the requests of a resync are paced, and wait on threads without sleeping.
        sync(config, clock=FakeClock(tick=0.01), catalog=USERS)
    except (TapError, SingerSDKError) as error:
        return describe(error)
    return ""


@few_examples
@given(name=st.sampled_from([name for name in SCHEMAS if name not in NOT_TRIED]), data=st.data())
def test_whatever_a_setting_holds_the_run_ends_as_it_should(
    sandbox: Sandbox, folder: Path, name: str, data: st.DataObject
) -> None:
    text = data.draw(odd_variants(GOOD[name]))
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return  # no configuration: see test_file_of_odd_json_is_one_line

    told = outcome({**settings(sandbox, folder), name: value}) or name
    assert any(setting in told for setting in SCHEMAS)  # one may need another
    assert told.isprintable()
    assert "Unforeseen" not in told


@few_examples
@given(text=odd_variants({"api_key": "k", "api_url": "https://rest.iad-01.braze.com", "segment_ids": ["s"]}))
def test_file_of_odd_json_is_one_line(folder: Path, text: str) -> None:
    (folder / "config.json").write_bytes(text.encode("utf-8", "surrogatepass"))

    told = ""
    try:
        read_config(str(folder / "config.json"))
    except ConfigError as error:
        told = str(error)
    assert told.isprintable()


ODD: list[tuple[dict[str, Any], str]] = [
    ({"spool_dir": "a\x00b"}, "spool_dir holds NUL, or half of a character"),
    ({"spool_dir": "a\ud800b"}, "spool_dir holds NUL, or half of a character"),
    ({"spool_dir": "~nosuchuser/x"}, "spool_dir ~nosuchuser/x begins with the home of a user who does not exist"),
    ({"segment_ids": ["\ud800"]}, "segment_ids holds NUL, or half of a character"),
    ({"custom_attributes": {"a\x00": "string"}}, "custom_attributes holds NUL, or half of a character"),
    ({"requests_per_minute": 10**400}, "requests_per_minute must be at most 1000000000"),
    ({"export_timeout_minutes": 10**400}, "export_timeout_minutes must be at most 1000000000"),
    ({"workers": 1e300}, "workers must be at most 1000000000"),
    ({"poll_interval_seconds": float("nan")}, "poll_interval_seconds holds NaN or an infinite number"),
    (
        {"stream_maps": {"users": {"a": "1", "mail": ""}}},
        "the expression of mail for users cannot be read (it is empty)",
    ),
    (
        {"stream_maps": {"users": {"mail": "email.lower("}}},
        "stream_maps: the expression of mail for users cannot be read ('(' was never closed)",
    ),
    (
        {"stream_maps": {"dev*": {"__filter__": "= 1"}}},
        "stream_maps: the expression of __filter__ for dev* cannot be read (invalid syntax)",
    ),
    (
        {"stream_maps": {"users": {"__alias__": "a b"}}},
        "stream_maps: Failed to evaluate simpleeval expressions a b",
    ),
    ({"stream_maps": {"__else__": "null"}}, 'stream_maps.__else__ must be "__NULL__" or null'),
    ({"stream_maps": {"users": {"__else__": False}}}, 'stream_maps.users.__else__ must be "__NULL__" or null'),
    ({"stream_maps": {"users": "email"}}, 'stream_maps.users must be "__NULL__" or null or an object'),
    ({"stream_maps": {"users": {"x": {"y": None}}}}, 'stream_maps.users.x must be "__NULL__" or null or a text'),
    ({"stream_maps": {"users": {"__filter__": 3}}}, "stream_maps.users.__filter__ must be a text"),
    ({"bucket_options": {"x": [float("inf")]}}, "bucket_options holds NaN or an infinite number"),
]


def test_odd_value_is_named(sandbox: Sandbox, folder: Path) -> None:
    for odd, told in ODD:
        assert told in outcome({**settings(sandbox, folder), **odd}), (odd, told)


NO_ADDRESSES: list[str] = [
    "http://[",
    "https://h:x/",
    "https://h:99999/",
    "s3://[b/p",
    "//[",
    "sftp://[::1",
    "s3://\u2100/",
    "a://]b",
]


ADDRESSES: list[str] = [
    "api_url",
    "callback_url",
    "bucket_url",
    "fingerprints_url",
    "identifiers_url",
    "batch_config",
]


def test_address_that_cannot_be_taken_apart_is_one_line(sandbox: Sandbox, folder: Path) -> None:
    """Before anything is asked of Braze."""
    for odd, setting in product(NO_ADDRESSES, ADDRESSES):
        value = {"encoding": {"format": "jsonl"}, "storage": {"root": odd}} if setting == "batch_config" else odd
        told = outcome({**settings(sandbox, folder), setting: value})

        assert setting in told, (odd, setting)
        assert "Unforeseen" not in told, (odd, setting)
        assert not [call for call in sandbox.calls if call.path.startswith("/users/export")], (odd, setting)


def test_odd_identifiers_are_left_out(sandbox: Sandbox, folder: Path) -> None:
    """They are people's data, and one of a million."""
    run = sync({**settings(sandbox, folder), "external_ids": ["a\x00b", "\ud800", "nobody"]}, clock=FakeClock())

    assert [line for line in run.warnings if line.startswith("Identifiers left out: external_ids: 2 malformed")]
