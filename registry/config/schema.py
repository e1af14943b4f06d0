"""The JSON Schema of ``deploy.yaml`` (draft 2020-12), which editors use to complete and to check."""

from __future__ import annotations

from typing import Any

from shipway.registry.config.check import NAME
from shipway.registry.config.model import DeployConfig, InventoryConfig
from shipway.registry.nouns import Json
from shipway.targets.loader import kinds, load_kind

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema() -> Json:
    """The whole schema, with the options of every kind that is installed."""
    document = DeployConfig.model_json_schema()
    definitions: dict[str, Any] = document["$defs"]
    definitions["EnvironmentConfig"] = _environment(definitions["EnvironmentConfig"])
    definitions["StoreConfig"] = {"anyOf": [{"type": "string"}, definitions["StoreConfig"]]}
    definitions["InventoryConfig"] = InventoryConfig.model_json_schema()
    hosts = definitions["PlacementConfig"]["properties"]["hosts"]
    listed = {key: hosts.pop(key) for key in ("type", "items")}
    hosts["anyOf"] = [listed, {"$ref": "#/$defs/InventoryConfig"}]
    definitions["TargetConfig"] = {"oneOf": [_kind(kind, definitions) for kind in kinds()]}
    document["properties"]["targets"]["additionalProperties"] = {"$ref": "#/$defs/TargetConfig"}
    for section in ("targets", "environments"):
        document["properties"][section]["propertyNames"] = {"pattern": f"^{NAME.pattern}$"}
    return {"$schema": _DIALECT, **document}


def _environment(section: dict[str, Any]) -> dict[str, Any]:
    """The environment's own keys and, beside them, a placement under each target's name."""
    own = dict(section["properties"])
    placement = own.pop("targets")["additionalProperties"]
    return {
        "type": "object",
        "title": section["title"],
        "description": section["description"],
        "properties": own,
        "additionalProperties": placement,
    }


def _kind(kind: str, definitions: dict[str, Any]) -> dict[str, Any]:
    """The options of one kind with ``kind`` itself; what they refer to joins ``definitions``."""
    options = load_kind(kind).options.model_json_schema(ref_template="#/$defs/" + kind + ".{model}")
    for name, definition in options.pop("$defs", {}).items():
        definitions[f"{kind}.{name}"] = definition
    options["properties"] = {"kind": {"const": kind}, **options["properties"]}
    options["required"] = ["kind", *options.get("required", [])]
    return options
