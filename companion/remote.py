"""Ask a teacher behind a server that speaks the chat-completions form: each question once, its answer kept on disk.

The client is OpenAI's own (extra `remote`), which waits and tries again; the cache is a file of JSON, a line an
answer. `make server` starts such a server with SmolLM2 on this machine.
"""

import hashlib
import json
import os
import threading
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

BASE_URL = "http://127.0.0.1:8765/v1"


@dataclass(frozen=True)
class Answer:
    """What came back: the text, why it ended ("stop", "length"), and the likeliest tokens at each place.

    `top` is empty where no log-probabilities were asked for; else top[i] holds the (token, log p) of place i, the
    likeliest first, in nats and at temperature 1. They are tokens as the server writes them ("Ġgood", " good").
    """

    text: str
    finish: str | None
    top: tuple[tuple[tuple[str, float], ...], ...] = ()


def ask(
    questions: Sequence[str | Sequence[Mapping]],
    model: str,
    cache: str | Path,
    *,
    base_url: str = BASE_URL,
    key: str = "none",
    at_once: int = 2,
    retries: int = 5,
    timeout: float = 60.0,
    **parameters,
) -> list[Answer]:
    """The answers in the order of the questions; from the cache where it has them, else from the server.

    Each answer is written when it comes, so a run that was cut off goes on where it stopped. What makes two requests
    the same is model, messages and parameters together; a model that changes behind its name keeps its old answers,
    so name a version where there is one. One process at a time writes a cache.

    Args:
        questions: each a text (the user's), or a list of messages {"role": …, "content": …}.
        model: its name on the server.
        cache: a file of JSON lines, made where there is none. It holds no question and no key.
        base_url: where the server is; key: what it wants to see, if anything. Neither belongs to what is cached.
        at_once: how many requests may be under way together, at least 1.
        retries: how often the client tries again after 429, 408, 409, 5xx, a cut connection or a timeout. It waits
            as Retry-After says, up to a minute, else ½ s, 1 s, 2 s, … 8 s.
        timeout: seconds for one try.
        parameters: of the request: temperature, seed, max_tokens, top_logprobs (logprobs=True is then added) …

    Raises:
        ConnectionError: nobody answers there. PermissionError: the key is refused.
        ValueError: the server does not have the model, refuses a parameter or gives no log-probabilities; a line of
            the cache is damaged. RuntimeError: it went on failing. What was answered before is kept.
        ImportError: openai is missing, and not everything is in the cache.
    """
    if parameters.get("top_logprobs") is not None:
        parameters["logprobs"] = True
    requests = [_request(question, model, parameters) for question in questions]
    keys = [_key(request) for request in requests]
    known, path = read(cache), Path(cache)
    missing = {k: r for k, r in zip(keys, requests, strict=True) if k not in known}  # each once
    if missing:
        client = _client(base_url, key, retries, timeout)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            _ask_all(client, missing, known, file, at_once)
    return [known[k] for k in keys]


def read(cache: str | Path) -> dict[str, Answer]:
    """Every answer in the file, by its key; none where there is no file.

    A last line that was cut off is taken away with a warning, and its question will be asked again.

    Raises:
        ValueError: another line is no answer. The message has its number.
    """
    path = Path(cache)
    if not path.exists():
        return {}
    lines, answers = path.read_bytes().split(b"\n"), {}
    if cut := lines.pop():
        warnings.warn(
            f"{path}: line {len(lines) + 1} was cut off; it is taken away and asked again.", stacklevel=2
        )
        os.truncate(path, path.stat().st_size - len(cut))
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            top = tuple(tuple((str(t), float(p)) for t, p in place) for place in row["top"])
            answers[row["key"]] = Answer(row["text"], row["finish"], top)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path}: line {number} is no answer ({type(error).__name__}: {error}). Delete that line: its question "
                "is then asked again."
            ) from error
    return answers


