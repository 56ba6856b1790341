"""Access control: Host, token and Origin of a request, safe binding, TLS, rate limits, and the log of refused requests.

What is checked, in this order. The page's files hold no data: they load without a token, which the user then types in.

                      Host known    token    Origin: own, or configured
    /healthz              -           -          -
    page files            x           -          -
    data (/api, ...)      x           x          -         (no CORS header is sent: pages of other origins cannot read it)
    websockets            x           x          x         (a missing Origin is allowed: the client is no browser)
    /camera               x           x          own only

Without a token the service listens on a loopback address only; the Host check protects it against DNS rebinding.
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
from typing import Literal

from websockets.datastructures import Headers

from engine.errors import ConfigError
from stream.protocol import TOKEN_SUBPROTOCOL
from stream.settings import ServerSettings

GUESSES_PER_S = 5.0
"""Wrong tokens an address may send; beyond that it is answered 429, and only the right token is accepted."""
CHECKED_PER_S = 50.0
"""Wrong tokens from an address beyond which none of its tokens is checked; many clients may share an address."""
LOG_EVERY_S = 60.0
"""Time between two log lines about one reason and address."""
LINE_EVERY_S = 1.0
"""Time between two log lines about one reason, whatever the addresses."""
MAX_TRACKED = 4096
"""Addresses remembered for their wrong tokens, and refusals remembered for the log; the oldest are forgotten."""
_HOST = re.compile(r"(\[(?P<address>[0-9a-f:.]+)\]|(?P<name>[a-z0-9_.-]+))(:[0-9]{1,5})?")

Need = Literal["nothing", "host", "token", "socket", "camera"]
"""What a request must pass: each of these includes the checks of the ones before it."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Refusal:
    """Why a request is refused: HTTP status, reason for log and metrics (a key of REASONS), sentence for the client."""

    status: int
    reason: str
    sentence: str


