# SPDX-License-Identifier: Apache-2.0
"""The keys of a run's encrypted links."""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class CurveKeys:
    """CurveZMQ keys of one run, each as 40 characters of Z85.

    All who listen share one pair, all who connect another, and the client's public key is the only one that a listener
    lets in (see `insitu.wire.guard`). `server_secret` is empty for those who only connect.

    Source: CurveZMQ, https://rfc.zeromq.org/spec/26/
    """

    server_public: str
    client_public: str
    client_secret: str
    server_secret: str = ""

    def for_clients(self) -> "CurveKeys":
        """Return what those need who only connect."""
        return replace(self, server_secret="")

    def __repr__(self) -> str:
        """Show none of them: what is printed ends up in logs."""
        return "CurveKeys(...)"
