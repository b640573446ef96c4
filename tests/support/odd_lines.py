"""Lines that Hypothesis generates: users as Braze sends them, with every oddity that a user can have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from tap_braze_export.schema.table import Type
from tap_braze_export.schema.user_object import BY_PATH, TABLES, paths_inside
from tests.support.rows import KINDS

if TYPE_CHECKING:
    Path = tuple[str, ...]
    Member = tuple[str, str]

# Invalid bytes stand as what "surrogateescape" makes of them.
_DATES = [
    *('"2020-07-10T15:00:00.000Z"', '"2020-07-10 15:00:00.000 UTC"', '"2020-07-10T15:00:00+00:00"', '""'),
    *('"2020-07-10T15:00:00Z"', '"2020-07-10 15:00:00 +0530"', '"2020-07-10t15:00:00z"', '"2020-07-10T15:00:00"'),
    *('"2020-02-30T15:00:00Z"', '"2020-07-10T15:00:00.123456789Z"', '"2020-07-10"', '"0000-07-10T15:00:00Z"'),
    *('"2020-07-10T15:00:00+16:00"', '"2020-07-10T23:59:60Z"', '"2020-07-10T15:00Z"', '"+00:00Z"', '"Z"', '"T"'),
    *('"2020-07-10T15:00:00\\u005a"', '"2020-07-10T15:00:00Z\\",\\"2020-07-10T15:00:00Z"', '"20200710T150000Z"'),
    *(
        '"2020-07-10T15:00:00-00:00"',
        '"2020-07-10T15:00:00.Z"',
        '"0001-01-01T00:00:00+01:00"',
        '"2020-07-10T24:00:00Z"',
    ),
    *(
        '"2020-07-10T15:00:00+00:00Z"',
        '"2020-07-10T15:00:00Z "',
        '"2020-07-10T15:00:00+00"',
        '"9999-12-31T23:59:59-01:00"',
    ),
    *(
        '"2020-07-10T15:00:00,5Z"',
        '"\uff12020-07-10T15:00:00Z"',
        '"2020-07-10_15:00:00Z"',
        '"2020-07-10T15:00:00+0000"',
    ),
    *('"0001-01-01"', '"2020-02-30"', '"20200710"', '"2020-W28-5"', '"2020-7-1"', '" 2020-07-10"', '"2020-07-10\\n"'),
]
_NUMBERS = [
    *(
        "0",
        "-0",
        "1",
        "12.0",
        "12.50",
        "1e2",
        "1E400",
        "1e-400",
        "-1.5E+3",
        "-0.0",
        "9223372036854775807",
        "01",
        "1.",
        "+1",
    ),
    *("9223372036854775808", "-9223372036854775809", "123456789012345678901234567890", "0.1234567890123456789", "NaN"),
    *(
        "1592236800",
        "1592236800000",
        "1592236800.123456",
        "1592236800.1234567",
        "1" * 310,
        "1" * 4301,
        f"0.{'1' * 400}",
    ),
    *(
        "1e308",
        "2e308",
        "5e-324",
        "1e-330",
        "1e0400",
        "0e999",
        "0.0e-999",
        f"{'1' * 309}.5",
        f"{'1' * 308}.5",
        "-Infinity",
    ),
    *(f"0.{'0' * 330}1", "100000000000000000", "18446744073709551616", "1e99999999999999999999", f"0.{'0' * 305}1e308"),
]
_TEXTS = [
    *(
        '"text"',
        '"12"',
        '"-7"',
        '"12.50"',
        '"1e2"',
        '"007"',
        '"true"',
        '"FALSE"',
        '"null"',
        '"x y"',
        '"\xe9\U0001f600"',
    ),
    *(
        '"\\u0000"',
        '"\\\\u0000"',
        '"\\ud800"',
        '"\\udc00\\ud800"',
        '"a\\n\\"b\\\\"',
        '"\\ud83d"',
        '"1592236800"',
        '" 12"',
    ),
    *(
        '"\ufeff"',
        '"\u2028"',
        '"\\/"',
        '"[1]"',
        '"\x7f"',
        '"a\tb"',
        '"\\x"',
        '"\uff0b12"',
        '"\u0661"',
        '"\\u00e9\\ud83d\\ude00"',
    ),
    *(
        '"\udcff"',
        '"\udced\udca0\udc80"',
        '"\udcc3"',
        '"\udcc0\udcaf"',
        '"99999999999999999999"',
        "x",
        '"open',
        '"\x00"',
    ),
]
_NESTED = [
    *(
        "[]",
        "{}",
        "[{}]",
        "[null]",
        "[1,2]",
        '["a"]',
        "[[]]",
        '{"a":1}',
        "[1.5, -2.25]",
        "[1,2.5]",
        "[1.50,2.50,3.50]",
        "[1e2,2.0]",
    ),
    *(
        "[null,1.5]",
        "[180.0000000001,-90.5]",
        '{"a":1,"a":2}',
        '{"\\ud800":1.10}',
        '{"a":{"a":1E400}}',
        '{"opened_push":1}',
        '["1.5","2.5"]',
    ),
    *(
        '{"opened_push":true,"opened_email":null,"new":false}',
        '{"opened_email":"true"}',
        '{"":1}',
        "[ 1.5 ,2.5]",
        '{"a" : [ 1 ] }',
    ),
    *(
        '{"x":"\udcff"}',
        f"{'[' * 492}{']' * 492}",
        f"{'[' * 600}{']' * 600}",
        f"{'[{},' * 300}1{']' * 300}",
        '{"opened_push":"\\u0000"}',
        "[1,]",
    ),
]
_ANY = [*_DATES, *_NUMBERS, *_TEXTS, *_NESTED, "null", "true", "false"]
_FITTING = {
    Type.STRING: ['"text"', '"other"', '"a\\n\xe9"', '""', "null"],
    Type.INTEGER: ["0", "7", "-12", "9223372036854775807", "null"],
    Type.NUMBER: ["0", "12.50", "0.1234567890123456789", "-3", "null"],
    Type.BOOLEAN: ["true", "false", "null"],
    Type.DATE_TIME: [*_DATES[:5], "null"],
    Type.TIMESTAMP: [*_DATES[:5], "1592236800", "1592236800000", "null"],
    Type.DATE: ['"2020-07-10"', '"1999-12-31"', '""', "null"],
    Type.COORDINATES: ["[1.5,-2.25]", "[12.123456, 99.5]", "[]", "null"],
    Type.OBJECT: ["{}", '{"opened_push":true}', '{"a":true,"opened_email":false}', "null"],
    Type.ARRAY: ["[]", "[1.10]", "null"],
}
_STRANGE_NAMES = [
    *(
        "new",
        "braze_id",
        "exported_at",
        "_rescued_data",
        "device_key",
        "learned_0",
        "learned_1",
        "api_canvas_id",
        "class",
    ),
    *(
        "__init__",
        "em\\u0061il",
        "\\u0000",
        "\\ud800",
        'quo\\"ted',
        "back\\\\slash",
        "\\n",
        "\xe9",
        "\udcff",
        "",
        "a.b",
        "x" * 300,
    ),
    *(
        "\u2028",
        "\ufeff",
        "\x7f",
        "self",
        "name\u0301",
        "steps_received",
        "devices",
        "custom_attributes",
        "user_aliases",
    ),
]
_ATTRIBUTES = ["plan", "a.b", "\xe9", "braze_id", 'quo"ted', "class", "member_0"]
NAMES = sorted(
    {table.stream for table in TABLES}
    | {f"{table.stream}.{column.name}" for table in TABLES for column in table.columns if column.name not in table.keys}
    | {f"{table.stream}.{column.name}.{m.name}" for table in TABLES for column in table.columns for m in column.members}
    | {f"users.custom_attributes.{name}" for name in _ATTRIBUTES}
)

_SIGNS = st.sampled_from([":,", " : , ", ":\t,\r", ":,"])


@st.composite
def catalogs(draw: st.DrawFn) -> dict[str, Any]:
    """Draw the selection of a catalog, as arguments of `rows.selected`."""
    attributes = draw(st.dictionaries(st.sampled_from(_ATTRIBUTES), st.sampled_from(sorted(KINDS)), max_size=3))
    without = draw(
        st.lists(st.sampled_from(NAMES), max_size=6) | st.lists(st.sampled_from(NAMES), min_size=20, max_size=40)
    )
    return {"without": without, "attributes": attributes}


@st.composite
def objects(draw: st.DrawFn, path: Path = (), *, most: int = 8) -> str:
    """Draw an object of the user object, or the user itself, as JSON text."""
    table = BY_PATH[path]
    columns = {column.name: column for column in table.fields if column.name not in table.given}
    inner = sorted(paths_inside(path))
    known = [*columns, *inner]
    members = []
    for name in draw(st.lists(st.sampled_from(known), max_size=most)):
        if name in inner:
            value = draw(_list((*path, name)))
        elif name == "custom_attributes":
            value = draw(_attributes())
        else:
            value = draw(st.sampled_from(_FITTING[columns[name].type]))
        members.append((name, value))
    odd = draw(st.integers(0, 15))
    if odd == 0:
        name = draw(st.sampled_from([*known, *_STRANGE_NAMES]))
        members.append((name, draw(st.sampled_from(_ANY))))
    elif odd == 1:
        members.append((draw(st.sampled_from(_STRANGE_NAMES)), draw(st.sampled_from(_ANY))))
    if not path:
        odd_id = draw(st.integers(0, 30)) == 0
        members.insert(
            draw(st.integers(0, len(members))),
            ("braze_id", draw(st.sampled_from(_ANY if odd_id else ['"u"', '"v"', '"w"', '"x"', '"y"', '"z"']))),
        )
    return _written(members, draw(_SIGNS))


@st.composite
def _list(draw: st.DrawFn, path: Path) -> str:
    if draw(st.integers(0, 15)) == 0:
        return draw(st.sampled_from(_ANY))
    items = draw(st.lists(objects(path, most=4), max_size=3))
    if draw(st.integers(0, 25)) == 0:
        items.append(draw(st.sampled_from(_ANY)))
    return f"[{','.join(items)}]"


@st.composite
def _attributes(draw: st.DrawFn) -> str:
    values = st.sampled_from([value for kind in _FITTING.values() for value in kind] if draw(st.booleans()) else _ANY)
    names = st.sampled_from(["plan", "a.b", "\xe9", "braze_id", 'quo\\"ted', "class", "member_0", "free", "pl\\u0061n"])
    return _written(draw(st.lists(st.tuples(names, values), max_size=4)), draw(_SIGNS))


def _written(members: list[Member], signs: str) -> str:
    colon, comma = signs.split(",", maxsplit=1)[0], f",{signs.split(',')[1]}"
    return "{" + comma.join(f'"{name}"{colon}{value}' for name, value in members) + "}"


@st.composite
def lines(draw: st.DrawFn) -> bytes:
    """Draw a line, now and then one that is cut off or blank."""
    line = draw(objects()).encode("utf-8", "surrogateescape")
    cut = draw(st.integers(0, 40))
    return (b"", b"  ", line[:-1])[cut] if cut < 3 else line


@st.composite
def exports(draw: st.DrawFn) -> list[list[bytes]]:
    """Draw blocks of lines, the first of them one user repeated: a reader learns its members."""
    repeated = draw(objects()).encode("utf-8", "surrogateescape")
    return [[repeated] * 9, *draw(st.lists(st.lists(lines(), max_size=6), min_size=1, max_size=3))]
