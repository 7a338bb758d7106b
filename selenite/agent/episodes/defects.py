"""One defect put into an otherwise good agent: contrast trajectories.

They are no training data. Judges are calibrated on them, critics are taught by pairs of them.
"""

from __future__ import annotations

from enum import StrEnum


class Defect(StrEnum):
    """What a bad agent does."""

    UNNEEDED_CALL = "unneeded_call"  # changes something that nobody asked for
    WRONG_TOOL = "wrong_tool"  # another tool in the place of the last write
    INVENTED_ARGUMENT = "invented_argument"  # does not ask, or does not take what it was told
    PREMATURE_STOP = "premature_stop"  # leaves the last write out, and says nothing of it
    CLAIMED_NOT_DONE = "claimed_not_done"  # leaves it out, and says that it is done
    WRONG_ANSWER = "wrong_answer"  # tells another value than it read
    CLAIMED_TOO_EARLY = "claimed_too_early"  # says that it is done, and does it only then
    NEVER_ASKED = "never_asked"  # calls with what nobody told, right by chance
    EXTRA_ARGUMENT = "extra_argument"  # an optional argument that nobody spoke of
    UNCONFIRMED = "unconfirmed"  # deletes without the yes that the rules ask for
    CLAIMED_REFUSED = "claimed_refused"  # hands a case to a human, and calls it done
    UNTRIED = "untried"  # hands a case to a human that it never tried
    GUESSED_TOGETHER = "guessed_together"  # a call beside the one whose result it needs
    BROKEN_CALL = "broken_call"  # arguments that do not fit the schema, and no repair
