"""The authority: what the vault's keys are used for. It signs what it built itself from a typed request, never bytes.

Who may ask for what is judged before; here the forms and the lifetimes are kept.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from wharfinger.core.clock import HOUR, MINUTE, SECOND, Clock, Instant, Span, instant_of
from wharfinger.core.document import canonical
from wharfinger.core.errors import HostUnfit, Invalid
from wharfinger.identity import jwk
from wharfinger.identity.bundle import Bundle, Bundles
from wharfinger.identity.issuer import certificates
from wharfinger.identity.issuer.vault import Vault
from wharfinger.identity.spiffeid import Part, SpiffeId, TrustDomain
from wharfinger.identity.x509svid import X509Svid


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long what is issued holds, unless the request says less.

    `svid`: parts and workloads, rotated at half; `admin`: the local admin, whose kubeconfig must last a working day
    between renewals; `person` and `longest_person`: default and most for people; `token` and `longest_token`: the same
    for JWT-SVIDs; `signing`: the leaf of one signature, which only has to live until the log has it.
    """

    svid: Span = HOUR
    admin: Span = 24 * HOUR
    person: Span = 8 * HOUR
    longest_person: Span = 24 * HOUR
    token: Span = 5 * MINUTE
    longest_token: Span = HOUR
    signing: Span = 10 * MINUTE


SHORTEST: Final = SECOND


class Authority:
    """Issues for one trust domain with the keys in `vault`; threads share it.

    Every method raises `HostUnfit` while the clock stands before the root was made: what is issued then would never
    verify.
    """

    def __init__(self, vault: Vault, clock: Clock, lifetimes: Lifetimes | None = None) -> None:
        self._vault = vault
        self._clock = clock
        self.lifetimes = lifetimes or Lifetimes()
        domain = vault.trust_domain
        self._bundle = Bundle(domain, (vault.root,), vault.jwt_authorities)
        (self._key_id,) = vault.jwt_authorities

    @property
    def trust_domain(self) -> TrustDomain:
        """The trust domain issued for."""
        return self._vault.trust_domain

    @property
    def bundles(self) -> Bundles:
        """What to judge this trust domain's SVIDs by."""
        return {self.trust_domain: self._bundle}

    def svid(self, spiffe_id: SpiffeId) -> X509Svid:
        """Return a new X.509-SVID with a new key for a part or workload that was attested."""
        life = self.lifetimes.admin if spiffe_id.kind == Part("admin") else self.lifetimes.svid
        key = ec.generate_private_key(ec.SECP256R1())
        return X509Svid(spiffe_id, (self._certificate(spiffe_id, key.public_key(), life),), key)

    def person(self, spiffe_id: SpiffeId, public_key_pem: bytes, life: Span = 0) -> x509.Certificate:
        """Return an X.509-SVID of a person over their own public key; 0 is the default lifetime.

        Raises `Invalid` for a key that is not fit, or a lifetime beyond the longest.
        """
        span = _bounded(life, self.lifetimes.person, self.lifetimes.longest_person)
        try:
            key = certificates.fit_key(load_pem_public_key(public_key_pem))
        except ValueError as error:
            raise Invalid("publicKeyPem: expected a public key in PEM") from error
        return self._certificate(spiffe_id, key, span)

    def token(self, spiffe_id: SpiffeId, audiences: Collection[str], life: Span = 0) -> str:
        """Return a JWT-SVID of `spiffe_id` for `audiences` (JWT-SVID 3); 0 is the default lifetime.

        Raises `Invalid` without an audience, or for a lifetime beyond the longest.
        """
        named = sorted({audience for audience in audiences if audience})
        if not named:
            raise Invalid("expected an audience, got none")
        span = _bounded(life, self.lifetimes.token, self.lifetimes.longest_token)
        now = self._now()
        header = {"alg": "ES256", "kid": self._key_id, "typ": "JWT"}
        claims = {
            "sub": str(spiffe_id),
            "aud": named,
            "iat": now // SECOND,
            "exp": (now + span) // SECOND,
        }
        signed = f"{jwk.encode(canonical(header))}.{jwk.encode(canonical(claims))}"
        return f"{signed}.{jwk.encode(self._vault.sign_token(signed.encode('ascii')))}"

    def sign_once(self, signer: SpiffeId, message: bytes) -> tuple[x509.Certificate, bytes]:
        """Return a leaf for code signing made for this one `message`, and the signature; its key is gone then."""
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = self._certificate(signer, key.public_key(), self.lifetimes.signing, code_signing=True)
        return leaf, key.sign(message, ec.ECDSA(hashes.SHA256()))

    def _certificate(
        self, spiffe_id: SpiffeId, key: certificates.LeafKey, life: Span, *, code_signing: bool = False
    ) -> x509.Certificate:
        now, root = self._now(), self._vault.root
        uses = certificates.CODE_SIGNING if code_signing else certificates.PEER
        start = max(now - certificates.BACKDATED, instant_of(root.not_valid_before_utc))
        end = min(now + life, instant_of(root.not_valid_after_utc))
        return self._vault.sign_certificate(certificates.svid(spiffe_id, key, root, start, end, uses=uses))

    def _now(self) -> Instant:
        now = self._clock.now()
        if now < instant_of(self._vault.root.not_valid_before_utc):
            raise HostUnfit("the clock stands before this trust domain was made", hint="set the clock right")
        return now


def _bounded(asked: Span, default: Span, longest: Span) -> Span:
    if asked == 0:
        return default
    if not SHORTEST <= asked <= longest:
        raise Invalid(f"expected a lifetime from 1 to {longest // SECOND} seconds, got {asked // SECOND}")
    return asked
