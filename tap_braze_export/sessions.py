"""HTTP sessions: with the proxies and trusted certificates of the environment, never with a .netrc."""

from __future__ import annotations

from typing import Any

import requests
import requests.adapters
from typing_extensions import override

from tap_braze_export.certificates import OVER_REQUESTS, trusted_by_environment

_MAX_CONNECTIONS = 64


class Session(requests.Session):
    """A session that sends no credentials but those that a request brings, on no hop of a redirect."""

    def __init__(self) -> None:
        super().__init__()
        self.auth = _unchanged  # without one, requests looks into .netrc
        for scheme in ("https://", "http://"):
            self.mount(scheme, requests.adapters.HTTPAdapter(pool_maxsize=_MAX_CONNECTIONS))

    @override
    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        """Drop the credentials where a redirect leads to another host, and add none."""
        headers, before, now = prepared_request.headers, response.request.url, prepared_request.url
        if "Authorization" in headers and self.should_strip_auth(before, now):  # type: ignore[no-untyped-call]
            del headers["Authorization"]

    @override
    def merge_environment_settings(self, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any) -> Any:
        """Let SSL_CERT_FILE count, too, where no variable of requests is set."""
        settings = super().merge_environment_settings(url, proxies, stream, verify, cert)
        if settings["verify"] is True and (bundle := trusted_by_environment(OVER_REQUESTS)):
            settings["verify"] = bundle[1]
        return settings


def _unchanged(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request
