"""Reads the text that names a server: ``server:URL?model=NAME&logprobs=20``."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from limbeck.errors import SettingError, check_number, check_whole, unknown_name

PREFIX = "server:"


@dataclass(frozen=True)
class Server:
    """A server of language models, and how it is asked.

    Args:
        url: up to what stands before ``/completions``, as in ``http://localhost:8000/v1``.
        model: the name by which the server knows the model.
        logprobs: log-probabilities of how many tokens it is asked for at each position; servers have a limit of their own
            (``--max-logprobs`` of vLLM, 20 where nothing is said).
        timeout: seconds that an answer may take.
        retries: how often a request is made again after no answer, a full queue (429) or a fault of the server (5xx).
        parallel: requests at a time.

    Raises:
        SettingError: a value out of its range.
    """

    url: str
    model: str
    logprobs: int = 20
    timeout: float = 120.0
    retries: int = 5
    parallel: int = 8

    def __post_init__(self) -> None:
        check_whole("logprobs", self.logprobs, low=1)
        check_number("timeout", self.timeout, low=0, open_low=True)
        check_whole("retries", self.retries, low=0)
        check_whole("parallel", self.parallel, low=1)


def parse_server(text: object) -> Server | None:
    """The server that a teacher's text names; None where it names something else.

    Raises:
        SettingError: the address cannot be used, or an argument does not exist or does not fit.
    """
    if not isinstance(text, str) or not text.strip().startswith(PREFIX):
        return None
    address = urlsplit(text.strip().removeprefix(PREFIX))
    if address.scheme not in ("http", "https") or not address.hostname:
        raise SettingError(
            f"teacher: {text} names no server; expected {PREFIX}URL?model=NAME, as in "
            f"{PREFIX}http://localhost:8000/v1?model=NAME."
        )
    if address.username or address.password:
        raise SettingError("teacher: a server's address holds no key; name the variable that does with --teacher-key.")
    given = _arguments(address.query)
    if "model" not in given:
        raise SettingError(f"teacher: {text} names no model; add ?model=NAME, the name by which the server knows it.")
    url = urlunsplit((address.scheme, address.netloc, address.path.rstrip("/"), "", ""))
    try:
        return Server(url, **given)
    except SettingError as error:
        raise SettingError(f"teacher: {error}") from None


def _arguments(query: str) -> dict[str, Any]:
    kinds = {item.name: item.type for item in fields(Server) if item.name != "url"}
    found: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in kinds:
            raise SettingError(f"teacher: {unknown_name('argument of a server', name, kinds)}")
        try:
            found[name] = {"str": str, "int": int, "float": float}[str(kinds[name])](value)
        except ValueError:
            raise SettingError(f"teacher: {name} of a server must be a number, got {value!r}.") from None
    return found
