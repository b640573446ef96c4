"""What each target starts from: ordinary input, and words that its door knows."""

from __future__ import annotations

import base64
import functools
import gzip
import io
import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fuzz.stand_ins import BETWEEN_ANSWERS
from fuzz.targets import KEY, TOKEN, discovered_catalog, journal_of_segment
from tap_braze_export.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_ODD_USERS = Path(__file__).parents[1] / "tap_braze_export" / "sandbox" / "odd_users.jsonl"
_MAX_USER_BYTES = 4_000


def _zipped(entries: Mapping[str, bytes], method: int) -> bytes:
    """A zip whose bytes are the same at any time."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as written:
        for name, content in entries.items():
            written.writestr(zipfile.ZipInfo(name), content, method)
    return file.getvalue()


def _archives() -> Iterator[bytes]:
    text = b'\xef\xbb\xbf{"braze_id":"a"}\r\n\n{"braze_id":"b"}'
    gzipped = gzip.compress(text, mtime=0)
    yield from (_zipped({"1.txt": text, "__MACOSX/x": b"", "2/": b""}, method) for method in (0, zipfile.ZIP_DEFLATED))
    yield _zipped({"1.gz": gzipped, "2.zip": _zipped({"1": text}, 0)}, 0)
    yield from (gzipped, gzipped + gzipped + bytes(9), gzip.compress(gzipped, mtime=0), b"", b"PK", b"\x1f\x8b")


def _lines() -> Iterator[bytes]:
    yield from (b"\x00\n" + line for line in _ODD_USERS.read_bytes().splitlines() if len(line) <= _MAX_USER_BYTES)
    with Sandbox(users=8) as sandbox:
        fields = ["braze_id", "email", "devices", "apps", "custom_events", "canvases_received", "custom_attributes"]
        users = [*sandbox.lines("all-users", fields)]
    yield from (bytes([number]) + b"\n" + user for number, user in enumerate(users))
    yield b"\x02\n" + b"\n".join((users[0], users[1], users[0], b"", b"[]", users[2][:-1]))


def _answers() -> Iterator[bytes]:
    limits = b"X-RateLimit-Limit: 250\nX-RateLimit-Remaining: 0\nX-RateLimit-Reset: 1800000060\nRetry-After: 7\n"
    bodies = {
        0: b'{"object_prefix":"a-1","url":"https://x.invalid/a.zip?sig=1","message":"success"}',
        1: b'{"object_prefix":"a-1","url":null}',
        2: b'{"users":[{"braze_id":"b","external_id":"ada@example.org"}],"invalid_user_ids":["x",{"alias_name":1}]}',
        5: b'{"data":[{"time":"2026-01-01","size":7}]}',
        6: b'{"segments":[{"id":"s","name":"n"}]}',
        7: b'{"attributes":[{"name":"plan","data_type":"String (Automatically Detected)","status":"Active"}]}',
    }
    for number in range(8):
        body = bodies.get(number, b'{"message":"success"}')
        yield b"%c 201\nContent-Type: application/json\n\n%s" % (number, body)
        yield b'%c 429\n%s\n{"message":"already running"}' % (number, limits)
        yield b"%c 502\nRetry-After: Wed, 21 Oct 2037 07:28:00 GMT\n\n<html>" % number
    yield b'\x07 200\nLink: </custom_attributes?cursor=a>; rel="next"\n\n{"attributes":[]}'
    yield b"\x00 302\nLocation: http://[::1\n\n"
    yield b"\x02 200\nContent-Encoding: gzip\n\n" + gzip.compress(bodies[2], mtime=0)


def _downloads() -> Iterator[bytes]:
    half = b'\x00 200\nETag: "v"\nContent-Length: 10\n\n01234'
    between = BETWEEN_ANSWERS
    yield b"\x00 403\n\n<Error/>" + between + b"\x00 200\nContent-Length: 10\n\n0123456789"
    yield half + between + b'\x00 206\nETag: "v"\nContent-Range: bytes 5-9/10\nContent-Length: 5\n\n56789'
    yield half + between + b"\x00 416\n\n" + between + b"\x00 200\n\n0123456789"
    yield half + between + b"\x00 403\n\n<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"
    yield b"\x00 302\nLocation: /there\n\n" + between + b"\x00 200\nTransfer-Encoding: chunked\n\n01"
    yield b"\x00 307\nLocation: http://[::1\nSet-Cookie: a=b\n\n"
    yield b"\x00 503\nRetry-After: 9\nContent-Encoding: gzip\n\n" + gzip.compress(b"<html>", mtime=0)


def _export() -> dict[str, Any]:
    """An export that STATE or the journal names."""
    return {
        "source": "segment",
        "segment_id": "seg",
        "export_id": "a-1800000000",
        "requested_at": "2027-01-15T07:59:00.500000Z",
        "requested_fields": ["braze_id", "email"],
        "rows_signature": "shape",
        "running": True,
        "in_bucket": True,
        "users": 7,
        "last_users": 3,
        "files": 1,
        "emitted": base64.urlsafe_b64encode(b"12345678").decode(),
    }


def _journal() -> Iterator[bytes]:
    given_state = journal_of_segment().given_state
    record = {"bookmark": _export(), "url": None, "token": "token", "given_state": given_state, "proven": True}
    hosted = {**_export(), "in_bucket": False}
    yield json.dumps(record).encode()
    yield json.dumps({**record, "bookmark": {**_export(), "running": False}}).encode()
    yield json.dumps({**record, "bookmark": {**_export(), "export_id": ""}}).encode()
    yield json.dumps({**record, "bookmark": hosted, "url": "https://store.invalid/a.zip?Signature=x"}).encode()


def _configuration() -> Iterator[bytes]:
    config: dict[str, Any] = {"api_url": "https://rest.iad-01.braze.com", "api_key": KEY, "segment_ids": ["seg"]}
    yield json.dumps(config).encode()
    yield json.dumps({**config, "segment_ids": "a,b", "workers": "2", "global_control_group": "yes"}).encode("utf-16")
    yield json.dumps(
        {
            **config,
            "custom_attributes": {"plan": "string"},
            "user_aliases": [{"alias_name": "n", "alias_label": "l"}],
            "bucket_url": "s3://bucket/prefix",
            "bucket_options": {"key": "k"},
            "callback_url": "https://tap.invalid/braze",
            "callback_listen": "127.0.0.1:9",
            "spool_dir": "spool",
            "batch_config": {"encoding": {"format": "jsonl"}, "storage": {"root": "out"}, "batch_size": 5},
        }
    ).encode()
    maps = {"users": {"mail": "email", "__filter__": "email != None", "__else__": None}, "dev*": {"__alias__": "d"}}
    yield json.dumps(
        {**config, "stream_maps": maps, "flattening_enabled": True, "flattening_max_depth": 2, "faker_config": None}
    ).encode()


def _state() -> Iterator[bytes]:
    export = _export()
    resync = {"export_id": "ids-a-1", "source": "1-x", "rows_signature": "shape", "requests": 1}
    fingerprints = [{"version": "v/version", "parts": [["run", 2]]}]
    value = {"version": 1, "exports": [export], "resync": [resync], "fingerprints": fingerprints}
    yield json.dumps({"bookmarks": {"export_files": value}}).encode()
    yield json.dumps({"bookmarks": {"export_files": {**value, "exports": [{**export, "running": False}]}}}).encode()
    yield json.dumps({"bookmarks": {"export_files": {**value, "exports": [{**export, "export_id": ""}]}}}).encode()
    yield b'{"bookmarks":{"export_files":{"partitions":[{"context":{"a":1}}],"version":1,"exports":[],"resync":null}}}'
    yield b'{"value":{"bookmarks":{}}}'


def _catalog() -> Iterator[bytes]:
    yield json.dumps(discovered_catalog()).encode()
    stream: dict[str, Any] = {
        "tap_stream_id": "users",
        "schema": {"properties": {"email": {"type": "string"}}},
        "metadata": [],
    }
    yield json.dumps({"streams": [stream]}).encode()
    attributes = {"type": "object", "properties": {"plan": {"type": ["string", "null"]}, "n": {"type": "integer"}}}
    metadata = [
        {"breadcrumb": [], "metadata": {"selected": True}},
        {"breadcrumb": ["properties", "custom_attributes", "properties", "n"], "metadata": {"selected": False}},
    ]
    stream = {**stream, "schema": {"properties": {"custom_attributes": attributes}}, "metadata": metadata}
    yield json.dumps({"streams": [stream]}).encode()


def _identifiers() -> Iterator[bytes]:
    csv = b'External ID;E-Mail;alias_name;alias_label\r\n"1";a@example.org;"a""b";l\r\n2;;;\r\n'
    yield from (b"\x00\n" + csv, b"\x00\nsep=;\r\n" + csv, b"\x03\n" + gzip.compress(csv, mtime=0))
    yield b"\x00\n" + csv.decode().encode("utf-16")
    yield b'\x01\n{"external_id":"1"}\n{"email":"a@example.org","phone":"+49 30"}\n"x"\n7\n{"braze_id":null}\n'
    yield b"\x02\nbraze_id\nb1\nb2\nb1\n"


def _callbacks() -> Iterator[bytes]:
    path = b"/braze?token=" + TOKEN.encode()
    body = b'{"success":true,"message":"done"}'
    yield b"POST %s HTTP/1.1\r\nHost: tap\r\nContent-Length: %d\r\n\r\n%s" % (path, len(body), body)
    yield b"POST %s HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (path, len(body), body)
    yield b"POST %s HTTP/1.0\r\nExpect: 100-continue\r\n\r\n%s" % (path, body)
    yield b'POST /braze?token=x HTTP/1.1\r\nContent-Length: 17\r\n\r\n{"success":false}'
    yield b"GET http://[::1/ HTTP/1.1\r\n\r\n"


_SEEDS: Mapping[str, Callable[[], Iterator[bytes]]] = {
    "archives": _archives,
    "lines": _lines,
    "answers": _answers,
    "downloads": _downloads,
    "journal": _journal,
    "configuration": _configuration,
    "state": _state,
    "catalog": _catalog,
    "identifiers": _identifiers,
    "callbacks": _callbacks,
}

WORDS: Mapping[str, tuple[bytes, ...]] = {
    "archives": (b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07", b"\x1f\x8b\x08\x00"),
    "lines": (
        *(b"\\u0000", b"\\ud800", b"\xed\xa0\x80", b"1e400", b"-0.0", b"9223372036854775808", b"null", b"{}", b"[]"),
        *(b'"braze_id":', b'"custom_attributes":{', b'"devices":[{', b'"created_at":"2020-07-10T15:00:00Z"', b"NaN"),
    ),
    "answers": (
        *(b"Retry-After: ", b"X-RateLimit-Reset: ", b"nan", b"inf", b"1e308", b"-1", b"Content-Length: ", b"Link: "),
        *(b"Location: ", b'"object_prefix":', b'"url":', b'"users":[', b'"invalid_user_ids":[', b"\\ud800", b"{}"),
    ),
    "downloads": (
        *(b"Content-Length: ", b"Content-Range: bytes ", b'ETag: "v"', b"Transfer-Encoding: ", b"Location: "),
        *(BETWEEN_ANSWERS + b"\x00 206\n", BETWEEN_ANSWERS + b"\x00 200\n", b"http://[", b"\xff", b"W/"),
    ),
    "journal": (b"null", b"{}", b"[]", b"-1", b"1e400", b"\\ud800", b"true", b'"url":', b'"running":', b"http://["),
    "configuration": (
        *(b"null", b"{}", b"[]", b"NaN", b"1e400", b"\\ud800", b"\\u0000", b'"api_url":', b'"__alias__":'),
        *(b'"__else__":', b'"__key_properties__":', b"http://[", b"~nosuchuser", b"*", b"9" * 40),
    ),
    "state": (b"Infinity", b"NaN", b"null", b"{}", b"[]", b"-1", b"1e400", b"\\ud800", b"true", b'"partitions":'),
    "catalog": (b"null", b"{}", b"[]", b'"breadcrumb":', b'"selected":', b'"key_properties":', b'"type":', b"\\ud800"),
    "identifiers": (b"\xff\xfe", b"\x1f\x8b", b"sep=", b'"', b"\r", b"\x00", b"\\ud800", b"external_id", b"{}", b"[]"),
    "callbacks": (b"Content-Length: ", b"Transfer-Encoding: chunked\r\n", b"\r\n\r\n", b"POST ", b"HTTP/1.1", b"%"),
}


@functools.cache
def seeds(target: str) -> tuple[bytes, ...]:
    """What a target starts from."""
    return tuple(_SEEDS[target]())
