"""Who may talk to the service, and how much: binding, token, Host, Origin, TLS, limits, and a log that cannot be flooded.

What a request must show, in this order; the page's own files hold no data, so that a person can load them and type the token:

                      Host known    token    Origin: own, or configured
    /healthz              -           -          -
    page files            x           -          -
    data (/api, ...)      x           x          -         (no page of another origin can read it: no CORS header is ever sent)
    sockets               x           x          x         (none at all is allowed: a client that is no browser)
    /camera               x           x          own only

Without a token the service listens at this machine's own address alone, and the Host check keeps out pages that have their
name point here (DNS rebinding).
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
import re
import socket
import ssl
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from engine.errors import ConfigError
from stream.protocol import TOKEN_SUBPROTOCOL
from stream.settings import ServerSettings

REQUEST_S = 10.0
"""How long a client may take over its request, TLS's own handshake aside."""
GUESSES_PER_S = 5.0
"""Wrong tokens taken from an address; beyond that it hears that there were too many, and only a right one lets it in."""
LOOKED_AT_PER_S = 50.0
"""Wrong tokens from an address beyond which its tokens are not looked at, right or wrong: many clients may share it."""
LOG_EVERY_S = 60.0
LINE_EVERY_S = 1.0
"""Time between two lines about one reason, whatever the addresses."""
LOGGED_AT_MOST = 4096
BRAKED_AT_MOST = 4096
_HOST = re.compile(r"(\[(?P<address>[0-9a-f:.]+)\]|(?P<name>[a-z0-9_.-]+))(:[0-9]{1,5})?")

Need = Literal["nothing", "host", "token", "socket", "camera"]
"""What a request must show: each of these includes the ones before it."""

log = logging.getLogger(__name__)


class Headers(Protocol):
    """The headers of a request, names in any case."""

    def get_all(self, key: str) -> list[str]:
        """All values of a header, in order."""


@dataclass(frozen=True)
class Refusal:
    """Why a request is refused: an HTTP status, a word for log and metrics, a sentence for the client."""

    status: int
    reason: str
    sentence: str


