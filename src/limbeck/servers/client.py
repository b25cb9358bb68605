"""Asks a server, again where that may help, and says in a sentence why there is no answer."""

from __future__ import annotations

import http.client
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any, TypeVar
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from limbeck.errors import SettingError, TeacherError
from limbeck.servers.spec import Server

T = TypeVar("T")
R = TypeVar("R")

_TOO_MANY, _FAULT = 429, 500
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
_SHOWN = 300


class Client:
    """Requests to one server.

    Args:
        server: which, and how patiently it is asked.
        key_variable: name of the environment variable with the key that the server wants; None for none. The key is read when
            a request is made, and neither kept nor told.
        pause: waits so many seconds between two tries: 0.5, and twice as long each time up to 30, or what the server says.

    Attributes:
        repeated: requests that were made once more.

    Raises:
        SettingError: the variable is not set.
    """

    def __init__(
        self, server: Server, key_variable: str | None = None, pause: Callable[[float], None] = time.sleep
    ) -> None:
        self.server, self._key_variable, self._pause = server, key_variable, pause
        self.repeated = 0
        self._counting = Lock()
        if key_variable is not None and not os.environ.get(key_variable):
            raise SettingError(
                f"teacher_key names the environment variable {key_variable}, and it is not set; it holds the server's key."
            )

    def completion(self, body: dict[str, Any]) -> dict[str, Any]:
        """The first choice of an answer of ``/completions``. Raises TeacherError where there is none."""
        return self._ask("completions", body)

    def chat(self, body: dict[str, Any]) -> dict[str, Any]:
        """The first choice of an answer of ``/chat/completions``. Raises TeacherError where there is none."""
        return self._ask("chat/completions", body)

    def each(self, ask: Callable[[T], R], about: Iterable[T]) -> Iterator[R]:
        """What ``ask`` gives for each, in order; so many at a time as the server is asked."""
        with ThreadPoolExecutor(self.server.parallel) as pool:
            yield from pool.map(ask, about)

    def _ask(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = self._post(f"{self.server.url}/{path}", {"model": self.server.model, **body})
        choices = answer.get("choices") if isinstance(answer, dict) else None
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            raise TeacherError(
                f"the server {self.server.url} answered without 'choices', so it is no OpenAI-compatible endpoint of "
                f"{path}: {json.dumps(answer)[:_SHOWN]}"
            )
        choice: dict[str, Any] = choices[0]
        return choice

    def _post(self, url: str, body: dict[str, Any]) -> Any:
        tries = self.server.retries + 1
        for number in range(tries):
            wait = min(_FIRST_PAUSE * 2**number, _LONGEST_PAUSE)
            try:
                return self._once(url, body)
            except HTTPError as error:
                reason = f"status {error.code}: {_told(error)}"
                if error.code != _TOO_MANY and error.code < _FAULT:
                    raise TeacherError(f"the server {self.server.url} refused a request, {reason}") from None
                wait = _asked_for(error) or wait
            except (URLError, TimeoutError, ConnectionError, http.client.HTTPException, ValueError) as error:
                reason = _reason(error, self.server.timeout)
            if number < tries - 1:
                with self._counting:
                    self.repeated += 1
                self._pause(wait)
        raise TeacherError(
            f"the server {self.server.url} gave no answer in {tries} tries ({reason}). Does it run, and is the address right? "
            "What it said until now is kept: the same command goes on."
        )

    def _once(self, url: str, body: dict[str, Any]) -> Any:
        headers = {"Content-Type": "application/json"}
        if self._key_variable is not None:
            headers["Authorization"] = f"Bearer {os.environ.get(self._key_variable, '')}"
        request = Request(url, json.dumps(body).encode(), headers)  # noqa: S310  (http or https, as the address was checked)
        with urlopen(request, timeout=self.server.timeout) as answer:  # noqa: S310
            return json.loads(answer.read())


def _asked_for(error: HTTPError) -> float | None:
    """The seconds after which the server wants to be asked again, where it says so in seconds."""
    told = error.headers.get("Retry-After", "") if error.headers else ""
    return min(float(told), _LONGEST_PAUSE) if told.isdigit() else None


def _told(error: HTTPError) -> str:
    try:
        text = error.read().decode("utf-8", "replace")
    except OSError:
        return str(error.reason)
    try:
        found = json.loads(text)
        found = found.get("error", found)
        return str(found.get("message", found) if isinstance(found, dict) else found)[:_SHOWN]
    except (ValueError, AttributeError):
        return " ".join(text.split())[:_SHOWN] or str(error.reason)


def _reason(error: Exception, timeout: float) -> str:
    inner = getattr(error, "reason", error)
    if isinstance(inner, TimeoutError):
        return f"none within {timeout:g} s"
    if isinstance(error, ValueError) and not isinstance(error, URLError):
        return "what came back is no JSON"
    return str(inner) or type(inner).__name__
