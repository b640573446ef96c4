"""A truncated object is recognized by another one that begins with all that can be read of it, and by nothing less."""

from __future__ import annotations

import gzip
import io
import random
import zipfile
from typing import TYPE_CHECKING, Any, BinaryIO

from hypothesis import given, settings
from hypothesis import strategies as st

from tap_braze_export.files import leftovers
from tap_braze_export.files.objects import BucketObject
from tests.support.archives import Pipe

if TYPE_CHECKING:
    from collections.abc import Callable


def users(seed: int, count: int = 40) -> bytes:
    dice = random.Random(seed)
    return b"".join(
        b'{"braze_id":"%d-%d","email":"%x@example.com"}\n' % (seed, number, dice.getrandbits(128))
        for number in range(count)
    )


def zipped(content: bytes, *, method: int = zipfile.ZIP_DEFLATED, level: int = 6, parts: int = 1) -> bytes:
    written = io.BytesIO()
    write_zip(written, content, method, level, parts)
    return written.getvalue()


def piped(content: bytes) -> bytes:
    """A zip whose sizes follow the data of each file."""
    pipe = Pipe()
    write_zip(io.BufferedWriter(pipe), content, zipfile.ZIP_DEFLATED, 6, 3)
    return bytes(pipe.written)


def write_zip(to: Any, content: bytes, method: int, level: int, parts: int) -> None:
    size = -(-len(content) // parts)
    with zipfile.ZipFile(to, "w", method, compresslevel=level) as archive:
        for number in range(parts):
            archive.writestr(f"{random.getrandbits(64):x}.txt", content[number * size : (number + 1) * size])
    to.flush()


FORMS: dict[str, Callable[[bytes], bytes]] = {
    "zip": zipped,
    "zip of another level": lambda content: zipped(content, level=1),
    "stored zip": lambda content: zipped(content, method=zipfile.ZIP_STORED),
    "zip of three files": lambda content: zipped(content, parts=3),
    "zip without sizes in its headers": piped,
    "gzip": lambda content: gzip.compress(content, mtime=1),
    "gzip of several members": lambda content: gzip.compress(content[:900]) + gzip.compress(content[900:]),
}


class Objects(dict[str, bytes]):
    """Opens objects in memory."""

    def open(self, stored: BucketObject, *, end_bytes: int = 0) -> BinaryIO:
        return io.BytesIO(self[stored.name])

    def twin_of(self, name: str) -> str:
        made = [BucketObject(each, each, len(content), "") for each, content in self.items()]
        found = leftovers.twin(self, next(m for m in made if m.name == name), [m for m in made if m.name != name])
        return found.name if found else ""


def test_a_cut_file_is_recognized_however_both_were_compressed() -> None:
    """Braze writes it anew, with another time and name inside."""
    for cut_form, write in FORMS.items():
        for form, write_anew in FORMS.items():
            objects = Objects({f"{seed}": write_anew(users(seed)) for seed in range(4)})
            content = write(users(2))
            objects["left"] = content[: len(content) * 3 // 4]
            assert objects.twin_of("left") == "2", (cut_form, form)


@given(
    form=st.sampled_from([*FORMS]),
    part=st.floats(0, 1),
    seeds=st.lists(st.integers(0, 3), max_size=4, unique=True),
    flipped=st.none() | st.integers(0, 300),
)
@settings(max_examples=150, deadline=None)
def test_no_other_file_is_taken_for_it(form: str, part: float, seeds: list[int], flipped: int | None) -> None:
    """Wherever it is cut, and if one letter of its users differs."""
    content = bytearray(users(1))
    if flipped is not None:
        content[flipped] ^= 1
    left = FORMS[form](bytes(content))
    left = left[: int(len(left) * part)]
    objects = Objects({f"{seed}": zipped(users(seed)) for seed in seeds} | {"left": left})

    found = objects.twin_of("left")

    assert found in {"", "1"}
    assert not (found and flipped is not None and part > 0.7)


def test_a_long_file_is_compared_to_its_cut() -> None:
    """Not only in its beginning."""
    content = bytearray(users(1, 60_000))
    objects = Objects({"1": gzip.compress(bytes(content), 1)})
    objects["left"] = gzip.compress(bytes(content), 2)[:-100]
    assert objects.twin_of("left") == "1"

    content[-50_000] ^= 1
    objects["1"] = gzip.compress(bytes(content), 1)
    assert objects.twin_of("left") == ""
