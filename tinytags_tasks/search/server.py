"""What the web server says by itself, before the search page sees a request."""

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from tinytags_tasks.search.guard import HEADERS


class SafeProtocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type] # uvicorn chooses it when it is imported
    """Refuses what is no request, such as an address over 64 KB, with the headers that pages have."""

    def send_400_response(self, msg: str) -> None:
        """Refuse a request that cannot be read, and close the connection."""
        body = msg.encode()
        own = {"Content-Type": "text/plain; charset=utf-8", "Content-Length": str(len(body)), "Connection": "close"}
        head = "".join(f"{name}: {value}\r\n" for name, value in {**HEADERS, **own}.items())
        self.transport.write(f"HTTP/1.1 400 Bad Request\r\n{head}\r\n".encode("ascii") + body)
        self.transport.close()
