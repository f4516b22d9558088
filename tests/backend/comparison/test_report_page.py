"""The report as a browser shows it: nothing is asked for, tables sort, figures open large."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_backsplit.backend import NOTICE
from napari_backsplit.backend.comparison.compare import compare
from napari_backsplit.backend.comparison.report import ReportInfo, write_report
from napari_backsplit.backend.comparison.results import ComparisonSettings
from napari_backsplit.backend.comparison.sources import Licence, Sources
from tests.browser_support import LAPTOP, PHONE, Visit, open_browser

LONG = "an_arm_with_a_name_of_about_sixty_characters_without_a_blank"


@pytest.fixture(scope="module")
def html(cases, tmp_path_factory):
    """A report of 24 cases with organs, probabilities and a long arm name."""

    def dressed(case):
        supports = {"liver": np.zeros_like(case.reference["lesion"])}
        supports["liver"][:, :, :30] = True
        arms = {"baseline": case.predictions["baseline"], LONG: case.predictions["backsplit"]}
        maps = {arm: {"lesion": masks["lesion"] * 0.8} for arm, masks in arms.items()}
        return replace(case, supports=supports, predictions=arms, probabilities=maps)

    by_id = {case.case: dressed(case) for case in cases}
    comparison = compare(by_id.values(), ComparisonSettings("baseline"))
    folder = tmp_path_factory.mktemp("report")
    return write_report(comparison, folder, by_id.__getitem__, ReportInfo("Renal cysts"))


@pytest.fixture(scope="module")
def browser():
    with open_browser() as opened:
        yield opened


@pytest.fixture
def visit(browser, html):
    opened = Visit(browser, html, LAPTOP)
    opened.page.set_default_timeout(10_000)
    yield opened
    assert opened.said == []
    opened.close()


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("size", [LAPTOP, PHONE])
def test_it_asks_for_nothing_and_fits_the_screen(browser, html, size, dark):
    visit = Visit(browser, html, size, dark)
    visit.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert visit.asked == [html.as_uri()]
    assert visit.said == []
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= size[0]
    assert visit.page.title() == "Renal cysts"
    assert NOTICE in visit.page.inner_text(".notice")
    top = visit.page.locator(".verdict .sentence").first.bounding_box()
    assert top["y"] + top["height"] < size[1], "the verdict is not on the first screen"
    visit.close()


def shown_order(table, column):
    rows = table.locator("tbody tr:not([hidden])")
    return [rows.nth(k).locator("td").nth(column).inner_text() for k in range(rows.count())]


def opened_cases(visit):
    visit.page.locator("summary", has_text="every case").click()
    return visit.page.locator("#cases-1")


@pytest.mark.parametrize("way", ["click", "keyboard"])
def test_a_table_sorts_both_ways_and_what_is_not_defined_stays_last(visit, way):
    table = opened_cases(visit)
    heading = table.locator("th", has_text="Dice")
    column = heading.evaluate("th => th.cellIndex")
    for sense, state in ((1, "ascending"), (-1, "descending")):
        if way == "click":
            heading.locator("button").click()
        else:
            heading.locator("button").focus()
            visit.page.keyboard.press("Enter" if sense == 1 else "Space")
        assert heading.get_attribute("aria-sort") == state
        cells = shown_order(table, column)
        numbers = [sense * float(cell) for cell in cells if cell != "–"]
        assert numbers == sorted(numbers)
        assert len(set(numbers)) > 3
        assert set(cells[len(numbers) :]) == {"–"}


def test_sorting_another_column_forgets_the_first(visit):
    table = opened_cases(visit)
    table.locator("th", has_text="Dice").locator("button").click()
    table.locator("th", has_text="Patient").locator("button").click()
    states = [th.get_attribute("aria-sort") for th in table.locator("th").all()]
    assert sorted(set(states)) == ["ascending", "none"]
    assert states.count("ascending") == 1
    patients = shown_order(table, len(states) - 1)
    assert patients == sorted(patients)


def test_cases_are_filtered_by_every_word(visit):
    table = opened_cases(visit)
    field = visit.page.locator("[data-filters=cases-1]")
    field.fill("baseline case_003")
    assert shown_order(table, 0) == ["case_003"]
    assert visit.page.locator("[data-counts=cases-1]").inner_text() == "1 of 48 lines"
    field.fill("")
    assert len(shown_order(table, 0)) == 48


@pytest.mark.parametrize("what", [".chart", ".slice"])
def test_a_figure_opens_large_and_closes_by_escape(visit, what):
    button = visit.page.locator(".zoom", has=visit.page.locator(what)).first
    small = button.bounding_box()
    button.focus()
    visit.page.keyboard.press("Enter")
    large = visit.page.locator("dialog svg")
    assert large.is_visible()
    assert large.bounding_box()["width"] > 1.3 * small["width"]
    box = visit.page.locator("dialog").bounding_box()
    assert box["x"] >= 0
    assert box["y"] + box["height"] <= LAPTOP[1]
    visit.page.keyboard.press("Escape")
    assert not visit.page.locator("dialog").is_visible()
    assert button.evaluate("button => button === document.activeElement")


def test_a_click_closes_a_large_figure(visit):
    visit.page.locator(".zoom").first.click()
    assert visit.page.locator("dialog").is_visible()
    visit.page.locator("dialog svg").click()
    assert not visit.page.locator("dialog").is_visible()


def test_pictures_are_seen_and_not_only_there(visit):
    """Each of the three panels of a case shows its image: it is not of one colour."""
    case = visit.page.locator("figure.case").first
    for k in range(3):
        panel = case.locator("svg.slice").nth(k)
        panel.scroll_into_view_if_needed()
        assert len(panel.screenshot()) > 5_000


@pytest.mark.parametrize("names", [("binary baseline", "BackSplit"), (LONG, LONG[::-1])])
def test_no_cell_of_a_table_is_cut_off_on_a_laptop(browser, cases, tmp_path, names):
    """Each table fits its frame, and the text of each cell its cell."""
    arms = dict(zip(("baseline", "backsplit"), names, strict=True))

    def named(case):
        own = {arms[name]: masks for name, masks in case.predictions.items()}
        return replace(case, predictions=own)

    comparison = compare(map(named, cases), ComparisonSettings(names[0]))
    facts = {"Lesion where": "argmax", "Checkpoint's SHA-256": "0123456789abcdef…"}
    licences = (Licence(f"Model {names[1]}", "trained in this project", "the project's own"),)
    versions = {f"Training of {name}": {"torch": "2.9.1+cpu", "python": "3.11"} for name in names}
    sources = Sources(dict.fromkeys(names, facts), versions, licences)
    html = write_report(comparison, tmp_path, None, ReportInfo("Cysts", sources=sources))
    visit = Visit(browser, html, LAPTOP)
    visit.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    clipped = visit.page.evaluate(
        """() => [...document.querySelectorAll('.scroll')].flatMap(frame => {
            const right = frame.getBoundingClientRect().right + 1;
            return [...frame.querySelectorAll('th, td')].filter(cell =>
                cell.getBoundingClientRect().right > right
                || cell.scrollWidth > cell.clientWidth + 1
            ).map(cell => frame.querySelector('table').id + ': ' + cell.textContent.trim());
        })"""
    )
    assert clipped == []
    visit.close()


def test_no_text_of_a_figure_is_cut_off(visit):
    outside = visit.page.evaluate(
        """() => [...document.querySelectorAll('svg.chart')].flatMap(svg => {
            const frame = svg.getBoundingClientRect();
            return [...svg.querySelectorAll('text')].filter(text => {
                const box = text.getBoundingClientRect();
                return box.width && (box.left < frame.left - 2 || box.right > frame.right + 2
                    || box.top < frame.top - 2 || box.bottom > frame.bottom + 2);
            }).map(text => text.textContent);
        })"""
    )
    assert outside == []
