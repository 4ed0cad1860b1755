"""The bundle of a trust domain: the public keys by which its SVIDs are judged (SPIFFE Trust Domain and Bundle)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from wharfinger.identity.spiffeid import TrustDomain

PublicKey: TypeAlias = rsa.RSAPublicKey | ec.EllipticCurvePublicKey
"""What signs JWT-SVIDs: the algorithms of JWT-SVID 2.1 know no others."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """What to trust for the SVIDs of one trust domain.

    `x509_authorities` are CA certificates, `jwt_authorities` and `wit_authorities` map key ids to keys. A bundle
    without authorities of a type distrusts every SVID of that type (4.1.3). `sequence` orders the versions
    of a bundle, `refresh_hint` is in seconds; None where the publisher gave none (4.1.1, 4.1.2).
    """

    trust_domain: TrustDomain
    x509_authorities: tuple[x509.Certificate, ...] = ()
    jwt_authorities: Mapping[str, PublicKey] = field(default_factory=dict)
    wit_authorities: Mapping[str, PublicKey] = field(default_factory=dict)
    sequence: int | None = None
    refresh_hint: int | None = None


Bundles: TypeAlias = Mapping[TrustDomain, Bundle]
"""Every bundle that is known, each under its own trust domain; they are never merged."""
