"""Braze's REST calls."""

from __future__ import annotations

import importlib.metadata
import re
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urljoin, urlsplit

import requests

from tap_braze_export.braze import endpoints
from tap_braze_export.braze.rate_limit import RateLimit, other_time
from tap_braze_export.braze.responses import (
    MAX_ERROR_BYTES,
    SHORTEST_IDENTIFIER_CHARS,
    Call,
    Received,
    failed,
    json_content,
    read_ids_body,
    refused,
    success_content,
)
from tap_braze_export.errors import BrazeError, ConfigError, texts_in
from tap_braze_export.http.addresses import is_web_address
from tap_braze_export.http.retry import GaveUpError, RetryPolicy
from tap_braze_export.http.session import Session, body_start, read_body

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from tap_braze_export.braze.endpoints import Endpoint
    from tap_braze_export.clock import Clock

_USER_AGENT = f"tap-braze-export/{importlib.metadata.version('tap-braze-export')}"

T = TypeVar("T")

_CONNECT_SECONDS = 10
_PATIENCE_SECONDS = 600
_SHOWN_IN_MINUTES = 2
_MAX_USERS = 10**12
"""A larger estimate is none."""
_SEGMENTS_PER_PAGE = 100
_MAX_PAGES = 1_000
_FOLDER_NAME = re.compile(r"[\w-][\w.-]{0,199}", re.ASCII)


@dataclass(frozen=True)
class Started:
    """Braze's response to the start of an export.

    Attributes:
        object_prefix: The export's id, and the name of its folder in a bucket.
        url: Signed address of the download, a secret; None when the files go to the customer's bucket.
        sent_at: When the request that Braze accepted was sent, in epoch seconds: not an earlier, refused try.
        braze_time: Braze's time when it answered, by the header `Date`; None where this machine's clock is about right.
    """

    object_prefix: str
    url: str | None = field(repr=False)
    sent_at: float
    braze_time: float | None = None


@dataclass(frozen=True)
class IdsResponse:
    """Response of the ids export.

    Attributes:
        users: The raw JSON of each.
        invalid_user_ids: Identifiers that matched nobody, as Braze repeats them.
        limit: The rate limit that its headers tell.
    """

    users: list[bytes] = field(repr=False)
    invalid_user_ids: list[Any] = field(repr=False)
    limit: RateLimit


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


