"""Every way a run can end badly, chosen by what should happen next.

TapError                 ends the run: one ERROR line, exit code 1
├── ConfigError          the user changes a setting
├── OutputError          standard output cannot be written
├── BrazeError           Braze refused a call
│   ├── AuthError        the key is wrong or lacks a permission (401, 403)
│   ├── RateLimitError   the rate limit is used up (429): the caller slows all its requests down
│   ├── RunningExportError   the segment is already being exported (429 with free rate limit)
│   └── LostResponseError  a POST was sent and no answer came back: it may have started something
└── ExportError          this export is given up; the others go on and the run fails at its end
    ├── InterruptedExportError  not for good: the next run continues the export
    │   └── DiskFullError  the disk of spool_dir has no room: it may have once other exports are read
    └── DamagedFileError a delivered file cannot be read; it is fetched once more first

The message is the whole error for the person on call: what, which, why, what to do. It never holds the API
key, a signed URL's query, a bucket option or personal data.
"""

from __future__ import annotations

import re
import traceback
from difflib import get_close_matches
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import logging
    from collections.abc import Iterable, Iterator

_NAME = re.compile(r"\s*[A-Za-z_][\w .-]{0,63}", re.ASCII)
_MAX_NAMES = 10
_MAX_CHARS = 64


class TapError(Exception):
    """A failure that a user can cause or mend."""


class ConfigError(TapError):
    """The configuration cannot work as it is."""


class OutputError(TapError):
    """Standard output is closed, or its disk is full."""


class BrazeError(TapError):
    """Braze refused a call, or could not be reached.

    Attributes:
        status: Of the answer that refused it, where there was one.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class AuthError(BrazeError):
    """The API key is wrong, or lacks the permission that the message names."""


class RateLimitError(BrazeError):
    """The rate limit is used up until `until`: seconds of the monotonic clock, 0 if Braze does not say."""

    def __init__(self, message: str, until: float) -> None:
        super().__init__(message)
        self.until = until


class RunningExportError(BrazeError):
    """Braze is still exporting this segment and takes no second export of it."""


class LostResponseError(BrazeError):
    """A POST was sent at `sent_at` (epoch seconds) but no response came, so it must not be repeated blindly."""

    def __init__(self, message: str, sent_at: float) -> None:
        super().__init__(message)
        self.sent_at = sent_at


class ExportError(TapError):
    """One export cannot be read to its end."""


class InterruptedExportError(ExportError):
    """This run cannot start an export or get its files, for Braze is busy, or the network or disk; the next one may."""


class DiskFullError(InterruptedExportError):
    """The disk of spool_dir has no room for an export's files."""


class DamagedFileError(ExportError):
    """A delivered file is truncated, has a wrong checksum or is no archive."""


def unforeseen(error: Exception) -> str:
    """An unexpected error in one line: type and place only, as its text may hold personal data."""
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    place = " < ".join(f"{frame.filename.rpartition('/')[2]}:{frame.lineno}" for frame in reversed(frames))
    return f"Unforeseen {type(error).__name__} at {place}: please report this line"


def foreign_text(text: str, secrets: Iterable[str] = ()) -> str:
    """Text of another program as part of a message: one line of at most 200 characters, no URL; "" if it is secret."""
    if any(secret in text for secret in secrets if secret):
        return ""
    return re.sub(r"\w+://\S+", "<url>", one_line(text))[:200]


def one_line(text: str) -> str:
    """Text without line ends and control characters, which would reach into the terminal that shows a log."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def described(error: Exception, secrets: Iterable[str] = ()) -> str:
    """An error of another library in one line: its type, and its text unless that is secret."""
    text = foreign_text(str(error), secrets)
    return f"{type(error).__name__}{f' ({text})' if text else ''}"


def nearest(name: str, known: Iterable[str], *, cutoff: float = 0.6) -> str:
    """The known name of which another may be a misspelling; empty if none is as similar as `cutoff` says."""
    by_spelling = {each.lower(): each for each in known}
    spelling = re.sub(r"\W+", "_", name.strip()[:_MAX_CHARS].lower())
    return next((by_spelling[each] for each in get_close_matches(spelling, by_spelling, n=1, cutoff=cutoff)), "")


def with_nearest(name: str, known: Iterable[str]) -> str:
    """A name that is not known, with the nearest known one where there is one."""
    shown = name.strip()[:_MAX_CHARS] or "(blank)"
    near = nearest(shown, known)
    return f"{shown} (did you mean {near}?)" if near else shown


def unknown_names(names: Iterable[str], known: Iterable[str]) -> list[str]:
    """Names that are not known, each with the nearest known one; what may be a value and no name is only counted."""
    known = [*known]
    unknown = sorted(set(names))
    shown = [name for name in unknown if _NAME.fullmatch(name)][:_MAX_NAMES]
    result = [with_nearest(name, known) for name in shown]
    if more := len(unknown) - len(shown):
        result.append(f"{more} more")
    return result


class Problem(NamedTuple):
    """A name that matches nothing, or the fault of an expression.

    Attributes:
        text: Which setting and which name, without values of rows.
        remedy: Why it matters and what to do, where the text does not say so; told once for several problems.
        is_refused: True if the run would export what the user meant to take away, or could not end well.
    """

    text: str
    remedy: str = ""
    is_refused: bool = True


def problems_in_words(problems: Iterable[Problem]) -> str:
    """Word problems, those with one remedy together."""
    by_remedy: dict[str, dict[str, None]] = {}
    for problem in problems:
        by_remedy.setdefault(problem.remedy, {})[problem.text] = None
    words = []
    for remedy, texts in by_remedy.items():
        more = [f"{len(texts) - _MAX_NAMES} more"] if len(texts) > _MAX_NAMES else []
        words.append("; ".join([*texts][:_MAX_NAMES] + more) + (f": {remedy}" if remedy else ""))
    return "; ".join(words)


def warn_of(problems: Iterable[Problem], logger: logging.Logger) -> None:
    """Log problems, none of which ends anything."""
    for problem in dict.fromkeys(problems):
        logger.warning("%s", one_line(problems_in_words([problem])))


def refuse(problems: Iterable[Problem], logger: logging.Logger) -> None:
    """Log what does no harm.

    Raises:
        ConfigError: Something does; the message names all of it.
    """
    listed = [*problems]
    warn_of((problem for problem in listed if not problem.is_refused), logger)
    if refused := problems_in_words(problem for problem in listed if problem.is_refused):
        raise ConfigError(refused)


def texts_in(value: object, *, min_chars: int) -> Iterator[str]:
    """Every text of at least `min_chars` characters in a value of nested dicts and lists, keys excepted."""
    if isinstance(value, str):
        if len(value) >= min_chars:
            yield value
    elif isinstance(value, dict):
        for member in value.values():
            yield from texts_in(member, min_chars=min_chars)
    elif isinstance(value, (list, tuple)):
        for member in value:
            yield from texts_in(member, min_chars=min_chars)
