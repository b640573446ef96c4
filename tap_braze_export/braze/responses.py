"""Turns a response of Braze, or the lack of one, into an error: final, or to be repeated."""

from __future__ import annotations

import codecs
import json
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies

import msgspec
import requests
import urllib3.exceptions

from tap_braze_export.braze.rate_limit import RETRY_AFTER, RateLimit, retry_at
from tap_braze_export.errors import (
    AuthError,
    BrazeError,
    LostResponseError,
    RateLimitError,
    RunningExportError,
    foreign_text,
)
from tap_braze_export.http.certificates import OVER_REQUESTS, certificate_problem
from tap_braze_export.http.retry import RetryableError
from tap_braze_export.http.session import OversizedBodyError
from tap_braze_export.schema.storable_text import storable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tap_braze_export.braze.endpoints import Endpoint
    from tap_braze_export.clock import Clock

SHORTEST_IDENTIFIER_CHARS = 3
"""Shorter texts identify nobody, and occur in any sentence."""
MAX_ERROR_BYTES = 64 * 1024
"""Bytes of a refusal's body that are read: its message is a line."""
_MAX_SHOWN_ERRORS = 3
_SUCCESS = "success"
"""The member `message` of each success of Braze, also with warnings beside it."""
_TO_CONNECT = "check api_url, and that the firewall and the proxy settings of this machine let its requests through"
_RUNNING_WORDS = ("progress", "already", "running")


@dataclass(frozen=True)
class Call:
    """A call to an endpoint.

    Attributes:
        endpoint: The endpoint.
        what: The subject of the call, for messages.
        secrets: Texts that no message may hold.
    """

    endpoint: Endpoint
    what: str
    secrets: Sequence[str] = field(repr=False)

    def __str__(self) -> str:
        return f"{self.endpoint} ({self.what})"


class Received(NamedTuple):
    """A response to a call, its body or the beginning of it, and when the call was sent in epoch seconds."""

    call: Call
    response: requests.Response
    body: bytes
    sent_at: float

    def __str__(self) -> str:
        return f"{self.call.endpoint} responded {self.response.status_code}"


def refused(received: Received, clock: Clock) -> Exception:
    """The error to raise for a response that came just now and is no success."""
    call, response, _, sent_at = received
    endpoint, what = call.endpoint, call.what
    status = response.status_code
    message = _message(received)
    refusal = f"{endpoint} ({what}) was refused with {status}{f' ({message})' if message else ''}"
    advice = f"; {endpoint.advice}" if endpoint.advice else ""
    error: Exception = BrazeError(f"{refusal}{advice}", status)
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        error = AuthError(f"{refusal}: {_missing_access(endpoint, status)}", status)
    elif endpoint.starts_export and _is_running(response, message):
        error = RunningExportError(
            f"Braze is still exporting {what}, or has 100 exports running, and accepts no other now"
            f" ({status}{f', {message}' if message else ''})"
        )
    elif status == HTTPStatus.TOO_MANY_REQUESTS:
        until = retry_at(response, clock.now(), clock.monotonic())
        error = (
            RetryableError("rate limit", until)
            if endpoint.waits_for_rate_limit
            else RateLimitError(f"{call} failed: rate limit", until)
        )
    elif status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.REQUEST_TIMEOUT:
        problem = f"Braze responded {status}"
        error = _lost(what, problem, sent_at) if endpoint.starts_export else RetryableError(problem)
    elif status == HTTPStatus.NOT_FOUND:
        error = BrazeError(
            f"{refusal}: there is no such thing, or api_url is not the REST endpoint of your instance"
            f" (https://rest.….braze.com or .eu, without a path){advice}"
        )
    elif status < HTTPStatus.BAD_REQUEST:
        error = BrazeError(
            f"{refusal}: a redirect, not followed because it would take the key elsewhere; api_url may be wrong"
        )
    return error


def failed(call: Call, error: OSError, sent_at: float) -> Exception:
    """The error to raise when no response came; without the exception's text, which holds the URL."""
    name = type(error).__name__
    if isinstance(error, ValueError):
        return BrazeError(f"{call.endpoint} cannot be sent ({name}): {_improper_address()}")
    if problem := certificate_problem(error, "the host of api_url", OVER_REQUESTS):
        return BrazeError(f"{call} cannot be sent: {problem}")
    if isinstance(error, OversizedBodyError) and not call.endpoint.starts_export:
        return BrazeError(f"{call} gave a response that is refused, {error}: check api_url and any proxy")
    if _never_sent(error):
        problem = f"no connection to the host of api_url{_host(error)} ({_reason(error) or name})"
        return RetryableError(problem, advice=_TO_CONNECT)
    if call.endpoint.starts_export:
        return _lost(call.what, name, sent_at)
    return RetryableError(f"no response came ({name})")


