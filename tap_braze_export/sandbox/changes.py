"""Users that differ from the same seed's: what a day changes in a profile, as if the sandbox were a day older."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from tap_braze_export.sandbox import vocabulary as words
from tap_braze_export.sandbox.users import WHOLE, Population, hex_uuid
from tap_braze_export.sandbox.vocabulary import dump

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tap_braze_export.sandbox.selection import Selection

    # Changes one user object; gets its index and 64 random bytes, too.
    Change = Callable[[dict[str, Any], int, bytes], None]

_NEW_DEVICE_ORDINAL = 0x40  # higher than those of the devices that users have from the start
_LEAVES, _JOINS = 128, 14  # of 256 changed users; there are nine times as many to join, so sizes stay similar
_MEMBERSHIP_ROLL = 63
_CHANGED_AT = datetime(2026, 9, 2, tzinfo=UTC).timestamp()


def _now(dice: bytes) -> str:
    """A moment after everything that the users have from the start."""
    return f"2026-09-01T{dice[0] % 24:02d}:{dice[1] % 60:02d}:{dice[2] % 60:02d}.000Z"


def _opens_the_app(user: dict[str, Any], _: int, dice: bytes) -> None:
    app = user["apps"][0]
    sessions = app["sessions"]
    app |= {"sessions": type(sessions)(int(sessions) + 1), "last_used": _now(dice)}


def _happens(user: dict[str, Any], member: str, pool: tuple[tuple[str, ...], ...], dice: bytes, at: int) -> None:
    """Count one more of what the user has already, or add what is new to the user."""
    items = user.setdefault(member, [])
    if items and dice[at] & 1:
        item = items[dice[at + 1] % len(items)]
        item |= {"count": item["count"] + 1, "last": _now(dice)}
        return
    new = json.loads(pool[dice[at + 1] % len(pool)][0])
    known = next((item for item in items if item["name"] == new["name"]), None)
    if known:
        known |= {"count": known["count"] + 1, "last": _now(dice)}
    else:
        items.append(new | {"first": _now(dice), "last": _now(dice), "count": 1})


def _does_something(user: dict[str, Any], _: int, dice: bytes) -> None:
    _happens(user, "custom_events", words.EVENTS, dice, 4)


def _loses_an_old_event(user: dict[str, Any], _: int, __: bytes) -> None:
    """As after 90 days without it."""
    if len(user.get("custom_events", ())) > 1:
        del user["custom_events"][0]


def _buys(user: dict[str, Any], _: int, dice: bytes) -> None:
    _happens(user, "purchases", words.PURCHASES, dice, 6)
    user["total_revenue"] = round(user["total_revenue"] + 1 + dice[8] / 4, 2)


def _earns_points(user: dict[str, Any], _: int, dice: bytes) -> None:
    user.setdefault("custom_attributes", {})["loyaltyPointsNumber"] = 1000 + dice[9]


def _receives_a_campaign(user: dict[str, Any], _: int, dice: bytes) -> None:
    new = json.loads(words.CAMPAIGNS[dice[10] % len(words.CAMPAIGNS)][dice[11] % words.VARIANTS])
    others = [each for each in user.get("campaigns_received", ()) if each["api_campaign_id"] != new["api_campaign_id"]]
    user["campaigns_received"] = [*others, new | {"last_received": _now(dice)}]


def _subscribes_or_not(user: dict[str, Any], _: int, dice: bytes) -> None:
    channel = ("push", "email")[dice[12] & 1]
    leaves = user[f"{channel}_subscribe"] != "unsubscribed"
    user[f"{channel}_subscribe"] = "unsubscribed" if leaves else "opted_in"
    user[f"{channel}_unsubscribed_at" if leaves else f"{channel}_opted_in_at"] = _now(dice)
    user.pop(f"{channel}_opted_in_at" if leaves else f"{channel}_unsubscribed_at", None)


def _has_a_new_phone(user: dict[str, Any], index: int, dice: bytes) -> None:
    """The new device and its token replace the last one."""
    old = user["devices"].pop().get("device_id")
    new = hex_uuid(index, dice, 26, _NEW_DEVICE_ORDINAL)
    user["devices"].append(
        {"model": "Pixel 10", "os": "Android (B)", "carrier": None, "device_id": new, "ad_tracking_enabled": True}
    )
    kept = [token for token in user.get("push_tokens", ()) if token["device_id"] != old]
    token = {
        "app": "Shop Android",
        "platform": "Android",
        "token": f"{dice.hex()}:APA91b",
        "device_id": new,
        "notifications_enabled": True,
        "provisionally_opted_in": None,
    }
    user["push_tokens"] = [*kept, token]


def _gets_a_card(user: dict[str, Any], index: int, _: bytes) -> None:
    card = {"alias_name": f"member{index}", "alias_label": "loyalty_card"}
    user["user_aliases"] = [*user.get("user_aliases", ()), card]


def _moves(user: dict[str, Any], _: int, dice: bytes) -> None:
    place = words.PLACES[dice[13] % len(words.PLACES)]
    user |= dict(zip(("country", "language", "time_zone", "home_city"), place, strict=False))


def _has_another_address(user: dict[str, Any], index: int, _: bytes) -> None:
    user["email"] = f"person{index}@example.net"


_CHANGES: tuple[tuple[int, Change], ...] = (
    (256, _opens_the_app),
    (224, _does_something),
    (64, _loses_an_old_event),
    (192, _buys),
    (160, _earns_points),
    (128, _receives_a_campaign),
    (64, _subscribes_or_not),
    (64, _has_a_new_phone),
    (32, _gets_a_card),
    (32, _moves),
    (16, _has_another_address),
)
"""How many of 256 changed users have each change; the first one, which all have, sees to it that they differ."""
_FIRST_CHANGE_ROLL = 40


class ChangedPopulation(Population):
    """The users of a seed, of which a share has changed; those of a smaller share are among those of a larger one.

    Args:
        seed: Of the users.
        percent: How many of a hundred users differ, each in the same way for every share.
        started_at: When the sandbox started, in epoch seconds: the changed users were updated then.
    """

    def __init__(self, seed: int, percent: float, started_at: float = _CHANGED_AT) -> None:
        super().__init__(seed, started_at)
        self._percent = percent
        self._started_at = started_at

    def updated_at(self, index: int) -> float:
        """When one user was last updated, in epoch seconds."""
        return self._started_at if self._is_changed(self._dice(index)) else super().updated_at(index)

    def line(self, index: int, selection: Selection) -> bytes:
        """One user as a line of JSON (without line end), with the selected members."""
        dice = self._dice(index)
        if not self._is_changed(dice):
            return super().line(index, selection)
        user = json.loads(super().line(index, WHOLE))
        for roll, (chance, change) in zip(dice[_FIRST_CHANGE_ROLL:], _CHANGES, strict=False):
            if roll < chance:
                change(user, index, dice)
        return dump(selection.of_object(user)).encode()

    def members(self, usual: range, everybody: range) -> Sequence[int]:
        """The members of a segment: some changed users leave it, some join it."""
        return [index for index in everybody if (index in usual) != self._changes_membership(index, index in usual)]

    def _changes_membership(self, index: int, is_member: bool) -> bool:  # noqa: FBT001 - one caller
        dice = self._dice(index)
        return self._is_changed(dice) and dice[_MEMBERSHIP_ROLL] < (_LEAVES if is_member else _JOINS)

    def _dice(self, index: int) -> bytes:
        return blake2b(b"changes of %d" % index, key=self.key).digest()

    def _is_changed(self, dice: bytes) -> bool:
        return int.from_bytes(dice[-8:-1]) * 100 < self._percent * 2**56
