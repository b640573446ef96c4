"""The download of an export that Braze hosts: one file behind a signed URL."""

from __future__ import annotations

import json
import logging
import re
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote, urlsplit

import urllib3.exceptions

from tap_braze_export.errors import ExportError, InterruptedExportError
from tap_braze_export.files.disk import disk_full_error, free_bytes, private_file
from tap_braze_export.files.spool import file_name
from tap_braze_export.http.addresses import is_web_address
from tap_braze_export.http.certificates import OVER_REQUESTS, certificate_problem
from tap_braze_export.http.session import body_start

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import requests

    from tap_braze_export.clock import Clock

_READ_BYTES = 2**20
_CONNECT_AND_READ_SECONDS = (10, 60)
_MAX_FAILURES_IN_A_ROW = 20
_MAX_ERROR_BYTES, _MAX_ERROR_SECONDS = 4096, 60
_MAX_LENGTH_DIGITS = 18
_log = logging.getLogger(__name__)


class Download:
    """The one file of an export that Braze hosts, behind a signed URL.

    The URL is a secret. The session has no credentials: the store would refuse Braze's key, and must not see it.
    `<path>.part` holds the file while it comes, `<path>.part.json` its ETag and length.

    Attributes:
        received: Bytes that have come, of the transfer under way or the last one.
        expected: Bytes of the whole file; None if the store does not announce them.
        problem: Why the last attempt failed; empty if the store said that the file is not there yet.
    """

    def __init__(
        self,
        url: str,
        *,
        path: Path,
        session: requests.Session,
        clock: Clock,
        deadline: float,
        free: Callable[[Path], int | None] = free_bytes,
    ) -> None:
        if not is_web_address(url):
            raise ExportError("Braze's download url is no http address: run again for a new export")
        self._url = url
        self._path = path
        self._session = session
        self._clock = clock
        self._deadline = deadline
        self._free = free
        self._failures = 0
        self._trusts_ranges = True
        """False once the store has continued a transfer wrongly: it would do so again."""
        self.received = 0
        self.expected: int | None = None
        self.problem = ""
        self._part = path.with_name(f"{path.name}.part")
        self._sidecar = path.with_name(f"{path.name}.part.json")

    @property
    def name(self) -> str:
        """The file's name in the URL."""
        return file_name(unquote(urlsplit(self._url).path).rstrip("/")) or "download"

    def attempt(self) -> bool:
        """Try once to fetch the file; True if it is complete at `path`.

        The next attempt continues a broken transfer. A file at `path` counts as complete: delete it to have it
        fetched again.

        Raises:
            ExportError: It has expired, is endless, could not be fetched 20 times in a row, or the disk is full.
        """
        if self._path.exists():
            return True
        partial = self._partial() if self._trusts_ranges else None
        headers = {"Accept-Encoding": "identity"}
        if partial is not None:
            headers |= {"Range": f"bytes={partial.size}-", "If-Range": partial.etag}
        try:
            response = self._session.get(self._url, headers=headers, stream=True, timeout=_CONNECT_AND_READ_SECONDS)
        except OSError as error:  # requests' own errors, and what it lets through of certificates that cannot be loaded
            if problem := certificate_problem(error, "the store", OVER_REQUESTS):
                raise InterruptedExportError(f"{self.name} cannot be fetched: {problem}") from None
            return self._failed(type(error).__name__)
        with response:
            return self._receive(response, partial)

    def _receive(self, response: requests.Response, partial: _Partial | None) -> bool:
        """Act on a response; True if the file is complete."""
        status = response.status_code
        if status == HTTPStatus.OK:
            return self._save(response, 0, _length(response))
        if partial and status == HTTPStatus.PARTIAL_CONTENT and (end := partial.end_of_continuation(response)):
            return self._save(response, partial.size, partial.length, end)
        if partial and status in {HTTPStatus.PARTIAL_CONTENT, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE}:
            self._start_over()
            return self.attempt()
        if status in {HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND}:
            self._failures, self.problem = 0, ""
            # Braze's store gives 403 before the file is there, and 403 again when the link has expired.
            if self._sidecar.exists() or self._says_expired(response):
                raise ExportError(
                    f"the link to {self.name} has expired, or the file was deleted ({status}); links work for"
                    " a few hours: run again for a new export"
                )
            return False
        if (
            status >= HTTPStatus.INTERNAL_SERVER_ERROR
            or status in {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.REQUEST_TIMEOUT}
            or status < HTTPStatus.BAD_REQUEST
        ):
            return self._failed(f"response {status}")
        hint = ", the link has expired" if self._says_expired(response) else ""
        raise ExportError(f"the store refused {self.name} ({status}{hint}): run again for a new export")

    def _start_over(self) -> None:
        """Drop what has come: the next attempt fetches the whole file."""
        self._part.unlink(missing_ok=True)
        self._trusts_ranges = False

    def _says_expired(self, response: requests.Response) -> bool:
        """True if the store's error text says that the link will not work again."""
        text = body_start(response, max_bytes=_MAX_ERROR_BYTES, max_seconds=_MAX_ERROR_SECONDS, clock=self._clock)
        return b"ExpiredToken" in text or b"Request has expired" in text

    def _failed(self, problem: str) -> bool:
        """Count a failure; False, as the file is not complete."""
        self._failures += 1
        self.problem = problem
        if self._failures >= _MAX_FAILURES_IN_A_ROW:
            raise InterruptedExportError(
                f"{self.name} could not be fetched {self._failures} times in a row, the last time because of:"
                f" {problem}. Check the way from this machine to the store"
            )
        _log.info("%s is not fetched yet: %s", self.name, problem)
        self._clock.count_retry()
        return False

    def _partial(self) -> _Partial | None:
        """The beginning that an earlier attempt left, if it can be continued."""
        try:
            known = json.loads(self._sidecar.read_bytes())
            partial = _Partial(self._part.stat().st_size, known["etag"], known["length"])
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return None
        # A response must be able to prove that the store still has the same file.
        return partial if partial.size > 0 and _is_strong(partial.etag) and isinstance(partial.length, int) else None

    def _save(self, response: requests.Response, offset: int, length: int | None, end: int | None = None) -> bool:
        """Append a body to the first `offset` bytes of the file; True if that makes it complete.

        The body ends at `end` as announced, else with the file, whose length may not be announced.
        """
        etag = response.headers.get("ETag")
        if not offset:
            with private_file(self._sidecar) as file:
                file.write(json.dumps({"etag": etag, "length": length}).encode())
        self.received, self.expected = offset, length
        missing = (length or 0) - offset
        if (free := self._free(self._path.parent)) is not None and missing > free:
            raise disk_full_error(self._path.parent, missing)
        problem = ""
        with private_file(self._part, append=offset > 0) as file:
            try:
                # read1, not stream: the limits of a body that drips are checked as its bytes come.
                while chunk := response.raw.read1(_READ_BYTES, decode_content=False):
                    if self._clock.monotonic() > self._deadline:
                        raise ExportError(f"{self.name} was still coming in when export_timeout_minutes were over")
                    self.received += len(chunk)
                    if self.received > (end or length or self.received):
                        self._start_over()
                        return self._failed(f"the store sent more than the rest from byte {offset} on")
                    file.write(chunk)
                    if self._clock.stopped:
                        return False
            except urllib3.exceptions.HTTPError as error:
                problem = type(error).__name__
        if problem or length not in {None, self.received}:
            if self.received > offset and _is_strong(etag) and self._trusts_ranges:
                self._failures = 0  # it goes on, if slowly
            return self._failed(f"broken after {self.received} bytes {problem}".rstrip())
        self._part.replace(self._path)  # the sidecar stays: should the file be damaged, a 403 means expired
        return True


class _Partial(NamedTuple):
    """The beginning of a download: the bytes that are here, and of the whole file its ETag and announced length."""

    size: int
    etag: str
    length: int | None

    def end_of_continuation(self, response: requests.Response) -> int | None:
        """Position after the body of a 206, which may be only a part of the rest; None if it does not fit."""
        span = re.fullmatch(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})", response.headers.get("Content-Range", ""))
        if span is None or response.headers.get("ETag") != self.etag:
            return None
        start, last, total = (int(number) for number in span.groups())
        fits = start == self.size and total == self.length and start <= last < total
        return last + 1 if fits else None


def _length(response: requests.Response) -> int | None:
    """The body's length if it is announced."""
    text = response.headers.get("Content-Length", "")
    is_told = text.isdecimal() and len(text) <= _MAX_LENGTH_DIGITS and "Transfer-Encoding" not in response.headers
    return int(text) if is_told else None


def _is_strong(etag: object) -> bool:
    """True if an ETag stands for the very bytes of a file."""
    return isinstance(etag, str) and etag.isascii() and etag.isprintable() and etag != "" and not etag.startswith("W/")
