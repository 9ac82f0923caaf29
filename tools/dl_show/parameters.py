"""The view of the job parameters that queue environments define."""

from __future__ import annotations

from typing import Any

from libdeadline import statuses
from libdeadline.errors import Trouble

from .view import View


def parameters_view(view: View) -> int:
    """The job parameters that a queue's environments define, merged.

    Raises: Trouble (65) where two environments define one parameter differently.
    Source: client specification, queue paramdefs semantics.
    """
    import yaml

    found: dict[str, dict[str, Any]] = {}
    for environment in sorted(view.resources(), key=lambda row: row.get("priority", 0)):
        template = yaml.safe_load(environment["template"]) or {}
        name = (template.get("environment") or {}).get("name") or environment.get("name")
        for definition in template.get("parameterDefinitions") or []:
            known = found.setdefault(definition["name"], _grouped(definition, f"Queue Environment: {name}"))
            differing = [
                member
                for member in {**known, **definition}
                if member not in ("userInterface", "description", "default")
                and known.get(member) != definition.get(member)
            ]
            if differing:
                raise Trouble(
                    f"queue environments define the parameter '{definition['name']}' differently: "
                    f"{', '.join(sorted(differing))}",
                    statuses.DATA,
                )
    view.yaml(list(found.values()))
    return statuses.OK


def _grouped(definition: dict[str, Any], label: str) -> dict[str, Any]:
    interface = dict(definition.get("userInterface") or {})
    if not interface:
        interface["control"] = _control_of(definition)
    interface.setdefault("groupLabel", label)
    return {**definition, "userInterface": interface}


def _control_of(definition: dict[str, Any]) -> str:
    kind = definition.get("type")
    if definition.get("allowedValues"):
        return "DROPDOWN_LIST"
    if kind in ("INT", "FLOAT"):
        return "SPIN_BOX"
    if kind == "PATH":
        if definition.get("objectType") == "FILE":
            return "CHOOSE_OUTPUT_FILE" if definition.get("dataFlow") == "OUT" else "CHOOSE_INPUT_FILE"
        return "CHOOSE_DIRECTORY"
    return "LINE_EDIT"
