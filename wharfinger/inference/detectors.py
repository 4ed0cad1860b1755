r"""What a guard looks for: secrets by their published shapes and by their names, personal data by shape and checksum.

A `Shape` is a bounded pattern (`inference.pattern`), matched by RE2 over bytes, so that no text makes it slow. Most
shapes state the shortest form of a credential: what goes on in the same characters behind it belongs to it and is
masked with it, so that a finding is known as soon as its shortest form is there. A `NAMED` value is a random-looking
text behind a name such as `api_key =`: the name passes, the value is masked.

Sources: the vendors' documentation of their tokens; ISO/IEC 7812-1 (Luhn), ISO 13616 (IBAN), E.164, RFC 4291.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from wharfinger.inference.pattern import Pattern, parse

Family: TypeAlias = Literal["secrets", "pii"]
Check: TypeAlias = Callable[[str], int]
"""Returns how much of a candidate is a finding, in characters from its start; 0 for none of it."""

ANY: Final = r"[\x00-\xff]"
_NOT_ALNUM: Final = "[^A-Za-z0-9]"
_NOT_DIGIT: Final = "[^0-9]"


@dataclass(frozen=True, slots=True)
class Shape:
    """One thing to look for.

    `before` is the class of the byte in front of it, `after` that of the byte behind it (empty: any, or none at all).
    `grows` says that the run of its last class behind it belongs to it; `until` that all belongs to it up to a match
    of this expression. `keep` is how much of its head and tail is shown.
    """

    name: str
    family: Family
    pattern: Pattern
    before: str = _NOT_ALNUM
    after: str = ""
    grows: bool = True
    until: str = ""
    keep: tuple[int, int] = (0, 0)
    check: Check = len


def entropy(text: str) -> float:
    """Return the Shannon entropy of `text` in bits per character."""
    total = len(text)
    return -sum(n / total * math.log2(n / total) for n in Counter(text).values()) if total else 0.0


def luhn(text: str) -> int:
    """Accept digits that pass the Luhn check (ISO/IEC 7812-1), 13 to 19 of them, not all alike."""
    digits = [int(c) for c in text if c.isdigit()]
    if not 13 <= len(digits) <= 19 or len(set(digits)) < 2:
        return 0
    doubled = [d if i % 2 == 0 else (d * 2 - 9 if d > 4 else d * 2) for i, d in enumerate(reversed(digits))]
    return len(text) if sum(doubled) % 10 == 0 else 0


def iban(text: str) -> int:
    """Accept the longest beginning, cut at blanks, that passes the IBAN check (ISO 13616, mod 97)."""
    while text:
        compact = text.replace(" ", "")
        if 15 <= len(compact) <= 34:
            moved = compact[4:] + compact[:4]
            if int("".join(str(int(c, 36)) for c in moved)) % 97 == 1:
                return len(text)
        text = text.rpartition(" ")[0]
    return 0


def social_security(text: str) -> int:
    """Accept what can be a US social security number (no area 000, 666, 9xx; no group 00, no serial 0000)."""
    area, group, serial = text[:3], text[4:6], text[-4:]
    possible = area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"
    return len(text) if possible else 0


def telephone(text: str) -> int:
    """Accept as many digits as a telephone number with its area has (9 to E.164's 15)."""
    return len(text) if 9 <= sum(c.isdigit() for c in text) <= 15 else 0


def network_address(text: str) -> int:
    """Accept an IP address that may be somebody's: not loopback, not unspecified, IPv6 of four groups at least."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return 0
    short = address.version == 6 and sum(1 for group in text.split(":") if group) < 4
    return 0 if short or address.is_loopback or address.is_unspecified else len(text)


_PLACEHOLDERS: Final = re.compile(
    r"x{4}|\*{3}|\.{3}|example|placeholder|change_?me|redacted|your[_-]|dummy|abcdef|012345|123456", re.IGNORECASE
)


def drawn(text: str) -> int:
    """Accept what looks drawn at random rather than written as a placeholder: entropy, no runs, no stop words."""
    return 0 if entropy(text) < 2.6 or _PLACEHOLDERS.search(text) else len(text)


_JUDGED: Final = 128
"""How much of a value tells whether it was drawn at random."""


def unguessable(text: str) -> int:
    """Accept a named value that looks like a credential: letters and digits, high entropy, no word, path or URL."""
    whole, text = len(text), text[:_JUDGED]
    value = text.rstrip("=")
    digits = sum(c.isdigit() for c in value)
    letters = sum(c.isalpha() for c in value)
    if not digits or not drawn(text) or entropy(text) < (3.0 if len(text) > 24 else 2.8):
        return 0
    if "://" in value or value.startswith(("/", "./", "../", "~/")) or _FILE.search(value) or _WORDS.fullmatch(value):
        return 0
    return whole if letters or len(value) >= 20 else 0


_FILE: Final = re.compile(r"\.(?:[a-z]{2,4}|keytab|json|yaml|html)$|\(|\$\{", re.IGNORECASE)
_WORDS: Final = re.compile(
    r"(?:[A-Za-z]{3,}|[0-9]{1,4}|[A-Z][0-9]{1,3})(?:[_\-.:]+(?:[A-Za-z]{2,}|[A-Za-z]?[0-9]{1,4}))+"
)

NAME: Final = (
    r"(?i)([a-z0-9_.\-]{0,40}(?:key|token|secret|passw(?:or)?d|passwd|passphrase|pwd|credentials?|auth|authorization|bearer"
    r"|api|access|client[_\-]?id|access[_\-]?id|webhook|cookie|session|license|cloudflare|sourcegraph|contribsys__com)"
    r"(?:[_.\-]?(?:v?[0-9]{1,4}|value|str|string|base64|hex|prod|dev|test|live|sandbox|id))?)"
    r"([\"'`\])]{0,2})[ \t]{0,12}(?:string[ \t]{0,2})?\z"
)
"""The name of a secret at the end of what stands before a separator, and what closes it; RE2's syntax."""
NOT_A_SECRETS_NAME: Final = re.compile(
    r"(?:pub(?:lic)?|primary|foreign|partition|sort|cache|schema|sequence|idx|hot|natural|bucket|map|dict|object|group|order"
    r"|tur|mon|don|hoc|whis)[_.\-]?key$|keyword|csrf|xsrf|credentials?[_.\-]?id$|access[_.\-]?id$|(?:^|[_.\-])id$"
    r"|(?:session|user|tenant|trace|span|request|device|message|object|account|project|order|thread|group|chat)[_.\-]?id$"
    r"|(?:key|token|secret)[_.\-]?id$|rapid$|valid$|grid$|android$|uuid$|guid$|author$|setsys",
    re.IGNORECASE,
)
"""Names that look like a secret's and are not."""
SEPARATOR: Final = r"(?:[=:>,]|\?=|\|\|)"
GLUE: Final = r"[=:>|\"'` \t\r\n]"
SCHEME: Final = r"(?:(?i:bearer|basic|token|bot) {1,2})?"
VALUE_FIRST: Final = r"[A-Za-z0-9_\-.+/~!@#%^*]"
VALUE: Final = r"[A-Za-z0-9_\-.+/~!@#%^*=:|]"
VALUE_LEAST: Final = 10
VALUE_MOST: Final = 512
GLUE_MOST: Final = 12
NAME_MOST: Final = 72
"""How far before a separator its name is looked for, in bytes."""


def _secret(name: str, pattern: str, *, check: Check = drawn, before: str = _NOT_ALNUM) -> Shape:
    return Shape(name, "secrets", parse(pattern), before, check=check)


_HEX: Final = "[a-f0-9]"
_HEXES: Final = "[A-Fa-f0-9]"
_ALNUM: Final = "[A-Za-z0-9]"
_WORD: Final = "[A-Za-z0-9_-]"
_UUID: Final = f"{_HEXES}{{8}}-{_HEXES}{{4}}-{_HEXES}{{4}}-{_HEXES}{{4}}-{_HEXES}{{12}}"

SECRETS: Final[tuple[Shape, ...]] = (
    Shape(
        "private-key",
        "secrets",
        parse(
            r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY( BLOCK)?-----[ " + "\t\r\n" + r"\\rn]{0,8}"
            r"((Proc-Type|DEK-Info|Version|Comment): |[A-Za-z0-9+/=]{20})"
        ),
        before=ANY,
        until=r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----",
    ),
    _secret("adobe", f"p8e-{_HEX}{{32}}"),
    _secret("age", "AGE-SECRET-KEY-1[QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L]{58}"),
    _secret("airtable", f"pat{_ALNUM}{{14}}\\.{_HEX}{{64}}"),
    _secret("alibaba", f"LTAI{_ALNUM}{{17}}"),
    _secret("anthropic", f"sk-ant-[a-z0-9]{{3,8}}-{_WORD}{{80}}"),
    _secret("artifactory", f"(AKCp{_ALNUM}{{60}}|cmVmdGtu{_ALNUM}{{50}})"),
    _secret("atlassian", "ATATT3[A-Za-z0-9_=-]{60}"),
    _secret("authress", f"(sc|ext|scauth|authress)_{_ALNUM}{{5,30}}\\.{_ALNUM}{{4,6}}\\.acc[_-]{_ALNUM}{{10,32}}\\.[A-Za-z0-9+/_=-]{{30}}"),
    _secret("aws-access-key", "(AKIA|ASIA|ABIA|ACCA|A3T[A-Z0-9])[A-Z2-7]{16}"),
    _secret("aws-bedrock", "ABSK[A-Za-z0-9+/]{109}"),
    _secret("beamer", "b_[a-z0-9=_-]{44}"),
    _secret("clickhouse", "4b1d[A-Za-z0-9]{38}"),
    _secret("clojars", f"CLOJARS_{_ALNUM}{{60}}"),
    _secret("cloudflare-origin", f"v1\\.0-{_HEX}{{24}}-{_HEX}{{100}}"),
    _secret("databricks", f"dapi{_HEX}{{32}}"),
    _secret("defined-networking", "dnkey-[A-Za-z0-9=_-]{26}-[A-Za-z0-9=_-]{52}"),
    _secret("digitalocean", f"do[oprt]_v1_{_HEX}{{64}}"),
    _secret("docker", f"dckr_(pat|oat)_{_WORD}{{27}}"),
    _secret("doppler", f"dp\\.(pt|st|ct|sa|scim|audit)\\.({_ALNUM}{{2,35}}\\.)?{_ALNUM}{{40}}"),
    _secret("duffel", "duffel_(test|live)_[A-Za-z0-9_=-]{43}"),
    _secret("dynatrace", f"dt0[a-z][0-9]{{2}}\\.{_ALNUM}{{24}}\\.{_ALNUM}{{64}}"),
    _secret("easypost", f"EZ[AT]K{_ALNUM}{{54}}"),
    _secret("facebook", f"EAA[MC]{_ALNUM}{{60}}"),
    _secret("facebook-app", f"[0-9]{{15,16}}\\|{_WORD}{{27}}"),
    _secret("flutterwave", "FLW(PUB|SEC)K_TEST[A-Za-z0-9-]{12}"),
    _secret("fly", "(fo1_[A-Za-z0-9_-]{43}|fm[12][ar]?_[A-Za-z0-9+/=]{60})"),
    _secret("frameio", "fio-u-[A-Za-z0-9_=-]{64}"),
    _secret("freemius", "sk_[A-Za-z0-9!@#%^&*~?-]{29}", check=lambda text: len(text) if set(text) & set("!@#%^&*~?") else 0),
    _secret("github", "gh[pousr]_[A-Za-z0-9]{36}"),
    _secret("github-fine", "github_pat_[A-Za-z0-9_]{60}"),
    _secret("gitlab", "gl(pat|dt|rt|rtr|ptt|ft|imt|agent|oas|soat|cbt|ffct)-[A-Za-z0-9_=.-]{20}"),
    _secret("gitlab-runner", f"GR1348941{_WORD}{{20}}"),
    _secret("gitlab-session", f"_gitlab_session={_HEX}{{32}}", before="[^A-Za-z0-9_]"),
    _secret("gocardless", "live_[A-Za-z0-9_=-]{40}"),
    _secret("google-api", f"AIza{_WORD}{{35}}"),
    _secret("google-oauth", f"(ya29\\.{_WORD}{{30}}|GOCSPX-{_WORD}{{28}})"),
    _secret("grafana", f"(glc_[A-Za-z0-9+/=]{{32}}|glsa_{_ALNUM}{{32}}_{_HEXES}{{8}}|eyJrIjoi{_ALNUM}{{60}})"),
    _secret("groq", f"gsk_{_ALNUM}{{48}}"),
    _secret("harness", f"(pat|sat)\\.{_WORD}{{22}}\\.{_HEXES}{{24}}\\.{_ALNUM}{{20}}"),
    _secret("hashicorp-vault", f"hv[sbr]\\.{_WORD}{{24}}"),
    _secret("heroku", f"HRKU-AA{_WORD}{{58}}"),
    _secret("huggingface", "(hf|api_org)_[A-Za-z]{34}"),
    _secret("infracost", f"ico-{_ALNUM}{{32}}", before="[^A-Za-z0-9.]"),
    _secret("intra42", f"s-s4t2(ud|af)-{_HEX}{{64}}"),
    _secret("json-web-token", f"ey{_ALNUM}{{17,300}}\\.ey[A-Za-z0-9/_-]{{17,900}}\\.[A-Za-z0-9/_-]{{10}}"),
    _secret("linear", f"lin_api_{_ALNUM}{{40}}"),
    _secret("lob", f"(test|live)_(pub_)?{_HEX}{{31}}", before="[^A-Za-z0-9_]"),
    _secret("mailchimp", f"{_HEX}{{32}}-us[0-9]{{1,2}}"),
    _secret("mailgun", f"(key|pubkey)-{_HEX}{{32}}|{_HEX}{{32}}-{_HEX}{{8}}-{_HEX}{{8}}"),
    _secret("mapbox", f"pk\\.{_ALNUM}{{60}}\\.{_ALNUM}{{22}}"),
    _secret("maxmind", f"{_ALNUM}{{6}}_{_ALNUM}{{29}}_mmk"),
    _secret("microsoft-entra", "[A-Za-z0-9_~.]{3}[0-9]Q~[A-Za-z0-9_~.-]{31}", before="[^A-Za-z0-9_~.]"),
    _secret("new-relic", f"(NRAK-{_ALNUM}{{27}}|NRJS-{_HEX}{{19}}|NR(II|RA)-[A-Za-z0-9-]{{32}})"),
    _secret("notion", f"(ntn_[0-9]{{11}}{_ALNUM}{{35}}|secret_{_ALNUM}{{43}})"),
    _secret("npm", f"npm_{_ALNUM}{{36}}"),
    _secret("octopus", "API-[A-Z0-9]{26}"),
    _secret("okta", f"00{_WORD}{{40}}", before="[^A-Za-z0-9_-]", check=lambda text: len(text) if entropy(text) > 4.3 else 0),
    _secret("onepassword", "A3-[A-Z0-9]{6}-([A-Z0-9]{11}|[A-Z0-9]{6}-[A-Z0-9]{5})-[A-Z0-9]{5}-[A-Z0-9]{5}-[A-Z0-9]{5}"),
    _secret("onepassword-service", "ops_eyJ[A-Za-z0-9+/=]{100}"),
    _secret("openai", f"sk-((proj|svcacct|admin|None)-{_WORD}{{40}}|{_ALNUM}{{20}}T3BlbkFJ{_ALNUM}{{20}}|{_ALNUM}{{48}})"),
    _secret("openshift", f"sha256~{_WORD}{{43}}"),
    _secret("perplexity", f"pplx-{_ALNUM}{{48}}"),
    _secret("plaid", f"access-(sandbox|development|production)-{_UUID}"),
    _secret("planetscale", "pscale_(tkn|oauth|pw)_[A-Za-z0-9=._-]{32}"),
    _secret("postman", f"PMAK-{_HEXES}{{24}}-{_HEXES}{{34}}"),
    _secret("prefect", f"pn[ub]_{_ALNUM}{{36}}"),
    _secret("pulumi", f"pul-{_HEX}{{40}}"),
    _secret("pypi", f"pypi-AgEIcHlwaS5vcmc{_WORD}{{50}}"),
    _secret("readme", "rdme_[a-z0-9]{70}"),
    _secret("rubygems", f"rubygems_{_HEX}{{48}}"),
    _secret("scalingo", f"tk-us-{_WORD}{{48}}"),
    _secret("sendgrid", "SG\\.[A-Za-z0-9_-]{22}\\.[A-Za-z0-9_-]{43}"),
    _secret("sendinblue", f"xkeysib-{_HEX}{{64}}-{_ALNUM}{{16}}"),
    _secret("sentry", f"(sntrys_eyJ[A-Za-z0-9+/=_]{{60}}|sntryu_{_HEX}{{64}})"),
    _secret("settlemint", f"sm_(aat|pat|sat)_{_ALNUM}{{16}}"),
    _secret("shippo", f"shippo_(live|test)_{_HEXES}{{40}}"),
    _secret("shopify", f"shp(at|ca|pa|ss)_{_HEXES}{{32}}"),
    _secret("slack", "xox([bep](-[0-9]{8,14}){1,3}-[A-Za-z0-9-]{14}|[osr](-[0-9]{1,14}){1,3}-[A-Fa-f0-9]{6}|[ar]-([0-9]-)?[0-9A-Za-z]{8})"),
    _secret("slack-app", "xapp-[0-9]-[A-Z0-9]{8,14}-[0-9]{8,14}-[a-z0-9]{20}"),
    _secret("slack-hook", "(https?://)?hooks\\.slack\\.com/(services|workflows|triggers)/[A-Za-z0-9+/]{40}"),
    _secret("sourcegraph", f"sgp_(({_HEXES}{{16}}|local)_)?{_HEXES}{{40}}", check=lambda text: len(text) if entropy(text) > 3.2 else 0),
    _secret("square", f"(EAAA{_WORD}{{22}}|sq0[a-z]{{3}}-{_WORD}{{22}})"),
    _secret("stripe", f"(sk|rk)_(test|live|prod)_{_ALNUM}{{10}}"),
    _secret("teams-hook", f"webhook\\.office\\.com/webhookb2/{_WORD}{{8,40}}"),
    _secret("telegram", f"[0-9]{{5,16}}:A{_WORD}{{34}}"),
    _secret("terraform", f"{_ALNUM}{{14}}\\.atlasv1\\.[A-Za-z0-9_=-]{{60}}"),
    _secret("twilio", f"SK{_HEXES}{{32}}"),
    _secret("typeform", "tfp_[A-Za-z0-9_.=-]{59}"),
    _secret("vercel", f"vc[pikar]_{_ALNUM}{{56}}"),
    _secret("xai", f"xai-{_ALNUM}{{60}}"),
    _secret("yandex", f"(AQVN{_WORD}{{35}}|YC{_WORD}{{38}}|t1\\.[A-Za-z0-9_=-]{{1,40}}\\.[A-Za-z0-9_=-]{{60}})"),
    Shape(
        "url-password",
        "secrets",
        parse(r"://[A-Za-z0-9._%+~-]{1,64}:[A-Za-z0-9._%+~!$&*=-]{3,80}@"),
        before="[A-Za-z0-9]",
        grows=False,
        keep=(3, 1),
    ),
)  # fmt: skip

_OCTET: Final = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
PII: Final[tuple[Shape, ...]] = (
    Shape("email", "pii", parse(r"[A-Za-z0-9._%+-]{1,64}@([A-Za-z0-9-]{1,63}\.){1,6}[A-Za-z]{2,24}"), ANY),
    Shape(
        "credit-card",
        "pii",
        parse(r"([1-6][0-9]{3}[ -]?[0-9]{4}[ -]?[0-9]{4}[ -]?[0-9]{1,7}|3[0-9]{3}[ -]?[0-9]{6}[ -]?[0-9]{4,5})"),
        _NOT_DIGIT,
        after=_NOT_DIGIT,
        grows=False,
        check=luhn,
    ),
    Shape(
        "us-ssn", "pii", parse(r"[0-9]{3}-[0-9]{2}-[0-9]{4}"), "[^0-9-]", after=_NOT_DIGIT, grows=False,
        check=social_security,
    ),
    Shape(
        "iban",
        "pii",
        parse(r"[A-Z]{2}[0-9]{2}( ?[A-Z0-9]{4}){2,7}( ?[A-Z0-9]{1,4})?"),
        after=_NOT_ALNUM,
        grows=False,
        check=iban,
    ),
    Shape(
        "ip-address",
        "pii",
        parse(rf"({_OCTET}\.){{3}}{_OCTET}"),
        "[^0-9A-Za-z.]",
        after=_NOT_DIGIT,
        grows=False,
        check=network_address,
    ),
    Shape(
        "ip-address",
        "pii",
        parse(rf"({_HEXES}{{1,4}}:){{1,7}}(:?{_HEXES}{{1,4}}){{1}}(:{_HEXES}{{1,4}}){{0,6}}"),
        "[^0-9A-Za-z:]",
        after="[^0-9A-Za-z:]",
        grows=False,
        check=network_address,
    ),
    Shape(
        "telephone",
        "pii",
        parse(
            r"(\+[0-9]{9,15}|(\+[0-9]{1,3}[ .-]?)?(\([0-9]{1,4}\)[ .-]?)?[0-9]{2,5}([ .-][0-9]{2,8}){1,5})"
        ),
        "[^0-9A-Za-z+(.]",
        after=_NOT_DIGIT,
        grows=False,
        check=telephone,
    ),
)  # fmt: skip

FAMILIES: Final[Mapping[Family, tuple[Shape, ...]]] = {"secrets": SECRETS, "pii": PII}
