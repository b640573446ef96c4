"""Two lines that differ in an order only have the same content exactly if their rows are the same but for the time."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tap_braze_export.fingerprints.known import Known
from tap_braze_export.rows.reader import Reader
from tests.support import odd_lines
from tests.support.rows import AT, read_block, selected, shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from random import Random

    from tap_braze_export.schema.selection import Selection

ORDERS = settings(
    derandomize=True, database=None, deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow]
)


class Members(list[tuple[str, Any]]):
    """The members of an object, in their order, one that stands twice as well."""


class Number(str):
    """A number as it is written."""

    __slots__ = ()


def tree(line: bytes) -> Any:
    """A line as lists, members, numbers as they are written, and other values; None if it is no JSON."""
    try:
        return json.loads(line, object_pairs_hook=Members, parse_int=Number, parse_float=Number, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None


def _refuse(name: str) -> Any:
    raise ValueError(name)


def text(value: Any) -> str:
    """The JSON of a tree."""
    if isinstance(value, Members):
        return f"{{{','.join(f'{json.dumps(name)}:{text(inner)}' for name, inner in value)}}}"
    if isinstance(value, list):
        return f"[{','.join(map(text, value))}]"
    return value if isinstance(value, Number) else json.dumps(value)


def line_of(value: Any) -> bytes:
    return text(value).encode()


def inside(value: Any) -> Iterator[Any]:
    """All objects and lists in a tree, itself included."""
    if isinstance(value, list):
        yield value
        for inner in value:
            yield from inside(inner[1] if isinstance(value, Members) else inner)


def reorder(value: Any, kind: str, random: Random) -> None:
    """Change an order somewhere in a tree: of the members of all objects, of one list or object, or of everything."""
    found = [each for each in inside(value) if len(each) > 1]
    if kind == "members":
        chosen = [each for each in found if isinstance(each, Members)]
    elif kind == "one":
        chosen = random.sample(found, min(1, len(found)))
    else:
        chosen = found
    for each in chosen:
        random.shuffle(each)


def content_and_rows(
    lines: list[bytes], selections: Mapping[str, Selection], *, strict: bool
) -> Iterator[tuple[int | None, Any]]:
    """For each line the digest of its user's content, None without one, and its rows without their time."""
    reader = Reader(selections, exported_at=AT, segment_id="", strict=strict, known_users=Known(None))
    for line in lines:
        found = read_block(reader, [line])
        rows = {(stream, _shown(row)) for stream, own in found.rows.items() for row in own.jsonl.splitlines()}
        digests = found.fingerprints.contents.tolist()
        yield (digests[0] if digests else None), frozenset(rows)


def _shown(row: bytes) -> str:
    members = json.loads(row, parse_float=shown, parse_int=shown)
    del members["exported_at"]
    return json.dumps(members, sort_keys=True)


def assert_content_follows_rows(lines: list[bytes], selections: Mapping[str, Selection] | None = None) -> None:
    """By both paths, and by a fast path that has met their members so often that it has learned them."""
    found = [
        each
        for strict, own in ((True, lines * 10), (False, lines))
        for each in content_and_rows(own, selections or selected(), strict=strict)
        if each[0] is not None
    ]
    for digest, rows in found:
        for other_digest, other_rows in found[-4:]:
            assert (digest == other_digest) == (rows == other_rows), lines


VALUES = st.recursive(
    st.sampled_from([None, True, Number("1"), Number("1.50"), Number("1e2"), "gold", "silver", "é", ""]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(
            st.tuples(st.sampled_from(["a", "b", "from", "to"]), inner), max_size=3, unique_by=lambda m: m[0]
        ).map(Members)
    ),
    max_leaves=8,
)


@st.composite
def users(draw: st.DrawFn) -> Any:
    """A user with lists in its values: in attributes, in columns that are objects, and in what no column knows."""
    flags = st.fixed_dictionaries({}, optional={"opened_email": st.booleans() | VALUES, "new": VALUES})
    member = st.sampled_from(["engaged", "multiple_converted", "unknown", "tags"])
    objects = st.dictionaries(member, flags.map(lambda found: Members(found.items())) | VALUES, max_size=3)
    user = Members([("braze_id", "u")])
    for name, key in (("campaigns_received", "api_campaign_id"), ("devices", "device_id"), ("apps", "name")):
        found = draw(st.lists(st.tuples(st.sampled_from(["k1", "k2", "k3", None]), objects), max_size=3))
        user.append((name, [Members([(key, value), *more.items()]) for value, more in found]))
    user += draw(
        st.dictionaries(st.sampled_from(["new", "newer", "home_city", "devices_2"]), VALUES, max_size=2)
    ).items()
    attributes = draw(st.dictionaries(st.sampled_from(["tags", "place", "plan"]), VALUES, max_size=3))
    user.append(("custom_attributes", Members(attributes.items())))
    return user


@pytest.mark.slow
@given(users(), st.sampled_from(["members", "one", "all"]), st.randoms(use_true_random=False))
@ORDERS
def test_content_is_equal_exactly_if_the_rows_are(user: Any, kind: str, random: Random) -> None:
    """For users whose values hold lists, in another order of members, of rows, or of items, at any depth."""
    line = line_of(user)
    reorder(user, kind, random)

    assert_content_follows_rows([line, line_of(user)])


@pytest.mark.slow
@given(
    odd_lines.catalogs(),
    odd_lines.exports(),
    st.sampled_from(["members", "one", "all"]),
    st.randoms(use_true_random=False),
)
@ORDERS
def test_content_of_odd_users_is_equal_exactly_if_the_rows_are(
    catalog: dict[str, Any], blocks: list[list[bytes]], kind: str, random: Random
) -> None:
    """Whatever else they hold, and the catalog selects."""
    for line in [line for block in blocks for line in block][:3]:
        if isinstance(user := tree(line), Members):
            before = line_of(user)
            reorder(user, kind, random)
            assert_content_follows_rows([before, line_of(user)], selected(**catalog))
