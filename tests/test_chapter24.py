"""Chapter 24: its equations, its runs, its exercises."""

import csv
import json

import pytest
import torch

from companion import checks
from companion.speculative import acceptance, tokens_per_call, verify
from companion.teachers import SmolLM2
from experiments import chapter24, chapter24_drafted, chapter24_fetching, chapter24_lengths
from experiments.common import REPORTED, TUNING
from tests.drawn import seeded
from tests.test_notebooks import ROOT

DOUBLE = {"dtype": torch.double}


def logits(seed, *shape):
    return 2 * torch.randn(*shape, generator=seeded(seed), **DOUBLE)


@pytest.mark.equation("eq-acceptance")
def test_acceptance_is_one_minus_the_total_variation_and_what_the_rule_keeps():
    s, t = logits(0, 200, 12), logits(1, 200, 12)
    q, p = s.softmax(-1), t.softmax(-1)
    a = acceptance(s, t)
    assert torch.allclose(a, 1 - (p - q).abs().sum(-1) / 2)
    assert torch.allclose(a, (q * (p / q).clamp(max=1)).sum(-1))  # proposed by q, kept with min(1, p/q)
    assert torch.allclose(a, acceptance(t, s)) and torch.allclose(acceptance(t, t), torch.ones(200, **DOUBLE))
    assert torch.allclose(
        acceptance(torch.tensor([[0.2, 0.5, 0.3]]).log(), torch.tensor([[0.5, 0.3, 0.2]]).log()),
        torch.tensor(0.7),
    )


@pytest.mark.equation("eq-speculative")
def test_what_comes_out_is_the_target_s():
    """Exactly, from the rule; and counted, from the code."""
    s, t = logits(2, 50, 9), logits(3, 50, 9)
    q, p = s.softmax(-1), t.softmax(-1)
    kept = torch.minimum(p, q)
    rest = (p - q).clamp(min=0)
    out = kept + (1 - kept.sum(-1, keepdim=True)) * rest / rest.sum(-1, keepdim=True)
    assert torch.allclose(out, p)

    s, t, generator = logits(4, 1, 3), logits(5, 2, 3), seeded(6)
    q, p, counts, n = s.softmax(-1), t.softmax(-1), torch.zeros(3), 6000
    for _ in range(n):
        proposed = q[0].multinomial(1, generator=generator)
        counts[verify(proposed, s, t, generator)[0]] += 1
    assert (counts / n - p[0]).abs().max() < 4 * (p[0] * (1 - p[0]) / n).sqrt().max()
    assert (q[0] - p[0]).abs().max() > 0.1  # the draft's own would be far off


@pytest.mark.equation("eq-tokens-per-call")
def test_tokens_per_call_is_the_mean_of_a_cut_geometric():
    for a, n in ((0.7, 4), (0.5, 1), (0.9, 8), (0.0, 3), (1.0, 3)):
        kept = [a**k * (1 - a) for k in range(n)] + [a**n]  # k proposals kept, then one token more
        assert tokens_per_call(a, n) == pytest.approx(sum((k + 1) * chance for k, chance in enumerate(kept)))
    assert tokens_per_call(0.7, 4) == pytest.approx((1 - 0.7**5) / 0.3)

    a, n, generator = 0.6, 3, seeded(7)  # tokens of which the draft gets the share a right, counted
    q, p = torch.tensor([1.0, 0.0]), torch.tensor([a, 1 - a])
    s, t = q.log().expand(n, 2), p.log().expand(n + 1, 2)
    lengths = [len(verify(torch.zeros(n, dtype=torch.long), s, t, generator)) for _ in range(3000)]
    assert sum(lengths) / 3000 == pytest.approx(tokens_per_call(a, n), abs=0.08)


def test_the_page_s_round_asks_each_place_of_the_draft_and_of_the_target():
    """A draft and a target that know what comes next: the logits belong to the places of the proposals."""
    page = (ROOT / "chapters/24_draft.ipynb").read_text()
    cells = [cell for cell in json.loads(page)["cells"] if cell["cell_type"] == "code"]
    names = {"torch": torch}
    for name in ("check", "a_round"):
        exec(next("".join(c["source"]) for c in cells if f"def {name}(" in "".join(c["source"])), names)

    def next_is(step):  # after token x comes x + step, of ten tokens
        return lambda said: 50 * torch.eye(10)[(said + step) % 10]

    start = torch.tensor([7, 1])
    proposed, z, v = names["a_round"](next_is(1), next_is(1), start, seeded(0), n=3)
    assert proposed.tolist() == z.argmax(-1).tolist() == [2, 3, 4] and v.argmax(-1).tolist() == [2, 3, 4, 5]
    assert names["check"](proposed, z, v, seeded(1)).tolist() == [2, 3, 4, 5]
    proposed, z, v = names["a_round"](next_is(1), next_is(2), start, seeded(0), n=3)
    assert v.argmax(-1).tolist() == [3, 4, 5, 6]
    assert names["check"](proposed, z, v, seeded(1)).tolist() == [
        3
    ]  # refused and replaced, the others thrown away


