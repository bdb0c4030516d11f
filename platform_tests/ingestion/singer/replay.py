#!/usr/bin/env python3
"""A tap that prints what a file says: its messages, line by line, after what the last STATE says was read. Written as
the specification has taps, so that every turn of it can be played; real taps are in test_taps.py."""

import json
import os
import sys
import time
from pathlib import Path


def main() -> int:
    given = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=False))
    config = json.loads(Path(given["--config"]).read_text())
    assert (Path(given["--config"]).stat().st_mode & 0o077) == 0, "others may read the secrets"
    lines = Path(config["file"]).read_text().splitlines(keepends=True)
    if "--discover" in sys.argv:
        streams = {m["stream"]: m for line in lines if (m := _json(line)).get("type") == "SCHEMA"}
        methods = config.get("methods", {})
        json.dump(
            {
                "streams": [
                    {
                        "tap_stream_id": name,
                        "stream": name,
                        "schema": m["schema"],
                        "metadata": [{"breadcrumb": [], "metadata": {"replication-method": methods.get(name)}}],
                    }
                    for name, m in streams.items()
                ]
            },
            sys.stdout,
        )
        return 0
    if config.get("is_old"):
        if "--catalog" in given:
            print("tap-replay: error: unrecognized arguments: --catalog", file=sys.stderr)
            return 2
        given["--catalog"] = given["--properties"]
    if "--catalog" in given:
        (Path(config["file"]).parent / "catalog.json").write_text(Path(given["--catalog"]).read_text())
    done = 0
    if "--state" in given:
        done = json.loads(Path(given["--state"]).read_text()).get("line", 0)
    print("the password is", config.get("password"), file=sys.stderr)
    for number, line in enumerate(lines, 1):
        if number > done or _json(line).get("type") == "SCHEMA":
            sys.stdout.write(line.replace("@LINE", str(number)))
            sys.stdout.flush()
            time.sleep(config.get("pause", 0))
    if config.get("hang"):
        time.sleep(1000)
    return int(config.get("code", 0))


def _json(line: str) -> dict:  # type: ignore[type-arg]
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit(main())
