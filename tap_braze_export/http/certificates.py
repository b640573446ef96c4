"""Recognises errors about certificates in whatever library, and says which environment variable decides."""

from __future__ import annotations

import os
import re
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

from tap_braze_export.errors import foreign_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

OVER_REQUESTS = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
"""Variables that name the certificates that the tap's own connections trust; the first that is set counts."""
OVER_BOTO = ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE")
OVER_AIOHTTP = ("SSL_CERT_FILE", "SSL_CERT_DIR")

_SIGNS = (
    "CERTIFICATE_VERIFY_FAILED",
    "NO_CERTIFICATE_OR_CRL_FOUND",
    "Could not find a suitable TLS CA certificate bundle",
)
_REASON = re.compile(r"certificate verify failed: ([^(\[\]]+)")


def trusted_by_environment(variables: Sequence[str]) -> tuple[str, str] | None:
    """The first of these variables that is set, and its value."""
    return next(((name, value) for name in variables if (value := os.environ.get(name))), None)


def certificate_problem(error: BaseException, server: str, variables: Sequence[str]) -> str:
    """The fault of certificates and what to do, in one line; empty if an error has another cause.

    Args:
        error: Raised by a library for HTTP or a bucket.
        server: Its name in the line.
        variables: Those that name the trusted certificates for this library.
    """
    chain = list(_chain(error))
    told = next((str(link) for link in chain if any(sign in str(link) for sign in _SIGNS)), "")
    # What a library raises for a file that it cannot load has no sign of its own, but the file has the fault still.
    if not told and not any(_may_be_loading(link) for link in chain):
        return ""
    if fault := variable_fault(variables):
        return fault
    if not told:
        return ""
    found = _REASON.search(told)
    reason = f" ({foreign_text(found[1]).rstrip('. ')})" if found else ""
    if variable := trusted_by_environment(variables):
        name, path = variable
        return (
            f"the certificate of {server} is not trusted{reason}: {name} decides, so add your proxy's certificate, or"
            f" the server's, to {foreign_text(path)}"
        )
    return (
        f"the certificate of {server} is not trusted{reason}: if a proxy stands between, set {variables[0]} to a PEM"
        " file with its certificate and the public ones"
    )


def variable_fault(variables: Sequence[str]) -> str:
    """The fault of the variable that counts, in one line; empty if it can be used, or none is set."""
    variable = trusted_by_environment(variables)
    if variable is None or not (fault := _fault(variable[1])):
        return ""
    name, path = variable
    return f"{name} names {foreign_text(path)}, which {fault}: let it name a PEM file of trusted certificates"


def _fault(path: str) -> str:
    """The fault of a file of trusted certificates; empty if it can be used."""
    try:
        if Path(path).is_dir():
            return ""
        content = Path(path).read_bytes()
    except FileNotFoundError:
        return "does not exist"
    except (OSError, ValueError) as error:
        return f"cannot be read ({type(error).__name__})"
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=content.decode("ascii", "ignore"))
    except (ssl.SSLError, ValueError):
        return "holds no certificates in PEM form"
    return ""


def _may_be_loading(error: BaseException) -> bool:
    """True for what `ssl` raises when it cannot load a file, as it is or wrapped in a library's own error."""
    if isinstance(error, (FileNotFoundError, NotADirectoryError, PermissionError)):
        return error.errno is not None and error.filename is None
    return "SSLError" in type(error).__name__


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error with every other one that it holds or comes from."""
    waiting, seen = [error], set[int]()
    while waiting:
        link = waiting.pop()
        if id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        held = (link.__cause__, link.__context__, getattr(link, "reason", None), *link.args)
        waiting += [other for other in held if isinstance(other, BaseException)]
