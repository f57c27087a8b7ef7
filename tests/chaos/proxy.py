"""TCP proxies between the nodes of one machine, which break what passes through them as a network does, or worse."""

import asyncio
import random
from contextlib import suppress
from math import inf
from threading import Thread


class Door:
    """Who calls here is connected with `target`. The attributes say what happens to the bytes.

    TCP delivers all bytes once and in order, or breaks the connection, whatever packets are lost, doubled or swapped.
    So a network does to TLS what `delay`, `rate` (bytes a second in each direction, all connections together), `hold`
    (as a partition, which keeps them until it is over), `cut` and `close` do. `spoil` is what only somebody in the
    middle does: TLS must break the connection.
    """

    def __init__(self, target: str) -> None:
        self.target = target.split(":")
        self.delay = 0.0
        self.rate = inf
        self.busy_until = {"there": 0.0, "back": 0.0}
        self.open = True
        self.spoilt = ""
        self.flows = {"there": asyncio.Event(), "back": asyncio.Event()}
        for flow in self.flows.values():
            flow.set()
        self.writers: set[asyncio.StreamWriter] = set()
        self.recorded = b""

    async def listen(self) -> str:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"127.0.0.1:{self.server.sockets[0].getsockname()[1]}"

    def cut(self) -> None:
        """Break all connections, without a farewell."""
        for writer in self.writers:
            writer.transport.abort()

    def close(self) -> None:
        """Break all connections, and refuse new ones."""
        self.open = False
        self.cut()

    async def replay(self) -> bytes:
        """Send what somebody said in an earlier connection once more; return what the target answers until it ends."""
        answer = b""
        with suppress(OSError, TimeoutError):
            reader, writer = await asyncio.open_connection(*self.target)
            writer.write(self.recorded)
            async with asyncio.timeout(2):
                answer = await reader.read()
            writer.close()
        return answer

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = [writer]
        self.writers.add(writer)
        with suppress(OSError):
            if self.open:
                answers, onward = await asyncio.open_connection(*self.target)
                ends.append(onward)
                self.writers.add(onward)
                self.recorded = b""
                ways = [self._pump("there", reader, onward), self._pump("back", answers, writer)]
                tasks = [asyncio.ensure_future(way) for way in ways]
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in tasks:
                    task.cancel()
        self.writers.difference_update(ends)
        for end in ends:
            end.transport.abort()

    async def _pump(self, way: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(1 << 16):
                if way == "there" and len(self.recorded) < 1 << 16:
                    self.recorded += data
                if self.delay:
                    await asyncio.sleep(self.delay * random.random())
                if self.rate < inf:
                    now = asyncio.get_running_loop().time()
                    self.busy_until[way] = max(self.busy_until[way], now) + len(data) / self.rate
                    await asyncio.sleep(self.busy_until[way] - now)
                await self.flows[way].wait()
                how, self.spoilt = self.spoilt, ""
                writer.write(spoil(data, how))
                await writer.drain()


def spoil(data: bytes, how: str) -> bytes:
    """Return a piece of a stream as somebody in the middle may change it."""
    half = len(data) // 2
    return {
        "": data,
        "duplicate": data + data,
        "reorder": data[half:] + data[:half],
        "garble": data[:half] + bytes([data[half] ^ 1]) + data[half + 1 :],
        "drop": data[:half],
    }[how]


class Proxies:
    """Doors in an event loop of their own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.doors: list[Door] = []

    def add(self, target: str) -> tuple[Door, str]:
        self.doors.append(Door(target))
        return self.doors[-1], self.run(self.doors[-1].listen())

    def run(self, work):
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(10)

    def call(self, action, *arguments) -> None:
        self.loop.call_soon_threadsafe(action, *arguments)

    def close(self) -> None:
        for door in self.doors:
            self.call(door.server.close)
            self.call(door.close)
        self.call(self.loop.call_later, 0.2, self.loop.stop)
        self.thread.join(10)
        self.loop.close()