class AccessControl:
    """Checks requests against the server's settings. Raises ConfigError where they would leave the service open."""

    def __init__(self, settings: ServerSettings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.token = settings.access_token()
        require_safe_binding(settings.host, self.token)
        self._clock = clock
        self._guesses: OrderedDict[str, tuple[RateLimit, RateLimit]] = OrderedDict()  # by client: 401 answers, checked tokens
        self._hosts = {name.lower() for name in (*settings.hosts, settings.host, "localhost")}
        self._origins = {origin.lower().rstrip("/") for origin in settings.origins}

    def check(self, headers: Headers, need: Need, address: str = "") -> Refusal | None:
        """Why a request with these headers, from address, is refused; None where it is allowed."""
        if need == "nothing":
            return None
        host = headers.get_all("Host")
        if len(host) != 1 or not self._is_known(host[0]):
            return Refusal(403, "host", "This host name is not allowed; add it to hosts under [server] in the settings.")
        if need == "host":
            return None
        refused = self._check_token(headers, client_key(address))
        if refused is not None or need == "token":
            return refused
        return self._check_origin(headers.get_all("Origin"), host[0], own_only=need == "camera")

    def _is_known(self, host: str) -> bool:
        """Whether a Host header names this service. IP addresses always do: DNS rebinding needs a name."""
        found = _HOST.fullmatch(host.lower())
        name = (found["address"] or found["name"]) if found is not None else ""
        return name in self._hosts or is_address(name)

    def _check_token(self, headers: Headers, client: str) -> Refusal | None:
        """Wrong tokens are counted by client; a missing one is no guess."""
        if self.token is None:
            return None
        given = _tokens(headers)
        checked = client not in self._guesses or not self._guesses[client][1].exhausted
        if checked and len(given) == 1 and hmac.compare_digest(given[0].encode("utf-8", "replace"), self.token.encode()):
            return None
        if given and not (checked and self._count_guess(client)):
            return Refusal(429, "guesses", "Too many wrong tokens from your address; try again in a second.")
        return Refusal(
            401, "token", "The token is missing or wrong: send it as Authorization: Bearer, or type it into the page."
        )

    def _count_guess(self, client: str) -> bool:
        """Whether one more wrong token of the client is within GUESSES_PER_S."""
        if client not in self._guesses:
            limits = RateLimit(GUESSES_PER_S, clock=self._clock), RateLimit(CHECKED_PER_S, clock=self._clock)
            self._guesses[client] = limits
        self._guesses.move_to_end(client)
        if len(self._guesses) > MAX_TRACKED:
            self._guesses.popitem(last=False)
        answered, checked = self._guesses[client]
        checked.take()
        return answered.take()

    def _check_origin(self, origins: list[str], host: str, *, own_only: bool) -> Refusal | None:
        refusal = Refusal(
            403, "origin", "Pages of this origin may not connect; add it to origins under [server] in the settings."
        )
        if not origins:
            return refusal if own_only else None
        origin = origins[0].lower()
        own = origin in (f"http://{host.lower()}", f"https://{host.lower()}")
        allowed = own or (not own_only and origin in self._origins)
        return None if allowed and len(origins) == 1 else refusal


def _tokens(headers: Headers) -> list[str]:
    """The tokens of a request: Authorization: Bearer, or a subprotocol where a page cannot set headers."""
    given = [value[7:].strip() for value in headers.get_all("Authorization") if value[:7].lower() == "bearer "]
    offered = [part.strip() for value in headers.get_all("Sec-WebSocket-Protocol") for part in value.split(",")]
    return given + [part.removeprefix(TOKEN_SUBPROTOCOL) for part in offered if part.startswith(TOKEN_SUBPROTOCOL)]


def require_safe_binding(host: str, token: str | None) -> None:
    """Raises ConfigError where the service would be open to other machines without a token, or the host is unknown."""
    if token is None and not is_loopback(host):
        try:
            socket.getaddrinfo(host, None)
        except (OSError, UnicodeError) as error:
            raise unknown_host(host) from error
        raise ConfigError(
            f"listening at {host} is open to other machines and needs a token: create one with "
            "`python -c 'import secrets; print(secrets.token_urlsafe())'` and set it as APEXSTREAM_TOKEN or [server] token_file"
        )


def unknown_host(host: str) -> ConfigError:
    """The error where a host name has no address."""
    return ConfigError(f"unknown host {host}; --listen takes a name or an address of this machine")


def is_loopback(host: str) -> bool:
    """Whether host is a loopback address, which no other machine can reach."""
    return host.lower() == "localhost" or (is_address(host) and ipaddress.ip_address(host).is_loopback)


def client_key(address: str) -> str:
    """What counts as one client: an IPv4 address, or the /64 network of an IPv6 address."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if found.version == 4 or found.is_loopback:
        return address
    return str(ipaddress.ip_network((int(found) >> 64 << 64, 64)))


def is_address(name: str) -> bool:
    """Whether name is an IP address."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def tls_context(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """TLS 1.2 and later with the two PEM files; None where none are given. Raises ConfigError, which names the faulty file."""
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
    raise ValueError("the private key is protected by a password; give one without")


class RateLimit:
    """A token bucket: `rate` a second on average, twice as many at once."""

    def __init__(self, rate: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._most, self._clock = rate, 2 * rate, clock
        self._left, self._at = self._most, clock()

    def take(self) -> bool:
        """Count one; False where it is one too many."""
        if self.exhausted:
            return False
        self._left -= 1
        return True

    @property
    def exhausted(self) -> bool:
        """Whether one more would be too many."""
        now = self._clock()
        self._left = min(self._most, self._left + (now - self._at) * self._rate)
        self._at = now
        return self._left < 1


class RefusalLog:
    """Logs refusals: one line a minute for each reason and client, one line a second for each reason, with how many were
    left out. count is called with the reason of every refusal."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, count: Callable[[str], None] | None = None) -> None:
        self._clock, self._count = clock, count
        self._seen: OrderedDict[tuple[str, str], tuple[float, int]] = OrderedDict()  # time of the last line, refusals since
        self._lines: dict[str, tuple[float, int]] = {}  # by reason, the same

    def report(self, reason: str, address: str, detail: str = "") -> None:
        """Report one refusal; detail must hold no secret (no query, no header)."""
        if self._count is not None:
            self._count(reason)
        now, key = self._clock(), (reason, client_key(address))
        at, repeated = self._seen.get(key, (-LOG_EVERY_S, 0))
        if now - at < LOG_EVERY_S:
            self._seen[key] = (at, repeated + 1)
            return
        written, others = self._lines.get(reason, (-LINE_EVERY_S, 0))
        if now - written < LINE_EVERY_S:
            self._lines[reason] = (written, others + 1)
            return
        self._lines[reason] = (now, 0)
        self._seen[key] = (now, 0)
        self._seen.move_to_end(key)
        if len(self._seen) > MAX_TRACKED:
            self._seen.popitem(last=False)
        more = f" ({repeated} more in the last minute)" if repeated else ""
        more += f" ({others} more from other addresses)" if others else ""
        log.warning("refused %s: %s%s%s", address, REASONS.get(reason, reason), f", {detail[:200]!r}" if detail else "", more)


REASONS: Mapping[str, str] = {
    "host": "unknown Host header",
    "origin": "a page of another origin",
    "token": "missing or wrong token",
    "guesses": "too many wrong tokens",
    "crowded": "too many connections",
    "files": "too many open files in this process",
    "slow": "the request took too long",
    "request": "invalid HTTP request",
    "path": "unknown path",
    "method": "method is neither GET nor HEAD",
    "message": "invalid message",
    "rate": "too many messages",
    "frame": "invalid or too long websocket frame",
    "store": "stored events cannot be read",
    "behind": "the client reads too slowly",
}
"""Every reason of a refusal, the labels of the refusal metric, with its meaning."""
