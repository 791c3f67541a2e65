"""The figures that move, by keyboard alone: what they show is what companion computes from the run's numbers."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.distributions import Categorical, MixtureSameFamily, Normal

from companion.costs import FIRST, NAMES, Plan, bill
from companion.interactive import gradient_sizes, least_over_widths
from companion.losses import soften
from companion.tokens import forward_kl_loss, reverse_kl_loss
from tests.pages.conftest import PAGES, PATHS

CHAPTERS = {
    "soft-target": "02_concepts",
    "dark-knowledge": "02_concepts",
    "three-classes": "02_concepts",
    "temperature": "04_mathematics",
    "two-humps": "04_mathematics",
    "cover-or-seek": "23_on_policy",
    "costs": "18_scaling",
}
HALF = 0.5001e-4  # four decimals are shown


class Figure:
    """One figure in the page: its data, its controls, what it shows."""

    def __init__(self, page, pages, kind):
        page.goto((pages / f"chapters/{CHAPTERS[kind]}.html").as_uri())
        scripts = page.locator("figure.moving > script").all_text_contents()
        index = [json.loads(text)["kind"] for text in scripts].index(kind)
        found = page.locator("figure.moving").nth(index)
        self.page, self.box, self.bytes = page, found, len(scripts[index].encode())
        self.data = json.loads(scripts[index])["data"]
        assert found.locator(".moving-stage").is_visible() and not found.locator(".moving-still").is_visible()
        if kind == "costs":  # five fields first, the others in a fold
            assert found.locator("label.moving-number >> visible=true").count() == FIRST
            found.locator(".moving-more summary").focus()
            page.keyboard.press("Enter")
            assert found.locator("label.moving-number >> visible=true").count() == len(NAMES)

    def press(self, key, *keys):
        """Keys on the slider of that name."""
        self.box.locator(f"input[data-key={key}]").focus()
        for k in keys:
            self.page.keyboard.press(k)

    def __getitem__(self, name):
        return number(self.box.locator(f"[data-name={name}]").text_content())

    def table(self):
        rows = self.box.locator("tbody tr").all()
        return [[number(td) for td in row.locator("td").all_text_contents()] for row in rows]

    def wrong(self, key):
        """What the field of that name says is wrong, read where its aria-describedby points."""
        said = self.box.locator(f"input[data-key={key}]").get_attribute("aria-describedby")
        return self.box.locator(f"#{said}").text_content()

    def logits(self, name):
        return torch.tensor(self.data[name], dtype=torch.double)


def number(text):
    return float(text.replace("−", "-"))


@pytest.fixture
def figure(page, pages, heard, request):
    yield Figure(page, pages, request.param)
    assert heard["console"] == []
    assert [url for url in heard["requests"] if not url.startswith(("file:", "data:", "blob:"))] == []


def of(kind):
    return pytest.mark.parametrize("figure", [kind], indirect=True, ids=[kind])


def entropy(p):
    return torch.special.entr(p).sum(-1).item()


@of("temperature")
def test_temperature(figure):
    v, z = figure.logits("teacher"), figure.logits("student")
    for keys, T in [((), 1), (["Home"], 0.5), (["ArrowRight"] * 4, 1), (["End"], 32)]:
        figure.press("T", *keys)
        p, q = soften(v, T), soften(z, T)
        for row, a, b in zip(figure.table(), p.tolist(), q.tolist(), strict=True):
            assert row == pytest.approx([a, b], abs=HALF)
        scaled, bare = gradient_sizes(z, v, T)
        found = figure["entropy"], figure["scaled"], figure["bare"]
        assert found == pytest.approx((entropy(p), scaled.item(), bare.item()), abs=HALF)
    slider = figure.box.locator("input[type=range]")
    left = gradient_sizes(z, v, 1)[1].item()
    reached = {}
    for k in (4, 16, 17, 18, 19):  # T = 1, 8, 9.51, 11.31, 13.45
        figure.press("T", "Home", *["ArrowRight"] * k)
        share = gradient_sizes(z, v, 0.5 * 2 ** (k / 4))[1].item() / left
        reached[k] = figure.box.locator(".moving-goal").text_content().startswith("✓")
        assert reached[k] == (0.007 <= share <= 0.014), share
    assert any(reached.values())
    figure.box.get_by_role("button", name="T = 32", exact=True).click()
    assert figure.box.locator(".moving-goal").text_content().startswith("○")  # a thousandth
    assert figure.box.locator("img.moving-picture").get_attribute("alt").startswith("A grey picture")
    assert slider.get_attribute("aria-valuetext") == "T = 32.00"


@of("soft-target")
def test_soft_target(figure):
    """Two images, p at each T, r in the box, and the goal where a third class has a tenth of p."""
    v, labels = figure.logits("teacher"), figure.data["labels"]
    radios = figure.box.locator("input[type=radio]").all()
    assert len(radios) == len(labels) == len(v) == 2
    goals = []
    for image, radio in enumerate(radios):
        radio.check(force=True)
        for keys, T in [(["Home"], 0.5), (["ArrowRight"] * 4, 1), (["ArrowRight"] * 8, 4), (["End"], 32)]:
            figure.press("T", *keys)
            p = soften(v[image], T)
            assert figure.table() == [[pytest.approx(x, abs=HALF)] for x in p.tolist()]
            assert figure["sure"] == pytest.approx(p[labels[image]].item(), abs=HALF)
            assert figure["third"] == pytest.approx(p.sort().values[-3].item(), abs=HALF)
        figure.press("T", "Home")
        for k in range(25):  # the goal is met at one stop of the slider
            figure.press("T", *["ArrowRight"] * (k > 0))
            third, lower = (soften(v[image], 0.5 * 2 ** (j / 4)).sort().values[-3] for j in (k, k - 1))
            goals.append(bool(lower < 0.1 <= third))
            assert figure.box.locator(".moving-goal").text_content().startswith("✓" if goals[-1] else "○")
        figure.box.get_by_role("button", name="T = 1", exact=True).click()
        figure.box.locator("input[data-key=without]").check()
        r = soften(v[image].masked_fill(torch.arange(10) == labels[image], -torch.inf), 1)
        others = [c for c in range(10) if c != labels[image]]
        assert figure.table() == [[pytest.approx(r[c].item(), abs=HALF)] for c in others]
        assert figure.box.locator(".moving-goal").text_content().startswith("○")
        figure.box.locator("input[data-key=without]").uncheck()
    assert sum(goals) == 2  # once for each image


@of("dark-knowledge")
def test_what_dark_knowledge_says_at_a_low_temperature(figure):
    """Surer or less sure than the teacher, or sure of another class: as the two longest bars of each image are."""
    p, q = (soften(figure.logits(name), 0.5) for name in ("teacher", "after"))
    said = []
    figure.box.locator("button").first.click()
    for image, radio in enumerate(figure.box.locator("input[type=radio]").all()):
        radio.check(force=True)
        note = figure.box.locator(".moving-note").text_content()
        one, other = p[image].argmax(), q[image].argmax()
        said.append(
            "another" if one != other else "surer" if q[image].max() > p[image].max() else "less sure"
        )
        words = {"another": "another longest bar", "surer": "even surer", "less sure": "less sure"}
        assert [w in note for w in words.values()] == [k == said[-1] for k in words]
        assert f"{q[image][one]:.4f}" in note
    assert set(said) == {"another", "surer", "less sure"}


@of("dark-knowledge")
def test_dark_knowledge(figure):
    names = ("teacher", "before", "after")
    logits = [figure.logits(name) for name in names]
    radios = figure.box.locator("input[type=radio]")
    assert radios.count() == len(figure.data["images"]) == 10
    radios.first.focus()
    for image in range(10):
        if image:
            figure.page.keyboard.press("ArrowRight")
        p, before, after = (soften(x[image], 4) for x in logits)
        for row, *expected in zip(figure.table(), p, before, after, strict=True):
            assert row == pytest.approx([x.item() for x in expected], abs=HALF)
        assert figure["sure"] == pytest.approx(p[figure.data["labels"][image]].item(), abs=HALF)
        assert figure["before"] == pytest.approx((p * (p / before).log()).sum().item(), abs=HALF)
        assert figure["after"] == pytest.approx((p * (p / after).log()).sum().item(), abs=HALF)
    figure.press("T", "End")
    assert figure["sure"] == pytest.approx(
        soften(logits[0][9], 32)[figure.data["labels"][9]].item(), abs=HALF
    )


@of("dark-knowledge")
def test_dark_knowledge_without_the_target(figure):
    """The box leaves the label's class out; the buttons set T; the goal is met where the two differ, and only there,
    which is not on the image that the page opens with."""
    names, labels = ("teacher", "before", "after"), figure.data["labels"]
    logits = {name: figure.logits(name) for name in names}
    for button, T in enumerate((0.5, 4, 32)):
        figure.box.locator("button").nth(button).click()
        assert figure["entropy"] == pytest.approx(entropy(soften(logits["teacher"][0], T)), abs=HALF)
    figure.box.locator("button").nth(1).click()
    figure.box.locator("input[data-key=without]").check()
    r = [soften(logits[name][0].masked_fill(torch.arange(10) == labels[0], -torch.inf), 4) for name in names]
    others = [c for c in range(10) if c != labels[0]]
    for row, c in zip(figure.table(), others, strict=True):
        assert row == pytest.approx([x[c].item() for x in r], abs=HALF)
    figure.box.locator("input[data-key=without]").uncheck()
    radios = figure.box.locator("input[type=radio]").all()
    differs = logits["teacher"].argmax(-1) != logits["after"].argmax(-1)
    assert differs.any() and not differs[0]  # it can be met, and is not met at once
    for radio, differ in zip(radios, differs, strict=True):
        radio.check(force=True)
        assert figure.box.locator(".moving-goal").text_content().startswith("✓" if differ else "○")


@of("three-classes")
def test_three_classes(figure):
    v = figure.logits("teacher")

    def compare(z, T):
        p, q = soften(v, T), soften(torch.tensor([*z, 0.0], dtype=torch.double), T)
        found = figure["entropy"], figure["ce"], figure["kl"]
        expected = entropy(p), -(p * q.log()).sum().item(), (p * (p / q).log()).sum().item()
        assert found == pytest.approx(expected, abs=HALF)

    assert figure.box.locator("xpath=ancestor::figure[1]/figcaption").is_visible()
    compare(figure.data["student"][:2], 1)
    figure.press("z0", "ArrowRight", "ArrowRight")
    z = figure.data["student"][0] + 0.1, figure.data["student"][1]
    compare(z, 1)
    figure.press("T", "End")
    compare(z, 16)
    figure.press("T", "Home")
    compare(z, 0.5)
    assert figure.box.locator(".moving-goal").text_content().startswith("○")
    figure.box.get_by_role("button", name="T = 1", exact=True).click()
    figure.box.get_by_role("button", name="student = teacher").click()
    assert figure["kl"] == 0 and figure.box.locator(".moving-goal").text_content().startswith("✓")


@of("two-humps")
def test_two_humps(figure):
    weights, means, deviations = (figure.logits(name) for name in ("weights", "means", "deviations"))
    mixture = MixtureSameFamily(Categorical(weights), Normal(means, deviations))
    x = torch.linspace(-40, 40, 8001, dtype=torch.double)

    def compare(mu, sigma):
        log_p, log_q = mixture.log_prob(x)[None], Normal(mu, sigma).log_prob(x)[None]
        assert figure["forward"] == pytest.approx(forward_kl_loss(log_q, log_p).item(), abs=2 * HALF)
        assert figure["reverse"] == pytest.approx(reverse_kl_loss(log_q, log_p).item(), abs=2 * HALF)

    least = figure.data["minima"][0]
    compare(least["mu"], least["sigma"])  # it opens where the forward KL is least
    figure.press("sigma", "Home")
    compare(least["mu"], 0.5)
    figure.press("sigma", *["ArrowUp"] * 13)
    figure.press("mu", "Home", *["ArrowRight"] * 55)
    compare(0.5, 1.8)
    assert len(figure.data["minima"]) > 1
    assert figure.box.locator(".moving-goal").text_content().startswith("○")
    figure.press("mu", *["ArrowRight"] * 25)
    figure.press("sigma", "Home", *["ArrowUp"] * 3)
    compare(3, 0.8)
    assert figure.box.locator(".moving-goal").text_content().startswith("✓")
    maps = figure.box.locator("svg.moving-drag")
    found = [
        (maps.nth(i).locator("rect.level").count(), maps.nth(i).locator("circle.t").count()) for i in (0, 1)
    ]
    assert 0 < found[0][0] != found[1][0] > 0
    assert [rings for _, rings in found] == [
        1,
        len(figure.data["minima"]) - 1,
    ]  # each map has its own minima only
    for i, step, mu in ((0, 53.2, "2.00"), (1, -26.6, "−1.00")):  # the student is pulled in either map
        maps.nth(i).scroll_into_view_if_needed()
        box = maps.nth(i).bounding_box()  # μ = 0 stands at x = 179 of 320
        figure.page.mouse.move(box["x"] + box["width"] * 179 / 320, box["y"] + box["height"] / 2)
        figure.page.mouse.down()
        figure.page.mouse.move(box["x"] + box["width"] * (179 + step) / 320, box["y"] + box["height"] / 2)
        figure.page.mouse.up()
        assert figure.box.locator("input[data-key=mu]").get_attribute("aria-valuetext") == f"μ = {mu}"
    for i, minimum in enumerate(figure.data["minima"]):
        figure.box.locator("button").nth(i).focus()
        figure.page.keyboard.press("Enter")
        compare(minimum["mu"], minimum["sigma"])
        least = figure["forward" if minimum["name"] == "forward" else "reverse"]
        assert least == pytest.approx(minimum["value"], abs=2 * HALF)


@of("cover-or-seek")
def test_cover_or_seek(figure):
    """At each β the figure finds, of all μ and σ of its grid, the pair that companion finds."""
    weights, means, deviations = (figure.logits(name) for name in ("weights", "means", "deviations"))
    mixture = MixtureSameFamily(Categorical(weights), Normal(means, deviations))
    mu = torch.linspace(-5, 5, 41, dtype=torch.double)

    def nearest(beta):
        value, sigma = least_over_widths(mixture, beta, mu)
        best = value.argmin()
        return mu[best].item(), sigma[best].item(), value[best].item()

    def goal():
        return figure.box.locator(".moving-goal").text_content()[0]

    assert goal() == "○"
    for keys, beta in [(["Home"], 0), (["ArrowRight"] * 6, 0.3), (["End"], 1)]:
        figure.press("beta", *keys)
        assert (figure["mu"], figure["sigma"], figure["value"]) == pytest.approx(nearest(beta), abs=2e-4)
        assert figure.table() == [pytest.approx(list(nearest(beta)), abs=2e-4)] and goal() == "○"
        decimals = [
            len(figure.box.locator(f"[data-name={key}]").text_content().split(".")[1])
            for key in ("mu", "sigma")
        ]
        assert decimals == [2, 1]  # the grid's steps are 0.25 and 0.1
    first = next(i for i in range(21) if nearest(i / 20)[1] < 2)  # where it leaves the middle
    figure.press("beta", "Home", *["ArrowRight"] * (first - 1))
    assert goal() == "○" and figure["sigma"] > 2
    figure.press("beta", "ArrowRight")
    assert goal() == "✓" and figure["sigma"] < 2


TYPED = [
    {},
    {
        "teacher": "405B",
        "student": "8B",
        "passes": "3",
        "k": "200",
        "vocabulary": "50k",
        "price": "2.5",
        "gpus": "1,024",
    },
    {
        "tokens": "3e11",
        "vocabulary": "65,537",
        "batch": "512",
        "group": "1024",
        "utilisation": ".35",
        "peak": "312T",
    },
]


@of("costs")
def test_the_calculator_agrees_with_companion_costs(figure):
    """Typed by keyboard alone, field after field; every line of the bill, to the last digit but rounding."""
    plan = Plan()
    labels = [label.text_content() for label in figure.box.locator("label.moving-number").all()]
    assert labels == list(NAMES.values())
    units = {"k": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
    for typed in TYPED:
        for key, said in typed.items():
            figure.press(key, "ControlOrMeta+a")
            figure.page.keyboard.type(said)
            number = said.replace(",", "")
            plan = replace(plan, **{key: float(number.rstrip("kMBT")) * units.get(number[-1], 1)})
        found = json.loads(figure.box.get_attribute("data-values"))
        assert found == pytest.approx(bill(plan), rel=1e-9)
        assert figure.box.locator("[aria-invalid=true]").count() == 0
    assert figure.box.locator(".moving-numbers tbody tr").count() == len(bill(plan))
    figure.box.locator("input[data-key=k]").fill("50")
    figure.box.locator("input[data-key=tokens]").fill("1T")
    said = figure.box.locator("[role=status] tr").all_inner_texts()
    assert len(said) == 7 and said[0].split("\t") == ["the teacher is asked", "on each pass", "once"]
    assert said[4].split("\t")[1:] == ["938 GB", "810 GB"]  # 16 · 8 + 2 · 405, and 2 · 405
    assert said[5].split("\t") == ["disk, 50 draws", "none", "200 TB"]  # 65,537 tokens: 4 bytes each
    assert said[6].split("\t") == ["disk, 50 largest", "none", "300 TB"]  # and 6
    figure.box.locator("input[data-key=vocabulary]").fill("65,536")
    said = figure.box.locator("[role=status] tr").all_inner_texts()
    assert [row.split("\t")[2] for row in said[5:]] == ["100 TB", "200 TB"]  # 2 bytes and 4
    figure.box.locator("input[data-key=passes]").fill("1")
    assert "saves no time" in figure.box.locator(".moving-note").text_content()


@of("costs")
def test_the_calculator_opens_with_the_case_of_the_chapter_in_one_sentence(figure):
    said = figure.box.locator(".moving-note").text_content()
    assert "keeps 50 draws of each answer" in said and "200 TB" in said
    assert (
        "120 days on 64 GPUs and not 247" in said
        and "at most 140 GB of memory at a time and not 252 GB." in said
    )


@of("costs")
def test_the_goal_of_the_calculator_is_nine_times_the_student(figure):
    goal, teacher = figure.box.locator(".moving-goal"), figure.box.locator("input[data-key=teacher]")
    for typed, reached in (("70B", False), ("63B", True), ("21B", False)):
        teacher.fill(typed)
        assert goal.text_content().startswith("✓" if reached else "○"), typed
    assert "asked once" in goal.text_content()


@of("costs")
def test_the_calculator_says_what_it_does_not_understand(figure):
    before = figure.box.get_attribute("data-values")
    for said in ("many", "-3", "0", "1e999", ""):
        figure.box.locator("input[data-key=teacher]").fill(said)  # at once: on the way to 1e999 stands a 1
        assert figure.box.locator("input[data-key=teacher]").get_attribute("aria-invalid") == "true"
        assert "a number above 0" in figure.wrong("teacher") and "still use 70B" in figure.wrong("teacher")
        assert figure.box.get_attribute("data-values") == before
    figure.page.keyboard.type("70B")
    assert figure.box.get_attribute("data-values") == before and figure.wrong("teacher") == ""
    refused = [
        ("utilisation", "40", "at most 1", "0.4"),
        ("utilisation", "0,4", "write 0.4 with a point", "0.4"),
        ("price", "1,5", "write 0.4 with a point", "1"),
        ("tokens", "0,400", "write 0.4 with a point", "1T"),
        ("passes", "1,0000", "write 0.4 with a point", "3"),
        ("k", "1M", "at most the vocabulary, 128000", "50"),
        ("vocabulary", "20", "at least k, 50", "128000"),
        ("gpus", "2.5", "a whole number", "64"),
    ]
    for key, said, why, last in refused:  # none is computed with, and the field says so itself
        field = figure.box.locator(f"input[data-key={key}]")
        field.fill(said)
        assert field.get_attribute("aria-invalid") == "true"
        assert why in figure.wrong(key) and f"still use {last}." in figure.wrong(key)
        assert figure.box.get_attribute("data-values") == before
        field.fill(last)
        assert field.get_attribute("aria-invalid") == "false" and figure.wrong(key) == ""
        assert figure.box.get_attribute("data-values") == before


@of("costs")
def test_a_number_that_was_refused_counts_when_another_makes_room_for_it(figure):
    figure.box.locator("input[data-key=k]").fill("200k")
    assert "at most the vocabulary" in figure.wrong("k")
    figure.box.locator("input[data-key=vocabulary]").fill("256k")
    assert figure.wrong("k") == "" and figure.box.locator("[aria-invalid=true]").count() == 0
    found = json.loads(figure.box.get_attribute("data-values"))
    assert found == pytest.approx(bill(Plan(k=200e3, vocabulary=256e3)), rel=1e-9)


@pytest.mark.parametrize("width", [390, 1280])
def test_the_calculator_fits_and_its_fields_are_as_large_as_a_finger(page, pages, width):
    page.set_viewport_size({"width": width, "height": 900})
    figure = Figure(page, pages, "costs")
    edge = figure.box.bounding_box()
    for field in figure.box.locator("input").all():
        box = field.bounding_box()
        assert (
            box["height"] >= 32
            and edge["x"] <= box["x"]
            and box["x"] + box["width"] <= edge["x"] + edge["width"]
        )
    for label in figure.box.locator(
        "label.moving-number"
    ).all():  # its name on one line, so that the fields align
        assert label.bounding_box()["height"] < 70 and label.evaluate("e => e.scrollWidth <= e.clientWidth")


@pytest.mark.parametrize("kind", CHAPTERS)
def test_without_a_script_and_on_paper_the_still_picture_stands(browser, pages, kind):
    page = browser.new_page(java_script_enabled=False)
    page.goto((pages / f"chapters/{CHAPTERS[kind]}.html").as_uri())
    seen = [
        i for i in page.locator(".moving-still img").all() if i.is_visible()
    ]  # of its light and dark form, one
    assert len(seen) == page.locator("figure.moving").count()
    assert len(seen) >= list(CHAPTERS.values()).count(CHAPTERS[kind]) > 0
    assert all(len(image.get_attribute("alt")) > 20 for image in seen)
    page.close()
    page = browser.new_page()
    page.goto((pages / f"chapters/{CHAPTERS[kind]}.html").as_uri())
    page.emulate_media(media="print")
    assert page.locator(".moving-still").first.is_visible()
    assert not page.locator(".moving-stage").first.is_visible()
    page.close()


@pytest.mark.parametrize("kind", CHAPTERS)
def test_a_figure_is_small_and_its_controls_are_named(page, pages, kind):
    figure = Figure(page, pages, kind)
    assert figure.bytes < 10_240
    assert figure.box.get_attribute("aria-label")
    assert figure.box.locator("[role=status]").count() == 1
    assert figure.box.locator("input").count() > 0
    for slider in figure.box.locator("input[type=range]").all():
        assert slider.evaluate("e => e.labels.length") == 1 and slider.get_attribute("aria-valuetext")
    assert all(image.get_attribute("alt") for image in figure.box.locator("fieldset img").all())


def test_other_pages_do_not_load_the_script(page, pages):
    page.goto((pages / "index.html").as_uri())
    assert page.locator("script[src*=moving], link[href*=moving]").count() == 0


def frames_of(path):
    """The figures of frames on a page, in the order of its moving figures: place → data, with "kind" elsewhere."""
    found = re.findall(
        r'<figure class="moving".*?<script type="application/json">(.*?)</script>', path.read_text(), re.S
    )
    figures = [json.loads(text) for text in found]
    return {i: figure["data"] for i, figure in enumerate(figures) if figure["kind"] == "frames"}


FRAMES = [
    pytest.param(path, i, id=f"{Path(path).stem}-{i}") for path in PATHS for i in frames_of(PAGES / path)
]


def test_there_are_figures_of_frames():
    assert FRAMES


class Frames:
    """One figure of frames, and what it must show at its frame i, of option k."""

    def __init__(self, page, path, place):
        page.goto((PAGES / path).as_uri())
        self.page, self.box = page, page.locator("figure.moving").nth(place)
        self.data = frames_of(PAGES / path)[place]
        self.far = self.data["slider"]["start"]  # the farthest frame that has been on the page

    def go(self, i):
        """To frame i, by keyboard, from the nearer end."""
        last, slider = len(self.data["slider"]["values"]) - 1, self.box.locator("input[data-key=frame]")
        slider.focus()
        keys = ["Home"] + ["ArrowRight"] * i if 2 * i <= last else ["End"] + ["ArrowLeft"] * (last - i)
        self.far = max(self.far, i if keys[0] == "Home" else last)
        for key in keys:
            self.page.keyboard.press(key)
        value = self.data["slider"]["values"][i]
        assert slider.get_attribute("aria-valuetext") == f"{self.data['slider']['label']}: {value}"

    def choose(self, k):
        """Option k, by keyboard."""
        self.box.locator("fieldset input:checked").focus()
        for _ in range(len(self.data["choice"]["options"])):
            if self.box.locator("fieldset input").nth(k).is_checked():
                return
            self.page.keyboard.press("ArrowRight")
        assert self.box.locator("fieldset input").nth(k).is_checked()

    def compare(self, k, i):
        """Every number of that frame with the page's: read-outs, note, goal, and what the panels draw."""
        for j, said in enumerate(self.data["say"]):
            text = self.box.locator(f"[role=status] [data-name=say-{j}]").text_content()
            shown = f"{said['values'][k][i]:.{said['digits']}f}"
            assert text.replace("−", "-") == f"{shown} {said['unit']}".strip()
        if self.data["notes"]:
            assert self.box.locator(".moving-note").text_content() == self.data["notes"][k][i]
        if self.data["goal"]:
            mark = "✓" if self.data["goal"]["reached"][k][i] else "○"
            assert (
                self.box.locator(".moving-goal").text_content() == f"{mark} Goal: {self.data['goal']['text']}"
            )
        drawn = self.box.locator(".moving-panel").all()
        for panel, box in zip(self.data["panels"], drawn, strict=True):
            assert box.locator("p").first.text_content() == panel["title"]
            getattr(self, panel["form"])(panel, box, k, i)

    def bars(self, panel, box, k, i):
        rects = box.evaluate(
            "e => [...e.querySelectorAll('rect')].map(r => [r.className.baseVal, +r.getAttribute('width')])"
        )
        row = [(s["c"], s["values"][k][i][c]) for c in range(len(panel["classes"])) for s in panel["series"]]
        wide = box.evaluate("e => { const b = e.querySelector('.axis').getBBox(); return b.width; }")
        assert rects == [[c, pytest.approx(max(wide * v / panel["maximum"], 0.5), abs=1e-3)] for c, v in row]
        ghosts = panel["ghosts"]["values"] if "ghosts" in panel else [[]]
        drawn = box.evaluate(
            "e => { const left = e.querySelector('.axis').getBBox().x;"
            " return [...e.querySelectorAll('line.ghost')].map(l => l.getAttribute('x1') - left); }"
        )
        there = ghosts[min(k, len(ghosts) - 1)]
        assert drawn == [pytest.approx(wide * v / panel["maximum"], abs=0.01) for v in there]
        marked = box.evaluate("e => [...e.querySelectorAll('[font-weight=bold]')].map(t => t.textContent)")
        target = panel["target"]
        if isinstance(target, list):
            assert marked == [f"▸ {panel['classes'][target[i]]}"]
        else:
            assert marked == [panel["classes"][target]] * (target >= 0)

    @staticmethod
    def spots(panel, places):
        """Where places (x, y) of a panel stand in its drawing of 320 units' width."""

        def part(axis, v):
            f = math.log if axis["log"] else float
            return (f(v) - f(axis["min"])) / (f(axis["max"]) - f(axis["min"]))

        high = 250 if panel["form"] == "points" else 210
        return [
            [pytest.approx(46 + 266 * part(panel["x"], x), abs=0.01),
             pytest.approx(high - 40 - (high - 58) * part(panel["y"], y), abs=0.01)]
            for x, y in places
        ]  # fmt: skip

    def curves(self, panel, box, k, i):
        lines = [(line, lambda of: of[min(k, len(of) - 1)]) for line in panel["lines"]]
        dots = [chosen(line["dots"])[i] for line, chosen in lines if "dots" in line]
        circles = "e => [...e.querySelectorAll('circle')].map(c => [c.cx.baseVal.value, c.cy.baseVal.value])"
        assert box.evaluate(circles) == self.spots(panel, dots)
        drawn = box.evaluate("e => [...e.querySelectorAll('path:not(.axis)')].map(p => p.getAttribute('d'))")
        for (line, chosen), d in zip(lines, drawn, strict=True):
            ys = chosen(line["ys"])[i] if line["moves"] else chosen(line["ys"])
            found = [[float(v) for v in pair.split()] for pair in d[1:].split("L")]
            there = list(zip(line["xs"], ys, strict=True))
            if panel.get("unfolds"):
                there = there[: self.far + 1]
            for spot, want in zip(found, self.spots(panel, there), strict=True):
                assert spot == [pytest.approx(w.expected, abs=0.06) for w in want]

    def points(self, panel, box, k, i):
        circles = "e => [...e.querySelectorAll('circle:not(.ghost)')].map(c => [c.cx.baseVal.value, c.cy.baseVal.value])"
        places = [place for group in panel["groups"] for place in group["at"][k][i]]
        assert box.evaluate(circles) == self.spots(panel, places)
        closed = box.evaluate("e => [...e.querySelectorAll('path:not(.axis)')].map(p => p.getAttribute('d'))")
        outlines = [panel["ghosts"], panel["groups"][0]["at"][k][i]] if panel.get("closed") else []
        for d, outline in zip(closed, outlines, strict=True):
            found = [[float(v) for v in pair.split()] for pair in d[1:].split("L")]
            for spot, want in zip(found, self.spots(panel, [*outline, outline[0]]), strict=True):
                assert spot == [pytest.approx(w.expected, abs=0.06) for w in want]

    def images(self, panel, box, k, i):
        image = box.locator("img")
        assert image.get_attribute("src") == panel["sources"][panel["places"][k][i]]
        assert image.get_attribute("alt") == panel["alt"].replace("{value}", self.data["slider"]["values"][i])

    def table(self, panel, box, k, i):
        rows = [row.locator("th, td").all_text_contents() for row in box.locator("tbody tr").all()]
        assert rows == panel["rows"][k][i]