# ------------------------------------------------------------------------------------------------ the stored runs


def rows(name):
    lines = (ROOT / f"chapters/results/24_{name}.csv").read_text().splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))


def test_a_short_dictionary_has_a_hundred_words_of_the_long_one(monkeypatch):
    sets = []
    monkeypatch.setattr(
        chapter24, "asked", lambda seed, part, n, kind: sets.append((n, kind)) or (torch.zeros(2, 293), 0, 0)
    )
    monkeypatch.setattr(chapter24, "Split", lambda x, y: x)
    monkeypatch.setattr(chapter24, "fit_many", lambda *a, **k: None)
    for kind in chapter24.KINDS:
        chapter24.drafts.__wrapped__(kind, 0.01, (0,))
    assert [n for n, _ in sets] == [1000, 100, 1000, 1000, 1000]


def test_a_context_is_two_phonemes_and_five_letters():
    spelled, said = torch.tensor([[5, 6, 7, 2, 0]]), torch.tensor([[2, 30, 31, 3]])
    x, y, kept = chapter24.contexts(spelled, said)
    assert x.shape == (3, 2 * 74 + 5 * 29) and y.tolist() == [30, 31, 3] and kept.all()
    blocks = [row.nonzero()[:, 0].tolist() for row in x]
    starts = [0, 74, 148, 177, 206, 235, 264]
    found = [[i - start for i, start in zip(row, starts, strict=True)] for row in blocks]
    assert found == [[2, 2, 0, 5, 6, 7, 2], [30, 2, 5, 6, 7, 2, 0], [31, 30, 6, 7, 2, 0, 0]]
    x, y, kept = chapter24.contexts(spelled.repeat(2, 1), torch.tensor([[2, 30, 31, 3], [2, 30, 3, 0]]))
    assert len(x) == len(y) == 5 and kept.sum(1).tolist() == [3, 2]


def small_target():
    """Six tokens, two blocks, weights drawn at random and large enough that a token matters."""
    torch.manual_seed(0)
    target = SmolLM2(layers=2, width=8, heads=2, heads_kv=1, inner=16, vocabulary=6)
    return target.requires_grad_(False).eval()


def test_what_is_drafted_is_the_target_s_two_tokens_long():
    """Both tokens together, counted; a cache cut at the wrong place would show in the second."""
    target, ids, n = small_target(), torch.tensor([[1, 4, 2, 0, 3]]), 1500
    draft = chapter24_drafted.Draft(target.embedding.weight, torch.tensor([0, 2, 3, 5]), seed=1)
    pairs = torch.cat([ids.repeat(6, 1), torch.arange(6)[:, None]], 1)
    first, second = target(ids)[0, -1].softmax(-1), target(pairs)[:, -1].softmax(-1)
    p, counts, generator = first[:, None] * second, torch.zeros(6, 6), seeded(3)
    for _ in range(n):
        new, took = chapter24_drafted.written(target, ids, 2, generator, draft)
        counts[new[0], new[1]] += 1
        assert len(new) == 2 and 1 <= took["runs"] <= 2 <= took["tokens"] <= 6
    assert ((counts / n - p).abs() < 4.5 * (p * (1 - p) / n).sqrt() + 1e-3).all()


def test_a_draft_does_not_change_what_a_cached_run_sees():
    target, ids = small_target(), torch.tensor([[1, 4, 2, 0, 3]])
    draft = chapter24_drafted.Draft(target.embedding.weight, torch.tensor([0, 2, 3, 5]), seed=1)
    asked, forward = [], target.forward

    def watched(new, mask=None, cache=None):
        z = forward(new, mask, cache)
        asked.append((new, z, cache[0][0].shape[2]))
        return z

    target.forward = watched
    new, _ = chapter24_drafted.written(target, ids, 12, seeded(5), draft)
    text = torch.cat([ids[0], new])
    for part, z, length in asked[1:]:
        before = text[: length - part.shape[1]]
        assert torch.allclose(z, forward(torch.cat([before[None], part], 1))[:, -part.shape[1] :], atol=1e-5)


