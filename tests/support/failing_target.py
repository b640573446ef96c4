"""A Singer target that reads everything from a pipe, then loads it and confirms STATE, or fails.

`python failing_target.py FOLDER [fails]` appends the lines to `FOLDER/loaded.jsonl` and writes the last STATE to
`FOLDER/state.json`, both at its end; with `fails` it exits with 1 instead, when the tap has closed the pipe.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    lines = [*sys.stdin.buffer]
    if "fails" in sys.argv:
        sys.exit(1)
    with (folder / "loaded.jsonl").open("ab") as loaded:
        loaded.writelines(lines)
    states = [message["value"] for message in map(json.loads, lines) if message["type"] == "STATE"]
    (folder / "state.json").write_text(json.dumps(states[-1]))
