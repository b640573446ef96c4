"""Runs statements for Snowflake in a stand-in of it, once for each night. Run by the environment `dialects`.

Usage: run_on_fakesnow.py load.sql FOLDER... ; prints, as JSON, the key and the time of each row of each table. A
folder has the files of one night, in a folder for each stream.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import fakesnow
import snowflake.connector

KEYS = {"users": ("braze_id",), "devices": ("braze_id", "device_key"), "apps": ("braze_id", "name", "platform")}


def main(script: str, *nights: str) -> None:
    """Load night after night."""
    warnings.simplefilter("ignore")
    statements = [text.strip() for text in Path(script).read_text(encoding="utf-8").split(";\n\n") if text.strip()]
    with fakesnow.patch():
        cursor = snowflake.connector.connect(database="db", schema="braze").cursor()
        for night in nights:
            # Of a stage inside it takes no list of files.
            cursor.execute(f"create or replace stage braze_stage url = 'file://{night}/'")
            files = {folder.name: sorted(folder.glob("*.parquet")) for folder in Path(night).iterdir()}
            for statement in statements:
                stream = next((name for name in files if f" braze.{name}_staged from " in statement), "")
                names = ", ".join(f"'{stream}/{path.name}'" for path in files.get(stream, ()))
                cursor.execute(statement.replace("'FILES'", names))
        for stream, key in KEYS.items():
            rows = cursor.execute(f"select {', '.join(key)}, exported_at from braze.{stream}").fetchall()
            shown = [[*values, moment.strftime("%Y-%m-%d %H:%M:%S.%f")] for *values, moment in rows]
            sys.stdout.write(json.dumps([stream, sorted(shown)]) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
