"""What a broker does with what it hears from the database, and with the silence when the database is away."""

from collections.abc import Callable, Sequence

from broker.dispatcher import Dispatcher
from broker.hints import Speaker
from broker.service.health import Health


class Ears:
    """Passes on what the listener hears; `wakes` are the timers that look again when the clock was moved."""

    def __init__(
        self, dispatcher: Dispatcher, speaker: Speaker, health: Health, wakes: Sequence[Callable[[], None]]
    ) -> None:
        self._dispatcher = dispatcher
        self._speaker = speaker
        self._health = health
        self._wakes = wakes

    def clock_moved(self) -> None:
        """All timers compute their waits anew."""
        for wake in self._wakes:
            wake()

    def heard(self, text: str) -> None:
        """Another broker, or this one, has said something."""
        hint = self._speaker.hear(text)
        if hint is None:
            return
        self._dispatcher.arrived(hint.arrivals)
        self._dispatcher.holdings.cancelled(hint.cancelled)
        self._dispatcher.holdings.lost(hint.lost)
        if hint.everywhere:
            self._dispatcher.look_everywhere()

    async def listening(self, *, now: bool) -> None:
        """The listener has begun to hear, or has ceased to: while it does not, the database is away."""
        self._dispatcher.hears(others=now)
        if now:
            self._speaker.greet()
        await self._health.serves(now=now)
