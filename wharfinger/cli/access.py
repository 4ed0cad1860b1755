"""`wharf kubeconfig`, `token`, `apikey`, `revoke`: let people in, and shut doors again."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from pathlib import Path
from typing import Any, Final

import click

from wharfinger.cli.get import connect
from wharfinger.cli.options import namespace, output, show_json, state_dir
from wharfinger.cluster.client import Client, Resource
from wharfinger.cluster.endpoint import from_kubeconfig
from wharfinger.core.errors import AlreadyExists, HostUnfit, Invalid, NotFound, excerpt
from wharfinger.identity import apikey as apikeys
from wharfinger.identity.spiffeid import Part, Person, SpiffeId, TrustDomain, Workload

_MANAGER: Final = "wharf"
_TENANTS: Final = Resource("wharfinger.io", "v1alpha1", "tenants", "Tenant", False)
_POLICIES: Final = Resource("wharfinger.io", "v1alpha1", "accesspolicies", "AccessPolicy", False)
_SECRETS: Final = Resource("", "v1", "secrets", "Secret")
_NAMESPACES: Final = Resource("", "v1", "namespaces", "Namespace", False)
_PARTS: Final = ("gateway", "registry", "api", "console")
_VERBS: Final = ("call", "pull", "push", "see", "serve")
_DESCRIPTION: Final = "kubernetes.io/description"
_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600}
_KEY_BYTES: Final = 24


class _Lifetime(click.ParamType[int]):
    """A lifetime in seconds: 900, 30m, 8h."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        found = re.fullmatch(r"([1-9][0-9]{0,8})([smh]?)", str(value), re.ASCII)
        if found is None:
            self.fail(f"expected a time such as 30m or 8h, got {excerpt(value)}", param, ctx)
        return int(found[1]) * _UNITS[found[2]]


@click.command()
@click.option("--tenant", required=True, help="Whose person it is.")
@click.option("--user", required=True, help="The person's name.")
@click.option("--ttl", type=_Lifetime(), help="How long it holds, up to 24h.  [default: 8h]")
@click.option(
    "-o",
    "--output",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write it to this file, mode 0600, instead of stdout.",
)
@namespace
@state_dir
def kubeconfig(tenant: str, user: str, ttl: int | None, file: Path | None, namespace: str, state_dir: Path) -> None:
    """Issue a person of a tenant a kubeconfig with a short-lived certificate.

    The key is made here and stays in the kubeconfig; the issuer sees its public half only.
    """
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
    )

    from wharfinger.bootstrap import admin
    from wharfinger.bootstrap.operations import port_of, request
    from wharfinger.bootstrap.state import State, write_file
    from wharfinger.cluster.endpoint import credentials

    home = namespace or _home(state_dir, tenant)
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode("ascii")
    asked = {"tenant": tenant, "user": user, "publicKeyPem": public, "ttlSeconds": ttl or 0}
    chain = json.loads(request(state_dir, "issuer", "POST", "/v1/persons", asked))["certificates"]
    state = State(state_dir)
    text = admin.kubeconfig(
        port=port_of(state, "api"),
        authorities=credentials(state.kubeconfig).authorities,
        user=f"{tenant}-{user}",
        certificates=chain.encode("ascii"),
        key=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        namespace=home,
    )
    if file is None:
        click.echo(text.decode(), nl=False)
        return
    try:
        write_file(file.absolute(), text)
    except OSError as error:
        raise HostUnfit(f"{file}: {error.strerror}") from error
    click.echo(f"wrote {file}", err=True)


@click.command()
@click.option("--tenant", required=True, help="Whose person it is.")
@click.option("--user", required=True, help="The person's name.")
@click.option(
    "--audience",
    default="gateway",
    show_default=True,
    help=f"Whom it is for: {', '.join(_PARTS)}, or any other text as it is.",
)
@click.option("--ttl", type=_Lifetime(), help="How long it holds, up to 1h.  [default: 5m]")
@output("json")
@state_dir
def token(tenant: str, user: str, audience: str, ttl: int | None, output: str | None, state_dir: Path) -> None:
    """Issue a person a short-lived JWT-SVID: for curl, for `oras login`, for the openai client."""
    from wharfinger.bootstrap.operations import request

    meant = str(SpiffeId.part(_domain(state_dir), audience)) if audience in _PARTS else audience
    asked = {"tenant": tenant, "user": user, "audience": meant, "ttlSeconds": ttl or 0}
    found = json.loads(request(state_dir, "issuer", "POST", "/v1/tokens", asked))["token"]
    if output == "json":
        show_json({"token": found, "audience": meant})
    else:
        click.echo(found)


