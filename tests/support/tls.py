"""A server with a certificate that nobody trusts."""

from __future__ import annotations

import ssl
import subprocess
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING

from tests.support.fakes import Server

if TYPE_CHECKING:
    import pytest

VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR", "AWS_CA_BUNDLE")


@cache
def self_signed() -> tuple[Path, Path]:
    """A self-signed certificate for this machine, and its key."""
    folder = Path(mkdtemp())
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return certificate, key


class TlsServer(Server):
    """A Server that speaks TLS with a self-signed certificate."""

    def __init__(self) -> None:
        super().__init__()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self_signed())
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = self.url.replace("http://", "https://")


def bad_bundles(folder: Path) -> dict[str, tuple[str, str]]:
    """Files that cannot be a list of trusted certificates, with what is said of them."""
    (folder / "page.pem").write_bytes(b"<html>\xff</html>")
    (folder / "empty.pem").write_bytes(b"")
    cut = folder / "cut.pem"
    cut.write_bytes(self_signed()[0].read_bytes()[:200])
    no_pem = "holds no certificates in PEM form"
    return {
        "missing": (str(folder / "none.pem"), "does not exist"),
        "a page": (str(folder / "page.pem"), no_pem),
        "empty": (str(folder / "empty.pem"), no_pem),
        "cut off": (str(cut), no_pem),
        "below a file": (str(folder / "page.pem" / "x.pem"), "cannot be read (NotADirectoryError)"),
    }


def set_only(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    """Set these variables for certificates, and no other one."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
