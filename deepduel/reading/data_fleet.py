"""The data workers that a trainer names: which of them answer, and what is said about it."""

import concurrent.futures
import contextlib
import functools
import sys
import threading
import time

from deepduel.decoding.split import Split
from deepduel.reading.data_connection import Connected, Refused, connect, greet, source_of
from deepduel.reading.data_protocol import Address, Lost, Source

RETRY_SECONDS = 30.0  # between two looks for data workers that are missing


class Fleet:
    """The data workers at some addresses; one object for all data sets of the process.

    Several threads may call its methods at once.
    """

    def __init__(self, addresses: tuple[str, ...]) -> None:
        """Connects to none yet."""
        self.addresses = [Address.parse(address) for address in addresses]
        self._refused: dict[Address, str] = {}  # the instance that cannot read the data
        self._missing: dict[Address, str] = {}  # why
        self._lost: dict[Address, str] = {}  # why, since the last connections
        self._back: set[Address] = set()  # missing ones that answered to the last look
        self._begun = False
        self._lock = threading.Lock()
        self._look = threading.Thread()
        self._looked = time.monotonic()

    @staticmethod
    @functools.cache
    def of(addresses: tuple[str, ...]) -> "Fleet":
        """The fleet of these addresses."""
        return Fleet(addresses)

    def require(self, split: Split) -> None:
        """Raises Refused for a data worker that answers, but cannot read a split as this machine does."""
        for result in _all(self.addresses, source_of(split)):
            if isinstance(result, Connected):
                result.close()
            elif isinstance(result, Refused):
                raise result

    def connect(self, split: Split, *, place: str) -> list[Connected]:
        """Connections to all that can read the split, in the order of the addresses.

        It prints one line if these are others than before.

        Args:
          place: where the reading begins or continues, in words.
        """
        with self._lock:
            known = {} if self._look_is_due() else self._missing
            asked = [each for each in self.addresses if each not in known or each in self._back]
            connections, missing = [], {each: why for each, why in self._missing.items() if each not in asked}
            for address, result in zip(asked, _all(asked, source_of(split)), strict=True):
                if isinstance(result, Connected) and self._refused.get(address) == result.greeting.instance:
                    result.close()
                    missing[address] = self._missing.get(address) or self._lost[address]
                elif isinstance(result, Connected):
                    connections.append(result)
                else:
                    missing[address] = str(result)
                    if isinstance(result, Refused):
                        self._refused[address] = result.instance
            self._say(connections, missing, place)
            self._missing, self._lost, self._back = missing, {}, set()
            self._begun = True
            return connections

    def leave_out(self, connected: Connected, reason: str, *, for_good: bool) -> None:
        """Notes that one was lost; one that cannot read the data is not asked again until it is restarted."""
        with self._lock:
            if for_good:
                self._refused[connected.address] = connected.greeting.instance
            if connected.address not in self._missing:
                self._lost[connected.address] = reason

    def returned(self) -> bool:
        """Whether one that was missing answers again; looks for them every 30 seconds, in the background."""
        with self._lock:
            if not self._back and self._look_is_due():
                self._look = threading.Thread(target=self._look_for_missing, daemon=True)
                self._look.start()
            return bool(self._back)

    def _look_is_due(self) -> bool:
        """Whether it is time for the next look; if so, that one counts as begun."""
        now = time.monotonic()
        due = bool(self._missing) and not self._look.is_alive() and now - self._looked > RETRY_SECONDS
        if due:
            self._looked = now
        return due

    def _look_for_missing(self) -> None:
        for address in list(self._missing):
            with contextlib.suppress(Lost):
                connection, greeting = greet(address)
                connection.close()
                if self._refused.get(address) != greeting.instance:
                    self._back.add(address)

    def _say(self, connections: list[Connected], missing: dict[Address, str], place: str) -> None:
        events = [f"data worker {address} was lost ({why})" for address, why in self._lost.items()]
        for address, why in missing.items():
            if address not in self._lost and why != self._missing.get(address):
                events.append(why if str(address) in why else f"data worker {address}: {why}")
        back = [address for address in self._missing if address not in missing]
        events += [f"data worker {address} answers again" for address in back]
        if not events and self._begun:
            return
        names = ", ".join(f"{each.address} ({each.greeting.cores} cores)" for each in connections)
        by = f"by data worker{'s' * (len(connections) > 1)} {names}" if names else "on this machine alone"
        line = f"from {place} on, images are decoded {by}"
        print("; ".join([*events, line]), file=sys.stderr, flush=True)


def _all(addresses: list[Address], source: Source) -> list[Connected | Lost | Refused]:
    """Connects to all at once; what connecting raised is a result too."""

    def attempt(address: Address) -> Connected | Lost | Refused:
        try:
            return connect(address, source)
        except (Lost, Refused) as problem:
            return problem

    if not addresses:
        return []
    with concurrent.futures.ThreadPoolExecutor(len(addresses)) as pool:
        return list(pool.map(attempt, addresses))
