"""The grid of adversarial images: which are shown, where they come from, and what it takes to show them."""

from __future__ import annotations

import base64
import io
import re
import shutil
import subprocess
import tracemalloc
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from comparing import document, record, write
from matplotlib.image import imread
from PIL import Image
from support import CHEAP, caa, demo_images, read_strict, timeless

from caa_cli.data.datasets import open_dataset
from caa_cli.report.figure import EmptyPictureError
from caa_cli.report.gallery import draw_gallery, gallery_html
from caa_cli.report.html import report
from caa_cli.results.comparison import compare
from caa_cli.results.shards.result_file import read_result_file
from caa_cli.results.shards.run_results import join
from caa_cli.results.store.images import StoredImages, save_images, saved_images
from caa_cli.run.gallery import MOST_ATTACKS, MOST_ROWS, gallery_of


def attacked(folder: Path, name: str, count: int, save: bool = True, failing: int | None = None, **settings) -> Path:
    """A result on the demo's first images, with images that are brighter than the originals by 0.1."""
    clean = demo_images()[0][:count, None] / np.float32(255)
    images = {i: (0.9 * clean[i] + 0.1).astype(np.float32) for i in range(count) if i != failing}
    radii = {i: float(np.linalg.norm(image - clean[i])) for i, image in images.items()}
    records = [record(i, radii.get(i), adversarial_class=(i + 1) % 10) for i in range(count)]
    place = folder / f"{name}.safetensors"
    if save:
        save_images(place, images, records, "0")
        settings["save_adversarial"] = str(place)
    return write(folder / f"{name}.json", document(records, **settings))


def gallery(*files: Path):
    return gallery_of(compare(join([read_result_file(path) for path in files])))


def test_a_row_has_the_original_and_what_every_attack_made_of_it(tmp_path):
    files = [attacked(tmp_path, "a", 3), attacked(tmp_path, "b", 3, attack="pgd", failing=1)]
    found = gallery(*files)
    assert found.labels == ("caa", "pgd")
    assert found.notes == ()
    clean = demo_images()[0][:, None] / np.float32(255)
    for index, shown in enumerate(found.rows):
        np.testing.assert_allclose(shown.clean, clean[index], atol=1e-6)
        np.testing.assert_allclose(shown.adversarial[0], 0.9 * clean[index] + 0.1, atol=1e-6)
        assert shown.caption == [f"image {index}", f"digit {index}", "certified 1.00"]
    assert found.rows[1].adversarial[1] is None
    assert found.rows[1].captions()[1] == ["not found"]
    radius = found.rows[0].records[0].radius
    assert found.rows[0].captions()[0] == [f"L2 {radius:.2f}", "digit 1"]


def test_names_that_a_result_has_come_before_those_of_the_data_set(tmp_path):
    path = attacked(tmp_path, "a", 1)
    write(path, {**read_strict(path), "class_names": {"0": "zero", "1": "<one>"}})
    found = gallery(path)
    assert found.rows[0].caption[1] == "zero"
    assert "&lt;one&gt;" in gallery_html(found)


def test_the_scale_of_a_row_has_numbers(tmp_path):
    (shown,) = gallery(attacked(tmp_path, "a", 1)).rows
    assert shown.scale == pytest.approx(0.1, abs=1e-6)
    html = gallery_html(gallery(attacked(tmp_path, "b", 1)))
    assert "<span>−0.1</span><span>0</span><span>+0.1</span>" in html
    assert 'alt="image 0, unchanged"' in html
    assert 'alt="what caa changed in image 0"' in html
    assert re.search(r'alt="image 0 under caa: L2 [\d.]+, digit 1"', html)


def test_where_nothing_was_broken_that_is_what_is_said(tmp_path):
    place = write(tmp_path / "a.json", document([record(0, None), record(1, None)]))
    assert gallery(place).notes == ("No attack broke an image",)


