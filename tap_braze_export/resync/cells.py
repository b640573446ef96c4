"""Turns a cell, as databases, spreadsheets and phone books write it, into an identifier's text."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

EXTERNAL_ID, USER_ALIAS, EMAIL, PHONE = "external_id", "user_alias", "email", "phone"
_MAX_CHARS = 2_000
_MAX_WHOLE_FLOAT = 2**53 - 1
"""Floats beyond it may have lost digits."""
_NULLS = frozenset({"NULL", "null", "Null", r"\N", "nan", "NaN", "NAN", "None", "<NA>", "NaT"})
"""The texts that databases and pandas write for no value."""
_PLACEHOLDERS = frozenset({"n/a", "na", "(null)", "[null]", "-", "--"})
_SHEET_ERROR = re.compile(r"#[A-Z0-9/]+[!?]?")
_INVISIBLE = "\u00ad\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff"
_REMOVED = str.maketrans("", "", _INVISIBLE)
_EDGES = _INVISIBLE + "\u00a0\u202f\u2007"
"""Characters at the edges of a text that nobody types into an id."""
_QUOTES = {"\u201c": "\u201d\u201c", "\u201e": "\u201c\u201d", "\u00ab": "\u00bb", "\u2018": "\u2019", '"': '"'}
"""Closing quotes by the opening one."""
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_WHOLE_FLOAT = re.compile(r"(\+?\d+)(\.0+|,00?)")
"""Matches 4711.0, and 4711,0 where decimals have a comma; 4,000 may have one between its thousands."""
_ROUNDED = re.compile(r"\d([.,]\d+)?E\+?\d+", re.IGNORECASE)
_SHEET_TEXT = re.compile(r"'\+?\d+")
"""A number that a spreadsheet keeps as text."""
_NAMED_ADDRESS = re.compile(r"[^<>]*<([^<>]+)>")
_PART = r'[^@\s,;<>()"\u201c\u201d\u201e\u00ab\u00bb\u2018\u2019]+'
_ADDRESS = re.compile(f"{_PART}@{_PART}")
_PHONE = re.compile(r"\+?\d{1,15}")
_TRUNK_ZERO = re.compile(r"(?<=\d)\s*\(0\)")
_PHONE_SIGNS = re.compile(r"(?<=\S)/(?=\S)|[\s().\u2010-\u2015\u2212-]")
"""Signs between the digits of one number; a slash between spaces stands between two numbers."""


def without_placeholder(cell: Any) -> Any:
    """A cell of a file; None if its text means no value, False if it says only that something is wrong."""
    text = cell.strip() if isinstance(cell, str) else ""
    if text in _NULLS:
        return None
    return False if text.lower() in _PLACEHOLDERS or _SHEET_ERROR.fullmatch(text) else cell


def identifier_text(kind: str, value: object) -> str | None:
    """An identifier as text: "" if it is empty, None if it cannot be such an identifier; Braze judges the rest."""
    text = _text(value)
    if not text or not text.strip(_EDGES + " \t\r\n"):
        return text and ""
    cleaned = _CLEANERS.get(kind, _other)(text)
    return None if _UNPRINTABLE.search(cleaned or "") else cleaned


def _text(value: object) -> str | None:
    if isinstance(value, float):
        if value != value:  # noqa: PLR0124 - not a number
            return ""
        value = int(value) if value.is_integer() and abs(value) <= _MAX_WHOLE_FLOAT else None
    elif value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) and len(value) <= _MAX_CHARS else None


def _id(text: str) -> str | None:
    """An external id or a part of an alias: blanks at its edges may belong to it."""
    text = _unquoted(text.strip(_EDGES), smart_only=True)
    return _number(text[1:] if _SHEET_TEXT.fullmatch(text) else text)


def _other(text: str) -> str | None:
    return _unquoted(text.translate(_REMOVED).strip()).lstrip("'")


def _email(text: str) -> str | None:
    text = _unquoted(text.translate(_REMOVED).strip()).strip("'")
    if named := _NAMED_ADDRESS.fullmatch(text):
        text = named[1].strip()
    if text.lower().startswith("mailto:"):
        text = text[len("mailto:") :].partition("?")[0]
    text = text.rstrip(",;").strip()
    return text if _ADDRESS.fullmatch(text) else None


def _phone(text: str) -> str | None:
    text = unicodedata.normalize("NFKC", _unquoted(text.translate(_REMOVED).strip())).strip("'")
    if text.lower().startswith("tel:"):
        text = text[len("tel:") :]
    number = _number(text.strip())
    if number and number.startswith("+"):
        number = _TRUNK_ZERO.sub("", number)
    number = _PHONE_SIGNS.sub("", number or "")
    return number if _PHONE.fullmatch(number) else None


def _number(text: str) -> str | None:
    """A text without the decimals that pandas gives to whole numbers; None if digits may be lost."""
    if _ROUNDED.fullmatch(text):
        return None
    if whole := _WHOLE_FLOAT.fullmatch(text):
        return whole[1] if int(whole[1]) <= _MAX_WHOLE_FLOAT else None
    return text


def _unquoted(text: str, *, smart_only: bool = False) -> str:
    """A text without the one pair of quotes around it."""
    if len(text) > 1 and text[-1] in _QUOTES.get(text[0], "") and not (smart_only and text[0] == '"'):
        return text[1:-1].strip()
    return text


_CLEANERS = {EXTERNAL_ID: _id, USER_ALIAS: _id, EMAIL: _email, PHONE: _phone}
