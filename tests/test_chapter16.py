"""Chapter 16: its equations, what its stored runs rest on, and the student that is shipped with it."""

import csv
import json
import math
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from companion.features import hint_loss
from companion.models import StaticEncoder
from companion.teachers import Sentence
from companion.teachers._smollm2 import Block
from experiments import chapter16, chapter16_rounded
from experiments.common import FOLDER, stored
from tests.drawn import seeded


@pytest.mark.equation("eq-static")
def test_a_static_encoder_is_the_formula_token_by_token():
    model = StaticEncoder(7, 3, 5, seed=0).double()
    with torch.no_grad():
        model.weight.weight.copy_(torch.rand(7, 1, generator=seeded(), dtype=torch.double))
    e, w, W = (x.detach().tolist() for x in (model.table.weight, model.weight.weight[:, 0], model.up.weight))
    text = [4, 1, 1, 6]
    s = [sum(w[t] * e[t][k] for t in text) for k in range(3)]
    u = [sum(W[j][k] * s[k] for k in range(3)) for j in range(5)]
    length = math.sqrt(sum(x * x for x in u))
    got = model(torch.tensor(text), torch.tensor([0]))[0]
    assert got.tolist() == pytest.approx([x / length for x in u], rel=1e-12)


@pytest.mark.equation("eq-unit-hint")
def test_half_the_squared_distance_of_unit_vectors_is_one_minus_their_cosine():
    u, v = F.normalize(torch.randn(2, 40, 6, generator=seeded(), dtype=torch.double), dim=-1)
    assert hint_loss(u, v).item() == pytest.approx((1 - (u * v).sum(1)).mean().item(), rel=1e-12)
    assert hint_loss(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.6, 0.8]])).item() == pytest.approx(0.4)
    longer = hint_loss(2 * u, v).item()  # only for length 1
    assert abs(longer - (1 - (2 * u * v).sum(1)).mean().item()) > 0.1


@pytest.mark.equation("eq-recall")
def test_recall_counts_how_many_of_the_teachers_best_are_found():
    mine = torch.eye(12)[torch.tensor([0, 1])] + torch.arange(12) * -0.001
    found = chapter16.found(mine, torch.eye(12), torch.stack([torch.arange(12), torch.arange(12).flip(0)]))
    best = [set(row.topk(10).indices.tolist()) for row in mine]
    expected = (len(best[0] & set(range(10))) + len(best[1] & set(range(2, 12)))) / 20
    assert found == {"recall": pytest.approx(100 * expected), "own": 100.0}


def test_markdown_is_read_as_it_is_seen():
    text = "See {term}`the *set* <transfer set>`, [chapter 2](02.ipynb) ({eq}`eq-kd`) {cite:p}`a2020`."
    text += "\n```{math}\nx\n```\nIt is {glue:text}`n:.0f` **now**."
    assert chapter16.plain(text) == "See the set, chapter 2 ( ) . It is now."


def test_the_sections_are_those_of_the_chapters_without_their_headings():
    found = chapter16.sections(chapter16.ROOT / "chapters")
    assert len(found) > 100 and not any(name.startswith("16") for name, _, _ in found)
    assert any("temperature chosen" in heading for _, heading, _ in found)
    assert all(25 <= len(text.split()) <= chapter16.WORDS and "`" not in text for _, _, text in found)


def test_the_kept_sections_are_still_this_books():
    """Of those that the page searches, most stand in the chapters; else run python -m experiments.chapter16 sections."""
    with (FOLDER / "16_sections.csv").open(encoding="utf-8") as file:
        kept = [*csv.DictReader(line for line in file if not line.startswith("#"))]
    now = {(int(name[:2]), heading) for name, heading, _ in chapter16.sections(chapter16.ROOT / "chapters")}
    gone = [row["heading"] for row in kept if (int(row["chapter"]), row["heading"]) not in now]
    assert len(kept) > 100 and len(gone) < len(kept) / 4, gone


def test_every_third_section_has_a_question_that_shares_no_word_with_it():
    def stems(text):
        found = re.findall(r"[a-zα-ω]{3,}", text.lower())
        return {w[:5] for w in found if w not in ENGLISH_STOP_WORDS}

    kept, asked = (
        [*csv.DictReader(x for x in (FOLDER / f"16_{name}.csv").open(encoding="utf-8") if x[0] != "#")]
        for name in ("sections", "questions")
    )
    assert [int(row["section"]) for row in asked] == [*range(0, len(kept), 3)]
    for row in asked:
        section = kept[int(row["section"])]
        assert (section["chapter"], section["heading"]) == (row["chapter"], row["heading"])
        assert not stems(row["question"]) & stems(section["text"]), row["question"]


