"""Braze's REST calls: session, key, retries, rate limit, errors."""

from __future__ import annotations

import importlib.metadata
import logging
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

import backoff
import msgspec
import requests
import requests.adapters

from tap_braze_export.braze.responses import (
    Endpoint,
    RateLimit,
    RetryableError,
    decoded,
    failed,
    refused,
    succeeded,
    texts,
)
from tap_braze_export.errors import BrazeError, ConfigError, RateLimitError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from tap_braze_export.clock import Clock

__all__ = ["USER_AGENT", "Braze", "IdsResponse", "RateLimit", "Started"]

USER_AGENT = f"tap-braze-export/{importlib.metadata.version('tap-braze-export')}"

_CONNECT_SECONDS = 10
_FAILURES = 8  # tries of one call that may fail ...
_PATIENCE = 600  # ... and the seconds after which none is made again
_LIMIT_WAIT_SECONDS = 3_700  # hourly windows are the longest that Braze has
_LIMIT_TOTAL_SECONDS = 3 * 3_600
_FOLDER = re.compile(r"[\w-][\w.-]{0,199}", re.ASCII)
_log = logging.getLogger(__name__)

_SEGMENT = Endpoint("POST", "/users/export/segment", "users.export.segment", starts_export=True)
_CONTROL_GROUP = Endpoint(
    "POST", "/users/export/global_control_group", "users.export.global_control_group", starts_export=True
)
_IDS = Endpoint("POST", "/users/export/ids", "users.export.ids", read_seconds=300)
# Braze's page and its OpenAPI file disagree about the permission.
_CANCEL = Endpoint("POST", "/export/segment/cancel", "segments.list (or users.export.segment)")
_DETAILS = Endpoint("GET", "/segments/details", "segments.details")
_SIZES = Endpoint("GET", "/segments/data_series", "segments.data_series")
_ATTRIBUTES = Endpoint("GET", "/custom_attributes", "custom_attributes.get")


@dataclass(frozen=True)
class Started:
    """Braze's answer to an export's start.

    Attributes:
        object_prefix: The export's id, and the name of its folder in a bucket.
        url: Signed address of the download, a secret; None when the files go to the customer's bucket.
    """

    object_prefix: str
    url: str | None = field(repr=False)


@dataclass(frozen=True)
class IdsResponse:
    """Answer of the ids export: each user's raw JSON, and what Braze says matched nobody."""

    users: list[bytes] = field(repr=False)
    invalid_user_ids: list[Any] = field(repr=False)
    limit: RateLimit


class _IdsBody(msgspec.Struct):
    users: list[msgspec.Raw] | None
    invalid_user_ids: list[Any] | None = None


