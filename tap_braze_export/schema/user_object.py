"""Braze's user export object, defined once: every field, its type, its stream.

JSON schemas, `fields_to_export`, key rules, the personal-data catalog and the decoders are derived from the tables
below. Source: Braze's documentation pages "Export user profile by segment" and "… by identifier", plus members that
only recorded responses show (marked "seen, undocumented").
"""

from __future__ import annotations

from typing import Any

from tap_braze_export.schema.table import EXPORTED_AT_COLUMN, Field, Table, Type


def _string(name: str, description: str, **options: Any) -> Field:
    return Field(name, Type.STRING, description, **options)


def _date_time(name: str, description: str, **options: Any) -> Field:
    return Field(name, Type.DATE_TIME, description, **options)


def _integer(name: str, description: str) -> Field:
    return Field(name, Type.INTEGER, description)


def _boolean(name: str, description: str) -> Field:
    return Field(name, Type.BOOLEAN, description)


_BRAZE_ID = _string("braze_id", "Braze's own, immutable id of the profile")
USERS = Table(
    stream="users",
    keys=("braze_id",),
    description="One row per profile: its scalar fields and custom attributes",
    path=(),
    fields=(
        _BRAZE_ID,
        _string("external_id", "The company's own id; missing for anonymous and alias-only profiles", personal=True),
        _string("appboy_id", "Legacy twin of braze_id (seen, undocumented)"),
        _date_time("created_at", "When the profile was created"),
        _string("created_from", "How the profile was made: SDK, REST API, CSV import (segment export only)"),
        _integer("random_bucket", "Random number from 0 to 9999, for splitting the audience"),
        _string("first_name", "First name", personal=True),
        _string("last_name", "Last name", personal=True),
        _string("email", "E-mail address", personal=True),
        Field("dob", Type.DATE, "Date of birth", personal=True),
        _string("home_city", "City", personal=True),
        _string("country", "ISO 3166-1 alpha-2 code"),
        _string("phone", "Phone number, as imported or E.164", personal=True),
        _string("language", "ISO 639-1 code"),
        _string("time_zone", "IANA or Rails name of the time zone"),
        Field(
            "last_coordinates",
            Type.COORDINATES,
            "Last known position; Braze's pages disagree on the order",
            personal=True,
        ),
        _string("gender", "M, F, O (other), N (not applicable), P (prefers not to say)"),
        Field("total_revenue", Type.NUMBER, "Revenue attributed to Braze, not lifetime spend"),
        _string("attributed_campaign", "Campaign named by the attribution partner"),
        _string("attributed_source", "Source named by the attribution partner"),
        _string("attributed_adgroup", "Ad group named by the attribution partner"),
        _string("attributed_ad", "Ad named by the attribution partner"),
        _string("push_subscribe", "opted_in, subscribed or unsubscribed"),
        _date_time("push_opted_in_at", "Comes with push_subscribe", requested_as="push_subscribe"),
        _date_time("push_unsubscribed_at", "Comes with push_subscribe", requested_as="push_subscribe"),
        _string("email_subscribe", "opted_in, subscribed or unsubscribed"),
        _date_time("email_opted_in_at", "Comes with email_subscribe", requested_as="email_subscribe"),
        _date_time("email_unsubscribed_at", "Comes with email_subscribe", requested_as="email_subscribe"),
        Field(
            "uninstalled_at", Type.TIMESTAMP, "When the app was uninstalled; a string, or epoch seconds or milliseconds"
        ),
        Field("custom_attributes", Type.OBJECT, "Custom attributes, as they are", personal=True),
    ),
)