def test_disorder_moves_words_and_keeps_them():
    texts = ["a detective hunts a killer in the snow", "one"]
    moved = chapter16.disordered(texts)
    assert moved == chapter16.disordered(texts) and moved[0] != texts[0]
    assert [sorted(text.split()) for text in moved] == [sorted(text.split()) for text in texts]


def test_texts_are_put_one_after_the_other():
    ids, starts = chapter16.bags([torch.tensor([3, 1]), torch.tensor([2]), torch.tensor([4, 4, 0])])
    assert ids.tolist() == [3, 1, 2, 4, 4, 0] and starts.tolist() == [0, 2, 3]


@pytest.fixture
def six_films(monkeypatch):
    """Sentences made up, in which one number tells the kind and another the film."""
    kinds, films = ("fresh", "rotten", "plot"), [f"film {i}" for i in range(20)]
    made = tuple(Sentence(f"{k} of {f}, {i}", k, f) for i in range(14) for f in films for k in kinds)
    monkeypatch.setattr(chapter16, "sentences", lambda part: made)
    vectors = np.zeros((len(made), 24))
    for i, sentence in enumerate(made):
        vectors[i, kinds.index(sentence.kind)] = vectors[i, 4 + films.index(sentence.film)] = 1
    monkeypatch.setattr(chapter16, "described", lambda method, part, seed: vectors)
    return made


@pytest.mark.parametrize("task, n", [("verdict", 20), ("plot", 20), ("film", 100)])
def test_what_the_vectors_say_is_found_from_few_labels(six_films, task, n):
    assert chapter16.few_shot(task, n, "any", 100.0, 0)["accuracy"] == pytest.approx(100)
    assert chapter16.few_shot(task, n, "any", 100.0, 100)["accuracy"] == pytest.approx(100)
    with pytest.raises(ValueError, match="sentences of each class"):
        chapter16.few_shot(task, 20_000, "any", 1.0, 0)


def test_labels_are_as_many_of_each_class_and_none_is_tested(six_films):
    places, y = chapter16.labelled("film", "test", 0)
    assert sorted(set(y)) == list(range(20)) and len(places) == 20 * 28
    assert {six_films[i].kind for i in places} == {"fresh", "rotten"}
    places, y = chapter16.labelled("verdict", "test", 0)
    assert all((six_films[i].kind == "fresh") == (label == 1) for i, label in zip(places, y, strict=True))


@pytest.mark.parametrize(
    "name, methods", [("few_shot", chapter16.METHODS), ("students", None), ("search", None)]
)
def test_the_stored_runs_are_whole(name, methods):
    table = stored(f"16_{name}")
    assert all(
        np.isfinite(table[c]).all() for c in ("accuracy", "cosine", "recall") if c in table.dtype.names
    )
    if methods:
        wanted = {
            **dict.fromkeys(methods, chapter16.TASKS),
            **dict.fromkeys(chapter16.VARIED, (("film", 100),)),
            chapter16.DISORDER: chapter16.FEW,
            chapter16.MIDDLE: chapter16.FEW,
        }
        assert set(table["method"]) == {*wanted}
        for method, tasks in wanted.items():
            for task, n in tasks:
                here = table[(table["method"] == method) & (table["task"] == task) & (table["n"] == n)]
                assert sorted(here["seed"][here["seed"] < 100]) == list(range(10)), (method, task, n)
                assert len(set(here["c"][here["seed"] < 100])) == 1  # the setting that validation chose


def test_the_sentences_met_about_a_film_are_not_those_judged():
    for part in ("val", "test"):
        of, n = chapter16.reviews(part), chapter16.SIZES[part]
        more = {(x.film, x.text) for x in of[n:]}
        judged = {(x.film, x.text) for x in of[:n]}
        assert {film for film, _ in more} & {film for film, _ in judged}
        assert len(more & judged) <= len(more) / 200, len(more & judged)  # few critics say the same twice


def test_a_wide_student_begins_with_all_that_the_teacher_says_of_single_tokens(monkeypatch):
    v = F.normalize(torch.randn(30, 384, generator=seeded()), dim=1)
    monkeypatch.setattr(chapter16, "words", lambda: v)
    for width, whole in ((384, True), (8, False)):
        chapter16.directions.cache_clear()
        student = chapter16.from_words(0, width)
        each = torch.arange(30)
        assert torch.allclose(student(each, each), v, atol=1e-4) == whole
    chapter16.directions.cache_clear()


