"""Makes one crown of what neighbouring windows saw of it, while the windows go by row by row.

Two findings of two windows are the same crown where both windows look at the same ground and say the same of it: the
IoU of the two masks *inside the ground that both windows see*. A crown that one window sees whole and the next one
cuts agrees with its own rest there, however small that rest is. Then, what a window's edge has cut and what lies in
another crown (containment) belongs to that crown, unless one window saw the two apart. At last, a rest that only
windows cut is left out where another window saw all of that ground and found nothing: it had the better view.

With a network that makes no mistake and an overlap of at least the largest crown, every crown lies whole in one window
and comes out of it exactly. Nothing depends on when a window was computed: they are taken in the order of their index.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from cabruca.predict.found import CUT_PX, Box, Found
from cabruca.predict.overlap import Rect, agreement, around, containment, overlap_of, union
from cabruca.predict.windows import Grid

MERGE_IOU = 0.5
"""Agreement from which on two findings are one crown."""

MERGE_CONTAINMENT = 0.7
"""Share of a cut finding inside another crown from which on it belongs to it."""


@dataclass
class Track:
    """One crown so far: what each window saw of it, and the box around all of it. `number`: in the order of their first
    finding."""

    number: int
    members: list[Found]
    box: Box = (0.0, 0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        self.box = around(self.members)

    def take(self, members: Sequence[Found]) -> None:
        """These are of the same crown."""
        self.members = [*self.members, *members]
        self.box = around(self.members)

    @property
    def windows(self) -> set[int]:
        return {m.window for m in self.members}

    @property
    def cut(self) -> bool:
        """Whether no window saw it whole."""
        return all(m.cut for m in self.members)

    def crown(self) -> Found:
        """The finding of the window that saw it best: whole, and farthest from its edges; where all cut it, all
        together."""
        whole = [m for m in self.members if not m.cut]
        if whole:
            return max(whole, key=lambda m: (m.clearance, m.score, -m.window))
        return union(self.members)


@dataclass
class Stitcher:
    """Takes the findings of window after window, gives back the crowns that no later window can touch.

    Args:
        grid: of the windows. merge_iou, merge_containment: see above.
    """

    grid: Grid
    merge_iou: float = MERGE_IOU
    merge_containment: float = MERGE_CONTAINMENT
    tracks: list[Track] = field(default_factory=list)
    seen: set[int] = field(default_factory=set)
    made: int = 0

    def add(self, window: int, crowns: Iterable[Found]) -> None:
        """The crowns of one window; windows come in the order of their index, some may be left out."""
        self.seen.add(window)
        near = [t for t in self.tracks if overlap_of(t.box, self._rect(window)) is not None]
        new = [self._track(found) for found in crowns]
        joined = self._join_same(near, new, window)
        fresh = [t for t in new if t.number not in joined]
        self.tracks += fresh
        touched = [*fresh, *(t for t in near if window in t.windows)]
        self._join_contained(touched, near)

    def _track(self, found: Found) -> Track:
        self.made += 1
        return Track(self.made - 1, [found])

    def _rect(self, window: int) -> Rect:
        return self.grid.window(window).box

    def _join_same(self, near: list[Track], new: list[Track], window: int) -> set[int]:
        """One to one, the best agreement first; the numbers of the new ones that were joined."""
        pairs = []
        for b in new:
            found = b.members[0]
            for a in near:
                value = max((self._agreement(m, found) for m in a.members), default=0.0)
                if value >= self.merge_iou:
                    pairs.append((-value, abs(_middle(a.box) - _middle(b.box)), a.number, b.number, a, b))
        old, joined = set[int](), set[int]()
        for *_, a, b in sorted(pairs, key=lambda p: p[:4]):
            if a.number not in old and b.number not in joined:
                old.add(a.number)
                joined.add(b.number)
                a.take(b.members)
        return joined

    def _agreement(self, a: Found, b: Found) -> float:
        """IoU inside the ground that both windows see; 0 between classes."""
        if a.label != b.label or overlap_of(a.box, b.box) is None:
            return 0.0
        shared = overlap_of(self._rect(a.window), self._rect(b.window))
        return 0.0 if shared is None else agreement(a, b, shared)

    def _join_contained(self, touched: list[Track], near: list[Track]) -> None:
        """Rests that lie in another crown become a part of it; the surest first."""
        pairs = []
        for a in touched:
            for b in {t.number: t for t in [*touched, *near]}.values():
                for part, whole in ((a, b), (b, a)):
                    if part.number != whole.number and part.cut and part.windows.isdisjoint(whole.windows):
                        value = self._containment(part, whole)
                        if value >= self.merge_containment:
                            pairs.append((-value, part.number, whole.number, part, whole))
        gone: set[int] = set()
        for _, part_number, whole_number, part, whole in sorted(pairs, key=lambda p: p[:3]):
            if part_number in gone or whole_number in gone or not part.windows.isdisjoint(whole.windows):
                continue
            gone.add(part_number)
            whole.take(part.members)
        if gone:
            self.tracks = [t for t in self.tracks if t.number not in gone]

    def _containment(self, part: Track, whole: Track) -> float:
        if part.members[0].label != whole.members[0].label or overlap_of(part.box, whole.box) is None:
            return 0.0
        return containment(part.crown(), whole.crown())

    def settled(self, row: int) -> Iterator[Found]:
        """After the last window of window row `row`: the crowns that no later window can touch, in order."""
        line = self.grid.swept(row)
        done = [t for t in self.tracks if t.box[3] <= line]
        kept = {t.number for t in done}
        yield from (t.crown() for t in done if not self._unconfirmed(t))
        self.tracks = [t for t in self.tracks if t.number not in kept]
        lowest = math.floor(min((t.box[1] for t in self.tracks), default=line))
        self.seen = {w for w in self.seen if self._rect(w)[3] > min(lowest, line)}

    def _unconfirmed(self, track: Track) -> bool:
        """Whether only windows that cut it saw it, and one that could see all of it did not."""
        if not track.cut:
            return False
        x0, y0, x1, y1 = track.box
        height, width = self.grid.hw
        for window in self.seen - track.windows:
            wx0, wy0, wx1, wy1 = self._rect(window)
            left, top = x0 - wx0 >= CUT_PX or wx0 == 0, y0 - wy0 >= CUT_PX or wy0 == 0
            right, bottom = wx1 - x1 >= CUT_PX or wx1 == width, wy1 - y1 >= CUT_PX or wy1 == height
            inside = wx0 <= x0 and wy0 <= y0 and x1 <= wx1 and y1 <= wy1
            if inside and left and top and right and bottom:
                return True
        return False


def _middle(box: Box) -> float:
    return box[0] + box[1] + box[2] + box[3]
