"""Language models that others serve: an OpenAI-compatible endpoint of completions as a teacher."""

from limbeck.servers.client import Client
from limbeck.servers.spec import PREFIX, Server, parse_server

__all__ = ["PREFIX", "Client", "Server", "parse_server"]
