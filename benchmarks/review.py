"""How long a review of 200 cases takes to open, and to page to the next case: a real window.

A case is there when its image and its fused label map are in napari's layers. The peer is napari
alone: the same image and masks read from their files and given to the same layers.
"""

import argparse
import os
import time
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
from window import on_a_display

OPEN_S, PAGE_S = 2.0, 0.5
SUPPORTS = {"kidney": ("kidney",), "liver": ("liver",), "spleen": ("spleen",), "bowel": ("bowel",)}


def make(folder, cases, shape):
    """A project of synthetic cases; after the first few, noisy copies: drawing is slow."""
    from napari_backsplit.backend.phantom import PhantomSpec, sample_project
    from napari_backsplit.backend.volume import Volume, read_volume, write_volume

    drawn = 4
    with sample_project(folder, 1, drawn, 0, PhantomSpec(shape=shape), SUPPORTS) as project:
        rng = np.random.default_rng(0)
        for number in range(cases - drawn):
            source = project.case_ids()[number % drawn]
            image = read_volume(project.image_paths(source)[0])
            array = image.array + rng.integers(-3, 4, image.array.shape, dtype=np.int16)
            file = folder.parent / "image.nii.gz"
            write_volume(image.with_array(array), file)
            added = project.add_case({"CT": file}, name=f"copy {number}").id
            file.unlink()
            for name, mask in project.masks(source).items():
                volume = Volume(mask, image.geometry)
                project.set_mask(added, name, volume, {"engine": "phantom"})


def wait(ready):
    from qtpy.QtWidgets import QApplication

    begun = time.perf_counter()
    while not ready():
        QApplication.processEvents()
        if time.perf_counter() - begun > 300:
            raise TimeoutError
    return time.perf_counter() - begun


def review(folder, pages):
    """Return the seconds to open, and those to page with the next case read ahead and without."""
    import napari

    from napari_backsplit.widgets.workflow import BackSplitWidget

    viewer = napari.Viewer()
    dock = BackSplitWidget(viewer)
    viewer.window.add_dock_widget(dock, name="BackSplit", area="right")
    desk, reviewing = dock.desk, dock.review.reviewing
    dock.steps.button(1).click()
    wait(lambda: desk.driver is not None)

    def there(case):
        fused = "fused" in viewer.layers and viewer.layers["fused"].visible
        is_open = desk.annotation is not None and desk.annotation.case == case
        return is_open and reviewing.fusion is not None and fused

    def rest():
        for lane in (desk.files, reviewing.fuser, reviewing.examiner):
            done = []
            lane.do(lambda: None, lambda _, done=done: done.append(True))
            wait(lambda done=done: done)

    rest()
    begun = time.perf_counter()
    dock.open_project(folder)
    wait(lambda: reviewing.states and desk.annotation and there(desk.annotation.case))
    opened = time.perf_counter() - begun
    cases = list(reviewing.states)
    seconds = {"read ahead": [], "not read ahead": []}
    rest()
    for number in range(1, pages + 1):
        desk.open_case(cases[number])
        seconds["read ahead"].append(wait(lambda n=number: there(cases[n])))
        rest()
    for number in range(pages + 1, 2 * pages + 1):
        desk.open_case(cases[-number])
        seconds["not read ahead"].append(wait(lambda n=number: there(cases[-n])))
        rest()
    dock.close_all()
    viewer.close()
    return opened, seconds


def bare(folder, pages):
    """Return the seconds napari takes to show its first case, and each further one."""
    import napari

    from napari_backsplit.backend.project import Project

    viewer, seconds = napari.Viewer(), []
    with Project.open(folder, read_only=True) as project:
        names = [s.name for s in project.schema.structures]
        for number, case in enumerate(project.case_ids()[: pages + 1]):
            begun = time.perf_counter()
            image, masks = _read(project, case)
            if number == 0:
                layers = [viewer.add_image(image), *(viewer.add_labels(masks[n]) for n in names)]
                first = time.perf_counter() - begun
            else:
                for layer, array in zip(layers, [image, *(masks[n] for n in names)], strict=True):
                    layer.data = array
                seconds.append(time.perf_counter() - begun)
            end = time.perf_counter() + 0.2
            wait(lambda end=end: time.perf_counter() > end)
    viewer.close()
    return first, seconds


def _read(project, case):
    from napari_backsplit.backend.volume import read_volume

    image = read_volume(project.image_paths(case)[0]).array
    return image, {n: m.view(np.uint8) for n, m in project.masks(case).items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--shape", type=int, nargs=3, default=(64, 96, 96))
    parser.add_argument("--pages", type=int, default=15)
    options = parser.parse_args()
    on_a_display()
    with TemporaryDirectory() as home:
        os.environ.update(HOME=home, XDG_DATA_HOME=home, BACKSPLIT_CONFIG_DIR=home)
        folder = Path(home) / "project"
        making = get_context("spawn").Process(  # nothing of it is left in the window's process
            target=make, args=(folder, options.cases, tuple(options.shape))
        )
        making.start()
        making.join()
        opened, seconds = review(folder, options.pages)
        first, alone = bare(folder, options.pages)
    print(f"{options.cases} cases of {tuple(options.shape)}, {len(SUPPORTS)} supports and a lesion")
    print(f"the review opens in {opened:.2f} s (at most {OPEN_S} s: {holds(opened <= OPEN_S)})")
    print(f"napari alone takes {first:.2f} s for its first case: {opened / first:.2f}x")
    for what, times in (*seconds.items(), ("napari alone, from files", alone)):
        print(
            f"a case, {what}: median {median(times):.3f} s, longest {max(times):.3f} s, "
            f"{median(times) / median(alone):.2f}x"
        )
    longest = max(seconds["read ahead"])
    print(f"read ahead at most {PAGE_S} s: {holds(longest <= PAGE_S)}")


def holds(yes):
    return "holds" if yes else "DOES NOT HOLD"


if __name__ == "__main__":
    main()
