"""Packs identifiers into requests of the ids export, and matches each response with its request's identifiers.

Source: https://www.braze.com/docs/api/endpoints/export/user_data/post_users_identifier
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from tap_braze_export.resync.cells import EMAIL, EXTERNAL_ID, USER_ALIAS
from tap_braze_export.rows.decode import UnreadableLineError, decode_user

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tap_braze_export.braze.client import IdsResponse
    from tap_braze_export.resync.identifiers import Identifier
    from tap_braze_export.schema.selection import RequestedFields

_MAX_IDENTIFIERS = 50
"""External ids and aliases of one request together. Braze's pages leave open whether it is 50 of each."""
_SHARING_KINDS = frozenset({EXTERNAL_ID, USER_ALIAS})
"""Kinds of which a request may name several; of every other kind it names a single one."""
_PARAMETERS = {EMAIL: "email_address"}
"""Braze's name for a kind, where it is another one."""
_MAX_HELD_REQUESTS = 100

Request = list["Identifier"]
"""The identifiers of one request: external ids and aliases, or a single one of another kind."""


def plan_requests(identifiers: Iterable[Identifier]) -> Iterator[Request]:
    """As few requests as possible, in the order of each one's first identifier.

    The same identifiers always give the same requests, because STATE counts them. Where kinds alternate, a request
    is filled up with later identifiers rather than sent with a single external id.
    """
    held: deque[Request] = deque()
    filling: Request | None = None
    for identifier in identifiers:
        if identifier.kind not in _SHARING_KINDS:
            held.append([identifier])
        elif filling is None:
            filling = [identifier]
            held.append(filling)
        else:
            filling.append(identifier)
        if filling and (len(filling) == _MAX_IDENTIFIERS or len(held) > _MAX_HELD_REQUESTS):
            filling = None
        while held and held[0] is not filling:
            yield held.popleft()
    yield from held


def request_body(request: Request, fields: RequestedFields | None) -> dict[str, Any]:
    """The JSON of a request; asks also for the fields by which a user is matched with its identifier.

    Args:
        request: The identifiers.
        fields: None to ask for `braze_id` alone.
    """
    names = set(fields.fields_to_export if fields else ["braze_id"])
    if fields and fields.custom_attributes_to_export:
        names.add("custom_attributes")  # this endpoint gives all of them or none
    body: dict[str, Any] = {}
    for identifier in request:
        if identifier.kind == EXTERNAL_ID:
            names.add("external_id")
            body.setdefault("external_ids", []).append(identifier.value)
        elif identifier.kind == USER_ALIAS:
            names.add("user_aliases")
            alias = {"alias_name": identifier.value, "alias_label": identifier.alias_label}
            body.setdefault("user_aliases", []).append(alias)
        else:
            body[_PARAMETERS.get(identifier.kind, identifier.kind)] = identifier.value
    return {**body, "fields_to_export": sorted(names) if fields else ["braze_id"]}


class FoundUser(NamedTuple):
    """A user of a response.

    Attributes:
        braze_id: Empty if it cannot be read; the rows' reader rejects such a line later.
        line: The user as JSON.
    """

    braze_id: str
    line: bytes


def match_response(request: Request, response: IdsResponse) -> tuple[list[FoundUser], list[Identifier]]:
    """The users of a response in the order of the request's identifiers, and the identifiers that matched nobody.

    Misses are computed: Braze's own list is documented for external ids alone. Only where a user of the response
    belongs to none of the identifiers, so that Braze must know one of them in another spelling, its list is used.
    """
    names = [_UserNames.of(user) for user in response.users]
    users = [FoundUser(name.braze_id, line) for name, line in zip(names, response.users, strict=True)]
    if request[0].kind not in _SHARING_KINDS:
        return users, [] if users else request
    positions = {identifier.key: position for position, identifier in enumerate(request)}
    nowhere = len(positions)
    matched: set[int] = set()
    user_positions: list[int] = []
    for name in names:
        hits = [positions[key] for key in name.identifier_keys() if key in positions]
        matched.update(hits)
        user_positions.append(min(hits, default=nowhere))
    misses = [identifier for position, identifier in enumerate(request) if position not in matched]
    if nowhere in user_positions:
        listed = {_key(item) for item in response.invalid_user_ids}
        misses = [identifier for identifier in misses if identifier.key in listed]
    order = sorted(range(len(users)), key=user_positions.__getitem__)
    return [users[index] for index in order], misses


class _UserNames(msgspec.Struct):
    """The members of a user that say who it is."""

    braze_id: Any = None
    external_id: Any = None
    user_aliases: Any = None

    @classmethod
    def of(cls, user: bytes) -> _UserNames:
        try:
            names = _NAMES_DECODER.decode(user)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            names = cls()
        if isinstance(names.braze_id, str) and b"\\u0000" not in user:
            return names
        try:
            braze_id, members = decode_user(user)
        except UnreadableLineError:
            return cls("", names.external_id, names.user_aliases)
        return cls(braze_id, members.get("external_id"), members.get("user_aliases"))

    def identifier_keys(self) -> Iterator[tuple[str, str, str]]:
        """Its identifiers, as `Identifier.key`."""
        if self.external_id is not None:
            yield EXTERNAL_ID, str(self.external_id), ""
        aliases = [self.user_aliases] if isinstance(self.user_aliases, dict) else self.user_aliases
        for alias in aliases if isinstance(aliases, list) else ():
            yield _key(alias)


_NAMES_DECODER = msgspec.json.Decoder(_UserNames)


def _key(item: Any) -> tuple[str, str, str]:
    if isinstance(item, dict):
        return USER_ALIAS, str(item.get("alias_name")), str(item.get("alias_label"))
    return EXTERNAL_ID, str(item), ""