def json_content(received: Received) -> dict[str, Any]:
    """The JSON object of a response that was no refusal.

    Raises:
        BrazeError: It is none.
    """
    content = decoded(received.body)
    if content is None:
        raise BrazeError(
            f"{received} without a JSON object: is api_url the REST endpoint of your instance"
            " (https://rest.….braze.com or .eu)?"
        )
    return content


def success_content(received: Received, member: str = "message", kind: type[object] = str) -> dict[str, Any]:
    """The content of a response that is Braze's own success, and no login page as JSON, or an error with status 200.

    It has a `member` of a documented type, by which a list is told from any other JSON also without `message`.

    Raises:
        BrazeError: It is not.
    """
    content = json_content(received)
    message = content.get("message", _SUCCESS if kind is list else None)
    if isinstance(message, str) and message.strip().lower() == _SUCCESS and isinstance(content.get(member), kind):
        return content
    text = foreign_text(message, received.call.secrets) if isinstance(message, str) else ""
    said = f" ({text})" if text else ""
    raise BrazeError(
        f"{received} with JSON that is not Braze's{said}, as it lacks success or `{member}`: is api_url the REST"
        " endpoint of your instance (https://rest.….braze.com or .eu), and does no proxy or login page respond in its"
        " place?"
    )


class _IdsBody(msgspec.Struct):
    users: list[msgspec.Raw]
    invalid_user_ids: msgspec.Raw = msgspec.Raw(b"[]")
    message: Any = None
    errors: Any = None


def read_ids_body(received: Received) -> tuple[list[bytes], list[Any]]:
    """Return the raw JSON of each user of an ids response, and the identifiers that matched nobody.

    Raises:
        RetryableError: It says nothing about anybody, although its status is one of success.
    """
    users: list[bytes] = []
    listed: list[Any] = []
    problem = "which means that nothing is done yet" if received.response.status_code == HTTPStatus.ACCEPTED else ""
    try:
        if content := _decoded_ids_body(received.body):
            users, listed = [bytes(user) for user in content.users], _listed(content.invalid_user_ids)
            problem = problem or _missing_in(content, users, listed)
        else:
            problem = problem or "without users"
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        problem = problem or f"with unreadable JSON ({len(received.body)} bytes)"
    if not problem:
        return users, listed
    message = _message(received)
    raise RetryableError(
        f"Braze responded {received.response.status_code} {problem}{f' ({message})' if message else ''}",
        advice="run again later; if that happens again, check that api_url is the REST endpoint of your instance and"
        " that no proxy changes responses",
    )


def _missing_in(content: _IdsBody, users: list[bytes], listed: list[Any]) -> str:
    """The fault of a body that does not say that Braze has looked for the users; empty if it does."""
    if content.message is None:
        has_succeeded = bool(users or listed)
    else:
        has_succeeded = isinstance(content.message, str) and content.message.strip().lower() == _SUCCESS
    if not has_succeeded:
        return "without the message success"
    if content.errors and not (users or listed):
        return "with errors instead of users"
    return "with users that are no objects" if users and not any(user.startswith(b"{") for user in users) else ""


def _decoded_ids_body(body: bytes) -> _IdsBody | None:
    """Decode a body, if need be with its text repaired as that of a line; None if it is JSON without users."""
    for text in (body, storable(body.removeprefix(codecs.BOM_UTF8))):
        try:
            return _IDS_DECODER.decode(text)
        except msgspec.ValidationError:
            _JSON_DECODER.decode(text)  # as a whole
            return None
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            problem = error
    raise problem


_IDS_DECODER = msgspec.json.Decoder(_IdsBody)
_JSON_DECODER = msgspec.json.Decoder(msgspec.Raw)