DEVICES = Table(
    stream="devices",
    keys=("braze_id", "device_key"),
    description="One row per device of a profile",
    path=("devices",),
    given=("braze_id", "device_key"),
    fields=(
        _BRAZE_ID,
        _string("device_key", "The first device id that is set, else a hash of the device's content"),
        _string("device_id", "Id given by Braze's SDK (seen, not everywhere documented)", personal=True),
        _string("model", "Model name"),
        _string("os", "Operating system and version"),
        _string("carrier", "Mobile carrier"),
        _string("idfv", "iOS: identifier for vendors", personal=True),
        _string("idfa", "iOS: advertising identifier", personal=True),
        _string("google_ad_id", "Android: advertising identifier", personal=True),
        _string("roku_ad_id", "Roku: advertising identifier", personal=True),
        _string("windows_ad_id", "Windows: advertising identifier (documented until 2023)", personal=True),
        _boolean("ad_tracking_enabled", "Whether the device allows ad tracking"),
    ),
)
DEVICE_IDS = ("device_id", "idfv", "idfa", "google_ad_id", "roku_ad_id", "windows_ad_id")
"""The ids that can be a device's key; the first that is set wins."""


def _counted(stream: str, counted: str) -> Table:
    return Table(
        stream=stream,
        keys=("braze_id", "name"),
        description=f"One row per {counted}; the list covers 90 days, count and first all time",
        path=(stream,),
        given=("braze_id",),
        fields=(
            _BRAZE_ID,
            _string("name", f"The {counted}"),
            _date_time("first", "First time"),
            _date_time("last", "Last time"),
            _integer("count", "How often, all time"),
        ),
    )


PURCHASES = _counted("purchases", "product bought")
CUSTOM_EVENTS = _counted("custom_events", "event name")

CAMPAIGNS_RECEIVED = Table(
    stream="campaigns_received",
    keys=("braze_id", "api_campaign_id"),
    description="One row per campaign received in the last 90 days",
    path=("campaigns_received",),
    given=("braze_id",),
    fields=(
        _BRAZE_ID,
        _string("api_campaign_id", "The campaign's API identifier"),
        _string("name", "The campaign's name"),
        _date_time("last_received", "When it was last received"),
        Field(
            "engaged",
            Type.OBJECT,
            "What the user did with it; open, because Braze adds kinds",
            members=(
                _boolean("opened_email", "Opened the e-mail"),
                _boolean("opened_push", "Opened the push"),
                _boolean("clicked_email", "Clicked in the e-mail"),
                _boolean("clicked_in_app_message", "Clicked the in-app message (spelling until 2021)"),
                _boolean("clicked_triggered_in_app_message", "Clicked the in-app message (spelling since)"),
            ),
        ),
        _boolean("converted", "Whether a conversion event followed"),
        Field("multiple_converted", Type.OBJECT, "Conversion by the label of its event"),
        _string("variation_name", "Variation, of a multivariate campaign"),
        _string("variation_api_id", "Its API identifier"),
        _boolean("in_control", "Whether the user was in the control group"),
    ),
)

CANVASES_RECEIVED = Table(
    stream="canvases_received",
    keys=("braze_id", "api_canvas_id"),
    description="One row per Canvas received in the last 90 days",
    path=("canvases_received",),
    given=("braze_id",),
    fields=(
        _BRAZE_ID,
        _string("api_canvas_id", "The Canvas's API identifier"),
        _string("name", "The Canvas's name"),
        _date_time("last_received_message", "When a message of it was last received"),
        _date_time("last_entered", "When the user last entered"),
        _date_time("last_entered_control_at", "When the user last entered its control group (seen, undocumented)"),
        _date_time("last_exited", "When the user last exited"),
        _string("variation_name", "Variation"),
        _boolean("in_control", "Whether the user was in the control group"),
        _boolean("is_in_control", "A second, different flag of that kind (seen, undocumented)"),
    ),
)

CANVAS_STEPS_RECEIVED = Table(
    stream="canvas_steps_received",
    keys=("braze_id", "api_canvas_id", "api_canvas_step_id"),
    description="One row per step of a Canvas received",
    path=("canvases_received", "steps_received"),
    given=("braze_id", "api_canvas_id"),
    fields=(
        _BRAZE_ID,
        _string("api_canvas_id", "The Canvas's API identifier"),
        _string("api_canvas_step_id", "The step's API identifier"),
        _string("name", "The step's name"),
        _date_time("last_received", "When it was last received"),
    ),
)

APPS = Table(
    stream="apps",
    keys=("braze_id", "name", "platform"),
    description="One row per app used",
    path=("apps",),
    given=("braze_id",),
    fields=(
        _BRAZE_ID,
        _string("name", "The app's name"),
        _string("platform", "Its platform"),
        _string("version", "Last version used"),
        _integer("sessions", "Number of sessions"),
        _date_time("first_used", "First use"),
        _date_time("last_used", "Last use"),
    ),
)