class _Bearer(requests.auth.AuthBase):
    """The key, put on one request: not on the session, and not replaced by a .netrc entry."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._key}"
        return request


class Braze:
    """A workspace behind Braze's REST API; may be shared by threads.

    Args:
        api_url: REST endpoint of the instance.
        api_key: REST API key.
        clock: Time, and all waiting.
        session: Connections to use; it never holds the key.
        patience: Seconds after which a call that fails is not tried again.
    """

    limit = RateLimit()  # of the last answer

    def __init__(
        self,
        api_url: str,
        api_key: str,
        *,
        clock: Clock,
        session: requests.Session | None = None,
        patience: float = _PATIENCE,
    ) -> None:
        api_key = api_key.strip()
        if not (api_key.isascii() and api_key.isprintable() and api_key):
            raise ConfigError("api_key is empty or holds characters that no key has: copy it from Braze again")
        self._api_url = api_url.strip().rstrip("/")
        self._key = api_key
        self._clock = clock
        self._patience = patience
        if session is None:
            session = requests.Session()
            for scheme in ("https://", "http://"):
                session.mount(scheme, requests.adapters.HTTPAdapter(pool_maxsize=64))
        self._session = session

    def start_segment_export(
        self,
        segment_id: str,
        *,
        fields_to_export: Iterable[str],
        custom_attributes_to_export: Iterable[str] = (),
        callback_endpoint: str | None = None,
        output_format: str = "zip",
    ) -> Started:
        """Start the export of a segment.

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
        return self._start(_SEGMENT, f"segment {segment_id}", body, callback_endpoint)

    def start_control_group_export(
        self,
        *,
        fields_to_export: Iterable[str],
        callback_endpoint: str | None = None,
        output_format: str = "zip",
    ) -> Started:
        """Start the export of the Global Control Group; raises as `start_segment_export`."""
        body = {"fields_to_export": list(fields_to_export), "output_format": output_format}
        return self._start(_CONTROL_GROUP, "the Global Control Group", body, callback_endpoint)

    def cancel_segment_export(self, segment_id: str) -> None:
        """Cancel all running exports of a segment, also those that somebody else started."""
        self._request(_CANCEL, f"segment {segment_id}", body={"segment_id": segment_id})

    def segment_details(self, segment_id: str) -> dict[str, Any]:
        """Name, description and tags of a segment; a BrazeError names an unknown one."""
        return self._json(_DETAILS, f"segment {segment_id}", params={"segment_id": segment_id})

    def segment_size(self, segment_id: str) -> int | None:
        """Braze's newest estimate of the segment's size, None without one (its analytics may be off)."""
        answer = self._json(_SIZES, f"segment {segment_id}", params={"segment_id": segment_id, "length": "1"})
        points = answer.get("data")
        point = points[-1] if isinstance(points, list) and points else None
        size = point.get("size") if isinstance(point, dict) else None
        return size if isinstance(size, int) else None

    def custom_attributes(self) -> Iterator[dict[str, Any]]:
        """The workspace's custom attributes with their `name`, `data_type` and `status`, page by page.

        Source: https://www.braze.com/docs/api/endpoints/export/custom_attributes/get_custom_attributes
        """
        url: str | None = self._api_url + _ATTRIBUTES.path
        seen: set[str] = set()
        while url is not None and url not in seen:
            seen.add(url)
            response = self._request(_ATTRIBUTES, "the custom attributes", url=url)
            attributes = self._object(_ATTRIBUTES, response).get("attributes")
            for attribute in attributes if isinstance(attributes, list) else ():
                if isinstance(attribute, dict):
                    yield attribute
            link = response.links.get("next", {}).get("url")
            url = urljoin(url, link) if link else None
            if url is not None and urlsplit(url)[:2] != urlsplit(self._api_url)[:2]:
                raise BrazeError(f"{_ATTRIBUTES} names a next page on another host: it is not followed")

    def export_ids(self, body: Mapping[str, Any], *, waits: bool = True) -> IdsResponse:
        """Export the users of one request's identifiers, at most 50.

        Args:
            body: Identifiers and `fields_to_export`.
            waits: Whether to wait here when the rate limit is used up.

        Raises:
            RateLimitError: If it is used up and `waits` is false.
            BrazeError: With status 400 if Braze finds fault with this very request.
        """
        response = self._request(_IDS, "identifiers", private=True, body=body, waits=waits)
        try:
            answer = msgspec.json.decode(response.content, type=_IdsBody)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise BrazeError(f"{_IDS} answered {response.status_code} without users") from None
        users = [bytes(user) for user in answer.users or ()]
        return IdsResponse(users, answer.invalid_user_ids or [], RateLimit.of(response))

    def _start(self, endpoint: Endpoint, what: str, body: dict[str, Any], callback_endpoint: str | None) -> Started:
        if callback_endpoint:
            body["callback_endpoint"] = callback_endpoint
        response = self._request(endpoint, what, body=body)
        answer = self._object(endpoint, response)
        prefix, url = answer.get("object_prefix"), answer.get("url") or None
        if not prefix:
            raise BrazeError(
                f"Braze took the export of {what} ({response.status_code}) but named no object_prefix, so its"
                " files cannot be found: Braze may be under maintenance; run again later"
            )
        # It becomes part of file names, and must match one component of a path.
        if not isinstance(prefix, str) or not _FOLDER.fullmatch(prefix):
            raise BrazeError(f"Braze named an object_prefix for the export of {what} that is no folder's name")
        if not isinstance(url, str | None):
            raise BrazeError(f"Braze named a url for the export of {what} that is no text")
        return Started(prefix, url)

    def _json(self, endpoint: Endpoint, what: str, *, params: dict[str, str]) -> dict[str, Any]:
        return self._object(endpoint, self._request(endpoint, what, params=params))

    def _object(self, endpoint: Endpoint, response: requests.Response) -> dict[str, Any]:
        answer = decoded(response)
        if answer is None:
            raise BrazeError(
                f"{endpoint} answered {response.status_code} without a JSON object: is api_url the REST"
                " endpoint of your instance (https://rest.….braze.com or .eu)?"
            )
        return answer

    def _request(
        self,
        endpoint: Endpoint,
        what: str,
        *,
        url: str | None = None,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        private: bool = False,
        waits: bool = True,
    ) -> requests.Response:
        """Call an endpoint until it succeeds, fails for good, or was repeated for long enough.

        Args:
            endpoint: What to call.
            what: What it is called for, in words.
            url: The address, where it is not the endpoint's own.
            params: Its query.
            body: Its JSON body.
            private: Whether the request is about single people, so that answers may name them.
            waits: Whether to wait when the rate limit is used up.
        """
        request = {"url": url or self._api_url + endpoint.path, "params": params, "json": body}
        pauses = backoff.expo(max_value=60)
        next(pauses)  # backoff's generators give one 0 before the first wait
        started = self._clock.now()
        failures = 0
        while True:
            try:
                return self._once(endpoint, what, request, private=private)
            except RetryableError as again:
                problem, until = again.problem, again.until
            if until is not None and not waits:
                raise RateLimitError(f"{endpoint} ({what}) failed: {problem}", until)
            now = self._clock.now()
            wait = backoff.full_jitter(next(pauses))
            if until is not None:
                # Jitter after the window's end, lest all clients come back in the same instant.
                wait = min(max(until - now, 0) + 1 + wait, _LIMIT_WAIT_SECONDS)
                give_up = now - started > _LIMIT_TOTAL_SECONDS
            else:
                failures += 1
                give_up = failures >= _FAILURES or now + wait - started > self._patience
            if give_up:
                minutes = (now - started) / 60
                raise BrazeError(f"{endpoint} ({what}) failed, also when repeated for {minutes:.0f} min: {problem}")
            _log.info("%s (%s): %s; repeated in %.0f s", endpoint, what, problem, wait)
            self._clock.sleep(wait)
            if self._clock.stopped:
                raise BrazeError(f"{endpoint} ({what}) is not repeated, the run was told to end: {problem}")

    def _once(self, endpoint: Endpoint, what: str, request: dict[str, Any], *, private: bool) -> requests.Response:
        try:
            response = self._session.request(
                endpoint.method,
                auth=_Bearer(self._key),
                headers={"User-Agent": USER_AGENT, "Accept": "application/json"},
                timeout=(_CONNECT_SECONDS, endpoint.read_seconds),
                allow_redirects=False,
                **request,
            )
        except requests.RequestException as error:
            raise failed(endpoint, what, error) from None
        self.limit = RateLimit.of(response)
        if succeeded(response):
            return response
        secrets = [self._key, *(texts(request["json"]) if private else ())]
        raise refused(endpoint, what, response, secrets=secrets, personal=private, now=self._clock.now())