def test_perturbations_are_red_where_they_add_and_on_one_scale_a_row(tmp_path):
    (shown, *_) = gallery(attacked(tmp_path, "a", 1)).rows
    (colours,) = shown.colours()
    clean = demo_images()[0][0]
    red, green, blue = colours[clean == 0].mean(axis=0)
    assert red > 2 * max(green, blue)  # the black ground was made brighter, and white was left as it is
    np.testing.assert_allclose(colours[clean == 255], colours[clean == 255].mean(), atol=0.05)
    assert shown.colours()[0].shape == (28, 28, 3)


def test_colour_images_are_shown_in_colour(tmp_path):
    (shown, *_) = gallery(attacked(tmp_path, "a", 1)).rows
    colour = np.zeros((3, 4, 5), np.float32)
    colour[0] = 1.0
    odd = type(shown)(colour, (np.flip(colour, 0),), shown.records)
    html = gallery_html(type(gallery(attacked(tmp_path, "b", 1)))(("caa",), (odd,)))
    first, scale, second, third = pictures(html)
    assert first[0, 0].tolist() == [1, 0, 0]
    assert scale.shape == (1, 101, 3)
    assert second[0, 0].tolist() == [0, 0, 1]
    assert third.shape == (4, 5, 3)


def pictures(html: str) -> list[np.ndarray]:
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    return [imread(io.BytesIO(base64.b64decode(text)), format="png")[..., :3] for text in found]


def test_what_is_shown_and_read_is_bounded_and_spread_over_the_images(tmp_path, monkeypatch):
    files = [attacked(tmp_path, str(n), 40, iterations=10 + n) for n in range(MOST_ATTACKS + 2)]
    read = []
    get = StoredImages.__getitem__
    monkeypatch.setattr(StoredImages, "__getitem__", lambda self, index: read.append(index) or get(self, index))
    found = gallery(*files)
    assert len(found.labels) == MOST_ATTACKS
    assert found.notes == ("The first 8 attacks; 2 more are not shown",)
    assert [shown.records[0].index for shown in found.rows] == [0, 5, 10, 15, 20, 25, 30, 35]
    assert len(read) == MOST_ROWS * MOST_ATTACKS


def test_shards_and_files_that_moved_are_found(tmp_path):
    """A result names its images; where they are no longer there, those beside it are taken."""
    (tmp_path / "run").mkdir()
    attacked(tmp_path / "run", "a", 2)
    (tmp_path / "run").rename(tmp_path / "moved")
    assert len(gallery(tmp_path / "moved" / "a.json").rows) == 2


def test_without_images_it_says_so(tmp_path):
    lost = attacked(tmp_path, "a", 2)
    (tmp_path / "a.safetensors").unlink()
    other = attacked(tmp_path, "b", 2, attack="pgd")
    found = gallery(lost, other)
    assert [caption[2:] for caption in found.rows[0].captions()] == [["not kept"], []]
    nothing = gallery(lost)
    assert nothing.rows == ()
    gone = f"no file of these runs is at {tmp_path / 'a.safetensors'}"
    assert gone in gallery_html(nothing)
    with pytest.raises(EmptyPictureError, match="not there any more"):
        draw_gallery(tmp_path / "nothing.png", nothing, "title")
    result = caa("compare", lost, "--html", tmp_path / "c.html", "--figure-examples", tmp_path / "e.png")
    assert result.exit_code == 0, result.output
    assert gone in (tmp_path / "c.html").read_text(encoding="utf-8")
    assert "e.png is not drawn: the adversarial images are not there" in result.stderr
    never = gallery(attacked(tmp_path, "c", 2, save=False))
    assert "--save-adversarial" in gallery_html(never)


def test_images_of_another_run_or_damaged_ones_are_not_shown(tmp_path):
    path = attacked(tmp_path, "a", 2)
    black = {0: np.zeros((1, 28, 28), np.float32)}
    save_images(tmp_path / "a.safetensors", black, [record(0, 1.0, adversarial_class=3)], "other")
    assert gallery(path).rows == ()
    (tmp_path / "a.safetensors").write_bytes(b"nothing")
    assert gallery(path).rows == ()


