"""What README, docs and the Space's front matter promise is what the repository holds."""

import re
import signal
from pathlib import Path

import pytest
import yaml
from huggingface_hub import SpaceHardware

from roleplay.environment import ROOT
from roleplay.weights import base_models, embedded

README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [*sorted(ROOT.glob("*.md")), ROOT / "dataset" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINKS = [
    pytest.param(page, *link, id=f"{page.relative_to(ROOT)}: {''.join(link)}")
    for page in PAGES
    for link in re.findall(r"\]\(([\w./-]*)(#[\w-]+)?\)", page.read_text(encoding="utf-8"))
]


def anchors(page: Path) -> set[str]:
    """What a link may name behind its #: every heading, as GitHub spells it."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {"#" + re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_front_matter_fits_the_requirements():
    front = yaml.safe_load(README.split("---\n")[1])
    pins = dict(line.split("==") for line in (ROOT / "requirements.txt").read_text().splitlines() if "==" in line)
    assert front["sdk"] == "gradio"
    assert front["sdk_version"] == pins["gradio"]
    assert front["python_version"] == "3.12.12"  # ZeroGPU has it; it has no 3.11
    assert (ROOT / front["app_file"]).is_file()
    assert {embedded.HUB_ID, base_models.PREFERRED} == set(front["models"])
    # Both are gated and a build has no token, so preloading one would fail it; `train.push` adds an open one.
    assert "preload_from_hub" not in front and any("gemma3-270m" in name for name in pins)
    assert front["suggested_hardware"] in list(SpaceHardware)
    assert len(front["short_description"]) <= 60  # the Hub's limit
    for key in ("colorFrom", "colorTo"):
        assert re.fullmatch("red|yellow|green|blue|indigo|purple|pink|gray", front[key])


def test_a_space_can_build_with_the_requirements_alone():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    assert all(re.fullmatch(r"[\w.-]+==[\w.+-]+", line) for line in lines)  # pinned, and never -e


def test_every_environment_variable_is_in_the_table():
    table = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    read = set(
        re.findall(
            r'_(?:text|number|choice)\("(\w+)"', (ROOT / "roleplay" / "environment.py").read_text(encoding="utf-8")
        )
    )
    assert read - {"SPACE_ID"} <= set(re.findall(r"`([A-Z_]+)`", table))


def test_nothing_else_reads_the_environment():
    for folder in ("roleplay", "dataset"):
        for path in (ROOT / folder).rglob("*.py"):
            if path.name != "environment.py":
                assert "os.environ" not in path.read_text(encoding="utf-8"), path


@pytest.mark.parametrize(("page", "path", "anchor"), LINKS)
def test_links_lead_somewhere(page, path, anchor):
    target = page.parent / path if path else page
    assert target.exists()
    assert not anchor or anchor in anchors(target)


FIGURES = [
    pytest.param(page, section, id=f"{page.name}: {section.splitlines()[0]}")
    for page in (ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md")))
    for section in re.split(r"^## ", page.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    if re.search(r"^ *\|.*((?<![\d.])\d+\.\d+(?![\d.])|\d %|\d / \d)", section, re.MULTILINE)
]


@pytest.mark.parametrize(("page", "section"), FIGURES)
def test_every_table_of_figures_names_its_command_and_its_dtype(page, section):
    """In its section, or for the whole page before the first one."""
    lead = page.read_text(encoding="utf-8").partition("\n## ")[0]
    assert "python -m " in section + lead and re.search("dtype|bfloat16|float32", section + lead)


NAMED = [
    pytest.param(page, name, id=f"{page.name}: {name}")
    for page in PAGES
    if page.name != "CHANGELOG.md"  # tells of what is gone, too
    for name in re.findall(
        r"`((?:tests|page|roleplay|train|benchmarks|assets)/[\w./]+)`", page.read_text(encoding="utf-8")
    )
]


@pytest.mark.parametrize(("page", "name"), NAMED)
def test_files_that_are_named_are_there(page, name):
    assert (ROOT / name).exists()


def test_every_exit_status_is_in_the_table() -> None:
    section = (ROOT / "docs" / "install.md").read_text(encoding="utf-8").partition("## Exit statuses")[2]
    code = [path for room in ("page", "roleplay", "train", "dataset") for path in (ROOT / room).rglob("*.py")]
    ends = re.compile(r"(?:exit\(|^    status = )(\d+)\b(?! \+)", re.MULTILINE)
    found = {int(number) for path in code for number in ends.findall(path.read_text(encoding="utf-8"))}
    told = {int(number) for number in re.findall(r"^\| (\d+) ", section, re.MULTILINE)}
    assert told == found | {0, 1, 128 + signal.SIGTERM}


def test_ci_runs_the_readmes_test_command():
    assert "make test " in README
    assert (ROOT / ".ci" / "run").read_text().splitlines()[-1] == "make test"
