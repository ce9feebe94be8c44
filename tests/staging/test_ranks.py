# SPDX-License-Identifier: Apache-2.0
"""What a rank sends is bounded by its credit, whatever it says that it is before it is decoded."""

import tracemalloc

import pytest

from insitu.errors import RemoteProtocolError
from insitu.staging.ranks import RankLink
from insitu.wire.messages import Form, PublishEncoded
from insitu.wire.session import Link, Session, Side


def test_what_is_beyond_the_credit_is_not_decoded() -> None:
    link = RankLink(b"", Session(Link.RANK_NODE, Side.LISTENS), rank=3, credit_bytes=1 << 20)
    message = PublishEncoded(0, 0, 0.0, 0, (Form("lz4", 1 << 30, 0.0),), (bytes(64),))
    tracemalloc.start()
    try:
        with pytest.raises(RemoteProtocolError, match="Rank 3 sent 1073741824 bytes beyond its credit of 1048576"):
            link.decoded(message)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
