"""What a person sees: nothing that comes from a file reaches the terminal as a command to it."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from safetensors.torch import save_file
from support import caa

from caa_cli.display import Display, visible
from caa_cli.models.card import ModelCard
from caa_cli.models.checkpoint import DEMO_CHECKPOINT, read_weights

# Another title, a cleared screen by ESC and by C1's CSI, a backspace, a line that looks like a message of caa's own.
HOSTILE = "\x1b]0;title\x07\x1b[2Jm\x9b2Jn\x08i\x7fs\rt\nerror: send money\u202e[bold red]x[/nothing]\ud800"
ACTED_ON = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\ud800-\udfff]")


def console(terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, no_color=True, width=300, highlight=False)


@pytest.fixture
def display() -> Display:
    """On a terminal without colours, so that any escape sequence is one of the text's."""
    found = Display()
    found.err = found.out = console(True)
    found.live = found.fits_width = True
    return found


def test_a_name_between_colons_is_no_picture(capsys):
    shown = Display()
    shown.error("--arch net.py:x: net.py can't be read", None)
    shown.result("caa :x:", [("file", "a:x:b")])
    shown.grid(":x:", [":x:", "n"], [[":x:", ":x:"]], ":x:")
    written = capsys.readouterr()
    assert "net.py:x: net.py" in written.err
    assert written.out.count(":x:") == 7


@pytest.mark.parametrize(
    "show",
    [
        lambda display: display.note(HOSTILE),
        lambda display: display.warn(HOSTILE),
        lambda display: display.error(HOSTILE, HOSTILE),
        lambda display: display.plan(HOSTILE, [(HOSTILE, HOSTILE)]),
        lambda display: display.result("t", [("n", HOSTILE)]),
        lambda display: display.interrupted(1, 2, HOSTILE, HOSTILE),
    ],
    ids=["note", "warn", "error", "plan", "result", "interrupted"],
)
def test_nothing_acts_on_the_terminal(display: Display, show):
    show(display)
    written = display.err.file.getvalue()
    own = re.compile(r"\x1b\[[0-9;]*m")  # bold and dim
    assert not ACTED_ON.search(own.sub("", written))
    assert "\x1b[31m" not in written
    assert "\\x1b]0;title" in written
    assert "[bold red]x[/nothing]" in written
    assert not re.search(r"^error: send", own.sub("", written), re.MULTILINE)


@pytest.mark.parametrize("terminal", [True, False])
def test_nothing_of_a_bar_acts_on_the_terminal(display: Display, terminal: bool):
    display.err, display.live = console(terminal), terminal
    with display.bar("images", 2) as bar:
        bar.update(1, HOSTILE, HOSTILE)
    written = display.err.file.getvalue()
    assert "\\x1b]0;title" in written
    for command in ("\x1b]0;title", "\x1b[2J", "\x9b", "\x08", "\x07", "\u202e", "\ud800"):
        assert command not in written


@given(text=st.text())
def test_what_can_be_shown_is_left_as_it_is(text: str):
    assert not ACTED_ON.search(visible(text))
    if text.isprintable():
        assert visible(text) == text


def test_what_a_checkpoint_says_of_itself_is_only_shown(tmp_path: Path):
    training = {"note": HOSTILE[:30], "\x1b[2J": 1}
    card = ModelCard("small-cnn", 10, (1, 28, 28), dataset=HOSTILE, sigma=0.5, method="\x1b[2J", training=training)
    save_file(read_weights(DEMO_CHECKPOINT).tensors, tmp_path / "x", metadata=card.to_metadata())
    for words in (["inspect", tmp_path / "x"], ["certify", "--checkpoint", tmp_path / "x"]):
        result = caa(*words)
        assert not isinstance(result.exception, Exception), repr(result.exception)
        assert not ACTED_ON.search(result.stdout + result.stderr)
        assert "\\x1b" in result.stdout + result.stderr


LONG = "caa attack --checkpoint /a/folder/with/a/long/name/model.safetensors --data-dir /another/folder --resume"


