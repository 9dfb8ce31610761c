"""JSON Schema of a record, for readers without Python: ``python -m sap_art.record_schema`` writes the shipped file."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from sap_art import record
from sap_art.migrations import SCHEMA

PATH = Path(__file__).with_name("record.schema.json")
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of the records that this version writes.

    Generated from ``record.Record``. Beyond its types it asks for the protocol and for today's schema number.
    """
    from pydantic import TypeAdapter

    schema = TypeAdapter(record.Record).json_schema()
    for name, part in {"Record": schema, **schema["$defs"]}.items():
        part["description"] = inspect.getdoc(getattr(record, name))  # not every pydantic takes it from there
    schema["properties"]["schema"] = {"const": SCHEMA, "title": "Schema", "type": "integer"}
    schema["required"] += ["schema", "protocol"]
    return {"$schema": DIALECT, **schema}


if __name__ == "__main__":
    record.write_json(json_schema(), PATH)