@click.command()
@click.argument("name")
@click.option("--for", "holder", required=True, metavar="WHO", help="TENANT/USER, or a SPIFFE ID: whom it stands for.")
@namespace
@output("json")
@state_dir
def apikey(name: str, holder: str, namespace: str, output: str | None, state_dir: Path) -> None:
    """Make an API key NAME for the gateway that stands for a SPIFFE ID, and show it, this once.

    What is kept is a Secret with the key's digest. A tenant's own namespace holds keys for its people and workloads
    alone; by default it is kept in the platform's.
    """
    client = connect(state_dir)
    home = namespace or client.endpoint.namespace
    home = apikeys.SYSTEM_NAMESPACE if home == "default" and not namespace else home
    who = _holder(holder, state_dir)
    key = apikeys.PREFIX + secrets.token_urlsafe(_KEY_BYTES)
    secret = apikeys.secret(name, home, key, who)
    tenant_of = {}
    if home == apikeys.SYSTEM_NAMESPACE:
        _make_namespace(client, home)
    elif isinstance(who.kind, Person):
        tenant_of = dict.fromkeys(_namespaces(client, who.kind.tenant), who.kind.tenant)
    # What the gateway would pass over is not made.
    apikeys.read(secret, tenant_of)
    client.create(_SECRETS, secret, manager=_MANAGER)
    if output == "json":
        show_json({"key": key, "name": name, "namespace": home, "spiffeId": str(who)})
        return
    click.echo(key)
    click.echo(f"stands for {who}; take it back with: kubectl delete secret {name} -n {home}", err=True)


@click.command()
@click.argument("identity")
@click.option("--reason", default="", help="Why, for those who find their doors shut.")
@click.option("--lift", is_flag=True, help="Take the revocation back.")
@output("json", "name")
@state_dir
def revoke(identity: str, reason: str, lift: bool, output: str | None, state_dir: Path) -> None:
    """Revoke what IDENTITY, a SPIFFE ID, was granted: every door is shut to it within a second.

    Writes an AccessPolicy that denies it everything. It stays so until the policy is deleted, or with --lift.
    """
    client, who = connect(state_dir), SpiffeId(identity)
    if not isinstance(who.kind, Workload | Person):
        raise Invalid(f"expected the SPIFFE ID of a workload or a person, got {who}")
    policy = denial(who, reason)
    name = policy["metadata"]["name"]
    if lift:
        client.delete(_POLICIES, "", name)
        click.echo(f"accesspolicy/{name} deleted")
        return
    made = client.apply(_POLICIES, policy, manager=_MANAGER, force=True)
    if output == "json":
        show_json(made)
    elif output == "name":
        click.echo(f"accesspolicy/{name}")
    else:
        click.echo(f"{who} revoked by accesspolicy/{name}")
        click.echo(f"take it back with: wharf revoke {who} --lift", err=True)


def denial(who: SpiffeId, reason: str = "") -> dict[str, Any]:
    """Return the AccessPolicy that denies `who` everything (docs/adr/0002); one per identity."""
    slug = re.sub(r"[^a-z0-9]+", "-", who.path.lower()).strip("-")[:48].strip("-")
    digest = hashlib.sha256(str(who).encode()).hexdigest()[:8]
    return {
        "apiVersion": _POLICIES.api_version,
        "kind": _POLICIES.kind,
        "metadata": {
            "name": f"revoked-{slug}-{digest}",
            "annotations": {_DESCRIPTION: reason or f"{who} is revoked"},
        },
        "spec": {"effect": "Deny", "identities": [str(who)], "verbs": list(_VERBS)},
    }


def _holder(text: str, directory: Path) -> SpiffeId:
    """Return whom TENANT/USER or a SPIFFE ID names. Raises `Invalid` for a part of the platform."""
    if "://" in text:
        who = SpiffeId(text)
    else:
        tenant, slash, user = text.partition("/")
        if not slash:
            raise Invalid(f"expected TENANT/USER or a SPIFFE ID, got {excerpt(text)}")
        who = SpiffeId.person(_domain(directory), tenant, user)
    if who.kind is None or isinstance(who.kind, Part):
        raise Invalid(f"expected a person or a workload, got {who}")
    return who


def _domain(directory: Path) -> TrustDomain:
    from wharfinger.bootstrap.operations import admin
    from wharfinger.bootstrap.state import State

    return admin(State(directory)).material().svid.id.trust_domain


def _home(directory: Path, tenant: str) -> str:
    """Return the first namespace of `tenant`. Raises `NotFound`, since nobody is of a tenant that is not there."""
    client = Client(from_kubeconfig(directory / "kubeconfig"))
    try:
        names = _namespaces(client, tenant)
    except NotFound as error:
        raise NotFound(f"no tenant {excerpt(tenant)}", hint="wharf get tenants lists them") from error
    return names[0] if names else "default"


def _namespaces(client: Client, tenant: str) -> list[str]:
    return [str(name) for name in client.get(_TENANTS, "", tenant)["spec"].get("namespaces") or ()]


def _make_namespace(client: Client, name: str) -> None:
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    try:
        client.create(_NAMESPACES, body, manager=_MANAGER)
    except AlreadyExists:
        return
