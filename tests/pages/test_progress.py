"""Progress is kept in the browser: marked beside an exercise, seen in the list, forgotten on demand."""

from companion.checks._exercises import EXERCISES
from tests.pages.conftest import PAGES


def test_marked_in_the_chapter_and_forgotten_in_the_list(page):
    page.goto((PAGES / "chapters/03_algorithm.html").as_uri())
    mark = page.locator("#ex-soften").get_by_label("Solved")
    mark.focus()
    page.keyboard.press("Space")
    page.reload()
    assert mark.is_checked()

    page.goto((PAGES / "reference/exercises.html").as_uri())
    n = len(EXERCISES)
    assert page.locator("input[data-exercise]").count() == n
    status = page.get_by_role("status").filter(has_text="solved")
    assert status.inner_text().startswith(f"1 of {n} solved")
    assert page.locator("input[data-exercise='ex-soften']").is_checked()
    page.get_by_role("button", name="Forget my progress").click()
    assert status.inner_text().startswith(f"0 of {n} solved")
    page.reload()
    assert page.locator("input[data-exercise]:checked").count() == 0


def test_each_exercise_is_listed_with_a_link_to_its_place(page):
    page.goto((PAGES / "reference/exercises.html").as_uri())
    links = page.locator("table.exercise-list a[href*='#ex-']")
    found = {link.get_attribute("href").removeprefix("../chapters/") for link in links.all()}
    assert found == {f"{e.chapter}.html#{e.label}" for e in EXERCISES}
