"""Addresses of servers, and requests that are made again, refused, or not answered."""

from __future__ import annotations

import pytest
import torch

from limbeck.data.text import CharacterTokenizer, TextData
from limbeck.data.text.examples import Example, Message
from limbeck.errors import CacheError, DataError, SettingError, TeacherError
from limbeck.models.language import create_language_model
from limbeck.policies import Sampling
from limbeck.servers import Client, Server, parse_server
from limbeck.servers.answers import Writing, answered_by
from limbeck.servers.logprobs import Scorer

from .serving import Served, serving

TOKENIZER = CharacterTokenizer("0123456789+-=")


def served(**more) -> Served:
    torch.manual_seed(1)
    made = create_language_model("llama(layers=1, width=16, heads=2)", task="causal", vocabulary=15, context=64)
    return Served(made.network.eval(), TOKENIZER, **more)


def client(found: Served, key: str | None = None, **more) -> Client:
    return Client(Server(found.url, "tiny", **more), key, pause=lambda seconds: None)


def test_an_address_says_how_a_server_is_asked() -> None:
    found = parse_server("server:http://localhost:8000/v1/?model=org/name&logprobs=5&timeout=2.5&retries=0&parallel=2")
    assert found == Server("http://localhost:8000/v1", "org/name", 5, 2.5, 0, 2)
    assert parse_server("hf:server") is None
    assert parse_server(torch.nn.Identity()) is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("server:localhost?model=a", "names no server"),
        ("server:file:///etc/passwd?model=a", "names no server"),
        ("server:http://me:secret@host/v1?model=a", "--teacher-key"),
        ("server:http://host/v1", "names no model"),
        ("server:http://host/v1?model=a&logprob=3", "did you mean 'logprobs'"),
        ("server:http://host/v1?model=a&logprobs=many", "logprobs of a server must be a number"),
        ("server:http://host/v1?model=a&logprobs=0", "logprobs must be a whole number of at least 1"),
    ],
)
def test_addresses_that_cannot_be(text: str, told: str) -> None:
    with pytest.raises(SettingError, match=told) as error:
        parse_server(text)
    assert "secret" not in str(error.value)


def test_a_server_that_starts_is_asked_again_and_one_that_does_not_is_told() -> None:
    with serving(served(broken=2)) as found:
        asking = client(found)
        assert set(asking.completion({"prompt": "1+2=", "max_tokens": 2})) == {"text", "finish_reason"}
        assert asking.repeated == 2
    with pytest.raises(TeacherError, match=r"gave no answer in 2 tries \(.*\). Does it run"):
        client(found, retries=1).completion({"prompt": "1+2=", "max_tokens": 2})


def test_a_server_that_is_too_slow() -> None:
    with serving(served(slow=0.5)) as found, pytest.raises(TeacherError, match=r"2 tries \(none within 0.1 s\)"):
        client(found, timeout=0.1, retries=1).completion({"prompt": "1+2=", "max_tokens": 2})


def test_a_key_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(served(key="secret")) as found:
        with pytest.raises(SettingError, match="TINY_KEY, and it is not set"):
            client(found, "TINY_KEY")
        monkeypatch.setenv("TINY_KEY", "secret")
        assert client(found, "TINY_KEY").completion({"prompt": "1", "max_tokens": 1})
        monkeypatch.setenv("TINY_KEY", "wrong")
        with pytest.raises(TeacherError, match="refused a request, status 401: no such key"):
            client(found, "TINY_KEY").completion({"prompt": "1", "max_tokens": 1})
        assert len(found.asked) == 2, "what is refused is not asked again"


