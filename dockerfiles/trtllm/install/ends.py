"""Pass on a long output so that its end is never lost.

    command 2>&1 | python3 ends.py

BuildKit drops what one step prints beyond 2 MiB, or faster than 200 KiB a second, and a compiler's
error comes last. So the beginning goes through as it comes, then one line in a thousand, and in the
end the last of it, slowly. Podman drops nothing: there everything goes through.
"""

import collections
import os
import sys
import time

BEGINNING = 768 << 10
END = 384 << 10
PIECE = 64 << 10
PAUSE = 0.5  # seconds after a piece: 128 KiB a second


def main():
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    everything = os.path.exists("/run/.containerenv")
    passed, kept, last = 0, 0, collections.deque()
    for number, line in enumerate(source):
        if everything or passed + len(line) <= BEGINNING:
            passed += len(line)
            sink.write(line)
            sink.flush()
            continue
        passed = BEGINNING  # from here on nothing is short enough
        last.append(line)
        kept += len(line)
        while kept > END and len(last) > 1:
            kept -= len(last.popleft())
        if number % 1000 == 0:
            sink.write(b"... " + line[:200].rstrip() + b"\n")
            sink.flush()
    end = b"".join(last)[-END:]
    if end:
        sink.write(b"... the end of it:\n")
    for place in range(0, len(end), PIECE):
        sink.write(end[place : place + PIECE])
        sink.flush()
        time.sleep(PAUSE)


if __name__ == "__main__":
    main()
