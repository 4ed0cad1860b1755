"""What a guard looks for: secrets by their published shapes, personal data by shape and checksum.

Every pattern runs in RE2, so that no text makes it slow. A pattern is `run`, when a match lies within one run of
characters without white space, or says in `live` what its unfinished beginning at the end of a text looks like, so
that a stream is held back no further than it must be.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import re2

Check = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Detector:
    """One thing to look for. Group 1, when there is one, is the part that is masked; `check` confirms a candidate."""

    name: str
    pattern: str
    live: str = ""
    check: Check | None = None
    compiled: Any = None


@dataclass(frozen=True, slots=True)
class Finding:
    """Something found: `start` and `end` are offsets of what is to be masked, `begin` of all that shows it."""

    detector: str
    start: int
    end: int
    begin: int


def entropy(text: str) -> float:
    """Return the Shannon entropy of `text` in bits per character."""
    total = len(text)
    return -sum(n / total * math.log2(n / total) for n in Counter(text).values()) if total else 0.0


def luhn(text: str) -> bool:
    """Say whether the digits of `text` pass the Luhn check (ISO/IEC 7812-1) and are not all alike."""
    digits = [int(c) for c in text if c.isdigit()]
    if not 13 <= len(digits) <= 19 or len(set(digits)) < 2:
        return False
    doubled = [d if i % 2 == 0 else (d * 2 - 9 if d > 4 else d * 2) for i, d in enumerate(reversed(digits))]
    return sum(doubled) % 10 == 0


def iban(text: str) -> bool:
    """Say whether `text` passes the IBAN check (ISO 13616, mod 97)."""
    compact = text.replace(" ", "").upper()
    if not 15 <= len(compact) <= 34:
        return False
    moved = compact[4:] + compact[:4]
    return int("".join(str(int(c, 36)) for c in moved)) % 97 == 1


def social_security(text: str) -> bool:
    """Say whether `text` can be a US social security number (no area 000, 666, 9xx; no group 00, serial 0000)."""
    area, group, serial = text[:3], text[4:6], text[-4:]
    return area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"


def telephone(text: str) -> bool:
    """Say whether `text` has as many digits as a telephone number with an area has (ITU-T E.164: at most 15)."""
    return 10 <= sum(c.isdigit() for c in text) <= 15


def random_looking(text: str) -> bool:
    """Say whether `text` looks drawn at random: entropy above 3 bits a character, letters and digits."""
    value = text.strip("\"'")
    return entropy(value) > 3.0 and any(c.isdigit() for c in value) and any(c.isalpha() for c in value)


def _prefixed(name: str, prefix: str, tail: str) -> Detector:
    return Detector(name, rf"(?:^|[^A-Za-z0-9])({prefix}{tail})")


_WORDS = (
    r"api[_\-]?key|access[_\-]?key|secret|token|passw(?:or)?d|passwd|pwd|credential|auth|client[_\-]?id|"
    r"private[_\-]?key|_key|-key|apikey"
)
_KEYWORD = rf"(?i:[a-z0-9_.\-]{{0,40}}(?:{_WORDS})[a-z0-9_.\-]{{0,20}})"
_BEFORE = r"[\"'` \t)]{0,3}(?:string ?)?"
_AFTER = r"[\"'` \t\n=>]{0,12}"
_SEPARATOR = _BEFORE + r"(?::=|\?=|=>|=|:|,|\|\||>)" + _AFTER


SECRETS: Final[tuple[Detector, ...]] = (
    Detector(
        "private-key",
        r"(-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----[A-Za-z0-9+/=\s:,.\-]{32,}?-----END [A-Z0-9 ]{0,40}PRIVATE KEY)",
        live=r"-----BEGIN [A-Z0-9 ]{0,40}(?:PRIVATE KEY(?: BLOCK)?(?:-----[A-Za-z0-9+/=\s:,.\-]*|-{0,4})|[A-Z ]*)$|-{1,5}(?:B|BE|BEG|BEGI|BEGIN ?)?$",
    ),
    _prefixed("aws-access-key", "(?:AKIA|ASIA|ABIA|ACCA|A3T[A-Z0-9])", r"[A-Z2-7]{16}"),
    _prefixed("github", "(?:ghp|gho|ghu|ghs|ghr)_", r"[A-Za-z0-9]{36,}"),
    _prefixed("github-fine", "github_pat_", r"[A-Za-z0-9_]{60,}"),
    _prefixed("gitlab", "(?:glpat|gldt|glrt|glptt|glft|glimt|glagent|gloas|glsoat|glcbt)-", r"[A-Za-z0-9_\-=.]{16,}"),
    _prefixed("gitlab-runner", "GR1348941", r"[A-Za-z0-9_\-]{20}"),
    _prefixed("openai", "sk-", r"(?:proj-|svcacct-|admin-)?[A-Za-z0-9_\-]{20,}"),
    _prefixed("slack", "xox[abeoprs]-", r"[A-Za-z0-9\-]{10,}"),
    _prefixed("slack-app", "xapp-", r"[0-9]-[A-Z0-9]+-[0-9]+-[A-Za-z0-9]+"),
    _prefixed("stripe", "(?:sk|rk)_(?:test|live|prod)_", r"[A-Za-z0-9]{10,99}"),
    _prefixed("google-api", "AIza", r"[A-Za-z0-9_\-]{35}"),
    _prefixed("google-oauth", "ya29\\.", r"[A-Za-z0-9_\-]{20,}"),
    _prefixed("npm", "npm_", r"[A-Za-z0-9]{36}"),
    _prefixed("pypi", "pypi-AgEIcHlwaS5vcmc", r"[A-Za-z0-9_\-]{50,}"),
    _prefixed("huggingface", "(?:hf|api_org)_", r"[A-Za-z]{34}"),
    _prefixed("sendgrid", "SG\\.", r"[A-Za-z0-9=_\-.]{66}"),
    _prefixed("sendinblue", "xkeysib-", r"[a-f0-9]{64}-[A-Za-z0-9]{16}"),
    _prefixed("shopify", "shp(?:at|ca|pa|ss)_", r"[A-Fa-f0-9]{32}"),
    _prefixed("digitalocean", "do[oprt]_v1_", r"[a-f0-9]{64}"),
    _prefixed("databricks", "dapi", r"[a-f0-9]{32}(?:-[0-9])?"),
    _prefixed("doppler", "dp\\.(?:pt|st|ct|sa|scim|audit)\\.", r"[A-Za-z0-9.]{40,}"),
    _prefixed("dynatrace", "dt0c01\\.", r"[A-Za-z0-9]{24}\.[A-Za-z0-9]{64}"),
    _prefixed("grafana", "(?:glc_|glsa_)", r"[A-Za-z0-9+/_=]{32,}"),
    _prefixed("hashicorp-vault", "(?:hvs|hvb)\\.", r"[A-Za-z0-9_\-]{24,}"),
    _prefixed("terraform", "[A-Za-z0-9]{14}\\.atlasv1\\.", r"[A-Za-z0-9_\-=]{60,70}"),
    _prefixed("linear", "lin_api_", r"[A-Za-z0-9]{40}"),
    _prefixed("notion", "(?:ntn_|secret_)", r"[A-Za-z0-9]{40,}"),
    _prefixed("postman", "PMAK-", r"[A-Fa-f0-9]{24}-[A-Fa-f0-9]{34}"),
    _prefixed("pulumi", "pul-", r"[a-f0-9]{40}"),
    _prefixed("planetscale", "pscale_(?:tkn|oauth|pw)_", r"[A-Za-z0-9=._\-]{32,64}"),
    _prefixed("rubygems", "rubygems_", r"[a-f0-9]{48}"),
    _prefixed("square", "(?:EAAA|sq0atp-|sq0csp-)", r"[A-Za-z0-9_\-+=]{22,60}"),
    _prefixed("telegram", "[0-9]{5,16}:", r"A[A-Za-z0-9_\-]{34}"),
    _prefixed("twilio", "SK", r"[0-9a-f]{32}"),
    _prefixed("mailgun", "(?:key|pubkey)-", r"[a-f0-9]{32}"),
    _prefixed("new-relic", "(?:NRAK|NRJS|NRII|NRRA)-", r"[A-Za-z0-9\-]{19,32}"),
    _prefixed("perplexity", "pplx-", r"[A-Za-z0-9]{48}"),
    _prefixed("anthropic", "sk-ant-", r"[A-Za-z0-9_\-]{40,}"),
    _prefixed("groq", "gsk_", r"[A-Za-z0-9]{40,}"),
    _prefixed("age", "AGE-SECRET-KEY-1", r"[QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L]{58}"),
    _prefixed("onepassword", "A3-", r"[A-Z0-9]{6}-(?:[A-Z0-9]{11}|[A-Z0-9]{6}-[A-Z0-9]{5})-[A-Z0-9]{5}-[A-Z0-9]{5}-[A-Z0-9]{5}"),
    _prefixed("onepassword-service", "ops_", r"eyJ[A-Za-z0-9+/]{200,}={0,3}"),
    _prefixed("adobe", "p8e-", r"[A-Za-z0-9]{32}"),
    _prefixed("alibaba", "LTAI", r"[A-Za-z0-9]{20}"),
    _prefixed("atlassian", "ATATT3", r"[A-Za-z0-9_\-=]{186}"),
    _prefixed("artifactory", "AKCp", r"[A-Za-z0-9]{69}"),
    _prefixed("clojars", "CLOJARS_", r"[A-Za-z0-9]{60}"),
    _prefixed("duffel", "duffel_(?:test|live)_", r"[A-Za-z0-9_\-=]{43}"),
    _prefixed("easypost", "EZ[AT]K", r"[A-Za-z0-9]{54}"),
    _prefixed("flutterwave", "FLW(?:PUB|SEC)K_TEST-", r"[a-hA-H0-9]{12,32}-X"),
    _prefixed("flutterwave-enc", "FLWSECK_TEST", r"[a-hA-H0-9]{12}"),
    _prefixed("fly", "(?:fo1_|fm1[ar]_|fm2_)", r"[A-Za-z0-9+/=_\-]{43,}"),
    _prefixed("frameio", "fio-u-", r"[A-Za-z0-9\-_=]{64}"),
    _prefixed("harness", "(?:pat|sat)\\.", r"[A-Za-z0-9_\-]{22}\.[A-Za-z0-9]{24}\.[A-Za-z0-9]{20}"),
    _prefixed("heroku", "HRKU-AA", r"[A-Za-z0-9_\-]{58}"),
    _prefixed("infracost", "ico-", r"[A-Za-z0-9]{32}"),
    _prefixed("intra42", "s-s4t2(?:ud|af)-", r"[a-f0-9]{64}"),
    _prefixed("microsoft-entra", "[A-Za-z0-9_~.]{3}[0-9]Q~", r"[A-Za-z0-9_~.\-]{31,34}"),
    _prefixed("octopus", "API-", r"[A-Z0-9]{26}"),
    _prefixed("openshift", "sha256~", r"[A-Za-z0-9_\-]{43}"),
    _prefixed("plaid", "access-(?:sandbox|development|production)-", r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"),
    _prefixed("prefect", "pn[ub]_", r"[A-Za-z0-9]{36}"),
    _prefixed("readme", "rdme_", r"[a-z0-9]{70}"),
    _prefixed("scalingo", "tk-us-", r"[A-Za-z0-9_\-]{48}"),
    _prefixed("sentry", "(?:sntrys_eyJ|sntryu_)", r"[A-Za-z0-9+/=_]{40,}"),
    _prefixed("settlemint", "sm_(?:aat|pat|sat)_", r"[A-Za-z0-9]{16}"),
    _prefixed("shippo", "shippo_(?:live|test)_", r"[a-fA-F0-9]{40}"),
    _prefixed("sourcegraph", "sgp_", r"(?:[a-fA-F0-9]{16}_|local_)?[a-fA-F0-9]{40}"),
    _prefixed("typeform", "tfp_", r"[A-Za-z0-9\-_.=]{59}"),
    _prefixed("yandex", "(?:AQVN|t1\\.)", r"[A-Za-z0-9_\-]{35,}"),
    _prefixed("maxmind", "[A-Za-z0-9]{6}_", r"[A-Za-z0-9]{29}_mmk"),
    _prefixed("cloudflare-origin", "v1\\.0-", r"[a-f0-9]{24}-[a-f0-9]{146}"),
    _prefixed("beamer", "b_", r"[A-Za-z0-9=_\-]{44}"),
    _prefixed("facebook", "EAA[MC]", r"[A-Za-z0-9]{100,}"),
    _prefixed("json-web-token", "ey[A-Za-z0-9]{17,}\\.ey", r"[A-Za-z0-9/_\-]{17,}\.[A-Za-z0-9/_\-]{10,}={0,2}"),
    _prefixed("slack-hook", "(?:https?://)?hooks\\.slack\\.com/", r"(?:services|workflows|triggers)/[A-Za-z0-9+/]{40,}"),
    _prefixed("teams-hook", "https://[a-z0-9]+\\.webhook\\.office\\.com/webhookb2/", r"[A-Za-z0-9@/\-]{60,}"),
    Detector("url-password", r"(?i:[a-z][a-z0-9+.\-]{1,20}://[^\s:/@]{1,80}):([^\s:/@]{3,80})@"),
    Detector(
        "named-secret",
        _KEYWORD + _SEPARATOR + r"[\"'`]?([A-Za-z0-9_\-.=+/~]{12,200})",
        live=rf"(?i:[a-z0-9_.\-]*(?:{_WORDS})[a-z0-9_.\-]*)(?:[\"'` \t)]{{0,3}}(?:s|st|str|stri|strin|string ?)?"
        r"(?::=|\?=|=>|=|:|,|\|\||>|\?|\|)?)" + _AFTER + r"[A-Za-z0-9_\-.=+/~]*$",
        check=random_looking,
    ),
)  # fmt: skip

PII: Final[tuple[Detector, ...]] = (
    Detector("email", r"([A-Za-z0-9._%+\-]{1,64}@(?:[A-Za-z0-9\-]{1,63}\.){1,6}[A-Za-z]{2,24})"),
    Detector("credit-card", r"(?:^|[^0-9])([0-9](?:[ \-]?[0-9]){12,18})", live=r"[0-9](?:[ \-]?[0-9])*[ \-]?$", check=luhn),
    Detector("us-ssn", r"(?:^|[^0-9\-])([0-9]{3}-[0-9]{2}-[0-9]{4})", check=social_security),
    Detector(
        "iban",
        r"(?:^|[^A-Za-z0-9])([A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?)",
        live=r"[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{1,4}){0,9} ?$",
        check=iban,
    ),
    Detector(
        "telephone",
        r"(?:^|[^0-9A-Za-z+])(\+?[0-9(](?:[ .\-()/x]{0,2}[0-9)]){9,17})",
        live=r"\+?[0-9(](?:[ .\-()/x]{0,2}[0-9)])*[ .\-()/x]{0,2}$|\+$",
        check=telephone,
    ),
    Detector("ip-address", r"(?:^|[^0-9.])((?:(?:25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])\.){3}(?:25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9]))(?:$|[^0-9.])"),
)  # fmt: skip

FAMILIES: Final = {"secrets": SECRETS, "pii": PII}


class Scanner:
    """Finds what the detectors of some `families` look for, in a text or at its unfinished end."""

    def __init__(self, families: tuple[str, ...]) -> None:
        self._detectors = [detector for family in families for detector in FAMILIES[family]]
        self._patterns = [re2.compile(detector.pattern) for detector in self._detectors]
        shapes = [f"(?:{d.pattern})" for d in self._detectors]
        options = re2.Options()
        options.max_mem = 64 << 20
        self._any = re2.compile("|".join(_without_groups(shape) for shape in shapes), options) if shapes else None
        lives = [d.live for d in self._detectors if d.live]
        self._live = [re2.compile(live) for live in lives]

    def find(self, text: str) -> list[Finding]:
        """Return the findings in `text`, in order, overlapping ones merged."""
        if self._any is None or not self._any.search(text):
            return []
        found = []
        for detector, pattern in zip(self._detectors, self._patterns, strict=True):
            for match in pattern.finditer(text):
                start, end = match.span(1)
                if detector.check is None or detector.check(text[start:end]):
                    found.append(Finding(detector.name, start, end, match.start()))
        found.sort(key=lambda finding: (finding.start, -finding.end))
        merged: list[Finding] = []
        for finding in found:
            if merged and finding.start < merged[-1].end:
                last = merged[-1]
                merged[-1] = Finding(
                    last.detector, last.start, max(last.end, finding.end), min(last.begin, finding.begin)
                )
            else:
                merged.append(finding)
        return merged

    def live_from(self, text: str) -> int:
        """Return where in `text` an unfinished match may begin: what stands before it is settled."""
        if not self._detectors:
            return len(text)
        cut = _run_start(text, len(text))
        for pattern in self._live:
            match = pattern.search(text)
            if match is not None:
                cut = min(cut, _run_start(text, match.start()))
        if cut < len(text):
            for finding in reversed(self.find(text)):
                if finding.end > cut > finding.begin:
                    cut = _run_start(text, finding.begin)
        return cut


def _run_start(text: str, end: int) -> int:
    """Return where the run without white space that ends at `end` begins."""
    while end > 0 and not text[end - 1].isspace():
        end -= 1
    return end


def _without_groups(pattern: str) -> str:
    """Return `pattern` with its capturing groups made plain: an alternation of all needs none."""
    made, index, in_class = [], 0, False
    while index < len(pattern):
        c = pattern[index]
        if c == "\\":
            made.append(pattern[index : index + 2])
            index += 2
            continue
        if c == "[" and not in_class:
            in_class = True
        elif c == "]" and in_class:
            in_class = False
        if c == "(" and not in_class and pattern[index + 1 : index + 2] != "?":
            made.append("(?:")
        else:
            made.append(c)
        index += 1
    return "".join(made)