def _listed(text: msgspec.Raw) -> list[Any]:
    """The items of a list, numbers as they are written; none if it is something else."""
    try:
        listed = json.loads(bytes(text).decode(errors="replace"), parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        return []
    return listed if isinstance(listed, list) else []


def decoded(body: bytes) -> dict[str, Any] | None:
    """The JSON object of a body, None if it is something else."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _missing_access(endpoint: Endpoint, status: int) -> str:
    """Say what is wrong with the key, and what to do: 401 means an unknown key, 403 a key without permission."""
    if status == HTTPStatus.UNAUTHORIZED:
        return (
            "Braze does not know this key: copy api_key from Braze again, and check that it belongs to the instance of"
            f" api_url. If both are right, the key needs the permission {endpoint.permission}, or its IP allow-list"
            " lacks this machine's address; a key cannot be edited: create a new one"
        )
    return (
        f"api_key needs the permission {endpoint.permission}, must belong to the instance of api_url, and this"
        " machine's address must be on the key's IP allow-list, if it has one. A key cannot be edited: create a new one"
        " with what is missing"
    )


def _host(error: OSError) -> str:
    """The host of the request that failed, with its port and a space before it; empty if it is not known."""
    request = getattr(error, "request", None)
    host = urlsplit(str(request.url)).netloc.rpartition("@")[2] if request is not None else ""
    return f" {host}" if host else ""


def _reason(error: OSError) -> str:
    """Why no connection came about, in plain words; empty if that is none of the usual reasons."""
    if isinstance(error, requests.exceptions.ProxyError):
        return "the proxy of this machine's settings refuses it, or cannot be reached"
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return "it does not answer"
    cause = _cause(error)
    if isinstance(cause, urllib3.exceptions.NameResolutionError):
        return "there is no host of this name, or no name server can be reached"
    refused = isinstance(cause, urllib3.exceptions.NewConnectionError) and "refused" in str(cause).lower()
    return "connection refused" if refused else ""


def _improper_address() -> str:
    """The address that is at fault if no request can be made with it."""
    variables = ", ".join(f"{name}_proxy" for name in sorted(getproxies()) if name != "no")
    if not variables:
        return "api_url is no proper address"
    return (
        f"the environment sets {variables}, which must be like http://host:port (socks5:// needs the package PySocks);"
        " no_proxy names hosts that are reached without a proxy"
    )


def _message(received: Received) -> str:
    """Braze's own words, each text once; without those that may hold the key or personal data."""
    content, call = decoded(received.body) or {}, received.call
    message = next((content[name] for name in ("message", "error") if isinstance(content.get(name), str)), "")
    texts = [message, *_texts_of_errors(content.get("errors"))]
    shown = [
        foreign_text(text, call.secrets) for text in texts if not (call.endpoint.is_personal and _may_be_personal(text))
    ]
    return "; ".join(dict.fromkeys(filter(None, shown)))


def _texts_of_errors(errors: object) -> Iterator[str]:
    """The texts of `errors`: a list of texts, of objects with `message` and `id`, or of `type` (/users/track)."""
    for error in errors[:_MAX_SHOWN_ERRORS] if isinstance(errors, list) else [errors]:
        members = [error.get(name) for name in ("message", "id", "type")] if isinstance(error, dict) else [error]
        yield from [member for member in members if isinstance(member, str)][:1]


def _may_be_personal(text: str) -> bool:
    return "@" in text or sum(char.isdigit() for char in text) >= SHORTEST_IDENTIFIER_CHARS


def _is_running(response: requests.Response, message: str) -> bool:
    """True if a start was refused because an export is running: a 429 means that, too, and its text is undocumented."""
    text = message.lower()
    if response.status_code == HTTPStatus.TOO_MANY_REQUESTS:
        if RETRY_AFTER in response.headers:
            return False
        return any(word in text for word in _RUNNING_WORDS) or (RateLimit.of(response).remaining or 0) > 0
    return response.status_code == HTTPStatus.BAD_REQUEST and ("in progress" in text or "already running" in text)


def _never_sent(error: OSError) -> bool:
    """True if the connection failed before the request was sent."""
    if isinstance(error, (requests.exceptions.ConnectTimeout, requests.exceptions.ProxyError)):
        return True
    return isinstance(_cause(error), urllib3.exceptions.NewConnectionError)


def _cause(error: OSError) -> object:
    """The exception of urllib3 behind one of requests."""
    cause = error.args[0] if error.args else None
    return cause.reason if isinstance(cause, urllib3.exceptions.MaxRetryError) else cause


def _lost(what: str, problem: str, sent_at: float) -> LostResponseError:
    return LostResponseError(
        f"the export of {what} was requested, but the response was lost ({problem}): it may be running, so it"
        " is not requested again blindly",
        sent_at,
    )
