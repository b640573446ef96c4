"""Names, places, events and messages of which generated users are made, already rendered as JSON.

A user picks from these pools, which costs a few joins and no rendering of nested objects.
All values here depend on constants only; the seed decides which of them a user has.
"""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime, timedelta
from typing import Any

VARIANTS = 16  # of each event, purchase, campaign, canvas and attribute

_dice = random.Random("tap-braze-export")  # noqa: S311 - made-up people need no secure randomness


def dump(value: Any) -> str:
    """Render a value as compact JSON, without escapes for letters beyond ASCII."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _uuid() -> str:
    digits = f"{_dice.getrandbits(128):032x}"
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-8{digits[17:20]}-{digits[20:]}"


def _moment(first_year: int = 2019) -> datetime:
    start = datetime(first_year, 1, 1, tzinfo=UTC)
    return start + timedelta(milliseconds=_dice.randrange((2026 - first_year) * 365 * 86_400_000))


def iso(moment: datetime) -> str:
    """Format a date as Braze's exports usually do."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def _span() -> tuple[str, str]:
    first = _moment()
    return iso(first), iso(first + timedelta(milliseconds=_dice.randrange(86_400_000 * 200)))


# fmt: off
FIRST_NAMES = (
    "Alex", "Anna", "Björn", "Chloé", "Dmitri", "Elif", "Fatima", "Giulia", "Håkon", "İpek", "João", "Kim",
    "Łukasz", "María", "Noah", "Olivia", "Øyvind", "Priya", "Renée", "Søren", "Þóra", "Uwe", "Valérie", "Wei",
    "Ximena", "Yūki", "Zoë", "健", "美咲", "민준", "Мария",
)
LAST_NAMES = (
    "Smith", "Müller", "García", "Nguyễn", "O'Brien", "Jørgensen", "Ivanova", "Žižek", "Özdemir", "Silva",
    "Kowalski", "Tanaka", "Rossi", "Andersson", "Lefèvre", "王", "佐藤", "김", "Петрова", "van der Berg",
    "Smith-Jones", 'D"Arcy', "de la Cruz",
)
# fmt: on
PLACES = (
    ("US", "en", "Eastern Time (US & Canada)", "Chicago", 41.84157636433568, -87.83520818508256),
    ("US", "en", "America/Los_Angeles", "San José", 37.3382082, -121.8863286),
    ("DE", "de", "Europe/Berlin", "Köln", 50.937531, 6.9602786),
    ("BR", "pt", "America/Sao_Paulo", "São Paulo", -23.5505199, -46.6333094),
    ("JP", "ja", "Asia/Tokyo", "東京", 35.6894875, 139.6917064),
    ("FR", "fr", "Europe/Paris", "Orléans", 47.902964, 1.909251),
    ("KR", "ko", "Asia/Seoul", "서울", 37.566535, 126.9779692),
    ("AT", "de", "Europe/Vienna", "Wien", 48.0, 16.0),
)

# Moments of a profile's life, as epoch milliseconds and in the usual form.
MOMENTS = tuple((int(moment.timestamp() * 1000), iso(moment)) for moment in (_moment() for _ in range(4096)))


def _pool(names: list[str], make: Any) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(dump(make(name)) for _ in range(VARIANTS)) for name in names)


def _happening(name: str) -> dict[str, Any]:
    first, last = _span()
    return {"name": name, "first": first, "last": last, "count": int(_dice.paretovariate(0.8))}


def _campaign(name: str) -> dict[str, Any]:
    ways: tuple[dict[str, bool], ...] = (
        {},
        {"opened_email": True},
        {"opened_push": True},
        {"opened_email": True, "clicked_email": True},
        {"clicked_in_app_message": True},
        {"clicked_triggered_in_app_message": True},
    )
    campaign: dict[str, Any] = {
        "name": name,
        "api_campaign_id": _CAMPAIGN_IDS[name],
        "last_received": _span()[1],
        "engaged": _dice.choice(ways),
        "converted": _dice.random() < 0.2,  # noqa: PLR2004
    }
    if campaign["converted"]:
        campaign["multiple_converted"] = {"Primary Conversion Event - A": True, "Conversion Event - B": False}
    if "A/B" in name:
        variation = _dice.choice(("Variant 1", "Variant 2", "Control Group"))
        campaign |= {
            "variation_name": variation,
            "variation_api_id": _CAMPAIGN_IDS[name][:-1] + variation[-1].translate({ord("p"): "0"}),
            "in_control": variation == "Control Group",
        }
    return campaign


def _canvas(name: str) -> dict[str, Any]:
    entered = _moment()
    in_control = _dice.random() < 0.1  # noqa: PLR2004
    steps = [] if in_control else _CANVAS_STEPS[name][: _dice.randint(1, 4)]
    received = [entered + timedelta(hours=36 * step, milliseconds=1234) for step in range(len(steps))]
    canvas = {
        "name": name,
        "api_canvas_id": _CANVAS_IDS[name],
        "last_received_message": iso(received[-1]) if received else None,
        "last_entered": entered.strftime("%Y-%m-%dT%H:%M:%S.000+00:00"),
        "variation_name": "Control" if in_control else _dice.choice(("Variant 1", "Variant 2")),
        "in_control": in_control,
        "last_entered_control_at": entered.strftime("%Y-%m-%dT%H:%M:%S.000+00:00") if in_control else None,
        "last_exited": iso(received[-1]) if received and _dice.random() < 0.7 else None,  # noqa: PLR2004
        "steps_received": [{**step, "last_received": iso(at)} for step, at in zip(steps, received, strict=True)],
    }
    return canvas | ({"is_in_control": in_control} if _dice.random() < 0.3 else {})  # noqa: PLR2004


_EVENTS = [
    "viewed_item",
    "Viewed_Item",
    "login",
    "Sign In Completed",
    "Loyalty Acknowledgement",
    "Größe gewählt",
]
_NOUNS = ("cart", "wishlist", "video", "coupon", "store", "profile", "article", "order", "review")
_EVENTS += [f"{verb}_{noun}" for verb in ("opened", "added", "shared", "rated") for noun in _NOUNS]
_KINDS = ("newsletter", "Push welcome", "A/B subject test", "IAM promo", "win-back  offer", "été: soldes")
_CAMPAIGNS = [f"2026-{month:02d} {kind}" for month in range(1, 9) for kind in _KINDS]
_CANVASES = ["Onboarding", "Winback", "Non Global  Holdout Group 4/21/21", "Abandoned cart", "Geburtstag 🎂"]
_CANVASES += [f"Journey {number:02d}" for number in range(1, 12)]
_CAMPAIGN_IDS = {name: _uuid() for name in _CAMPAIGNS}
_CANVAS_IDS = {name: _uuid() for name in _CANVASES}
_CANVAS_STEPS = {
    name: [{"name": f"Day {2 * day} mail", "api_canvas_step_id": _uuid()} for day in range(4)] for name in _CANVASES
}

EVENTS = _pool(_EVENTS, _happening)
PURCHASES = _pool([f"item_{number}" for number in range(40800, 40860)] + ["SKU 1/ä", "Gift card"], _happening)
CAMPAIGNS = _pool(_CAMPAIGNS, _campaign)
CANVASES = _pool(_CANVASES, _canvas)
CARDS = _pool(["Loyalty Promo", "Store finder", "Herbst-Aktion"], lambda name: {"name": name})