def test_one_block_begins_as_the_table_alone_and_then_sees_the_order_and_no_other_text():
    table, block = StaticEncoder(40, 8, 12, seed=0), chapter16.OneBlock(40, 8, 12, seed=0)
    block.load_state_dict(table.state_dict(), strict=False)
    texts = [torch.tensor(x) for x in ([3, 1, 2], [2, 1, 3], [5], [9, 9, 4, 7, 0])]
    assert torch.allclose(block(*chapter16.bags(texts)), table(*chapter16.bags(texts)), atol=1e-6)
    with torch.no_grad():
        for last in (block.answer.weight, block.back.weight, block.place):
            last.normal_(generator=seeded())
    together = block(*chapter16.bags(texts))
    alone = torch.cat([block(*chapter16.bags([text])) for text in texts])
    assert torch.allclose(together, alone, atol=1e-5)  # neither filling nor a neighbour is seen
    assert (together[0] - together[1]).abs().max() > 0.01
    many = block(*chapter16.bags(texts * 100))  # read in parts
    assert torch.allclose(many, together.repeat(100, 1), atol=1e-5)


def test_the_block_that_is_read_is_the_one_of_the_runs_with_one_head():
    cells = json.loads((FOLDER.parent / "16_small.ipynb").read_text(encoding="utf-8"))["cells"]
    (lines,) = ("".join(c["source"]) for c in cells if "fits = (q @ k.T" in "".join(c["source"]))
    model = chapter16.OneBlock(40, 128, 384, seed=0, heads=1)
    with torch.no_grad():
        for last in (model.answer.weight, model.back.weight, model.place):
            last.normal_(0, 0.1, generator=seeded())
    ids = torch.tensor([3, 1, 2, 1])
    names = {
        "torch": torch, "shipped": model, "own_rows": ids, "place": lambda i: model.place[i],
        "ask": model.ask, "mix": model.answer, "before": model.before, "between": model.between,
        "network": lambda x: model.back(F.gelu(model.wide(x))),
    }  # fmt: skip
    with torch.no_grad():
        exec(lines, names)
        summed = (model.weight(ids) * names["x"]).sum(0)
        mine = F.normalize(model.up(summed), dim=0)
        assert torch.allclose(mine, model(ids, torch.tensor([0]))[0], atol=1e-5)
        assert (mine - StaticEncoder.forward(model, ids, torch.tensor([0]))[0]).abs().max() > 0.01


def test_a_not_is_found_as_a_word_or_an_ending():
    for text in ("It is NOT good.", "It isn't.", "It can’t be", "no film", "without wit", "never"):
        assert chapter16.denies(text), text
    for text in ("A noted film", "nothing", "Another knot", "tent"):
        assert not chapter16.denies(text), text
    table = stored("16_denied")
    few = stored("16_few_shot")
    for method in ("teacher", "student"):
        here = table[table["method"] == method]
        assert sorted(here["seed"]) == list(range(10))
        judged = few[(few["task"] == "verdict") & (few["n"] == 200) & (few["method"] == method)]
        judged = judged[judged["seed"] < 100]
        assert set(here["c"]) == set(judged["c"])
        lower, upper = (f(here["denied"], here["plain"]) for f in (np.minimum, np.maximum))
        assert ((judged["accuracy"] > lower - 1) & (judged["accuracy"] < upper + 1)).all()
    places, _ = chapter16.labelled("verdict", "test", 0)
    share = 100 * np.mean([chapter16.denies(chapter16.sentences("test")[i].text) for i in places])
    assert np.abs(table["share"] - share).max() < 0.01  # a stored column, counted again


def test_a_plot_is_asked_for_by_a_sentence_that_it_does_not_hold():
    trained = {x.film for x in chapter16.reviews("train")}
    table = stored("16_plots")
    for part, seed in (("val", 100), ("test", 0)):
        found = chapter16.plots(part)
        films, questions, documents = zip(*found, strict=True)
        assert not trained & {*films} and not any(q in d for _, q, d in found)
        here = table[table["part"] == part]
        assert list(here["film"]) == [*films] and set(here["seed"]) == {seed}
        count = chapter16.TfidfVectorizer(sublinear_tf=True).fit(documents)
        scores = (count.transform(questions) @ count.transform(documents).T).toarray()
        first = [row[i] > np.delete(row, i).max() for i, row in enumerate(scores)]
        assert np.array_equal(100.0 * np.array(first), here["counts"])  # a stored column, run again
        for way in ("asks", "own", "counts_own"):
            assert set(here[way]) <= {0, 20, 40, 60, 80, 100}  # five students


