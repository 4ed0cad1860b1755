"""Discovery: which groups, versions and resources there are, in the old form and in one document. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from wharfinger.core.document import Json
from wharfinger.kinds.kind import GROUP
from wharfinger.local.api.reviewkinds import QUESTIONS
from wharfinger.local.api.served import Catalogue, Resource

_ALL_VERBS: Final = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
VERBS_OF: Final[dict[str, list[str]]] = {
    "status": ["get", "patch", "update"],
    "scale": ["get", "patch", "update"],
    "log": ["get"],
    "binding": ["create"],
    "finalize": ["update"],
}
"""What may be done with each subresource."""
_KIND_OF: Final = {"scale": ("autoscaling", "v1", "Scale"), "binding": ("", "v1", "Binding")}

REVIEWS: Final[dict[tuple[str, str], dict[str, str]]] = {}
"""Questions that are asked by creating them, by group and version: plural to kind."""
for _kind in QUESTIONS:
    REVIEWS.setdefault((_kind.group, _kind.version), {})[_kind.plural] = _kind.name


def group_versions(catalogue: Catalogue) -> dict[str, list[str]]:
    """Return every group with its versions: ours last, as tools look through them in order."""
    found = {group: list(versions) for group, versions in catalogue.groups.items()}
    for group, version in REVIEWS:
        found.setdefault(group, []).append(version)
    return dict(sorted(found.items(), key=lambda entry: (entry[0] == GROUP, entry[0] != "", entry[0])))


def api_versions(address: str) -> Json:
    """Return the answer to `/api`; `address` is host:port as the client reaches us."""
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    }


def group_list(catalogue: Catalogue) -> Json:
    """Return the answer to `/apis`."""
    groups = [group_of(name, versions) for name, versions in group_versions(catalogue).items() if name]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def group_of(name: str, versions: list[str]) -> Json:
    """Return the APIGroup `name`, without its own kind and version."""
    entries = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": entries, "preferredVersion": entries[0]}


def resource_list(catalogue: Catalogue, group: str, version: str) -> Json | None:
    """Return the answer to `/api/v1` or `/apis/GROUP/VERSION`, None when it is not served."""
    resources = catalogue.groups.get(group, {}).get(version, [])
    reviews = REVIEWS.get((group, version), {})
    if not resources and not reviews:
        return None
    entries = [entry for resource in resources for entry in _entries(resource)]
    entries += [
        {"name": plural, "singularName": kind.lower(), "namespaced": False, "kind": kind, "verbs": ["create"]}
        for plural, kind in reviews.items()
    ]
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{group}/{version}" if group else version,
        "resources": entries,
    }


def _entries(resource: Resource) -> Iterator[Json]:
    kind = resource.kind
    entry: dict[str, Json] = {
        "name": kind.plural,
        "singularName": kind.singular,
        "namespaced": kind.namespaced,
        "kind": kind.name,
        "verbs": [verb for verb in _ALL_VERBS if verb != "deletecollection" or kind.plural != "namespaces"],
    }
    if kind.short_names:
        entry["shortNames"] = list(kind.short_names)
    if kind.categories:
        entry["categories"] = list(kind.categories)
    yield entry
    for name in resource.subresources:
        group, version, word = _KIND_OF.get(name, (kind.group, kind.version, kind.name))
        below: dict[str, Json] = {
            "name": f"{kind.plural}/{name}",
            "singularName": "",
            "namespaced": kind.namespaced,
            "kind": word,
            "verbs": VERBS_OF[name],
        }
        if (group, version) != (kind.group, kind.version):
            below["group"], below["version"] = group, version
        yield below


def aggregated(catalogue: Catalogue, *, core: bool) -> Json:
    """Return discovery in one document (apidiscovery.k8s.io/v2): of `/api` for the core group, else of `/apis`."""
    items = [
        {
            "metadata": {"name": group, "creationTimestamp": None} if group else {"creationTimestamp": None},
            "versions": [
                {
                    "version": version,
                    "resources": _aggregated_resources(catalogue, group, version),
                    "freshness": "Current",
                }
                for version in versions
            ],
        }
        for group, versions in group_versions(catalogue).items()
        if (group == "") == core
    ]
    return {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items}


def _aggregated_resources(catalogue: Catalogue, group: str, version: str) -> list[Json]:
    made: list[Json] = []
    for resource in catalogue.groups.get(group, {}).get(version, []):
        main, *below = _entries(resource)
        made.append(
            {**_aggregated(main, group, version), "subresources": [_aggregated_sub(e, group, version) for e in below]}
        )
        if not made[-1]["subresources"]:
            del made[-1]["subresources"]
    for plural, kind in REVIEWS.get((group, version), {}).items():
        made.append(
            {
                "resource": plural,
                "responseKind": {"group": group, "version": version, "kind": kind},
                "scope": "Cluster",
                "singularResource": kind.lower(),
                "verbs": ["create"],
            }
        )
    return made


def _aggregated(entry: Json, group: str, version: str) -> Json:
    made = {
        "resource": entry["name"],
        "responseKind": {"group": group, "version": version, "kind": entry["kind"]},
        "scope": "Namespaced" if entry["namespaced"] else "Cluster",
        "singularResource": entry["singularName"],
        "verbs": entry["verbs"],
    }
    for name in ("shortNames", "categories"):
        if name in entry:
            made[name] = entry[name]
    return made


def _aggregated_sub(entry: Json, group: str, version: str) -> Json:
    return {
        "subresource": entry["name"].partition("/")[2],
        "responseKind": {
            "group": entry.get("group", group),
            "version": entry.get("version", version),
            "kind": entry["kind"],
        },
        "verbs": entry["verbs"],
    }
