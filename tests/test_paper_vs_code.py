"""The pages of differences and `paper_map`: complete lists, links of the right form, names that exist."""

import ast
import importlib
import re
from functools import lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
COMMIT = "7cedf7435f8e4b07f6ea03afcbde8cd37ac2e5d4"
LINK = re.compile(
    rf"https://github\.com/nvasilik/D-PoSE/blob/{COMMIT}/([\w./-]+)#L([1-9]\d*)(?:-L([1-9]\d*))?"
)


def markdown(page: str) -> str:
    """The Markdown of a page, of a notebook without its code."""
    if page.endswith(".md"):
        return (ROOT / page).read_text(encoding="utf-8")
    cells = (ROOT / page).read_text(encoding="utf-8").split("\n# %%")
    lines = (line for cell in cells if cell.startswith(" [markdown]") for line in cell.splitlines()[1:])
    return "\n".join(line.removeprefix("#").removeprefix(" ") for line in lines)


def entries(page: str) -> dict[str, list[str]]:
    """The definition lists of a page: from each term to its definitions."""
    found = {}
    for term, lines in re.findall(r"^\*\*(.+)\*\*\n((?:: .+\n?)+)", markdown(page), re.M):
        found[term] = [line.removeprefix(": ") for line in lines.splitlines()]
    return found


DIFFERENCES = entries("book/differences.md")
MAP = entries("book/paper_map.md")
PAGES = ("book/differences.md", "book/paper_map.md")


@lru_cache
def functions_of(file: str) -> set[str]:
    """The names of the test functions of a file."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def named_objects(text: str) -> list[str]:
    return re.findall(r"\{py:obj\}`~?([\w.]+)`", text)


def named_tests(text: str) -> list[tuple[str, str]]:
    return re.findall(r"`(tests/\w+\.py)::(\w+)`", text)


def resolve(name: str) -> object:
    """The object of a dotted name."""
    parts = name.split(".")
    for length in range(len(parts) - 1, 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            found = getattr(found, part)
        return found
    raise ModuleNotFoundError(name)


def test_differences_are_numbered_from_1_without_gaps():
    numbers = [int(re.match(r"\d+", term)[0]) for term in DIFFERENCES]
    assert numbers == list(range(1, len(numbers) + 1)) and len(numbers) >= 60
    written = markdown("book/differences.md")
    assert len(re.findall(r"^: \*Paper\.\*", written, re.M)) == len(numbers)
    groups = re.findall(r"^## (.+)$", written, re.M)
    assert [word in group.lower() for word, group in zip(
        ("data and targets", "network", "losses", "training", "evaluation"), groups, strict=False
    )] == [True] * 5  # fmt: skip


@pytest.mark.parametrize("term", DIFFERENCES)
def test_a_difference_has_the_paper_the_released_code_and_this_package_with_evidence(term):
    paper, code, here, *switch = DIFFERENCES[term]
    assert paper.startswith("*Paper.* ") and here.startswith("*Here.* ")
    assert code.startswith("*Released code.* ")
    assert re.search(r"section|\{eqn\}|Figure|Table|Not given|None", paper)
    labels = re.findall(r"\[`[\w.-]+:\d+(?:–\d+)?`\]", code)
    assert labels or "Not in the code" in code
    names = named_objects(here) + named_tests(here)
    assert names or "Not tested" in here


def test_each_link_into_the_released_code_names_file_and_lines_at_one_commit():
    text = markdown("book/differences.md")
    found = re.findall(r"^\[`([\w.-]+:[\d–]+)`\]: (\S+)$", text, re.M)
    definitions = dict(found)
    assert len(found) == len(definitions)  # a second one would be a warning of the build
    used = set(re.findall(r"\[`([\w.-]+:\d+(?:–\d+)?)`\](?!: http)", text))
    assert used == set(definitions) and len(used) > 60
    for label, address in definitions.items():
        path, first, last = LINK.fullmatch(address).groups()
        assert label == f"{Path(path).name}:{first}" + (f"–{last}" if last else "")
        assert last is None or int(first) < int(last)


def test_the_summary_has_ten_rows_that_link_to_differences():
    rows = re.findall(r"^\| [^|]+ \| (\{diff\}`[^|]+) \|", markdown("notebooks/paper_vs_code.py"), re.M)
    assert len(rows) == 10


def test_linked_differences_exist_and_the_map_names_most_of_them():
    pages = [*ROOT.glob("book/*.md"), *ROOT.glob("notebooks/*.py")]
    linked = {
        page.name: set(re.findall(r"\{diff\}`(.+?)`", page.read_text(encoding="utf-8"))) for page in pages
    }
    numbers = {str(number) for number in range(1, len(DIFFERENCES) + 1)}
    assert set().union(*linked.values()) <= numbers
    mapped = set()
    for first, last in re.findall(r"\{diff\}`(\d+)`(?: to \{diff\}`(\d+)`)?", markdown("book/paper_map.md")):
        mapped |= {str(number) for number in range(int(first), int(last or first) + 1)}
    assert len(mapped) > 0.9 * len(numbers), sorted(numbers - mapped)


@pytest.mark.parametrize("page", PAGES)
def test_functions_and_tests_that_a_page_names_exist(page):
    text = markdown(page)
    objects, tests = named_objects(text), named_tests(text)
    assert len(objects) > 20 and len(tests) > 20
    for name in objects:
        found = resolve(name)
        assert getattr(found, "__module__", None) == name.rsplit(f".{found.__qualname__}", 1)[0], name
    for file, test in tests:
        assert test in functions_of(file), f"{file}::{test}"
    assert len(re.findall(r"tests/\w+\.py::", text)) == len(tests) + text.count("::NAME")


def test_the_map_has_all_sections_equations_figures_and_tables_of_the_paper():
    sections = ["1", "2", "3", *(f"3.{n}" for n in range(1, 10)), *(f"4.{n}" for n in range(1, 6)), "5", "6"]
    terms = list(MAP)
    assert {term.split(" ")[0] for term in terms if term[0].isdigit()} == set(sections)
    assert [re.match(r"\{eqn\}`(\d+)`", t)[1] for t in terms if t[0] == "{"] == [*map(str, range(1, 11))]
    assert [t[7] for t in terms if t.startswith("Figure")] == list("123456")
    assert [t[6] for t in terms if t.startswith("Table")] == list("123")


@pytest.mark.parametrize("term", MAP)
def test_an_entry_of_the_map_names_a_page_a_function_and_a_test(term):
    text = "\n".join(MAP[term])
    pages = re.findall(r"\]\(([\w./]+)\)", text)
    assert pages
    for page in pages:
        path = ROOT / "book" / page
        assert path.exists(), page
    if not term.startswith(("1 ", "2 ", "6 ")):
        assert named_objects(text) and named_tests(text)
