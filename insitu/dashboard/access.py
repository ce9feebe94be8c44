# SPDX-License-Identifier: Apache-2.0
"""Who may see the pages, and who may do something there. No sockets.

Two tokens are made for each dashboard: the *operator's* opens everything, the *observer's* lets look and not touch.
Whoever comes with one in the address gets it as a cookie and an address without it, so that it stays neither in the
browser's history nor on a screen that is shared; programs send it as ``Authorization: Bearer TOKEN``.
"""

import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

#: 192 bits of chance, as Jupyter takes.
TOKEN_BYTES = 24


class Role(Enum):
    """What somebody may do."""

    OPERATOR = "operator"
    OBSERVER = "observer"


def new_token() -> str:
    """Return a token that nobody guesses."""
    return secrets.token_hex(TOKEN_BYTES)


@dataclass(frozen=True, slots=True)
class Access:
    """The tokens of one dashboard."""

    operator: str = field(default_factory=new_token, repr=False)
    observer: str = field(default_factory=new_token, repr=False)

    def role(self, token: str | None) -> Role | None:
        """Return what a token opens; takes as long for a wrong one as for a right one.

        >>> access = Access("sesame", "peephole")
        >>> access.role("sesame"), access.role("peephole"), access.role("guess"), access.role(None)
        (<Role.OPERATOR: 'operator'>, <Role.OBSERVER: 'observer'>, None, None)
        """
        given = (token or "").encode()
        roles = {Role.OPERATOR: self.operator, Role.OBSERVER: self.observer}
        found = [role for role, own in roles.items() if hmac.compare_digest(own.encode(), given)]
        return found[0] if found else None


def cookie_name(port: int) -> str:
    """Name the cookie: by the port, since a browser gives one host's cookies to all its ports."""
    return f"insitu-token-{port}"


def bearer(headers: Mapping[str, str]) -> str | None:
    """Return the token that a program sends in its headers."""
    kind, _, token = headers.get("Authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else None