@pytest.mark.parametrize(("where", "place"), FRAMES)
def test_figures_of_frames_show_their_numbers_and_their_goal_can_be_reached(page, heard, where, place):
    page.set_viewport_size({"width": 390, "height": 844})
    figure = Frames(page, where, place)
    start, last = figure.data["slider"]["start"], len(figure.data["slider"]["values"]) - 1
    figure.compare(0, start)
    options = figure.data["choice"]["options"] if figure.data["choice"] else [""]
    for k in range(len(options)):
        if figure.data["choice"]:
            figure.choose(k)
        reached = figure.data["goal"]["reached"][k] if figure.data["goal"] else [0]
        there = [reached.index(1)] if any(reached) else []
        for i in [0, last // 3, (2 * last) // 3, last, *there]:
            figure.go(i)
            figure.compare(k, i)
        assert figure.box.locator(".moving-goal.reached").count() == len(there)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    edge = figure.box.bounding_box()
    for part in figure.box.locator(".moving-panel, .moving-controls > *").all():
        box = part.bounding_box()
        assert edge["x"] <= box["x"] and box["x"] + box["width"] <= edge["x"] + edge["width"] + 0.5
    assert heard["console"] == []
    assert [url for url in heard["requests"] if not url.startswith(("file:", "data:", "blob:"))] == []


@pytest.mark.parametrize(("where", "place"), FRAMES)
def test_the_legend_of_frames_has_a_piece_of_each_line_dot_and_bar(page, where, place):
    figure = Frames(page, where, place)
    look = "e => (s => [e.tagName, s.stroke, s.strokeDasharray, s.strokeWidth])(getComputedStyle(e))"
    shown = {
        span.text_content(): span.locator("svg > *")
        for span in figure.box.locator(".moving-key > span").all()
    }
    tags = {"bars": "rect", "curves": "path", "points": "circle"}
    for panel, box in zip(figure.data["panels"], figure.box.locator(".moving-panel").all(), strict=True):
        entries = panel.get("series") or panel.get("lines") or panel.get("groups") or []
        for entry in entries:
            if entry["name"] not in shown:
                assert len(entries) == 1 and entry["name"].lower() in panel["title"].lower()
            elif shown[entry["name"]].evaluate("e => e.tagName") == tags[panel["form"]]:
                drawn = box.locator(f"{tags[panel['form']]}[class='{entry['c']}']").first
                alike = [one.evaluate(look) for one in (shown[entry["name"]], drawn)]
                assert (
                    alike[0][: 3 if panel["form"] == "bars" else 4]
                    == alike[1][: 3 if panel["form"] == "bars" else 4]
                )


@pytest.mark.parametrize(("where", "place"), FRAMES)
def test_no_column_of_a_figure_of_frames_stays_half_empty(page, where, place):
    page.set_viewport_size({"width": 1280, "height": 900})
    figure = Frames(page, where, place)
    panels = [panel.bounding_box() for panel in figure.box.locator(".moving-panel").all()]
    controls = figure.box.locator(".moving-controls").bounding_box()
    if len(panels) == 2:
        assert panels[0]["y"] == panels[1]["y"] > controls["y"] + controls["height"]
        assert panels[0]["x"] + panels[0]["width"] <= panels[1]["x"]
    if len(panels) == 3:
        assert panels[1]["y"] == panels[2]["y"] > controls["y"] and panels[0]["x"] > controls["x"]
        assert panels[1]["x"] < panels[0]["x"]


@pytest.mark.parametrize(("where", "place"), FRAMES)
def test_figures_of_frames_have_named_controls_and_a_still_picture_on_paper(page, where, place):
    figure = Frames(page, where, place)
    slider = figure.box.locator("input[type=range]")
    assert slider.evaluate("e => e.labels.length") == 1
    assert figure.box.get_attribute("aria-label") and figure.box.locator("[role=status]").count() == 1
    all_text = {panel["form"] for panel in figure.data["panels"]} == {
        "table"
    }  # which needs no table beside it
    assert figure.box.locator("details:visible").count() == (not all_text)
    assert bool(figure.box.locator("details tbody tr").count()) != all_text
    page.emulate_media(media="print")
    assert figure.box.locator(".moving-still").is_visible() and not slider.is_visible()


def titled(page, where, title):
    """The figure of frames on that page whose first panel has this title."""
    place = next(i for i, data in frames_of(PAGES / where).items() if data["panels"][0]["title"] == title)
    return Frames(page, where, place)


def test_the_drop_from_nine_settings_is_seen_on_validation_alone(page):
    """Chapter 13 opens on the measure of its own rules; the goal is met where the bars fall, and on no other measure."""
    figure = titled(page, "chapters/13_methods.html", "Ahead of KD by … points (no bar: not ahead)")
    assert figure.data["choice"]["options"] == ["test, clear of 0", "test", "validation"]
    found = []
    for k in range(3):
        figure.choose(k)
        for i in range(3):
            figure.go(i)
            figure.compare(k, i)
            wide = figure.box.evaluate(
                "e => [...e.querySelectorAll('.moving-panel rect')].map(r => +r.getAttribute('width'))"
            )
            bars = sum(w > 0.5 for w in wide)  # half a unit stands for no bar
            assert number(figure.box.locator("[data-name=say-0]").text_content()) == bars
            met = figure.box.locator(".moving-goal.reached").count() == 1
            found.append((bars, met))
    assert found == [
        (5, False),
        (2, False),
        (1, False),
        (5, False),
        (5, False),
        (3, False),
        (9, False),
        (2, True),
        (2, True),
    ]


def test_strokes_of_luck_go_up_in_one_colour_and_down_in_the_other(page):
    figure = titled(page, "chapters/13_methods.html", "Equal methods: the lead of each")
    lines = {line["name"]: line for line in figure.data["panels"][0]["lines"]}
    up, down, none = (lines[name]["ys"] for name in ("beats KD", "loses to KD", "no verdict"))
    assert lines["beats KD"]["c"][0] == "s" and lines["loses to KD"]["c"][0] == "t"
    for k, of_throw in enumerate(figure.data["say"][1]["values"]):
        for i, told in enumerate(of_throw):
            beyond = sum(y >= 1 for y in up[k][i]), sum(y <= -1 for y in down[k][i])
            assert sum(beyond) == told and min(up[k][i]) >= 0 >= max(down[k][i])
            assert max(map(abs, none[k][i])) <= 1


def test_what_each_loss_notices_begins_with_nothing_and_ends_as_the_chapter_says(page):
    """Chapter 10: the hint stands twice, and only with a fixed regressor does it notice what can be undone."""
    (path,) = [path for path in PATHS if Path(path).stem == "10_features"]
    places = [k for k, data in frames_of(PAGES / path).items() if data["panels"][-1]["form"] == "table"]
    figure = Frames(page, path, places[0])
    notices = {
        "stretch": "yes no no no no",
        "turn": "yes no no no no",
        "shift": "yes no yes no no",
        "move d": "yes yes yes yes yes",
    }
    assert figure.data["choice"]["options"] == list(notices)

    def said():
        rows = figure.box.locator("tbody tr:visible").all()
        return [row.locator("th, td").all_text_contents() for row in rows][-5:]

    assert figure.data["slider"]["start"] == 0
    assert [row[1:] for row in said()] == [["0.0000", "no"]] * 5
    for k, told in enumerate(notices.values()):
        figure.choose(k)
        figure.go(len(figure.data["slider"]["values"]) - 1)
        assert " ".join(row[2] for row in said()) == told