def test_equal_scores_share_their_places():
    scores = torch.tensor([[0.9, 0.5, 0.5, 0.1], [0.0, 0.0, 0.0, 0.0]])
    assert chapter16.place(scores).tolist() == [[1, 2.5, 2.5, 4], [2.5] * 4]
    both = chapter16.fused(scores, -scores)
    assert torch.allclose(both[1], torch.full((4,), 2 / 62.5)) and both[0, 1] == both[0, 2] < both[0, 0]


def test_a_film_is_named_by_a_word_of_its_title_that_is_not_small():
    assert chapter16.names("“Mostly Martha” is bright", "mostly_martha")
    assert chapter16.names("Spider-Man swings", "spiderman")
    assert not chapter16.names("Back to the sea", "the_lady_and_the_duke")
    table = stored("16_named")
    for method in ("teacher", "student", chapter16.MIDDLE):
        here = table[table["method"] == method]
        assert sorted(here["seed"]) == list(range(10)) and np.isfinite(here["named"]).all()
    few, film = stored("16_few_shot"), table[table["method"] == "teacher"]
    judged = few[(few["method"] == "teacher") & (few["task"] == "film") & (few["seed"] < 100)]
    whole = (film["share"] * film["named"] + (100 - film["share"]) * film["unnamed"]) / 100
    assert np.abs(whole - judged["accuracy"]).max() < 3  # there the mean of the films, here of the sentences


def test_what_was_timed_is_all_that_the_minutes_are_made_of():
    table = stored("16_minutes")
    assert sorted(table["stage"]) == sorted(("tokens", "steps", *chapter16.READINGS, chapter16.MIDDLE))
    assert (table["seconds"] > 0).all()
    seconds = dict(zip(table["stage"], table["seconds"], strict=True))
    assert seconds["cutting"] < seconds["student"] < seconds["sentences"]
    assert table["n"][table["stage"] == "steps"] == chapter16.STEPS  # tokens and sentences are samples


def test_the_shipped_student_is_small_and_whole():
    path = chapter16.FOLDER / "16_student.safetensors"
    assert path.stat().st_size < 8_000_000 / 1.8
    parts = load_file(path)
    assert {k: (tuple(v.shape), v.dtype) for k, v in parts.items()} == {
        "table": ((30_522, 128), torch.int8), "scale": ((30_522, 1), torch.float16), "up": ((384, 128), torch.float16)
    }  # fmt: skip
    assert all(v.float().isfinite().all() for v in parts.values())
    assert json.dumps(sorted(parts)) == '["scale", "table", "up"]'


def test_rounding_to_eight_bits_changes_little():
    student = StaticEncoder(50, 8, 12, seed=0)
    parts = chapter16.packed(student.requires_grad_(False))
    table = parts["table"].float() * parts["scale"].float()
    assert (table - student.table.weight).abs().max() < 0.02 * student.table.weight.abs().max()


def test_healed_blocks_are_rounded_as_the_file_is():
    w = torch.randn(4, 96, generator=seeded())
    got = chapter16_rounded.as_in_the_file(w)
    for row, back in zip(w.reshape(-1, 32), got.reshape(-1, 32), strict=True):
        assert len(back.unique()) <= 16
        assert (row - back).abs().max() < 0.52 * (row.max() - row.min()) / 15
    block = Block(32, 4, 2, 64)
    norm = block.norm_mlp.weight.clone()
    before = block.down.weight.clone()
    chapter16_rounded.rounded(torch.nn.ModuleList([block.requires_grad_(False)]))
    assert torch.equal(block.norm_mlp.weight, norm)
    assert torch.equal(block.down.weight, chapter16_rounded.as_in_the_file(before.detach()))


def test_the_rounded_runs_are_chapter_14s():
    table, healed = stored("16_rounded"), stored("14_healing")
    assert list(table["target"]) == ["none", "teacher", "teacher", "teacher"]
    for row in table:
        same = healed[
            (healed["text"] == "scripture") & (healed["teacher"] == "as it is") & (healed["lr"] == row["lr"])
        ]
        same = same[(same["target"] == row["target"]) & (same["seed"] == row["seed"])]
        assert same["bits"][0] == pytest.approx(row["bits"], abs=0.01)


def test_the_lines_from_a_models_name_to_a_table_are_few():
    cells = json.loads((FOLDER.parent / "16_small.ipynb").read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells)
    (lines,) = re.findall(r"```python\n(from safetensors.torch import save_file\n[\s\S]*?)```", text)
    lines = [line for line in lines.splitlines() if line]
    assert len(lines) <= 18 and max(map(len, lines)) <= 80