PUSH_TOKENS = Table(
    stream="push_tokens",
    keys=("braze_id", "app", "platform", "token"),
    description="One row per push token",
    path=("push_tokens",),
    given=("braze_id",),
    personal=True,
    fields=(
        _BRAZE_ID,
        _string("app", "The app's name"),
        _string("platform", "Its platform"),
        _string("token", "The token"),
        _string("device_id", "The device that it belongs to"),
        _boolean("notifications_enabled", "Whether foreground notifications are enabled for this token"),
        _boolean("provisionally_opted_in", "iOS: provisional authorisation (seen, not everywhere documented)"),
    ),
)

USER_ALIASES = Table(
    stream="user_aliases",
    keys=("braze_id", "alias_label", "alias_name"),
    description="One row per alias",
    path=("user_aliases",),
    given=("braze_id",),
    personal=True,
    fields=(_BRAZE_ID, _string("alias_label", "The alias's label"), _string("alias_name", "The alias's name")),
)

CARDS_CLICKED = Table(
    stream="cards_clicked",
    keys=("braze_id", "name"),
    description="One row per card clicked",
    path=("cards_clicked",),
    given=("braze_id",),
    fields=(_BRAZE_ID, _string("name", "The card's name")),
)

SEGMENT_MEMBERS = Table(
    stream="segment_members",
    keys=("segment_id", "braze_id"),
    description="One row per membership of an exported segment",
    selected_by_default=False,
    fields=(
        _string("segment_id", "The segment's API identifier, or global_control_group"),
        _BRAZE_ID,
        _boolean("is_member", "False for a user that left since the last complete export"),
    ),
)

EXPORT_FILES = Table(
    stream="export_files",
    keys=("export_id", "file"),
    description="The audit log: one row per delivered file, or per checkpoint of a resync",
    fields=(
        _string("export_id", "Braze's object_prefix; ids-… for a resync"),
        _string("file", "The delivered file, with its member where it is a zip"),
        _string("source", "segment, global_control_group or ids"),
        _string("segment_id", "The segment's API identifier"),
        EXPORTED_AT_COLUMN,
        _date_time("updated_since", "The export was asked only for users that were updated since then"),
        _date_time("read_at", "When the file was read"),
        _integer("bytes", "Compressed size"),
        _integer("lines", "Lines in it"),
        _integer("users", "Users in it, each counted once, unchanged ones included"),
        _integer("duplicates", "Lines of users that stand in it again later; the last line counts"),
        _integer("unchanged", "Users skipped because nothing changed"),
        _integer("rejected", "Lines that could not be read"),
        _integer(
            "missed", "Changed users that an incremental export just before did not have; null if none was compared"
        ),
    ),
)

INVALID_USER_IDS = Table(
    stream="invalid_user_ids",
    keys=("identifier_type", "identifier", "alias_label"),
    description="One row per identifier of a resync that matched nobody",
    personal=True,
    selected_by_default=False,
    fields=(
        _string("identifier_type", "external_id, braze_id, email, phone, device_id or user_alias"),
        _string("identifier", "The identifier"),
        _string("alias_label", "The alias's label; empty for other types"),
    ),
)

TABLES = (
    USERS,
    DEVICES,
    PURCHASES,
    CUSTOM_EVENTS,
    CAMPAIGNS_RECEIVED,
    CANVASES_RECEIVED,
    CANVAS_STEPS_RECEIVED,
    APPS,
    PUSH_TOKENS,
    USER_ALIASES,
    CARDS_CLICKED,
    SEGMENT_MEMBERS,
    EXPORT_FILES,
    INVALID_USER_IDS,
)
BY_PATH = {table.path: table for table in TABLES if table.path is not None}
"""The tables made from the user object, by the members that lead to their objects."""


def paths_inside(path: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Return the paths of the lists inside the objects at a path, by member."""
    return {inner[-1]: inner for inner in BY_PATH if inner and inner[:-1] == path}
