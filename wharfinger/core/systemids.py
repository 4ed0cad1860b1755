"""The adapter of the id port that draws from this machine's randomness."""

from __future__ import annotations

import secrets
import uuid

from wharfinger.core.ids import NAME_ALPHABET


class SystemIds:
    """`ids.Ids` on the kernel's random numbers."""

    def uid(self) -> str:
        """Return a random (version 4) UUID."""
        return str(uuid.uuid4())

    def suffix(self) -> str:
        """Return five random characters of `NAME_ALPHABET`."""
        return "".join(secrets.choice(NAME_ALPHABET) for _ in range(5))
