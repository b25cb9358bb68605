"""How many tokens the student proposes at a time, from what rounds took."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import sqrt
from statistics import NormalDist

from limbeck.errors import check_whole

_FORGET = 0.9  # of each older round's weight; the student changes, and so does what it costs
_WARM = 2  # rounds that are not measured: a first pass allocates
_LOOK = 8  # every so many rounds another size is tried, without which the cost of a block's length stays unknown


def expected_tokens(acceptance: float, block: int) -> float:
    """E(g) = 1 + a + … + a^(g-1): what a row keeps of g proposed tokens, each accepted with probability a.

    The first token that is not accepted counts, for the teacher's stands in its place; what follows it does not.
    """
    return float(sum(acceptance**place for place in range(block)))


def expected_rounds(acceptance: float, block: int, *, rows: int = 1, room: int = 96) -> float:
    """Rounds until each of ``rows`` rows has ``room`` tokens more: those of the slowest, and half a round for its last.

    A row's gain of a round has the mean E(g) and a deviation d, so that after n rounds rows are d √n apart, and n is about
    (room + z d √(room / E)) / E with z the expected largest of so many standard normal numbers (Blom's approximation).
    Long blocks have the larger d: with many rows, what they gain is lost on waiting for the slowest.
    """
    mean = expected_tokens(acceptance, block)
    squares = sum((2 * place + 1) * acceptance**place for place in range(block))
    deviation = sqrt(max(squares - mean**2, 0.0))
    slowest = NormalDist().inv_cdf((rows - 0.375) / (rows + 0.25))
    return (room + slowest * deviation * sqrt(room / mean)) / mean + 0.5


@dataclass
class BlockChooser:
    """Chooses g to minimise n(g) (g S + T(g)), the time until all rows are written; n(g) as in :func:`expected_rounds`.

    S is the measured time of a student's pass with what it draws. T(g) = t0 + g t1 is a line through the measured times of
    the teacher's passes with what is decided by them: on a CPU a longer block costs it more. a is the measured share of
    tested tokens that were accepted, one number for all places, where E(g) takes them as independent. All are averages that
    forget old rounds. Now and then a neighbouring size is tried, so that the line is known.

    The choice depends on the clock. The text does not, up to rounding (:func:`~limbeck.policies.speculation.speculate`).

    Args:
        block: the size of the first rounds; later the present choice.
        most: the largest size.

    Raises:
        SettingError: a size that is no whole number of at least 1.
    """

    block: int = 5
    most: int = 16
    _rounds: int = field(default=0, init=False)
    _best: int = field(default=0, init=False)
    _tested: float = field(default=0.0, init=False)
    _accepted: float = field(default=0.0, init=False)
    _draft: list[float] = field(default_factory=lambda: [0.0, 0.0], init=False)
    # Weighted sums of 1, g, g², t and g t over the teacher's passes.
    _score: list[float] = field(default_factory=lambda: [0.0] * 5, init=False)

    def __post_init__(self) -> None:
        check_whole("block", self.block, low=1)
        check_whole("the largest block", self.most, low=1)
        self._best = self.block

    def observe(
        self,
        block: int,
        *,
        draft_seconds: float,
        score_seconds: float,
        accepted: int,
        corrected: int,
        rows: int = 1,
        room: int = 96,
    ) -> None:
        """Take note of a round with g = ``block``, and choose the next.

        rows: how many go on being written. room: how many tokens the one that has the fewest may still get.
        """
        self._rounds += 1
        if self._rounds <= _WARM:
            return
        self._tested = _FORGET * self._tested + accepted + corrected
        self._accepted = _FORGET * self._accepted + accepted
        self._draft = [_FORGET * old + new for old, new in zip(self._draft, (block, draft_seconds), strict=True)]
        terms = (1, block, block**2, score_seconds, block * score_seconds)
        self._score = [_FORGET * old + new for old, new in zip(self._score, terms, strict=True)]
        self._best = min(range(1, self.most + 1), key=lambda size: self._seconds(size, max(rows, 1), max(room, 1)))
        self.block = self._best
        if self._rounds % _LOOK == 0:
            self.block = self._best + 1 if self._best < self.most else max(self._best - 1, 1)

    @property
    def acceptance(self) -> float:
        """a, as measured; 0 before the first round."""
        return self._accepted / self._tested if self._tested else 0.0

    @property
    def student_seconds(self) -> float:
        """S."""
        passes, seconds = self._draft
        return seconds / passes if passes else 0.0

    def teacher_seconds(self, block: int) -> float:
        """T(g)."""
        weight, first, second, seconds, product = self._score
        if not weight:
            return 0.0
        spread = second - first**2 / weight
        # Of passes of one length only the mean is known; a longer block is never taken to cost less.
        slope = max((product - first * seconds / weight) / spread, 0.0) if spread > 1e-6 * second else 0.0
        return max((seconds + slope * (block * weight - first)) / weight, 0.0)

    def _seconds(self, block: int, rows: int, room: int) -> float:
        seconds = block * self.student_seconds + self.teacher_seconds(block)
        return expected_rounds(self.acceptance, block, rows=rows, room=room) * seconds
