"""What the worker and a warm parent say to each other: one message for each child that is to be forked, one for its end."""

import json
from dataclasses import asdict, dataclass
from typing import Self

ORDER_BYTES = 16 * 1024
DESCRIPTORS = 4  # sent along with an order: job, answer, output, lifeline


@dataclass(frozen=True, slots=True)
class Order:
    """A child that is to be forked. `number` is the worker's name for it; `folder` its own, '' for none."""

    number: int
    folder: str

    def to_bytes(self) -> bytes:
        """The message."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_bytes(cls, message: bytes) -> Self:
        """The order in a message."""
        return cls(**json.loads(message))


@dataclass(frozen=True, slots=True)
class ChildEnd:
    """How a child has ended: its exit status, negative for a signal; or why it was never forked."""

    number: int
    status: int = 0
    refusal: str = ""

    def to_bytes(self) -> bytes:
        """The message."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_bytes(cls, message: bytes) -> Self:
        """The end in a message."""
        return cls(**json.loads(message))
