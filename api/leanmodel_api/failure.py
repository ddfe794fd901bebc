"""What Ray Serve says of a failed application, without the stack: pages of frames hide the one line that helps."""

from __future__ import annotations

import re

LONGEST = 1000
"""Characters that are kept: conditions are read in a terminal."""

_RAISED = re.compile(
    r"^(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Exit|Interrupt|Timeout)(?:: .*)?$", re.MULTILINE
)
_FRAME = re.compile(r"^(?:Traceback \(most recent call last\):|  File \".*|    .*|\x1b\[.*)$")


def last_words(message: str) -> str:
    """Return the exception that a message ends with, or the message itself when it tells of none.

    Args:
        message: in Serve's words, a traceback or several included.
    """
    raised = list(_RAISED.finditer(message))
    if not raised:
        return message.strip()[-LONGEST:]
    lines = message[raised[-1].start() :].splitlines()
    told = [line for line in lines if not _FRAME.match(line)]
    return "\n".join(told).strip()[:LONGEST]