class _Bearer(requests.auth.AuthBase):
    """Puts the key on one request: not on the session, and not replaced by a .netrc entry."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._key}"
        return request


class Braze:
    """A workspace behind Braze's REST API; threads may share it.

    Args:
        api_url: REST endpoint of the instance, in its one spelling.
        api_key: REST API key.
        clock: Time, and all waits.
        session: Connections to use; it never holds the key.
        patience: Seconds after which a call that fails is not repeated, nor one that the rate limit refuses; None for
            the usual ten minutes, and three hours for the rate limit.
    """

    def __init__(
        self,
        api_url: str,
        api_key: str,
        *,
        clock: Clock,
        session: requests.Session | None = None,
        patience: float | None = None,
    ) -> None:
        api_key = api_key.strip()
        if not (api_key.isascii() and api_key.isprintable() and api_key):
            raise ConfigError("api_key is empty or holds characters that no key has: copy it from Braze again")
        self._api_url = api_url
        self._key = api_key
        self._clock = clock
        self._max_seconds = (_PATIENCE_SECONDS,) if patience is None else (patience, patience)
        self._session = session or Session()

    def start_segment_export(
        self,
        segment_id: str,
        *,
        fields_to_export: Iterable[str],
        custom_attributes_to_export: Iterable[str] = (),
        callback_endpoint: str | None = None,
        output_format: str = "zip",
        user_last_updated_at: str | None = None,
    ) -> Started:
        """Start the export of a segment, with `user_last_updated_at` only of users updated then or later.

        Raises:
            RunningExportError: Braze is still exporting this segment.
            LostResponseError: The request was sent, but whether the export started is unknown.
        """
        body: dict[str, Any] = {
            "segment_id": segment_id,
            "fields_to_export": list(fields_to_export),
            "output_format": output_format,
        }
        if attributes := list(custom_attributes_to_export):
            body["custom_attributes_to_export"] = attributes
        if user_last_updated_at is not None:
            body["user_last_updated_at"] = user_last_updated_at
        return self._start(endpoints.SEGMENT, f"segment {segment_id}", body, callback_endpoint)

    def start_control_group_export(
        self,
        *,
        fields_to_export: Iterable[str],
        callback_endpoint: str | None = None,
        output_format: str = "zip",
    ) -> Started:
        """Start the export of the Global Control Group; raises as `start_segment_export`."""
        body = {"fields_to_export": list(fields_to_export), "output_format": output_format}
        return self._start(endpoints.CONTROL_GROUP, "the Global Control Group", body, callback_endpoint)

    def cancel_segment_export(self, segment_id: str) -> None:
        """Cancel all running exports of a segment, also those that somebody else started."""
        self._request(endpoints.CANCEL, f"segment {segment_id}", success_content, json={"segment_id": segment_id})

    def segment_details(self, segment_id: str) -> dict[str, Any]:
        """Name, description and tags of a segment; a BrazeError names an unknown one."""
        return self._get(endpoints.DETAILS, f"segment {segment_id}", {"segment_id": segment_id}, "name", str)

    def segments(self) -> Iterator[tuple[str, str]]:
        """The workspace's segments, oldest first, page by page: the id and name of each."""
        for page in range(_MAX_PAGES):
            listed = self._get(endpoints.SEGMENTS, "the segments", {"page": str(page)}, "segments", list)["segments"]
            segments = [each for each in listed if isinstance(each, dict)]
            yield from ((_text(each.get("id")), _text(each.get("name"))) for each in segments)
            if len(segments) < _SEGMENTS_PER_PAGE:
                return

    def segment_size(self, segment_id: str) -> int | None:
        """Braze's newest estimate of the segment's size, None without one (its analytics may be off).

        It is asked for once: whoever wants it can do without.
        """
        params = {"segment_id": segment_id, "length": "1"}
        points = self._get(endpoints.SIZES, f"segment {segment_id}", params, "data", list)["data"]
        point = points[-1] if points else None
        size = point.get("size") if isinstance(point, dict) else None
        return size if type(size) is int and 0 <= size <= _MAX_USERS else None

    def custom_attributes(self) -> Iterator[dict[str, Any]]:
        """The workspace's custom attributes with their `name`, `data_type` and `status`, page by page.

        Source: https://www.braze.com/docs/api/endpoints/export/custom_attributes/get_custom_attributes
        """
        url: str | None = self._api_url + endpoints.ATTRIBUTES.path
        seen: set[str] = set()
        while url is not None and url not in seen:
            if len(seen) == _MAX_PAGES:
                raise BrazeError(
                    f"{endpoints.ATTRIBUTES} named {_MAX_PAGES} pages and no last one: check api_url and any proxy"
                )
            seen.add(url)
            page = self._request(endpoints.ATTRIBUTES, "the custom attributes", lambda received: received, url=url)
            attributes = success_content(page, "attributes", list)["attributes"]
            yield from (attribute for attribute in attributes if isinstance(attribute, dict))
            url = self._next_page(url, page.response)

    def export_ids(self, body: Mapping[str, Any]) -> IdsResponse:
        """Export the users of one request: at most 50 identifiers, and `fields_to_export`.

        Raises:
            RateLimitError: If the rate limit is used up: the caller paces all its requests.
            BrazeError: With status 400 if Braze finds fault with this very request.
        """

        def read(received: Received) -> IdsResponse:
            return IdsResponse(*read_ids_body(received), RateLimit.of(received.response))

        return self._request(endpoints.IDS, "identifiers", read, json=body)

    def _start(self, endpoint: Endpoint, what: str, body: dict[str, Any], callback_endpoint: str | None) -> Started:
        if callback_endpoint:
            body["callback_endpoint"] = callback_endpoint
        return self._request(endpoint, what, self._started, json=body)

    def _started(self, received: Received) -> Started:
        what, content = received.call.what, json_content(received)
        prefix, url = content.get("object_prefix"), content.get("url") or None
        if not prefix:
            raise BrazeError(
                f"Braze accepted the export of {what} ({received.response.status_code}) but named no object_prefix, so"
                " its files cannot be found: Braze may be under maintenance; run again later"
            )
        # It becomes part of file names, and must match one component of a path.
        if not isinstance(prefix, str) or not _FOLDER_NAME.fullmatch(prefix):
            raise BrazeError(f"Braze named an object_prefix for the export of {what} that is no folder's name")
        if url is not None and not (isinstance(url, str) and is_web_address(url)):
            raise BrazeError(f"Braze named a url for the export of {what} that is no web address: run again later")
        return Started(prefix, url, received.sent_at, other_time(received.response, self._clock.now()))

    def _next_page(self, url: str, response: requests.Response) -> str | None:
        link = response.links.get("next", {}).get("url")
        try:
            following = urljoin(url, link) if link else None
            is_elsewhere = following is not None and urlsplit(following)[:2] != urlsplit(self._api_url)[:2]
        except ValueError:
            is_elsewhere = True
        if is_elsewhere:
            raise BrazeError(f"{endpoints.ATTRIBUTES} names a next page on another host: it is not followed")
        return following

    def _get(
        self, endpoint: Endpoint, what: str, params: dict[str, str], member: str, kind: type[object]
    ) -> dict[str, Any]:
        return self._request(endpoint, what, lambda received: success_content(received, member, kind), params=params)

    def _request(self, endpoint: Endpoint, what: str, read: Callable[[Received], T], **request: Any) -> T:
        """Call an endpoint until a response is read, the call fails for good, or was repeated long enough."""
        identifiers = texts_in(request["json"], min_chars=SHORTEST_IDENTIFIER_CHARS) if endpoint.is_personal else ()
        call = Call(endpoint, what, [self._key, *identifiers])
        retries = RetryPolicy(endpoint.max_tries, *self._max_seconds)
        try:
            return retries.call(lambda: read(self._send(call, request)), failed=str(call), clock=self._clock)
        except GaveUpError as error:
            problem = error.last.problem
            if error.stopped:
                raise BrazeError(f"{call} is not repeated, the run was told to end: {problem}") from None
            minutes = error.seconds / 60
            times = f"{error.seconds:.0f} s" if minutes < _SHOWN_IN_MINUTES else f"{minutes:.0f} min"
            reason = f"failed {error.tries} times within {times}" if error.tries > 1 else "failed"
            raise BrazeError(f"{call} {reason}: {problem}; {error.last.advice}") from None

    def _send(self, call: Call, request: dict[str, Any]) -> Received:
        """Make one try."""
        endpoint, sent_at = call.endpoint, self._clock.now()
        try:
            response = self._session.request(
                endpoint.method,
                auth=_Bearer(self._key),
                headers={"User-Agent": _USER_AGENT, "Accept": "application/json"},
                timeout=(_CONNECT_SECONDS, endpoint.read_seconds),
                allow_redirects=False,
                stream=True,
                **{"url": self._api_url + endpoint.path, **request},
            )
            if HTTPStatus.OK <= response.status_code < HTTPStatus.MULTIPLE_CHOICES:  # usually 201
                body = read_body(
                    response, max_bytes=endpoint.max_bytes, max_seconds=endpoint.read_seconds, clock=self._clock
                )
                return Received(call, response, body, sent_at)
        except OSError as error:  # requests' own errors, and what it lets through of certificates that cannot be loaded
            raise failed(call, error, sent_at) from None
        body = body_start(response, max_bytes=MAX_ERROR_BYTES, max_seconds=endpoint.read_seconds, clock=self._clock)
        raise refused(Received(call, response, body, sent_at), self._clock)