@pytest.mark.parametrize(
    "name, kinds, seeds",
    [
        ("drafts", chapter24.KINDS, REPORTED),
        ("bible_drafts", chapter24_drafted.KINDS, chapter24_drafted.REPORTED),
    ],
)
def test_the_stored_drafts_were_chosen_on_validation(name, kinds, seeds):
    for kind in kinds:
        found, means = [row for row in rows(name) if row["kind"] == kind], {}
        for row in found:
            assert row["part"] == ("val" if int(row["seed"]) in TUNING else "test")
            if row["part"] == "val":
                means.setdefault(float(row["lr"]), []).append(float(row["accepted"]))
        best = max(means, key=lambda lr: sum(means[lr]))
        told = [row for row in found if row["part"] == "test"]
        assert {float(row["lr"]) for row in told} == {best} and min(means) < best < max(means)
        assert sorted(int(row["seed"]) for row in told) == list(seeds)
        assert all(len(values) == len(TUNING) for values in means.values())


def test_each_size_of_a_check_is_timed_once_a_turn(monkeypatch):
    target, asked = small_target(), []
    monkeypatch.setattr(chapter24_drafted, "in_format", lambda numbers: target)
    monkeypatch.setattr(chapter24_drafted, "windows", lambda *_: torch.ones(15, 96, dtype=torch.long))
    forward = target.forward

    def watched(new, mask=None, cache=None):
        asked.append((new.shape[1], cache[0][0].shape[2] if cache else 0))
        return forward(new, mask, cache)

    target.forward = watched
    row = chapter24_drafted.check_times("float32", 3)
    assert asked[0] == (80, 0) and sorted(asked[1:]) == [(n + 1, 80) for n in range(9)]
    assert list(row) == [f"proposals_{n}" for n in range(9)] and min(row.values()) > 0
    found = rows("checks")
    assert len(found) == 30 and {row["numbers"] for row in found} == {"float32", "bfloat16"}


def test_each_matrix_is_multiplied_twice_for_each_number_of_tokens(monkeypatch):
    target, asked, linear = small_target(), [], torch.nn.functional.linear
    monkeypatch.setattr(chapter24_fetching, "in_format", lambda numbers: target)

    def watched(x, w):
        asked.append((x.shape[1], w.data_ptr()))
        return linear(x, w)

    monkeypatch.setattr(chapter24_fetching.F, "linear", watched)
    weights = chapter24_fetching.matrices("float32")
    assert len(weights) == 2 * 7
    row = chapter24_fetching.fetch_times("float32", 3)
    assert asked[::2] == asked[1::2] and len(asked) == 9 * 2 * 14
    assert sorted(set(asked)) == sorted((n, w.data_ptr()) for n in range(1, 10) for w in weights)
    assert list(row) == [f"{place}_{n}" for place in ("memory", "cache") for n in range(1, 10)]
    ticks = iter([0.0, 5.0, 7.0] * 14)  # 5 s from memory and 2 from the cache
    assert chapter24_fetching.products(weights, 2, lambda: next(ticks)) == (14 * 5e3, 14 * 2e3)
    found = rows("fetching")
    assert len(found) == 30 and {row["numbers"] for row in found} == {"float32", "bfloat16"}


def test_a_draft_taught_by_total_variation_minimises_what_is_refused():
    z, v = logits(8, 20, 7).requires_grad_(), logits(9, 20, 7)
    loss = chapter24.apart(z, v, None)
    assert loss.item() == pytest.approx(1 - acceptance(z.detach(), v).mean().item())
    q, p, pull = z.detach().softmax(-1), v.softmax(-1), 20 * torch.autograd.grad(loss, z)[0]
    s = (q - p).sign()
    assert torch.allclose(pull, q * (s - (s * q).sum(-1, keepdim=True)) / 2)  # as the page derives it
    assert (pull.abs() <= q + 1e-9).all()


