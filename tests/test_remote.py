"""companion.remote: each question is asked once, whatever the server does; and what it says where it cannot go on.

The server here is real HTTP on loopback and fails on command. The real one, with a real model, is in tests/server.
"""

import json
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from companion.remote import Answer, ask, read, top_k_targets
from companion.tokens import forward_kl_loss, sparse_kd_loss

openai = pytest.importorskip("openai")


class Handler(BaseHTTPRequestHandler):
    """Answers "yes: QUESTION"; its server's `plan` says what happens to each request instead, in turn."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server, question = self.server, body["messages"][-1]["content"]
        with server.lock:
            server.asked.append(question)
            server.times.append(time.monotonic())
            server.now += 1
            server.most = max(server.most, server.now)
            fault = server.plan.pop(0) if server.plan else None
        time.sleep(server.delay)
        with server.lock:  # before the answer: who has it may ask again before this thread goes on
            server.now -= 1
        self.answer(body, question, fault)

    def answer(self, body, question, fault):
        if fault == "cut":  # the head promises more than comes
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", "500")
            self.end_headers()
            self.wfile.write(b'{"choices": [')
            self.close_connection = True
        elif fault == "slow":
            time.sleep(1.5)
        elif fault == "empty":
            self.reply(200, {"choices": []})
        elif fault:
            status, headers, message = fault
            self.reply(status, {"error": {"message": message}}, headers)
        else:
            self.reply(200, {"choices": [self.choice(body, question)]})

    def choice(self, body, question):
        choice = {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": f"yes: {question}"},
        }
        if body.get("logprobs") and self.server.gives:
            tops = [{"token": "Ġno", "logprob": -2.0}, {"token": "Ġyes", "logprob": -0.5}]
            choice["logprobs"] = {"content": [{**tops[0], "top_logprobs": tops[: body["top_logprobs"]]}]}
        return choice

    def do_GET(self):
        self.reply(200, {"object": "list", "data": [{"id": "small"}, {"id": "large"}]})

    def reply(self, status, content, headers=None):
        text = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.plan, server.asked, server.times, server.lock = [], [], [], threading.Lock()
        server.now, server.most, server.delay, server.gives = 0, 0, 0.0, True
        server.url = f"http://127.0.0.1:{server.server_port}/v1"
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield server
        server.shutdown()


def try_again(status, after="0.05", message="busy"):
    return status, {"retry-after": after}, message


def texts(answers):
    return [answer.text for answer in answers]


def test_answers_come_in_the_order_of_the_questions_and_each_is_asked_once(server, tmp_path):
    file, questions = tmp_path / "new" / "a.jsonl", [*"abcdeb"]
    first = ask(questions, "m", file, base_url=server.url, at_once=4)
    assert texts(first) == [f"yes: {q}" for q in questions]
    assert Counter(server.asked) == Counter("abcde")
    again = ask([*"fcba"], "m", file, base_url=server.url)
    assert texts(again) == ["yes: f", "yes: c", "yes: b", "yes: a"] and server.asked[5:] == ["f"]


@pytest.mark.parametrize("change", [{"temperature": 0.5}, {"seed": 1}, {"model": "n"}])
def test_another_model_or_parameter_is_another_question(server, tmp_path, change):
    file = tmp_path / "a.jsonl"
    plain = {"model": "m", "temperature": 1.0}
    for given in (plain, {**plain, **change}, dict(reversed(plain.items()))):
        ask(["a"], cache=file, base_url=server.url, **given)
    assert server.asked == ["a", "a"]


def test_without_a_server_everything_comes_from_the_cache(server, tmp_path, monkeypatch):
    file = tmp_path / "a.jsonl"
    ask(["a"], "m", file, base_url=server.url)
    monkeypatch.setattr(openai, "OpenAI", None)
    assert texts(ask(["a"], "m", file, base_url="http://127.0.0.1:9/v1")) == ["yes: a"]


def test_neither_the_question_nor_the_key_is_kept(server, tmp_path):
    file = tmp_path / "a.jsonl"
    ask(["what nobody may see"], "m", file, base_url=server.url, key="sk-secret")
    kept = file.read_text(encoding="utf-8").replace("yes: what nobody may see", "")
    assert "secret" not in kept and "nobody" not in kept


@pytest.mark.parametrize("fault", [try_again(429), try_again(500), try_again(503), "cut"], ids=str)
def test_the_client_tries_again(server, tmp_path, fault):
    server.plan = [fault, fault]
    assert texts(ask(["a"], "m", tmp_path / "a.jsonl", base_url=server.url)) == ["yes: a"]
    assert server.asked == ["a"] * 3


def test_it_waits_as_long_as_the_server_says(server, tmp_path):
    server.plan = [try_again(429, "1.2")]
    ask(["a"], "m", tmp_path / "a.jsonl", base_url=server.url)
    assert server.times[1] - server.times[0] >= 1.2


def test_no_more_at_once_than_allowed(server, tmp_path):
    server.delay = 0.05
    ask([*"abcdefgh"], "m", tmp_path / "a.jsonl", base_url=server.url, at_once=3)
    assert server.most == 3


def test_after_a_failure_the_next_run_asks_only_what_is_missing(server, tmp_path):
    file = tmp_path / "a.jsonl"
    server.plan = [None, None, None, try_again(400, message="too long")]
    with pytest.raises(ValueError, match=r"refuses the request.*too long"):
        ask([*"abcdefgh"], "m", file, base_url=server.url, at_once=1)
    assert server.asked == [*"abcd"] and len(read(file)) == 3
    ask([*"abcdefgh"], "m", file, base_url=server.url, at_once=1)
    assert server.asked == [*"abcd", *"defgh"]


def test_an_interruption_keeps_what_is_under_way(server, tmp_path, monkeypatch):
    """Ctrl-C while four of twelve are answered: the two under way are written, too, and never asked again."""
    file, waited = tmp_path / "a.jsonl", []

    def interrupted(tasks, return_when):
        while len(server.asked) < 6:
            time.sleep(0.01)
        waited.append(sum(task.done() for task in tasks))
        raise KeyboardInterrupt

    server.delay = 0.1
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("companion.remote.wait", interrupted)
        ask([*"abcdefghijkl"], "m", file, base_url=server.url, at_once=2)
    assert waited[0] < 6 <= len(read(file)) == len(server.asked) < 12
    ask([*"abcdefghijkl"], "m", file, base_url=server.url)
    assert Counter(server.asked) == Counter("abcdefghijkl")


def test_a_last_line_cut_off_is_asked_again(server, tmp_path):
    file = tmp_path / "a.jsonl"
    ask(["a", "b"], "m", file, base_url=server.url, at_once=1)
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])
    with pytest.warns(UserWarning, match=r"a\.jsonl: line 2 was cut off"):
        assert texts(ask(["a", "b"], "m", file, base_url=server.url)) == ["yes: a", "yes: b"]
    assert server.asked == ["a", "b", "b"] and file.read_bytes() == whole


@pytest.mark.parametrize(
    "line", ["{", "[]", "{}", '{"key": 1, "text": "", "finish": null, "top": [[["a"]]]}', "null"]
)
def test_a_damaged_line_is_named(tmp_path, line):
    file = tmp_path / "a.jsonl"
    file.write_text('{"key": "k", "text": "t", "finish": null, "top": []}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"a\.jsonl: line 2 is no answer .* Delete that line"):
        read(file)


def test_no_server(tmp_path):
    with pytest.raises(ConnectionError, match=r"nobody answers at http://127\.0\.0\.1:9/v1/.*make server"):
        ask(["a"], "m", tmp_path / "a.jsonl", base_url="http://127.0.0.1:9/v1", retries=0)


@pytest.mark.parametrize(
    "fault, error, says",
    [
        (try_again(404, message="no such model"), ValueError, "no model 'm'.*It offers small, large"),
        (try_again(401), PermissionError, "refuses the key"),
        (try_again(429), RuntimeError, "after 0 more tries: RateLimitError.*kept: run again later"),
        (try_again(500), RuntimeError, "after 0 more tries: InternalServerError"),
        (try_again(400, message="logprobs are not supported"), ValueError, "ask for the text alone"),
        ("empty", RuntimeError, "IndexError"),
        ("cut", ConnectionError, "nobody answers|broke off"),
        ("slow", RuntimeError, "no answer within 0.5 s"),
    ],
    ids=lambda x: str(x)[:20],
)
def test_what_cannot_be_mended_is_said(server, tmp_path, fault, error, says):
    server.plan = [fault]
    with pytest.raises(error, match=says):
        ask(["a"], "m", tmp_path / "a.jsonl", base_url=server.url, retries=0, timeout=0.5)
    assert not read(tmp_path / "a.jsonl")


def test_no_log_probabilities_are_no_answer(server, tmp_path):
    server.gives = False
    with pytest.raises(ValueError, match="gave no log-probabilities, and top_logprobs=2"):
        ask(["a"], "m", tmp_path / "a.jsonl", base_url=server.url, top_logprobs=2)
    assert not read(tmp_path / "a.jsonl")


def test_the_likeliest_come_first_and_survive_the_file(server, tmp_path):
    file = tmp_path / "a.jsonl"
    expected = Answer("yes: a", "stop", ((("Ġyes", -0.5), ("Ġno", -2.0)),))
    for _ in range(2):
        assert ask(["a"], "m", file, base_url=server.url, top_logprobs=2) == [expected]


# --------------------------------------------------------------------------- targets


def test_with_every_token_it_is_the_forward_kl():
    generator = torch.Generator().manual_seed(0)
    z, v = torch.randn(2, 5, 7, generator=generator)
    names = {f"t{i}": i for i in range(7)}
    places = [[*zip(names, row.tolist(), strict=True)] for row in v.log_softmax(-1)]
    loss = sparse_kd_loss(z, *top_k_targets(places, names), tail=True)
    torch.testing.assert_close(loss, forward_kl_loss(z, v), rtol=1e-4, atol=1e-6)


def test_rows_of_different_length_are_padded_with_probability_0():
    index, p = top_k_targets([[("a", -1.0)], [("b", -1.0), ("c", -2.0)]], {"a": 5, "b": 6, "c": 7})
    assert index.tolist() == [[5, 0], [6, 7]] and p[0, 1] == 0
    assert sparse_kd_loss(torch.zeros(2, 8), index, p, tail=True).isfinite()


@pytest.mark.parametrize(
    "places, says",
    [([], "none at all"), ([[("a", -1.0)], []], "place 1 has none"), ([[("x", -1.0)]], "'x' and")],
)
def test_targets_without_tokens_are_refused(places, says):
    with pytest.raises(ValueError, match=says):
        top_k_targets(places, {"a": 0})
