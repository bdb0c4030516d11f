"""`dp add source` drafts collections of MongoDB from their first documents."""

import uuid
from datetime import timedelta
from pathlib import Path

import yaml
from bson import ObjectId
from platform_tests.cli.conftest import Dp
from platform_tests.cli.test_add import run
from platform_tests.ingestion.mongodb.documents import NOON, Documents
from platform_tests.mongo_servers import Mongodb


def test_collections_are_drafted_from_their_documents_and_staged(dp: Dp, package: Path, mongodb: Mongodb) -> None:
    orders, people, empty = (Documents(mongodb.url) for _ in range(3))
    orders.put(
        *(
            {
                "_id": ObjectId.from_datetime(NOON + timedelta(seconds=n)),
                "weight": n / 3,
                "lines": [{"sku": "tea", "count": n}],
                "updatedAt": NOON + timedelta(minutes=n),
                "__v": 0,
                **({"note": "x"} if n % 2 else {}),
            }
            for n in range(60)
        )
    )
    people.put(*({"_id": f"u{n}", "id": n, "email": f"u{n}@example.com"} for n in range(5)))
    empty.put({"_id": 1})
    empty.there.delete_one({"_id": 1})
    name = f"shop_{uuid.uuid4().hex[:6]}"
    named = [part for one in (orders, people, empty) for part in ("--table", one.name)]
    done = dp("add", "source", name, "--url", f"{mongodb.url}/shop", *named)
    assert "has no document yet" in done.stdout + done.stderr
    assert "cursor: {column: updatedAt, lag: 15m}" in done.stdout
    attributes = yaml.safe_load((package / "defs" / name / "defs.yaml").read_text())["attributes"]
    assert attributes["url"] == f"{{{{ env.{name.upper()}_URL }}}}", "an address may hold a password"
    tables = attributes["tables"]
    assert tables.keys() == {orders.name, people.name}
    assert (tables[orders.name]["key"], tables[people.name]["key"]) == (["id"], ["document_id"])
    assert (tables[people.name]["id_column"], tables[people.name]["mask"]) == ("document_id", ["email"])
    contracts = (package / "defs" / name / "contracts.py").read_text()
    for line in ("weight: float", "updated_at: Instant", "lines: str", "note: str = Field(nullable=True"):
        assert line in contracts
    _, frames = run(package, name)
    assert sorted(len(frame) for frame in frames.values()) == [5, 60]
