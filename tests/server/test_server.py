"""companion.remote beside a real server with a real model: `make test-server` names the environment that has it.

The server is mlx_lm's, started here on loopback with SmolLM2; what it says is compared with the same model in PyTorch.
"""

import os
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest
import torch

from companion.remote import ask, read, top_k_targets
from companion.teachers._files import cache

ROOT = Path(__file__).parents[2]
SERVER = os.environ.get("BOOK_SERVER")
MODEL = "SmolLM2-135M-Instruct"
pytestmark = pytest.mark.skipif(not SERVER, reason="make test-server starts a server of its own")
QUESTION = "Name the capital of France."


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}/v1"
    arguments = ["-m", "mlx_lm", "server", "--model", MODEL, "--host", "127.0.0.1", "--port", str(port)]
    said = tmp_path_factory.mktemp("server") / "log"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    with (
        said.open("w") as log,
        subprocess.Popen([SERVER, *arguments], cwd=cache(), env=environment, stderr=log) as server,
    ):
        try:
            wait_for(address, server, said)
            yield address
        finally:
            server.terminate()


def wait_for(address, server, said):
    for _ in range(600):
        if server.poll() is not None:
            pytest.fail(said.read_text(encoding="utf-8")[-2000:])
        try:
            urllib.request.urlopen(f"{address}/models", timeout=5)
        except OSError:
            time.sleep(0.5)
        else:
            return
    pytest.fail("the server did not start within five minutes")


@pytest.fixture(scope="module")
def teacher():
    from companion import teachers

    return teachers.smollm2()


def prompt(teacher, question):
    """As SmolLM2's chat template writes it."""
    text = (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    )
    return torch.tensor([teacher.tokenizer.encode(text).ids])


def test_its_log_probabilities_are_the_models(url, teacher, tmp_path):
    (answer,) = ask(
        [QUESTION], MODEL, tmp_path / "a.jsonl", base_url=url, temperature=0.0, max_tokens=1, top_logprobs=11
    )
    with torch.no_grad():
        log_p = teacher(prompt(teacher, QUESTION))[0, -1].log_softmax(-1)
    expected, ids = log_p.topk(11)
    assert [token for token, _ in answer.top[0]] == [teacher.tokenizer.id_to_token(i) for i in ids.tolist()]
    torch.testing.assert_close(torch.tensor([p for _, p in answer.top[0]]), expected, rtol=1e-3, atol=1e-3)
    index, p = top_k_targets([answer.top[0]], teacher.tokenizer.get_vocab())
    assert index[0].tolist() == ids.tolist() and 0.5 < p.sum() <= 1


def test_an_answer_of_several_words_has_a_place_for_each_token(url, tmp_path):
    file = tmp_path / "a.jsonl"
    (answer,) = ask([QUESTION], MODEL, file, base_url=url, temperature=0.0, max_tokens=6, top_logprobs=3)
    assert "Paris" in answer.text and len(answer.top) == 6 and {len(place) for place in answer.top} == {3}
    assert [*read(file).values()] == [answer]
    assert ask([QUESTION], MODEL, file, base_url="http://127.0.0.1:9/v1", temperature=0.0, max_tokens=6,
               top_logprobs=3) == [answer]  # fmt: skip


def test_a_model_that_it_does_not_have(url, tmp_path):
    with pytest.raises(ValueError, match=r"no model 'nobody/nothing'"):
        ask([QUESTION], "nobody/nothing", tmp_path / "a.jsonl", base_url=url, retries=0)


def test_more_log_probabilities_than_it_gives(url, tmp_path):
    with pytest.raises(ValueError, match=r"refuses the request.*gives fewer log-probabilities"):
        ask([QUESTION], MODEL, tmp_path / "a.jsonl", base_url=url, retries=0, top_logprobs=20)
