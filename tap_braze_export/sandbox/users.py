"""Made-up users from a seed: the same seed and index give the same user, in any process and selection."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING

from tap_braze_export.sandbox import vocabulary as words
from tap_braze_export.sandbox.attributes import ATTRIBUTES
from tap_braze_export.sandbox.selection import Selection
from tap_braze_export.sandbox.vocabulary import dump

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    # From index and 64 random bytes to one rendered member, or "" where the user has none.
    Render = Callable[[int, bytes], str]

_LIGHT, _MEDIUM = 96, 235  # of 256: below the first a user has few events, from the second on very many
_ANONYMOUS, _ALIAS_ONLY = 12, 25  # of 256
_USERS_PER_SHARED_EMAIL = 50  # the last of each 50 users has the e-mail address of the user before


def _level(dice: bytes) -> int:
    return (dice[0] >= _LIGHT) + (dice[0] >= _MEDIUM)


def hex_uuid(index: int, dice: bytes, at: int, ordinal: int) -> str:
    """A UUID that ends in the index, so that the user is found without a table."""
    digits = dice.hex()[at : at + 18]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[12:15]}-8{digits[15:]}-{index:010x}{ordinal:02x}"


def _braze_id(index: int, dice: bytes) -> str:
    return f'"braze_id":"{_id(index, dice)}"'


def _id(index: int, dice: bytes) -> str:
    return f"{words.MOMENTS[(dice[2] << 4) | (dice[3] >> 4)][0] // 1000:08x}{dice[8:12].hex()}{index:08x}"


def _appboy_id(index: int, dice: bytes) -> str:
    return f'"appboy_id":"{_id(index, dice)}"'


def _external_id(index: int, dice: bytes) -> str:
    if dice[1] < _ALIAS_ONLY:
        return ""
    kind = index % 4
    if kind == 0:
        return f'"external_id":"user-{index:07d}"'
    if kind == 1:
        return f'"external_id":"{100000 + index}"'
    if kind == 2:  # noqa: PLR2004
        return f'"external_id":"{hex_uuid(index, dice, 60, 0)}"'
    return f'"external_id":"member{index}@crm.example.com"'


def _user_aliases(index: int, dice: bytes) -> str:
    if dice[1] < _ANONYMOUS:
        return ""
    crm = f'{{"alias_name":"lead-{index:05d}","alias_label":"salesforce_lead"}}'
    amplitude = f'{{"alias_name":"amp_{index}","alias_label":"amplitude_id"}}'
    if dice[1] < _ALIAS_ONLY:
        return f'"user_aliases":[{crm},{amplitude}]'
    return (f'"user_aliases":[{amplitude}]', '"user_aliases":[]', "", "")[dice[13] & 3]


def _created_at(_: int, dice: bytes) -> str:
    usual = words.MOMENTS[(dice[2] << 4) | (dice[3] >> 4)][1]
    form = dice[14] & 7
    if form < 3:  # noqa: PLR2004
        return f'"created_at":"{usual[:10]} {usual[11:-1]} UTC"'
    if form == 3:  # noqa: PLR2004
        return f'"created_at":"{usual[:19]}Z"'
    return f'"created_at":"{usual}"'


def _created_from(_: int, dice: bytes) -> str:
    return ('"created_from":"SDK"', '"created_from":"REST API"', '"created_from":"CSV import"', "")[dice[15] & 3]


def _random_bucket(_: int, dice: bytes) -> str:
    return f'"random_bucket":{((dice[12] << 8) | dice[13]) % 10000}'


_FIRST = tuple(f'"first_name":{dump(name)}' for name in words.FIRST_NAMES)
_LAST = tuple(f'"last_name":{dump(name)}' for name in words.LAST_NAMES)


def _first_name(_: int, dice: bytes) -> str:
    return _FIRST[dice[4] % len(_FIRST)] if dice[1] >= _ANONYMOUS else ""


def _last_name(_: int, dice: bytes) -> str:
    return _LAST[dice[5] % len(_LAST)] if dice[1] >= _ALIAS_ONLY else ""


def _email(index: int, dice: bytes) -> str:
    if dice[1] < _ANONYMOUS:
        return ""
    owner = index - 1 if index % _USERS_PER_SHARED_EMAIL == _USERS_PER_SHARED_EMAIL - 1 else index
    return f'"email":"person{owner}@example.com"'


def _phone(index: int, dice: bytes) -> str:
    if dice[1] < _ALIAS_ONLY or dice[16] & 3 == 0:
        return ""
    return f'"phone":"+1555{index:07d}"' if dice[16] & 7 else f'"phone":"(030) {index:07d}"'


def _dob(_: int, dice: bytes) -> str:
    return f'"dob":"{1940 + dice[17] % 70}-{1 + dice[18] % 12:02d}-{1 + dice[19] % 28:02d}"' if dice[17] & 3 else ""


def _of_place(name: str, column: int) -> Render:
    members = tuple(f'"{name}":{dump(place[column])}' for place in words.PLACES)
    return lambda _, dice: members[dice[6] & 7] if dice[6] > 32 else ""  # noqa: PLR2004


def _last_coordinates(_: int, dice: bytes) -> str:
    place = words.PLACES[dice[6] & 7]
    return f'"last_coordinates":[{place[5]},{place[4]}]' if dice[20] & 3 == 0 else ""


def _gender(_: int, dice: bytes) -> str:
    return ("", *(f'"gender":"{letter}"' for letter in "MFONPMF"))[dice[7] & 7]


def _total_revenue(_: int, dice: bytes) -> str:
    revenue = ((dice[21] << 8) | dice[22]) % 9000 if _level(dice) else 0
    return f'"total_revenue":{revenue / 100}' if dice[23] & 3 else f'"total_revenue":{revenue // 100}'


def _attributed(name: str) -> Render:
    member = f'"attributed_{name}":"braze_test_{name}_'
    return lambda _, dice: f'{member}{dice[24] % 9}"' if dice[24] & 7 == 0 else ""


_STATES = ("opted_in", "subscribed", "subscribed", "unsubscribed")


def _subscribe(channel: str, at: int) -> Render:
    return lambda _, dice: f'"{channel}_subscribe":"{_STATES[dice[at] & 3]}"'


def _subscribed_at(channel: str, name: str, state: int, at: int) -> Render:
    def render(_: int, dice: bytes) -> str:
        if dice[at] & 3 != state:
            return ""
        return f'"{channel}_{name}_at":"{words.MOMENTS[(dice[at] << 4) | (dice[27] >> 4)][1]}"'

    return render


def _uninstalled_at(_: int, dice: bytes) -> str:
    if dice[28] & 15:
        return ""
    milliseconds, usual = words.MOMENTS[(dice[29] << 4) | (dice[30] >> 4)]
    return (
        '"uninstalled_at":' + (f'"{usual}"', str(milliseconds // 1000), str(milliseconds), f'"{usual}"')[dice[31] & 3]
    )


def _neighbours(name: str, pool: tuple[tuple[str, ...], ...], at: int, counts: tuple[tuple[int, int], ...]) -> Render:
    """Render a list of neighbours in a pool; `counts` has the least number and the spread by level."""
    size = len(pool)

    def render(_: int, dice: bytes) -> str:
        fewest, spread = counts[_level(dice)]
        count = fewest + dice[at] % spread
        if not count:
            return "" if dice[at + 1] & 3 else f'"{name}":[]'
        start = (dice[at + 1] << 8) | dice[at + 2]
        items = [pool[(start + k) % size][dice[(at + 5 * k) & 63] & 15] for k in range(count)]
        return f'"{name}":[{",".join(items)}]'

    return render


def _custom_attributes(wanted: frozenset[str] | None) -> Render:
    size = len(ATTRIBUTES)
    counts = ((0, 16), (14, 24), (30, 60))

    def render(index: int, dice: bytes) -> str:
        fewest, spread = counts[_level(dice)]
        start = (dice[33] << 8) | dice[34]
        neighbours = [
            (ATTRIBUTES[(start + k) % size], dice[(5 * k) & 63] & 15) for k in range(fewest + dice[32] % spread)
        ]
        items = [variants[roll] for (name, variants), roll in neighbours if wanted is None or name in wanted]
        if dice[35] & 1 and (wanted is None or "loyaltyId" in wanted):
            items.append(f'"loyaltyId":"{hex_uuid(index, dice, 72, 0)}"')
        if not items:
            return '"custom_attributes":{}' if wanted is None and dice[36] & 3 == 0 else ""
        return f'"custom_attributes":{{{",".join(items)}}}'

    return render


def _device_kinds(dice: bytes) -> list[int]:
    return [dice[40 + k] % 8 for k in range((1, 1 + dice[39] % 2, 2 + dice[39] % 3)[_level(dice)])]


def _devices(index: int, dice: bytes) -> str:
    made = []
    for k, kind in enumerate(_device_kinds(dice)):
        own = hex_uuid(index, dice, 2 * k, k)
        if kind < 3:  # noqa: PLR2004
            ad = f'"{hex_uuid(index, dice, 40 + k, k)}"' if kind else "null"
            made.append(
                f'{{"model":"Pixel {4 + kind}","os":"Android ({"QRS"[kind]})","carrier":null,'
                f'"device_id":"{own}","google_ad_id":{ad},"ad_tracking_enabled":true}}',
            )
        elif kind < 6:  # noqa: PLR2004
            made.append(
                f'{{"model":"iPhone {9 + kind}","os":"iOS 16.{kind}","carrier":"Télécom","device_id":"{own}",'
                f'"idfv":"{own.upper()}","idfa":null,"ad_tracking_enabled":false}}',
            )
        elif kind == 6:  # noqa: PLR2004
            made.append('{"model":"Chrome","os":"Mac OS X","ad_tracking_enabled":false}')
        else:
            made.append(f'{{"model":"Roku Ultra","os":"Roku OS 12","roku_ad_id":"{own}","ad_tracking_enabled":true}}')
    return f'"devices":[{",".join(made)}]'


def _push_tokens(index: int, dice: bytes) -> str:
    token = dice.hex()
    made = [
        f'{{"app":"Shop {("Android", "iOS")[kind > 2]}","platform":"{("Android", "iOS")[kind > 2]}",'  # noqa: PLR2004
        f'"token":"{token[k:]}:APA91b{token[:k]}","device_id":"{hex_uuid(index, dice, 2 * k, k)}",'
        f'"notifications_enabled":{("true", "false")[kind & 1]},'
        f'"provisionally_opted_in":{("null", "false")[kind > 2]}}}'  # noqa: PLR2004
        for k, kind in enumerate(_device_kinds(dice))
        if kind < 5  # noqa: PLR2004
    ]
    return f'"push_tokens":[{",".join(made)}]' if made else ""


_APPS = (
    ("Shop Android", "Android"),
    ("Shop iOS", "iOS"),
    ("Shop Web", "Web"),
    ("Shop Android Beta", "Android"),
)


def _apps(_: int, dice: bytes) -> str:
    made = []
    for k in range((1, 1 + dice[45] % 2, 2 + dice[45] % 2)[_level(dice)]):
        name, platform = _APPS[(dice[46] + k) & 3]
        roll = dice[47 + k]
        version = "null" if platform == "Web" else f'"{roll % 12}.{roll & 7}.0"'
        sessions = f'"{roll}"' if roll & 31 == 0 else str(roll)
        first = "null" if roll & 15 == 1 else f'"{words.MOMENTS[roll * 3][1]}"'
        made.append(
            f'{{"name":"{name}","platform":"{platform}","version":{version},"sessions":{sessions},'
            f'"first_used":{first},"last_used":"{words.MOMENTS[roll * 7][1]}"}}',
        )
    return f'"apps":[{",".join(made)}]'


_FIELDS: dict[str, Render] = {
    "created_at": _created_at,
    "created_from": _created_from,
    "external_id": _external_id,
    "user_aliases": _user_aliases,
    "appboy_id": _appboy_id,
    "braze_id": _braze_id,
    "random_bucket": _random_bucket,
    "first_name": _first_name,
    "last_name": _last_name,
    "email": _email,
    "dob": _dob,
    "country": _of_place("country", 0),
    "language": _of_place("language", 1),
    "time_zone": _of_place("time_zone", 2),
    "home_city": _of_place("home_city", 3),
    "phone": _phone,
    "last_coordinates": _last_coordinates,
    "gender": _gender,
    "total_revenue": _total_revenue,
    **{f"attributed_{name}": _attributed(name) for name in ("campaign", "source", "adgroup", "ad")},
    "push_subscribe": _subscribe("push", 25),
    "push_opted_in_at": _subscribed_at("push", "opted_in", 0, 25),
    "push_unsubscribed_at": _subscribed_at("push", "unsubscribed", 3, 25),
    "email_subscribe": _subscribe("email", 26),
    "email_opted_in_at": _subscribed_at("email", "opted_in", 0, 26),
    "email_unsubscribed_at": _subscribed_at("email", "unsubscribed", 3, 26),
    "uninstalled_at": _uninstalled_at,
    "custom_events": _neighbours("custom_events", words.EVENTS, 48, ((0, 4), (4, 8), (14, 26))),
    "purchases": _neighbours("purchases", words.PURCHASES, 50, ((0, 2), (1, 5), (5, 20))),
    "devices": _devices,
    "push_tokens": _push_tokens,
    "apps": _apps,
    "campaigns_received": _neighbours("campaigns_received", words.CAMPAIGNS, 52, ((0, 3), (2, 6), (8, 18))),
    "canvases_received": _neighbours("canvases_received", words.CANVASES, 54, ((0, 1), (0, 4), (2, 6))),
    "cards_clicked": _neighbours("cards_clicked", words.CARDS, 56, ((0, 1), (0, 3), (0, 7))),
}


WHOLE = Selection(frozenset({*_FIELDS, "custom_attributes"}))
"""Every member that a user may have."""


@lru_cache(maxsize=64)
def _renders(selection: Selection) -> tuple[Render, ...]:
    renders = [render for name, render in _FIELDS.items() if name in selection.names]
    if "custom_attributes" in selection.names:
        renders.append(_custom_attributes(selection.attributes))
    return tuple(renders)


_DAY_SECONDS = 86_400
_LAST_UPDATE = datetime(2026, 9, 1, tzinfo=UTC).timestamp()
_UPDATES_SECONDS = 2 * 365 * _DAY_SECONDS


class Population:
    """Every user that a seed can make; all were updated before the sandbox started, in the two years up to a fixed day.

    Args:
        seed: The users derive from it.
        started_at: When the sandbox started, in epoch seconds; if that is early, so are all updates.
    """

    def __init__(self, seed: int, started_at: float = _LAST_UPDATE + _DAY_SECONDS) -> None:
        self.key = str(seed).encode()
        self.last_update = min(_LAST_UPDATE, started_at - _DAY_SECONDS)

    def braze_id(self, index: int) -> str:
        """The identifier of one user."""
        return _id(index, self._user_dice(index))

    def updated_at(self, index: int) -> float:
        """When one user was last updated, in epoch seconds."""
        dice = blake2b(b"update of %d" % index, key=self.key, digest_size=8).digest()
        return self.last_update - int.from_bytes(dice) / 2**64 * _UPDATES_SECONDS

    def _user_dice(self, index: int) -> bytes:
        return blake2b(b"%d" % index, key=self.key).digest()

    def line(self, index: int, selection: Selection) -> bytes:
        """One user as a line of JSON (without line end), with the selected members."""
        dice = self._user_dice(index)
        members = [member for render in _renders(selection) if (member := render(index, dice))]
        return f"{{{','.join(members)}}}".encode()

    def members(self, usual: range, everybody: range) -> Sequence[int]:  # noqa: ARG002 - others need everybody
        """The members of a segment, by index."""
        return usual