def test_clean_images_are_resized_as_those_that_were_attacked(tmp_path):
    """As the library of the checkpoint's network does, which the result says."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    for folder in "ab":
        (tmp_path / "data" / folder).mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / "data" / folder / "x.png")
    images = open_dataset("folder", tmp_path / "data", "test", image_size=16).prepared(20, "bicubic")
    settings = {"dataset": "folder", "data_dir": str(tmp_path / "data"), "image_size": 16}
    settings |= {"image_resize": 20, "interpolation": "bicubic", "save_adversarial": str(tmp_path / "a.safetensors")}
    records = [record(0, 1.0, adversarial_class=1)]
    save_images(tmp_path / "a.safetensors", {0: images.image(0).numpy()}, records, "0")
    run = document(records, **settings)
    run["images"] = {"count": 2, "files_sha256": images.files_sha256}
    (shown,) = gallery(write(tmp_path / "a.json", run)).rows
    np.testing.assert_array_equal(shown.clean, images.image(0))
    assert shown.scale == 0.0


@pytest.mark.parametrize(
    ("settings", "note"),
    [
        ({"dataset": "mnist"}, "Without the clean images: the data set mnist needs the folder that holds it"),
        (
            {"dataset": "mnist", "data_dir": "/nowhere"},
            "Without the clean images: --data-dir /nowhere does not exist",
        ),
        ({"split": "train"}, "Without the clean images: demo holds other data now"),
    ],
)
def test_without_the_data_set_the_adversarial_images_are_shown_alone(tmp_path, settings, note):
    found = gallery(attacked(tmp_path, "a", 2, **settings))
    assert note in found.notes[0]
    assert [shown.clean for shown in found.rows] == [None, None]
    assert found.rows[0].colours() == [None]
    assert len(pictures(gallery_html(found))) == 2
    draw_gallery(tmp_path / "a.svg", found, "title")


def test_headings_are_at_one_height_where_an_attack_failed(tmp_path, monkeypatch):
    heights = []

    def measured(path, figure, fingerprint):
        figure.draw_without_rendering()
        first_row = figure.axes[:3]
        heights.extend(axis.get_position().y1 for axis in first_row)

    monkeypatch.setattr("caa_cli.report.gallery.write_figure", measured)
    files = attacked(tmp_path, "a", 1), attacked(tmp_path, "b", 1, attack="pgd", failing=0)
    draw_gallery(tmp_path / "a.png", gallery(*files), "title")
    assert heights == pytest.approx(heights[:1] * 3)


def test_odd_names_are_escaped(tmp_path):
    path = attacked(tmp_path, "a", 1)
    found = gallery(path)
    html = gallery_html(type(found)(("a<b>&c",), found.rows, ("x<y>",)))
    assert "<b>" not in html
    assert "<y>" not in html
    ET.fromstring(f"<div>{html}</div>")


def test_saving_holds_one_image_at_a_time(tmp_path):
    """200 images of 600 kB: all of them at once would be 120 MB."""
    shape, count = (3, 224, 224), 200
    one = np.random.default_rng(0).random(shape, np.float32)
    images = StoredImages({i: lambda i=i: one + np.float32(i) for i in range(count)})
    records = [record(i, 1.0, adversarial_class=0) for i in range(count)]
    tracemalloc.start()
    save_images(tmp_path / "a.safetensors", images, records, "0")
    found = saved_images(tmp_path / "a.safetensors", "0")
    assert len(found) == count
    np.testing.assert_array_equal(found[150], one + np.float32(150))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10e6


ATTACKS = ("--attacks", "caa,pgd:epsilon=0.6", "--limit", "2")


def test_a_comparison_keeps_the_images_that_its_report_shows(tmp_path):
    words = ("compare", *CHEAP, *ATTACKS, "--output", tmp_path / "c.json", "--html", tmp_path / "c.html")
    result = caa(*words, "--figure-examples", tmp_path / "e.png")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in tmp_path.glob("*.safetensors")) == [
        "c.caa.safetensors",
        "c.pgd-epsilon=0.6.safetensors",
    ]
    assert (tmp_path / "e.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "c.html").read_text(encoding="utf-8")
    shown = pictures(page)
    clean = demo_images()[0][0]
    np.testing.assert_array_equal((255 * shown[0][..., 0]).round(), clean)
    example = read_strict(tmp_path / "c.json")["attacks"]["caa"]["examples"][0]
    assert f"L2 {example['radius']:.2f}<br/>digit {example['adversarial_class']}" in page
    assert f"image {example['index']}<br/>digit {example['prediction']}" in page

    files = sorted(tmp_path.glob("c.*.json"))
    again = caa("compare", *files, "--html", tmp_path / "again.html")
    assert again.exit_code == 0, again.output
    assert [p.tolist() for p in pictures((tmp_path / "again.html").read_text(encoding="utf-8"))] == [
        p.tolist() for p in shown
    ]


def test_a_page_that_is_asked_for_later_attacks_nothing_again(tmp_path):
    words = ("compare", *CHEAP, *ATTACKS, "--output", tmp_path / "c.json")
    assert caa(*words).exit_code == 0
    before = read_strict(tmp_path / "c.caa.json")["examples"]
    assert caa(*words, "--resume", "--html", tmp_path / "c.html").exit_code == 0
    assert read_strict(tmp_path / "c.caa.json")["examples"] == before  # the seconds too
    assert "No adversarial image was kept" in (tmp_path / "c.html").read_text(encoding="utf-8")
    assert caa(*words, "--resume", "--figure-examples", tmp_path / "e.png").exit_code == 0
    after = read_strict(tmp_path / "c.caa.json")
    assert after["examples"] != before
    assert timeless(after) == timeless({"examples": before})
    broken = [example["index"] for example in before if example["outcome"] == "attacked"]
    assert broken
    assert sorted(saved_images(tmp_path / "c.caa.safetensors", after["fingerprint"])) == broken


BROWSER = next((path for name in ("chromium", "google-chrome") if (path := shutil.which(name))), None)


@pytest.mark.skipif(BROWSER is None, reason="no Chromium")
@pytest.mark.parametrize(("scheme", "ground"), [(1, 1.0), (0, 0.076)], ids=["light", "dark"])
def test_the_images_are_on_the_page_in_a_browser(tmp_path, scheme, ground):
    """The page with them differs from the page without by pictures of the right colours, on the reader's ground."""
    files = [attacked(tmp_path, f"a{n}", 2, iterations=10 + n) for n in range(2)]
    comparison = compare(join([read_result_file(path) for path in files]))
    page, shot = tmp_path / "c.html", tmp_path / "c.png"
    page.write_text(report(comparison, comparison.to_json("complete"), gallery_of(comparison)), encoding="utf-8")
    words = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1000,4000"]
    words += [f"--blink-settings=preferredColorScheme={scheme}", f"--user-data-dir={tmp_path / 'browser'}"]
    subprocess.run(
        [BROWSER, *words, f"--screenshot={shot}", page.as_uri()], capture_output=True, check=True, timeout=180
    )
    pixels = imread(shot)[:, :, :3]
    assert pixels[0, 0].mean() == pytest.approx(ground, abs=0.02)
    assert (pixels[:, :16] == pixels[0, 0]).all()
    assert (pixels[:, -16:] == pixels[0, 0]).all()
    # The black ground of each digit is 0.1 in the adversarial image; four of them, 96 pixels wide.
    grey = np.abs(pixels - 26 / 255).max(axis=2) < 0.5 / 255
    assert grey.sum() > 4 * 0.6 * 96 * 96
