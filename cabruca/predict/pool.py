"""Who looks at the windows: this process, with the next batch read while the network computes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from cabruca.predict.found import Look, Reading
from cabruca.predict.reading import Network, Reader, look_at
from cabruca.predict.windows import Window

Windows = Sequence[Window]
Looked = tuple[Windows, list[Look]]
"""A batch, and what was seen in it."""


class Pool(Protocol):
    """Looks at batches of windows, wherever; the answers come in the order of the batches."""

    def looks(self, reader: Reader, reading: Reading, batches: Iterable[Windows]) -> Iterator[Looked]:
        """Each batch with what was seen in it; windows that show nothing are not seen."""
        ...


class InProcess:
    """A `Pool` of this process alone: one thread reads ahead, the caller's computes.

    Args:
        network: what looks.
    """

    def __init__(self, network: Network) -> None:
        self._network = network

    def looks(self, reader: Reader, reading: Reading, batches: Iterable[Windows]) -> Iterator[Looked]:
        with ThreadPoolExecutor(1, thread_name_prefix="cabruca-read") as ahead:
            pending = None
            for batch in batches:
                following = (batch, ahead.submit(reader.read, batch))
                if pending is not None:
                    yield pending[0], look_at(self._network, pending[1].result(), reading)
                pending = following
            if pending is not None:
                yield pending[0], look_at(self._network, pending[1].result(), reading)