@pytest.mark.parametrize("as_ids", [True, False])
def test_log_probabilities_are_the_servers(as_ids: bool) -> None:
    tokens = TOKENIZER.encode("12+34=46")
    with serving(served(as_ids=as_ids)) as found:
        whole = Scorer(client(found), TOKENIZER, 15).logits(tokens)
        wanted = found.logits(tokens).log_softmax(-1)
        if as_ids:
            torch.testing.assert_close(whole[:-1], wanted[:-1], rtol=1e-4, atol=1e-5)
        scorer = Scorer(client(found, logprobs=4), TOKENIZER, 15)
        told = scorer.logits(tokens)[:-1].exp()
    p = wanted[:-1].exp()
    named = torch.zeros_like(p, dtype=torch.bool).scatter(-1, p.topk(4).indices, True)
    torch.testing.assert_close(told[named], p[named], rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(told.sum(-1), torch.ones(len(told)))
    assert scorer.positions == len(tokens) - 1
    assert scorer.unknown == 0


def test_tokens_that_nobody_knows_are_counted_with_the_rest() -> None:
    with serving(served()) as found:
        found.name = lambda token: f"token_id:{token + 10 * (token == 5)}"  # type: ignore[method-assign]
        scorer = Scorer(client(found), TOKENIZER, 15)
        tokens = TOKENIZER.encode("6+7=")
        told, wanted = scorer.logits(tokens)[:-1].exp(), found.logits(tokens).softmax(-1)[:-1]
    assert scorer.unknown == scorer.fewer == scorer.positions == 3
    torch.testing.assert_close(told, wanted, rtol=1e-3, atol=1e-5)


def test_fewer_log_probabilities_than_asked_for_are_counted() -> None:
    with serving(served(fewer=3)) as found:
        scorer = Scorer(client(found, logprobs=5), TOKENIZER, 15)
        scorer.logits(TOKENIZER.encode("12+34="))
    assert (scorer.positions, scorer.fewer, scorer.unknown) == (5, 5, 0)


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"echo": False}, "tells no log-probabilities of prompts"),
        ({"shifted": True}, r"read the token \d+ where \d+ was sent"),
    ],
)
def test_what_a_server_cannot_say_is_an_error(how: dict, told: str) -> None:
    with serving(served(**how)) as found, pytest.raises(TeacherError, match=told):
        Scorer(client(found), TOKENIZER, 15).logits(TOKENIZER.encode("1+2="))


SUMS = TextData("sums", "prompt", [Example(i, f"{i}+{i}=", f"{2 * i}") for i in range(6)], None, None)
WRITING = Writing(Sampling(temperature=0), 4, 0)


class Sure(torch.nn.Module):
    """Answers with the last digit that it was asked about, and ends."""

    def forward(self, input_ids):
        logits = torch.zeros(*input_ids.shape, 15)
        for row, tokens in enumerate(input_ids.tolist()):
            # After the sign of equality comes the digit before it, after a digit the end.
            following = tokens[-2] if tokens[-1] == TOKENIZER.encode("=")[0] else TOKENIZER.eos_token_id
            logits[row, -1, following] = 9.0
        return type("Said", (), {"logits": logits})


def test_answers_are_asked_for_once_and_kept(tmp_path) -> None:
    said: list[str] = []
    with serving(Served(Sure(), TOKENIZER)) as found:
        first = answered_by(client(found), SUMS, WRITING, tmp_path / "a", said.append)
        assert len(found.asked) == 6
        assert found.asked[0] | {"prompt": ""} == {
            "path": "/v1/completions",
            "key": None,
            "model": "tiny",
            "prompt": "",
            "max_tokens": 4,
            "temperature": 0,
            "seed": 0,
        }
        path = tmp_path / "a" / "answers.jsonl"
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(lines[:4]) + lines[4][:9])
        again = answered_by(client(found), SUMS, WRITING, tmp_path / "a", said.append)
        assert len(found.asked) == 8, "two lines were not whole"
        assert answered_by(client(found), SUMS, WRITING, tmp_path / "a", said.append) == first == again
        assert len(found.asked) == 8
    assert [(example.prompt, example.completion) for example in first.train] == [
        (f"{i}+{i}=", f"{i}") for i in range(6)
    ]


def test_answers_that_do_not_end_are_left_out_and_none_left_is_an_error(tmp_path) -> None:
    said: list[str] = []
    with serving(served(long=True)) as found, pytest.raises(DataError, match="no answer with an end within 4 tokens"):
        answered_by(client(found), SUMS, WRITING, tmp_path / "a", said.append)
    assert "left out: 6 that reached max_new_tokens=4" in said[-1]


def test_answers_to_something_else_are_refused(tmp_path) -> None:
    with serving(served(long=True)) as found:
        with pytest.raises(DataError):
            answered_by(client(found), SUMS, WRITING, tmp_path / "a", print)
        other = Writing(Sampling(temperature=0.5), 4, 0)
        with pytest.raises(CacheError, match=r"temperature: 0 there, 0\.5 now"):
            answered_by(client(found), SUMS, other, tmp_path / "a", print)
        (tmp_path / "b").mkdir()
        (tmp_path / "b" / "thesis.txt").write_text("mine")
        with pytest.raises(CacheError, match="holds no answers of a server"):
            answered_by(client(found), SUMS, WRITING, tmp_path / "b", print)


def test_chats_are_asked_as_chats(tmp_path) -> None:
    turns = (Message("user", "1+1="), Message("assistant", "2"))
    chats = TextData("chats", "chat", [Example(0, messages=turns)], None, None)
    with serving(served(long=True)) as found, pytest.raises(DataError):
        answered_by(client(found), chats, WRITING, tmp_path / "a", print)
    assert found.asked[0]["path"] == "/v1/chat/completions"
    assert found.asked[0]["messages"] == [{"role": "user", "content": "1+1="}]