class Guard:
    """Decides about requests by the server's settings. Raises ConfigError where they would leave the service open."""

    def __init__(self, settings: ServerSettings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.token = settings.access_token()
        require_safe_binding(settings.host, self.token)
        self._clock = clock
        self._guesses: OrderedDict[str, Guesses] = OrderedDict()  # by address
        self._hosts = {name.lower() for name in (*settings.hosts, settings.host, "localhost")}
        self._origins = {origin.lower().rstrip("/") for origin in settings.origins}

    def refuse(self, headers: Headers, need: Need, address: str = "") -> Refusal | None:
        """Why a request with these headers, from address, may not have what it asks for; None where it may."""
        if need == "nothing":
            return None
        host = headers.get_all("Host")
        if len(host) != 1 or not self._knows(host[0]):
            return Refusal(
                403, "host", "This service does not answer to that name; its settings may list it under [server] hosts."
            )
        if need == "host":
            return None
        refused = self._refuse_token(headers, address)
        if refused is not None:
            return refused
        if need == "token":
            return None
        return self._refuse_origin(headers.get_all("Origin"), host[0], own_only=need == "camera")

    def _knows(self, host: str) -> bool:
        """Whether Host is a name of ours. Any bare address is: rebinding needs a name."""
        found = _HOST.fullmatch(host.lower())
        name = (found["address"] or found["name"]) if found is not None else ""
        return name in self._hosts or is_address(name)

    def _refuse_token(self, headers: Headers, address: str) -> Refusal | None:
        """Wrong tokens are counted by address; none at all is no guess."""
        if self.token is None:
            return None
        given = self._tokens(headers)
        guesses = self._guesses.get(group(address))
        looked_at = guesses is None or not guesses.looked_at.empty
        if looked_at and len(given) == 1 and hmac.compare_digest(given[0].encode("utf-8", "replace"), self.token.encode()):
            return None
        if given and not (looked_at and self._count_guess(group(address))):
            return Refusal(429, "guesses", "Too many wrong tokens came from your address; try again in a second.")
        return Refusal(
            401, "token", "The token is missing or wrong: send it as Authorization: Bearer, or type it into the page."
        )

    def _count_guess(self, place: str) -> bool:
        """Whether one more wrong token from there is within the rate."""
        guesses = self._guesses.get(place)
        if guesses is None:
            guesses = self._guesses[place] = Guesses(
                Bucket(GUESSES_PER_S, clock=self._clock), Bucket(LOOKED_AT_PER_S, clock=self._clock)
            )
        self._guesses.move_to_end(place)
        if len(self._guesses) > BRAKED_AT_MOST:
            self._guesses.popitem(last=False)
        guesses.looked_at.take()
        return guesses.answered.take()

    @staticmethod
    def _tokens(headers: Headers) -> list[str]:
        given = [value[7:].strip() for value in headers.get_all("Authorization") if value[:7].lower() == "bearer "]
        offered = [part.strip() for value in headers.get_all("Sec-WebSocket-Protocol") for part in value.split(",")]
        return given + [part.removeprefix(TOKEN_SUBPROTOCOL) for part in offered if part.startswith(TOKEN_SUBPROTOCOL)]

    def _refuse_origin(self, origins: list[str], host: str, *, own_only: bool) -> Refusal | None:
        refusal = Refusal(
            403, "origin", "Pages of that origin may not connect; the settings may list it under [server] origins."
        )
        if not origins:
            return refusal if own_only else None
        origin = origins[0].lower()
        own = origin in (f"http://{host.lower()}", f"https://{host.lower()}")
        allowed = own or (not own_only and origin in self._origins)
        return None if allowed and len(origins) == 1 else refusal


def require_safe_binding(host: str, token: str | None) -> None:
    """Raises ConfigError where the service would be open to other machines without a token, or where there is no such host."""
    if token is None and not is_loopback(host):
        try:
            socket.getaddrinfo(host, None)
        except (OSError, UnicodeError) as error:
            raise unknown_host(host) from error
        raise ConfigError(
            f"listening at {host} lets other machines in, so it needs a token: make one with "
            "`python -c 'import secrets; print(secrets.token_urlsafe())'` and set it as APEXSTREAM_TOKEN or [server] token_file"
        )


def unknown_host(host: str) -> ConfigError:
    """What to say where a name has no address."""
    return ConfigError(f"no host called {host} is known here; --listen takes a name or an address of this machine")


def is_loopback(host: str) -> bool:
    """Whether host is this machine's own address, which no other machine can reach."""
    return host.lower() == "localhost" or (is_address(host) and ipaddress.ip_address(host).is_loopback)


def group(address: str) -> str:
    """What counts as one client: an IPv4 address, the network of 64 bits that one client of IPv6 is given as a whole."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if found.version == 4 or found.is_loopback:
        return address
    return str(ipaddress.ip_network((int(found) >> 64 << 64, 64)))


def is_address(name: str) -> bool:
    """Whether name is an IP address, not a name that could be pointed anywhere."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def tls_context(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """TLS 1.2 and later by the two PEM files; None where none are given. Raises ConfigError that names the file at fault."""
    if certificate is None or key is None:
        return None
    for path, what in ((certificate, "certificate"), (key, "private key")):
        try:
            with path.open("rb"):
                pass
        except OSError as error:
            raise ConfigError(f"the {what} {path} cannot be read: {(error.strerror or str(error)).lower()}") from error
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None) or str(error)
        fault = f"the private key {key} does not belong to it" if "MISMATCH" in reason else f"PEM files are expected ({reason})"
        raise ConfigError(f"the certificate {certificate} cannot be used with {key}: {fault}") from error
    return context


def _no_password() -> str:
    raise ValueError("the private key is locked by a password; give one without")


class Bucket:
    """So many a second on average, twice as many at once."""

    def __init__(self, rate: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._most, self._clock = rate, 2 * rate, clock
        self._left, self._at = self._most, clock()

    def take(self) -> bool:
        """Whether one more is within the rate."""
        if self.empty:
            return False
        self._left -= 1
        return True

    @property
    def empty(self) -> bool:
        """Whether one more would be too many."""
        now = self._clock()
        self._left = min(self._most, self._left + (now - self._at) * self._rate)
        self._at = now
        return self._left < 1


@dataclass(frozen=True)
class Guesses:
    """Wrong tokens from one address: those that are answered as such, and those that are looked at."""

    answered: Bucket
    looked_at: Bucket


class RefusalLog:
    """Says why somebody was refused: once for each reason and address in a minute, once a second for each reason, then how
    often it came again."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, counted: Callable[[str], None] | None = None) -> None:
        self._clock, self._counted = clock, counted
        self._seen: OrderedDict[tuple[str, str], tuple[float, int]] = OrderedDict()
        self._lines: dict[str, tuple[float, int]] = {}  # by reason: when the last one was written, what came too soon after it

    def tell(self, reason: str, address: str, detail: str = "") -> None:
        """One refusal; detail must hold no secret (no query, no header)."""
        if self._counted is not None:
            self._counted(reason)
        now, key = self._clock(), (reason, group(address))
        at, silent = self._seen.get(key, (-LOG_EVERY_S, 0))
        if now - at < LOG_EVERY_S:
            self._seen[key] = (at, silent + 1)
            return
        written, unsaid = self._lines.get(reason, (-LINE_EVERY_S, 0))
        if now - written < LINE_EVERY_S:
            self._lines[reason] = (written, unsaid + 1)
            return
        self._lines[reason] = (now, 0)
        self._seen[key] = (now, 0)
        self._seen.move_to_end(key)
        if len(self._seen) > LOGGED_AT_MOST:
            self._seen.popitem(last=False)
        again = f" ({silent} more in the last minute)" if silent else ""
        again += f" ({unsaid} more of other addresses)" if unsaid else ""
        log.warning("refused %s: %s%s%s", address, REASONS.get(reason, reason), f", {detail[:200]!r}" if detail else "", again)

    def __len__(self) -> int:
        return len(self._seen)


REASONS: Mapping[str, str] = {
    "host": "the Host header names no host of ours",
    "origin": "a page of another origin",
    "token": "no token, or a wrong one",
    "guesses": "too many wrong tokens",
    "crowded": "too many connections",
    "files": "this process may open no more files",
    "slow": "the request did not come in time",
    "request": "no HTTP request that can be served",
    "path": "nothing there",
    "method": "neither GET nor HEAD",
    "message": "a message that is no message of ours",
    "rate": "too many messages",
    "frame": "a message too long, or a broken frame",
    "store": "stored events could not be read for it",
    "behind": "it does not read what it is sent",
}
"""Every reason there is, the labels of the metric of refusals, with what it means."""
