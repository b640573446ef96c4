#!/usr/bin/env bash
# filelock 4.2.11, FileLock: where the system answers flock with ENOSYS, the lock becomes one by existence of a file, after a
# warning. Such a lock outlives a process that is killed on another host, and a file that was there before counts as held:
# acquire() then raises Timeout. Where the system answers ENOLCK or EOPNOTSUPP, as mounts do as well, the OSError is raised.
# So one kind of refusal changes what a lock means, and the others do not. `fallback_to_soft=False` (3.30 and later) ends that.
# Output seen: "new file: SoftFileLock", "file that is there: Timeout", "ENOLCK: OSError", "fallback_to_soft=False: OSError".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check filelock==4.2.11
cd "$folder"
"$folder/venv/bin/python" -W ignore - >seen <<'PYTHON'
import errno
import fcntl
import os
from pathlib import Path

import filelock


def refuse_with(number):
    def flock(descriptor, operation):
        raise OSError(number, os.strerror(number))

    fcntl.flock = flock


def outcome(path, **options):
    lock = filelock.FileLock(path, timeout=0, **options)
    try:
        lock.acquire()
    except filelock.Timeout:
        return "Timeout"
    except OSError:
        return "OSError"
    name = type(lock).__name__
    lock.release()
    return name


refuse_with(errno.ENOSYS)
print("new file:", outcome("new"))
Path("there").touch()
print("file that is there:", outcome("there"))
print("fallback_to_soft=False:", outcome("other", fallback_to_soft=False))
refuse_with(errno.ENOLCK)
print("ENOLCK:", outcome("fourth"))
PYTHON
cat seen
diff seen - <<'EXPECTED'
new file: SoftFileLock
file that is there: Timeout
fallback_to_soft=False: OSError
ENOLCK: OSError
EXPECTED