def top_k_targets(
    places: Sequence[Sequence[tuple[str, float]]], vocabulary: Mapping[str, int]
) -> tuple[Tensor, Tensor]:
    """Index (N, K) and probability (N, K), as `tokens.sparse_kd_loss(…, tail=True)` takes them.

    p_c = Σ exp(log p) over the answers' tokens that the vocabulary counts as c; the rest of 1 is the tail.

    Args:
        places: each the (token, log p) that the teacher gave there: [answer.top[0] for answer in answers], or
            answer.top for the places of one text.
        vocabulary: from a token as the server writes it to an id: a tokenizer's own, or the words for each class,
            {"Ġgood": 1, "Ġgreat": 1, "Ġbad": 0}. Tokens that are not in it go to the tail.

    Returns:
        K is the largest number of ids at one place; other rows are padded with id 0 and probability 0.

    Raises:
        ValueError: no places, a place without tokens, or none of all their tokens is in the vocabulary.
    """
    if not len(places) or not all(places):
        empty = next((i for i, place in enumerate(places) if not place), "none at all")
        raise ValueError(f"each place has the teacher's likeliest tokens; place {empty} has none.")
    rows = []
    for place in places:
        row: dict[int, float] = {}
        for token, log_p in place:
            if token in vocabulary:
                row[vocabulary[token]] = row.get(vocabulary[token], 0.0) + torch.tensor(log_p).exp().item()
        rows.append(row)
    if not (width := max(map(len, rows))):
        raise ValueError(
            f"no token is in the vocabulary: the teacher wrote {places[0][0][0]!r} and the vocabulary has "
            f"{next(iter(vocabulary), 'nothing')!r}. A space before a word is written Ġ by some servers."
        )
    index, p = torch.zeros(len(rows), width, dtype=torch.long), torch.zeros(len(rows), width)
    for i, row in enumerate(rows):
        index[i, : len(row)], p[i, : len(row)] = torch.tensor([*row]), torch.tensor([*row.values()])
    return index, p


def _request(question, model: str, parameters: dict) -> dict:
    messages = [{"role": "user", "content": question}] if isinstance(question, str) else list(question)
    return {"model": model, "messages": messages, **parameters}


def _key(request: dict) -> str:
    text = json.dumps(request, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _client(base_url: str, key: str, retries: int, timeout: float):
    try:
        import openai
    except ImportError as error:
        raise ImportError(
            'ask talks to the server through OpenAI\'s client: pip install "openai>=1.50"'
        ) from error
    return openai.OpenAI(base_url=base_url, api_key=key, max_retries=retries, timeout=timeout)


def _ask_all(client, missing: dict, known: dict, file, at_once: int) -> None:
    """Ask what is missing, a few at a time, and write each answer when it comes. The first failure ends it: what is
    under way is waited for and kept, the rest is not asked."""
    lock, ended = threading.Lock(), threading.Event()

    def one(key: str, request: dict) -> None:
        if ended.is_set():
            return
        try:
            answer = _one(client, request)
        except BaseException:
            ended.set()  # here, as a worker takes its next question before anybody could cancel it
            raise
        line = json.dumps({"key": key, **asdict(answer)}, ensure_ascii=False)
        with lock:
            file.write(line + "\n")
            file.flush()
            known[key] = answer

    with client, ThreadPoolExecutor(at_once) as pool:
        tasks = [pool.submit(one, *item) for item in missing.items()]
        try:
            done, _ = wait(tasks, return_when=FIRST_EXCEPTION)
        finally:
            ended.set()
        for task in done:
            task.result()


def _one(client, request: dict) -> Answer:
    import openai

    where, model = client.base_url, request["model"]
    try:
        reply = client.chat.completions.create(**request)
        choice = reply.choices[0]
    except openai.AuthenticationError as error:
        raise PermissionError(f"{where} refuses the key: {error}") from error
    except openai.NotFoundError as error:
        raise ValueError(f"{where} has no model {model!r}: {error}. It offers {_offered(client)}.") from error
    except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
        asked = request.get("logprobs") or "logprobs" in str(error)  # some servers do not say what is wrong
        hint = (
            " Perhaps it gives fewer log-probabilities, or none: then ask for the text alone."
            if asked
            else ""
        )
        raise ValueError(f"{where} refuses the request: {error}.{hint}") from error
    except openai.APITimeoutError as error:
        raise RuntimeError(
            f"{where} gave no answer within {client.timeout} s. Ask fewer at once, or wait longer."
        ) from error
    except openai.APIConnectionError as error:
        raise ConnectionError(
            f"nobody answers at {where} ({error.__cause__ or error}). Start a server (in a clone of the book: make "
            "server), or pass base_url=…; the answers so far are kept."
        ) from error
    except (openai.APIStatusError, ValueError, TypeError, IndexError) as error:
        raise RuntimeError(
            f"{where} went on failing after {client.max_retries} more tries: {type(error).__name__}, {error}. The "
            "answers so far are kept: run again later."
        ) from error
    return Answer(choice.message.content or "", choice.finish_reason, _top(choice, request, where))


def _top(choice, request: dict, where) -> tuple:
    if not request.get("logprobs"):
        return ()
    places = getattr(choice.logprobs, "content", None)
    if not places or not all(place.top_logprobs for place in places):
        raise ValueError(
            f"{where} gave no log-probabilities, and top_logprobs={request.get('top_logprobs')} asked for them. Ask for "
            "the text alone, or another server: that of make server gives up to 11."
        )
    return tuple(
        tuple(sorted(((t.token, t.logprob) for t in place.top_logprobs), key=lambda pair: -pair[1]))
        for place in places
    )


def _offered(client) -> str:
    try:
        return ", ".join(model.id for model in client.models.list()) or "none"
    except Exception:  # only to help: the answer above stands without it
        return "nothing that it would list"