def test_rounds_of_each_length_are_written_once_from_a_beginning(monkeypatch):
    target, asked = small_target(), []
    monkeypatch.setattr(chapter24_lengths, "in_format", lambda numbers: target)
    monkeypatch.setattr(chapter24_lengths, "windows", lambda *_: torch.ones(15, 96, dtype=torch.long))
    real = chapter24_lengths.written

    def watched(*args, proposed):
        asked.append((proposed, args[4] is not None))
        return real(*args, proposed=proposed)

    monkeypatch.setattr(chapter24_lengths, "written", watched)
    draft = chapter24_drafted.Draft(target.embedding.weight, torch.tensor([0, 2, 3, 5]), seed=1)
    row = chapter24_lengths.timed(3, draft)
    assert sorted(asked) == [(0, False), *((n, True) for n in chapter24_lengths.LENGTHS)]
    assert row["runs_0"] == row["tokens_0"] == chapter24_drafted.NEW and min(row.values()) > 0
    for n in chapter24_lengths.LENGTHS:
        assert row[f"runs_{n}"] <= row[f"tokens_{n}"] <= chapter24_drafted.NEW + n
    found = rows("lengths")
    assert [int(row["passage"]) for row in found] == list(range(15))


def test_what_is_read_in_fives_is_what_is_read_singly(monkeypatch):
    target = small_target()
    monkeypatch.setattr(chapter24_lengths, "in_format", lambda numbers: target)
    monkeypatch.setattr(chapter24_lengths, "windows", lambda *_: torch.ones(15, 96, dtype=torch.long))
    row = chapter24_lengths.same(2)
    assert max(row[f"apart_{k}"] for k in ("32", "16", "rounded")) < 1e-3
    assert min(row[f"first_{k}"] for k in ("32", "16", "rounded")) == 100
    found = rows("same")
    assert [int(row["passage"]) for row in found] == list(range(15))


# ----------------------------------------------------------------------------------------------- exercises


def said(check, attempt, capsys):
    check(attempt)
    return capsys.readouterr().out.strip()


def loop(count):
    """A loop that is right, and then counts as `count` does: all said, the place of the end, and the runs."""

    def written(one_round):
        said, runs = torch.tensor([2]), 0
        while 3 not in said:
            said, runs = torch.cat([said, one_round(said)]), runs + 1
        return count(said.tolist(), said.tolist().index(3), runs)

    return written


def never_appends(one_round):
    said = torch.tensor([2])
    while 3 not in said:
        one_round(said)


def goes_on(one_round):
    said = torch.tensor([2])
    for _ in range(30):
        said = torch.cat([said, one_round(said)])
    return len(said) / 30


LOOP = {
    "✓ draft_loop": loop(lambda said, end, runs: end / runs),
    "what follows the end": loop(lambda said, end, runs: (len(said) - 1) / runs),
    "there before the first run": loop(lambda said, end, runs: (end + 1) / runs),
    "the end counts": loop(lambda said, end, runs: (end - 1) / runs),
    "the other way round": loop(lambda said, end, runs: runs / end),
    "divide them by the runs": loop(lambda said, end, runs: end),
    "these are the runs": loop(lambda said, end, runs: runs),
    "append what a round gives": never_appends,
    "stop at the 3": goes_on,
    "not attempted": lambda one_round: None,
}


@pytest.mark.parametrize("hint", LOOP)
def test_check_of_the_loop(hint, capsys):
    assert hint in said(checks.draft_loop, LOOP[hint], capsys)


def test_what_comes_out_of_the_exercise_s_draft(capsys):
    p, q = torch.tensor([[0.6, 0.4]], **DOUBLE), torch.tensor([[0.9, 0.1]], **DOUBLE)
    kept = acceptance(q.log(), p.log()).item()
    second = 0.1 + (1 - kept) * 1.0  # proposed and kept; or put in the place of a refused first one
    assert said(checks.what_comes_out, lambda: (kept, second), capsys) == "✓ what_comes_out"
    assert "refused" in said(checks.what_comes_out, lambda: (0.3, 0.4), capsys)


def test_when_a_draft_pays(capsys):
    brings, costs = tokens_per_call(0.6, 4), 1.2 + 4 * 0.05
    assert round(brings / costs, 2) == 1.65
    slow = round(tokens_per_call(0.4, 4) / (1.75 + 4 * 0.02), 2)
    assert slow == 0.9
    assert tokens_per_call(1.0, 4) < 5.2  # a perfect draft that costs nothing
    assert said(checks.draft_pays, lambda: (1.65, 0.9, "no"), capsys) == "✓ draft_pays"
    assert said(checks.draft_pays, lambda: (brings / costs, 0.9014, "no"), capsys) == "✓ draft_pays"
    assert "fifth" in said(checks.draft_pays, lambda: (1.55, 0.9, "no"), capsys)
    assert "even if" in said(checks.draft_pays, lambda: (1.65, 0.9, "yes"), capsys)
