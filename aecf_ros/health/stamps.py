"""Check header stamps: not zero, not in the future, not backward, not repeated."""

from __future__ import annotations

from dataclasses import dataclass

from aecf_ros.core.types import NANOSECONDS


@dataclass(frozen=True, slots=True)
class StampVerdict:
    """Result of a check: ``fault`` is empty if nothing is wrong; ``jumped``: earlier data has another time base."""

    fault: str = ""
    jumped: bool = False


GOOD = StampVerdict()


class StampCheck:
    """Compares each stamp with the one before and with the node's clock. After a jump back the new time base counts."""

    def __init__(self) -> None:
        self._last_ns: int | None = None
        self._new_publisher = False

    def forget(self) -> None:
        """Expect a new publisher, which may have another clock."""
        self._new_publisher = True

    def check(self, stamp_ns: int, received_ns: int, same_content: bool, tolerance_s: float) -> StampVerdict:
        """Check one stamp against the node time ``received_ns``. ``same_content``: the message is a repetition."""
        if stamp_ns == 0:
            return StampVerdict("the stamp is zero; the driver does not set header.stamp")
        future_s = (stamp_ns - received_ns) / NANOSECONDS
        if tolerance_s and future_s > tolerance_s:
            return StampVerdict(f"the stamp is {future_s:.2f} s in the future; synchronize the clocks")
        last_ns, self._last_ns = self._last_ns, stamp_ns
        new, self._new_publisher = self._new_publisher, False
        if last_ns is None or stamp_ns > last_ns:
            return GOOD
        if new:
            return StampVerdict(jumped=True)
        if stamp_ns < last_ns:
            return StampVerdict(f"the stamp went back by {(last_ns - stamp_ns) / NANOSECONDS:.3f} s", jumped=True)
        return GOOD if same_content else StampVerdict("new content with the stamp of the message before")
