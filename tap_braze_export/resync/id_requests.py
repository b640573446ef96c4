"""Identifiers to requests of the ids export, and what an answer means for each of them.

Source: https://www.braze.com/docs/api/endpoints/export/user_data/post_users_identifier
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from tap_braze_export.resync.identifiers import BRAZE_ID, DEVICE_ID, EMAIL, EXTERNAL_ID, PHONE, USER_ALIAS
from tap_braze_export.rows.decode import UnreadableLineError, decode_user

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tap_braze_export.braze.client import IdsResponse
    from tap_braze_export.resync.identifiers import Identifier
    from tap_braze_export.schema.selection import RequestedFields

IDENTIFIERS_AT_ONCE = 50
"""External ids and aliases together; of every other kind one. Braze's pages leave open whether it is 50 of each."""
_MOST_HELD = 100
_PARAMETERS = {BRAZE_ID: "braze_id", EMAIL: "email_address", PHONE: "phone", DEVICE_ID: "device_id"}


@dataclass
class Request:
    """The identifiers of one request: external ids and aliases, or a single one of another kind."""

    identifiers: list[Identifier] = field(repr=False)

    def body(self, fields: RequestedFields) -> dict[str, Any]:
        """Its JSON; asks also for what tells which user belongs to which identifier."""
        names = set(fields.fields_to_export)
        if fields.custom_attributes_to_export:
            names.add("custom_attributes")  # this endpoint gives all of them or none
        body: dict[str, Any] = {}
        for identifier in self.identifiers:
            if identifier.kind == EXTERNAL_ID:
                names.add("external_id")
                body.setdefault("external_ids", []).append(identifier.value)
            elif identifier.kind == USER_ALIAS:
                names.add("user_aliases")
                alias = {"alias_name": identifier.value, "alias_label": identifier.alias_label}
                body.setdefault("user_aliases", []).append(alias)
            else:
                body[_PARAMETERS[identifier.kind]] = identifier.value
        return {**body, "fields_to_export": sorted(names)}

    @property
    def rows(self) -> str:
        """Where its identifiers were read: what may be told of them."""
        first, last = self.identifiers[0], self.identifiers[-1]
        if first[3:] == last[3:]:
            return f"{first.setting} row {first.row}"
        if first.setting == last.setting:
            return f"{first.setting} rows {first.row} to {last.row}"
        return f"{first.setting} row {first.row} to {last.setting} row {last.row}"


def requests(identifiers: Iterable[Identifier]) -> Iterator[Request]:
    """As few requests as possible, in the order of each one's first identifier.

    The same identifiers always give the same requests: a resync that broke off counts them. Where kinds alternate,
    a request is filled up from a little further on rather than sent with one external id.
    """
    held: deque[Request] = deque()
    filling: Request | None = None
    for identifier in identifiers:
        if identifier.kind not in {EXTERNAL_ID, USER_ALIAS}:
            held.append(Request([identifier]))
        elif filling is None:
            filling = Request([identifier])
            held.append(filling)
        else:
            filling.identifiers.append(identifier)
        if filling and (len(filling.identifiers) == IDENTIFIERS_AT_ONCE or len(held) > _MOST_HELD):
            filling = None
        while held and held[0] is not filling:
            yield held.popleft()
    yield from held


class Found(NamedTuple):
    """A user of an answer."""

    braze_id: str
    """Empty if it cannot be read; such a line is rejected later."""
    line: bytes


def assign(request: Request, answer: IdsResponse) -> tuple[list[Found], list[Identifier]]:
    """The users of an answer in the order of the request's identifiers, and the identifiers that matched nobody.

    Misses are computed: Braze's own list is documented for external ids alone. Only where a user of the answer
    belongs to none of the identifiers, so that it must belong to one in another spelling, Braze's list is relied on.
    """
    names = [_Names.of(user) for user in answer.users]
    users = [Found(who.braze_id, line) for who, line in zip(names, answer.users, strict=True)]
    first, *others = request.identifiers
    if first.kind in _PARAMETERS:
        return users, [] if users else [first]
    places = {identifier[:3]: place for place, identifier in enumerate((first, *others))}
    matched: set[int] = set()
    order: list[tuple[int, int]] = []
    for index, who in enumerate(names):
        hits = [places[key] for key in who.identifiers() if key in places]
        matched.update(hits)
        order.append((min(hits, default=len(places)), index))
    misses = [identifier for place, identifier in enumerate(request.identifiers) if place not in matched]
    if any(place == len(places) for place, _ in order):
        listed = {_as_key(item) for item in answer.invalid_user_ids}
        misses = [identifier for identifier in misses if identifier[:3] in listed]
    return [users[index] for _, index in sorted(order)], misses


class _Names(msgspec.Struct):
    """What of a user tells who it is."""

    braze_id: Any = None
    external_id: Any = None
    user_aliases: Any = None

    @classmethod
    def of(cls, user: bytes) -> _Names:
        try:
            who = _NAMES.decode(user)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            who = cls()
        if isinstance(who.braze_id, str) and b"\\u0000" not in user:
            return who
        try:
            braze_id, members = decode_user(user)
        except UnreadableLineError:
            return cls("", who.external_id, who.user_aliases)
        return cls(braze_id, members.get("external_id"), members.get("user_aliases"))

    def identifiers(self) -> Iterator[tuple[str, str, str]]:
        """Its identifiers, as `Identifier` begins."""
        if self.external_id is not None:
            yield EXTERNAL_ID, str(self.external_id), ""
        aliases = [self.user_aliases] if isinstance(self.user_aliases, dict) else self.user_aliases
        for alias in aliases if isinstance(aliases, list) else ():
            yield _as_key(alias)


_NAMES = msgspec.json.Decoder(_Names)


def _as_key(item: Any) -> tuple[str, str, str]:
    if isinstance(item, dict):
        return USER_ALIAS, str(item.get("alias_name")), str(item.get("alias_label"))
    return EXTERNAL_ID, str(item), ""