def shown_by(show, width: int, live: bool) -> str:
    """What it writes, colours left out, on a console of this width."""
    display = Display()
    display.err = display.out = Console(
        file=io.StringIO(), width=width, force_terminal=live, no_color=True, highlight=False, soft_wrap=True
    )
    display.live = display.fits_width = live
    show(display)
    return re.sub(r"\x1b\[[0-9;]*m", "", display.err.file.getvalue())


@pytest.mark.parametrize(
    "show",
    [
        lambda display: display.interrupted(1, 2, "a.json", LONG),
        lambda display: display.error("no", LONG),
        lambda display: display.error(f"a problem of {LONG}", None),
        lambda display: display.note(f"finish it with: {LONG}"),
        lambda display: display.result("title", [("missing", "nothing")], [("attack", LONG)]),
    ],
    ids=["interrupted", "hint", "problem", "note", "result"],
)
@pytest.mark.parametrize("live", [True, False], ids=["terminal", "log"])
def test_a_command_stays_one_line_however_narrow_the_terminal(show, live: bool):
    for width in (20, 60, 80):
        assert LONG in shown_by(show, width, live)


def test_a_value_is_broken_between_words_only_and_not_in_a_log():
    value = f"images in /a/folder/{'x' * 60}, and {'more ' * 20}words"
    rows = [("results", value), ("σ", "0.5")]
    on_terminal = shown_by(lambda display: display.plan("title", rows), 40, True).splitlines()
    assert any(line.endswith(f"/a/folder/{'x' * 60},") for line in on_terminal)
    assert all(len(line) <= 40 for line in on_terminal if "x" * 60 not in line)
    assert [line.split() for line in on_terminal[-1:]] == [["σ", "0.5"]]
    assert " ".join(word for line in on_terminal[1:-1] for word in line.split()) == f"results {value}"
    in_log = shown_by(lambda display: display.plan("title", rows), 40, False)
    assert in_log == f"title\nresults  {value}\nσ        0.5\n"


@pytest.mark.parametrize("name", ["模型一:sigma=0.25", "e\u0301clair", "a\u202eb", "[red]x[/]"])
def test_a_name_in_a_log_is_one_line_however_wide_its_letters(name: str):
    table = shown_by(lambda display: display.grid("t", ["model", "%"], [[name, "1"], ["b", "2"]], ""), 80, False)
    assert len(table.splitlines()) == 8
    rows = shown_by(lambda display: display.result("t", [(name, "1"), ("b", "2")]), 80, False).splitlines()[1:]
    assert {cell_len(row.removesuffix(value)) for row, value in zip(rows, "12", strict=True)} == {
        cell_len(visible(name)) + 2
    }


def test_a_value_and_its_name_stay_on_one_line():
    text = "exact bounds, α = 0.001 shared out over 11 stages, " * 4
    for width in range(34, 60):
        lines = shown_by(lambda display: display.plan("t", [("smoothing", text)]), width, True).splitlines()[1:]
        assert sum("α = 0.001" in line for line in lines) == 4
        assert all(len(line) <= width for line in lines)


def test_the_caption_of_a_table_is_broken_between_words_and_not_in_a_log():
    caption = "2 of 2 images; optimality: 1 if nearest on every image. Ranges are 95% intervals, exact."

    def show(display: Display) -> None:
        display.grid("title", ["attack", "success"], [["caa", "100"]], caption)

    on_terminal = shown_by(show, 40, True).splitlines()
    assert all(len(line) <= 40 for line in on_terminal)
    assert " ".join(line.strip() for line in on_terminal).endswith(caption)
    assert shown_by(show, 40, False).splitlines()[-1] == caption


TIME = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}[+-][0-9]{2}:[0-9]{2} "


def test_progress_in_a_log_begins_with_the_time():
    def show(display: Display) -> None:
        with display.bar("images", 2) as bar:
            bar.update(1, "half")
        display.progress("epoch 1/2")

    lines = shown_by(show, 80, False).splitlines()
    assert re.fullmatch(f"{TIME}images 1/2 · half · .*", lines[0])
    assert re.fullmatch(f"{TIME}epoch 1/2", lines[1])
    assert not re.search(TIME, shown_by(show, 80, True))
