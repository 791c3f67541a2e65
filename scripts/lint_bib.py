"""Check reference/references.bib: form, fields, identifiers, duplicates; what is listed is cited, and the reverse.

    python scripts/lint_bib.py    # prints what is wrong, one line for each; exit code 1 if anything is

It knows nothing of the papers: that an entry says what the publisher's record says, somebody has to read.
"""

import json
import re
import sys
from datetime import date
from pathlib import Path

from pybtex.database import BibliographyData, Entry, parse_string
from pybtex.exceptions import PybtexError

ROOT = Path(__file__).parent.parent
BIBLIOGRAPHY = ROOT / "reference/references.bib"
NEEDED = {
    "article": {"title", "journal", "year"},
    "book": {"title", "publisher", "year"},
    "inproceedings": {"title", "booktitle", "year"},
    "misc": {"title", "year"},
}
KNOWN = set().union(*NEEDED.values()) | {
    "archiveprefix", "doi", "eprint", "note", "number", "pages", "series", "url", "volume",
}  # fmt: skip
FORM = {
    "year": r"(18|19|20)\d\d",
    "pages": r"\d+--\d+",
    "doi": r"10\.\d{4,9}/[^\s{}]+",
    "eprint": r"\d{4}\.\d{4,5}",
    "url": r"https://[^\s{}]+",
    "archiveprefix": "arXiv",
}
CITATION = re.compile(r"\{cite(?::\w+)?\}`([^`]+)`")


def plain(text: str) -> str:
    """Letters and digits alone, so that two spellings of one title meet."""
    return re.sub(r"[\W_]", "", re.sub(r"\\\W|[{}]", "", text)).lower()


def entry_problems(key: str, entry: Entry) -> list[str]:
    """What is wrong with one entry by itself."""
    fields = {name.lower(): value for name, value in entry.fields.items()}
    if entry.type not in NEEDED:
        return [f"{key}: the type {entry.type} is none of {', '.join(NEEDED)}"]
    found = [f"{key}: {name} is missing" for name in sorted(NEEDED[entry.type] - set(fields))]
    found += [f"{key}: the field {name} is unknown" for name in sorted(set(fields) - KNOWN)]
    found += [
        f"{key}: {name} = {fields[name]!r} is not of the form {form}"
        for name, form in FORM.items()
        if name in fields and not re.fullmatch(form, fields[name])
    ]
    if not entry.persons.get("author"):
        found.append(f"{key}: author is missing")
    if not {"doi", "eprint", "url"} & set(fields) and entry.type != "book":
        found.append(f"{key}: a doi, an eprint or a url is missing")
    if ("eprint" in fields) != ("archiveprefix" in fields):
        found.append(f"{key}: eprint and archiveprefix go together")
    return found + number_problems(key, fields)


def number_problems(key: str, fields: dict[str, str]) -> list[str]:
    """Years and pages that cannot be."""
    found, year = [], fields.get("year", "")
    if year.isdigit() and int(year) > date.today().year:
        found.append(f"{key}: the year {year} is yet to come")
    if pages := re.fullmatch(r"(\d+)--(\d+)", fields.get("pages", "")):
        first, last = map(int, pages.groups())
        if first > last:
            found.append(f"{key}: page {first} comes after page {last}")
    if eprint := re.fullmatch(r"(\d\d)(\d\d)\.\d+", fields.get("eprint", "")):
        appeared, month = 2000 + int(eprint[1]), int(eprint[2])
        if not 1 <= month <= 12 or (year.isdigit() and appeared > int(year) + 3):
            found.append(f"{key}: the eprint {fields['eprint']} does not fit the year {year}")
    return found


def duplicates(data: BibliographyData) -> list[str]:
    """Two entries with one title, doi, eprint or url."""
    found = []
    for field in ("title", "doi", "eprint", "url"):
        seen: dict[str, str] = {}
        for key, entry in data.entries.items():
            if value := plain(entry.fields.get(field, "")):
                if value in seen:
                    found.append(f"{key}: has the {field} of {seen[value]}")
                seen.setdefault(value, key)
    return found


def problems(text: str, cited: set[str]) -> list[str]:
    """Everything that is wrong with a bibliography of which `cited` are cited, a sentence for each."""
    try:
        data = parse_string(text, "bibtex")
    except PybtexError as error:
        return [f"{BIBLIOGRAPHY.name}: {error}"]
    found = [p for key, entry in data.entries.items() for p in entry_problems(key, entry)] + duplicates(data)
    found += [f"{key}: is cited nowhere" for key in data.entries if key not in cited]
    return found + [f"{key}: is cited and not listed" for key in sorted(cited - set(data.entries))]


def citations() -> set[str]:
    """The keys that the book's pages cite."""
    pages = [p.read_text(encoding="utf-8") for p in (ROOT / "index.md", *ROOT.glob("reference/*.md"))]
    for path in (*ROOT.glob("chapters/*.ipynb"), *ROOT.glob("reference/*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        pages += ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    return {key.strip() for page in pages for keys in CITATION.findall(page) for key in keys.split(",")}


def main() -> int:
    text = BIBLIOGRAPHY.read_text(encoding="utf-8")
    found = problems(text, citations())
    print("\n".join(found) or f"{BIBLIOGRAPHY.name}: {text.count('@')} entries, nothing to mend")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
