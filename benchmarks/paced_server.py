"""An endpoint that streams tokens on a fixed clock and does nothing else: for how much a client can take.

    python -m benchmarks.paced_server PORT MILLISECONDS

Each reply has as many tokens as asked for, one every so many milliseconds. Replies are bytes made beforehand, so that
the client is the slower of the two. Speaks no more of the protocol than our clients need.
"""

import asyncio
import json
import re
import sys

_CHUNK = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "m"}


def _event(part: dict[str, object]) -> bytes:
    data = f"data: {json.dumps({**_CHUNK, **part})}\n\n".encode()
    return b"%x\r\n%s\r\n" % (len(data), data)


_TOKEN = _event({"choices": [{"index": 0, "delta": {"content": " word"}, "finish_reason": None}]})
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_DONE = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
_MODELS = json.dumps({"object": "list", "data": [{"id": "m", "object": "model", "created": 0, "owned_by": "t"}]})


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pause: float) -> None:
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"GET"):
                body = _MODELS.encode() if b"/models" in head else b""
                kind = b"Content-Type: application/json\r\nContent-Length: %d" % len(body)
                writer.write(b"HTTP/1.1 200 OK\r\n%s\r\n\r\n%s" % (kind, body))
                continue
            length = re.search(rb"content-length: (\d+)", head.lower())
            request = await reader.readexactly(int(length[1]) if length else 0)
            asked = re.search(rb'"max_tokens": ?(\d+)', request)
            tokens = int(asked[1]) if asked else 1
            writer.write(_HEAD)
            clock = asyncio.get_running_loop()
            started = clock.time()
            for number in range(1, tokens + 1):
                await asyncio.sleep(started + number * pause - clock.time())
                writer.write(_TOKEN)
            usage = {"prompt_tokens": 1, "completion_tokens": tokens, "total_tokens": tokens + 1}
            writer.write(_event({"choices": [], "usage": usage}) + _DONE)
    except (asyncio.IncompleteReadError, ConnectionResetError):
        pass
    finally:
        writer.close()


async def _serve(port: int, pause: float) -> None:
    server = await asyncio.start_server(lambda r, w: _answer(r, w, pause), "127.0.0.1", port, limit=1 << 24)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), float(sys.argv[2]) / 1000))
