"""What an answer of Braze means, or the lack of one: done, again later, or which error."""

from __future__ import annotations

import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import requests
import urllib3.exceptions

from tap_braze_export.errors import AuthError, BrazeError, LostResponseError, RunningExportError, foreign_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_RUNNING_WORDS = ("progress", "already", "running")
_IDENTIFIER_LENGTH = 3  # shorter texts identify nobody, and stand in any sentence


@dataclass(frozen=True)
class Endpoint:
    """One endpoint and the permission it needs; `starts_export` marks what must not be repeated blindly."""

    method: str
    path: str
    permission: str
    starts_export: bool = False
    read_seconds: int = 60

    def __str__(self) -> str:
        """Method and path."""
        return f"{self.method} {self.path}"


@dataclass(frozen=True)
class RateLimit:
    """`X-RateLimit-*` of an answer: requests in the window, what is left, its end in epoch seconds."""

    limit: int | None = None
    remaining: int | None = None
    reset: int | None = None

    @classmethod
    def of(cls, response: requests.Response) -> RateLimit:
        """Read the headers; what is missing or no number is None."""

        def number(name: str) -> int | None:
            try:
                return int(float(response.headers[f"X-RateLimit-{name}"]))
            except (KeyError, ValueError, OverflowError):
                return None

        return cls(number("Limit"), number("Remaining"), number("Reset"))


class RetryableError(Exception):
    """The call may be repeated; `until` is set for a rate limit: epoch seconds, 0 if unknown."""

    def __init__(self, problem: str, until: float | None = None) -> None:
        super().__init__(problem)
        self.problem = problem
        self.until = until


def succeeded(response: requests.Response) -> bool:
    """Whether Braze took the call: any 2xx, usually 201."""
    return HTTPStatus.OK <= response.status_code < HTTPStatus.MULTIPLE_CHOICES


def refused(
    endpoint: Endpoint,
    what: str,
    response: requests.Response,
    *,
    secrets: Iterable[str],
    personal: bool,
    now: float,
) -> Exception:
    """What to raise for an answer that is no success.

    Args:
        endpoint: What was called.
        what: What it was called for, in words.
        response: The answer.
        secrets: Texts that no message may hold.
        personal: Whether the request was about single people.
        now: Epoch seconds.
    """
    status = response.status_code
    said = _said(response, secrets, personal=personal)
    refusal = f"{endpoint} ({what}) was refused with {status}{f' ({said})' if said else ''}"
    error: Exception = BrazeError(refusal, status)
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        error = AuthError(
            f"{refusal}: api_key needs the permission {endpoint.permission}, must belong to the instance of"
            " api_url, and this machine's address must be on the key's IP allow-list, if it has one."
            " A key cannot be edited: create a new one with what is missing",
            status,
        )
    elif endpoint.starts_export and _is_running(status, said, RateLimit.of(response)):
        error = RunningExportError(
            f"Braze is still exporting {what}, or has 100 exports running, and takes no other now"
            f" ({status}{f', {said}' if said else ''})"
        )
    elif status == HTTPStatus.TOO_MANY_REQUESTS:
        error = RetryableError("rate limit", _retry_at(response, now))
    elif status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.REQUEST_TIMEOUT:
        problem = f"Braze answered {status}"
        error = _lost(what, problem) if endpoint.starts_export else RetryableError(problem)
    elif status == HTTPStatus.NOT_FOUND:
        error = BrazeError(
            f"{refusal}: there is no such thing, or api_url is not the REST endpoint of your instance"
            " (https://rest.….braze.com or .eu, without a path)"
        )
    elif status < HTTPStatus.BAD_REQUEST:
        error = BrazeError(
            f"{refusal}: a redirect, not followed because it would take the key elsewhere; api_url may be wrong"
        )
    return error


def failed(endpoint: Endpoint, what: str, error: requests.RequestException) -> Exception:
    """What to raise when no answer came; never the exception's text, which holds the URL."""
    name = type(error).__name__
    if isinstance(error, ValueError):
        return BrazeError(f"{endpoint} cannot be sent ({name}): api_url is no proper address")
    if isinstance(error, requests.exceptions.SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
        return BrazeError(
            f"{endpoint}: the server's certificate is not trusted: check api_url, or set REQUESTS_CA_BUNDLE"
            " to your proxy's certificate"
        )
    if _never_sent(error):
        return RetryableError(f"no connection to the host of api_url ({name})")
    if endpoint.starts_export:
        return _lost(what, name)
    return RetryableError(f"the answer did not come ({name})")


def decoded(response: requests.Response) -> dict[str, Any] | None:
    """The JSON object of an answer, None if it is something else."""
    try:
        answer = json.loads(response.content)
    except (ValueError, RecursionError):
        return None
    return answer if isinstance(answer, dict) else None


def texts(value: object) -> Iterator[str]:
    """Every text in a request's body that is long enough to identify somebody."""
    if isinstance(value, str):
        if len(value) >= _IDENTIFIER_LENGTH:
            yield value
    elif isinstance(value, dict):
        for member in value.values():
            yield from texts(member)
    elif isinstance(value, (list, tuple)):
        for member in value:
            yield from texts(member)


def _said(response: requests.Response, secrets: Iterable[str], *, personal: bool) -> str:
    """Braze's own words, "" if they are no JSON message, or may hold the key or personal data."""
    answer = decoded(response) or {}
    words = next((answer[name] for name in ("message", "error") if isinstance(answer.get(name), str)), "")
    if personal and ("@" in words or sum(char.isdigit() for char in words) >= _IDENTIFIER_LENGTH):
        return ""
    return foreign_text(words, secrets)


def _is_running(status: int, said: str, limit: RateLimit) -> bool:
    """Whether a refused start means a running export: Braze uses 429 for both, and documents no text."""
    words = said.lower()
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return any(word in words for word in _RUNNING_WORDS) or (limit.remaining or 0) > 0
    return status == HTTPStatus.BAD_REQUEST and ("in progress" in words or "already running" in words)


def _retry_at(response: requests.Response, now: float) -> float:
    """When a rate limit ends, in epoch seconds; 0 if the answer does not say."""
    try:
        return now + float(response.headers["Retry-After"])
    except (KeyError, ValueError):
        return RateLimit.of(response).reset or 0.0


def _never_sent(error: requests.RequestException) -> bool:
    """Whether the connection failed before a request could go out."""
    if isinstance(error, (requests.exceptions.ConnectTimeout, requests.exceptions.ProxyError)):
        return True
    cause = error.args[0] if error.args else None
    if isinstance(cause, urllib3.exceptions.MaxRetryError):
        cause = cause.reason
    return isinstance(cause, urllib3.exceptions.NewConnectionError)


def _lost(what: str, problem: str) -> LostResponseError:
    return LostResponseError(
        f"the export of {what} was requested, but the answer was lost ({problem}): it may be running, so it"
        " is not requested again blindly"
    )
