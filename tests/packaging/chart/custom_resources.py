"""Excerpts of the operators' custom resource definitions, with the fields that the chart uses."""

from typing import Any, Final

_TEXT: Final = {"type": "string", "minLength": 1}
_TEXTS: Final = {"type": "object", "additionalProperties": {"type": "string"}}
_DURATION: Final = {
    "type": "string",
    "pattern": "^(0|(([0-9]+)y)?(([0-9]+)w)?(([0-9]+)d)?(([0-9]+)h)?(([0-9]+)m)?(([0-9]+)s)?)$",
}


def _object(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": list(required),
        "additionalProperties": False,
    }


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "minItems": 1, "items": items}


def _resource(api: str, kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    metadata = _object({"name": _TEXT, "namespace": _TEXT}, {"labels": _TEXTS})
    return _object(
        {"apiVersion": {"const": api}, "kind": {"const": kind}, "metadata": metadata, "spec": spec}
    )


_RULE: Final = _object(
    {"alert": _TEXT, "expr": {"type": ["string", "integer"]}},
    {"for": _DURATION, "keep_firing_for": _DURATION, "labels": _TEXTS, "annotations": _TEXTS},
)
_RECORDING: Final = _object({"record": _TEXT, "expr": {"type": ["string", "integer"]}}, {"labels": _TEXTS})

SCHEMAS: Final = {
    "PodMonitor": _resource(
        "monitoring.coreos.com/v1",
        "PodMonitor",
        _object(
            {
                "selector": _object({"matchLabels": _TEXTS}),
                "podMetricsEndpoints": _list(_object({"port": _TEXT}, {"path": _TEXT})),
            }
        ),
    ),
    "PrometheusRule": _resource(
        "monitoring.coreos.com/v1",
        "PrometheusRule",
        _object(
            {
                "groups": _list(
                    _object(
                        {"name": _TEXT, "rules": _list({"anyOf": [_RULE, _RECORDING]})},
                        {"interval": _DURATION, "labels": _TEXTS},
                    )
                )
            }
        ),
    ),
    "ExternalSecret": _resource(
        "external-secrets.io/v1",
        "ExternalSecret",
        _object(
            {
                "secretStoreRef": _object(
                    {"name": _TEXT, "kind": {"enum": ["SecretStore", "ClusterSecretStore"]}}
                ),
                "refreshInterval": _DURATION,
                "target": _object({"name": _TEXT}),
                "data": _list(
                    _object({"secretKey": _TEXT, "remoteRef": _object({"key": _TEXT, "property": _TEXT})})
                ),
            }
        ),
    ),
}
