"""Makes one crown of what neighbouring windows saw of it, while the windows go by row by row.

Two findings of two windows are the same crown where both windows look at the same ground and say the same of it: the
IoU of the two masks *inside the ground that both windows see*. A crown that one window sees whole and the next one cuts
agrees with its own rest there, however small that rest is. What two windows both see whole, and name by different
classes, is one crown too (its whole masks agree), unless one window saw the two apart; the surer says of which class.
Then, what a window's edge has cut and what lies in another crown (containment) belongs to that crown, unless one window
saw the two apart. At last the window with the better view decides: a crown that one window found, and that the window
farthest from whose edges it lies did not, though it shows all of it, is left out. Else ground under several windows
would be asked several times, and what a network takes for a crown now and then would be counted as often. A rest that
only windows cut is left out where any window shows all of it and found nothing.

With a network that makes no mistake and an overlap of at least the largest crown, every crown lies whole in one window
and comes out of it exactly. Nothing depends on when a window was computed: they are taken in the order of their index.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from cabruca.predict.found import CUT_PX, Box, Found
from cabruca.predict.overlap import Rect, agreement, around, containment, overlap_of, union
from cabruca.predict.windows import Grid, Span

MERGE_IOU = 0.5
"""Agreement from which on two findings are one crown."""

MERGE_CONTAINMENT = 0.7
"""Share of a cut finding inside another crown from which on it belongs to it."""


class Track:
    """One crown so far.

    Attributes:
        number: in the order of their first finding. members: what each window saw of it. box: around all of it.
        windows: of the members. cut: no window saw it whole.
    """

    def __init__(self, number: int, members: Sequence[Found]) -> None:
        self.number, self.members = number, list[Found]()
        self.take(members)

    def take(self, members: Sequence[Found]) -> None:
        """These are of the same crown."""
        self.members = [*self.members, *members]
        self.box: Box = around(self.members)
        self.windows = {m.window for m in self.members}
        self.cut = all(m.cut for m in self.members)
        self._crown: Found | None = None

    @property
    def whole(self) -> list[Found]:
        """What windows saw whole."""
        return [m for m in self.members if not m.cut]

    @property
    def label(self) -> int:
        """Class of the surest finding, of those that saw it whole where any did; that of `crown()`."""
        return self._surest().label

    def _surest(self) -> Found:
        return max(self.whole or self.members, key=lambda m: (m.score, m.clearance, -m.window))

    def crown(self) -> Found:
        """The finding of the window that saw it best: whole, and farthest from its edges; where all cut it, all
        together. Where the surest says another class, with its class and score."""
        if self._crown is None:
            whole, surest = self.whole, self._surest()
            best = max(whole, key=lambda m: (m.clearance, m.score, -m.window)) if whole else union(self.members)
            if best.label != surest.label:
                best = replace(best, label=surest.label, score=surest.score)
            self._crown = best
        return self._crown


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
        rect = self._rect(window)
        near = [t for t in self.tracks if overlap_of(t.box, rect) is not None]
        new = [self._track(found) for found in crowns]
        joined = self._join_same(near, new)
        fresh = [t for t in new if t.number not in joined]
        self.tracks += fresh
        touched = [*fresh, *(t for t in near if window in t.windows)]
        gone = self._join_across(touched, [*near, *fresh])
        touched, near = ([t for t in tracks if t.number not in gone] for tracks in (touched, [*near, *fresh]))
        self._join_contained(touched, near)

    def _track(self, found: Found) -> Track:
        self.made += 1
        return Track(self.made - 1, [found])

    def _rect(self, window: int) -> Rect:
        return self.grid.window(window).box

    def _join_same(self, near: list[Track], new: list[Track]) -> set[int]:
        """One to one, the best agreement first; the numbers of the new ones that were joined."""
        pairs: list[tuple[float, float, int, int, Track, Track]] = []
        for a, b in touching(near, new):
            value = max(self._agreement(m, b.members[0]) for m in a.members)
            if value >= self.merge_iou:
                pairs.append((-value, abs(sum(a.box) - sum(b.box)), a.number, b.number, a, b))
        old, joined = set[int](), set[int]()
        for _, _, _, _, a, b in sorted(pairs, key=lambda p: p[:4]):
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

    def _join_across(self, touched: list[Track], near: list[Track]) -> set[int]:
        """One crown of what two windows see whole and name differently, the best agreement first; numbers of those that
        went into another one.

        Both windows see all of it, so that the whole masks are compared and not the shared ground alone, where small
        rests of two neighbours may agree by chance.
        """
        pairs: dict[tuple[int, int], tuple[float, Track, Track]] = {}
        for p, q in touching(touched, near):
            a, b = (p, q) if p.number < q.number else (q, p)
            if a.label == b.label or not a.windows.isdisjoint(b.windows):
                continue
            value = max((agreement(m, n, around([m, n])) for m in a.whole for n in b.whole), default=0.0)
            if value >= self.merge_iou:
                pairs[a.number, b.number] = (-value, a, b)
        used, gone = set[int](), set[int]()
        for _, (_, a, b) in sorted(pairs.items(), key=lambda p: (p[1][0], *p[0])):
            if a.number not in used and b.number not in used:
                used |= {a.number, b.number}
                gone.add(b.number)
                a.take(b.members)
        self.tracks = [t for t in self.tracks if t.number not in gone]
        return gone

    def _join_contained(self, touched: list[Track], near: list[Track]) -> None:
        """Rests that lie in another crown become a part of it; the surest first."""
        pairs: dict[tuple[int, int], tuple[float, Track, Track]] = {}
        for a, b in touching(touched, near):
            if a.number == b.number or not (a.cut or b.cut) or not a.windows.isdisjoint(b.windows):
                continue
            for part, whole in ((a, b), (b, a)):
                if part.cut and part.label == whole.label:
                    value = containment(part.crown(), whole.crown())
                    if value >= self.merge_containment:
                        pairs[part.number, whole.number] = (-value, part, whole)
        gone: set[int] = set()
        for (part_number, whole_number), (_, part, whole) in sorted(pairs.items(), key=lambda p: (p[1][0], *p[0])):
            if part_number in gone or whole_number in gone or not part.windows.isdisjoint(whole.windows):
                continue
            gone.add(part_number)
            whole.take(part.members)
        if gone:
            self.tracks = [t for t in self.tracks if t.number not in gone]

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
        """Whether a window that sees it better, and shows all of it, did not find it.

        That is the window it lies farthest from the edges of; for what windows only cut, any that shows all of it.
        """
        x0, y0, x1, y1 = track.box if track.cut else track.crown().box
        height, width = self.grid.hw
        columns = [k for k, s in enumerate(self.grid.columns) if _shows(s, x0, x1, width)]
        rows = [k for k, s in enumerate(self.grid.rows) if _shows(s, y0, y1, height)]
        if not track.cut:
            columns = _best(self.grid.columns, columns, (x0 + x1) / 2, width)
            rows = _best(self.grid.rows, rows, (y0 + y1) / 2, height)
        windows = [row * len(self.grid.columns) + column for row in rows for column in columns]
        return any(w in self.seen and w not in track.windows for w in windows)


def _best(spans: Sequence[Span], among: Sequence[int], centre: float, length: int) -> list[int]:
    """Of the windows `among` those along one axis the one whose edges are farthest from `centre` (the raster's own
    edges cut nothing); none of none."""

    def clearance(k: int) -> float:
        before = centre - spans[k].start if spans[k].start > 0 else math.inf
        behind = spans[k].end - centre if spans[k].end < length else math.inf
        return min(before, behind)

    return [max(among, key=clearance)] if among else []


def _shows(span: Span, low: float, high: float, length: int) -> bool:
    """Whether a window along one axis holds `low` to `high` and does not cut there."""
    before, behind = (CUT_PX if open_edge else 0.0 for open_edge in (span.start > 0, span.end < length))
    return span.start + before <= low and high <= span.end - behind


def touching(a: Sequence[Track], b: Sequence[Track]) -> list[tuple[Track, Track]]:
    """Pairs of the two whose boxes share area."""
    if not a or not b:
        return []
    p, q = (np.array([t.box for t in tracks])[:, :, None] for tracks in (a, b))
    q = q.transpose(2, 1, 0)
    apart = (p[:, 0] >= q[:, 2]) | (p[:, 2] <= q[:, 0]) | (p[:, 1] >= q[:, 3]) | (p[:, 3] <= q[:, 1])
    return [(a[i], b[k]) for i, k in zip(*(v.tolist() for v in np.nonzero(~apart)), strict=True)]
