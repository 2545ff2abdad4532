"""The ids of our requests, of which nobody who counts from 1 has one.

A bridge may pass on what several clients ask under the ids that they chose, and mix up those who chose the same one at
the same time. All are numbers of at most 31 bits, because not everybody reads longer ones, nor texts.
"""

from __future__ import annotations

import os
from typing import Final

# Where a handshake begins to count, with room to count on.
FIRST_IDS: Final = range(1 << 30, 3 << 29)
# Of a question that is asked by itself.
QUESTION_ID: Final = 561_940_283


def first_id() -> int:
    """After which number a handshake counts its requests, by chance."""
    return FIRST_IDS[int.from_bytes(os.urandom(4), "big") % len(FIRST_IDS)]  # random loads what a server waits for
