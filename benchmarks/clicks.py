"""A click by the engine `nninteractive` on 200 x 512 x 512: against the bare official client.

Both have a session of the same server and give the same prompts, in turn.
"""

import argparse
import os
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np

from napari_backsplit.backend.structures.client import without_torch
from napari_backsplit.backend.structures.engines import Request, Scene
from napari_backsplit.backend.structures.nninteractive import NNInteractive
from napari_backsplit.backend.structures.prompts import Point, slices
from napari_backsplit.backend.structures.settings import EngineSettings

MODEL = Path(__file__).parents[1] / "tests" / "models" / "nninteractive-tiny"
RADII = (11, 14, 13)


def draw(shape, count):
    """Noise with some bright ellipsoids, each of which is clicked on."""
    rng = np.random.default_rng(0)
    image = rng.normal(scale=12, size=shape).astype(np.float32)
    margin = np.add(RADII, 10)
    centres = rng.integers(margin, np.subtract(shape, margin), (count, 3))
    for centre in centres:
        axes = np.ogrid[tuple(slice(c - r, c + r + 1) for c, r in zip(centre, RADII, strict=True))]
        terms = (((a - c) / r) ** 2 for a, c, r in zip(axes, centre, RADII, strict=True))
        box = tuple(slice(c - r, c + r + 1) for c, r in zip(centre, RADII, strict=True))
        image[box][sum(terms) <= 1] += 130
    return image, [Point(at=tuple(int(n) for n in centre)) for centre in centres]


def clock(function):
    start = perf_counter()
    result = function()
    return perf_counter() - start, result


def bare_session(url, key):
    with without_torch():
        from nnInteractive.inference.remote import nnInteractiveRemoteInferenceSession

        return nnInteractiveRemoteInferenceSession(url, key)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", type=int, nargs=3, default=(200, 512, 512))
    parser.add_argument("--clicks", type=int, default=30)
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    image, prompts = draw(tuple(options.shape), options.clicks)
    settings = EngineSettings(model_folder=str(options.model), device=options.device)
    engine = NNInteractive(settings)
    begun, about = clock(lambda: engine.start(lambda words: None))
    bare = bare_session(engine.server.url, engine.server.key)
    scene = Scene("image", image, (1.0, 1.0, 1.0))
    buffer, mask = np.zeros(image.shape, np.uint8), np.zeros(image.shape, bool)

    def by_client(count):
        bare.add_point_interaction(prompts[count].at, True)

    def by_engine(count):
        answer = engine.segment(
            Request(scene, "run", None, tuple(prompts[: count + 1]), mask), lambda: False
        )
        mask[slices(answer.bounds)] = answer.mask

    def show():
        bare.set_image(image[None])
        bare.set_target_buffer(buffer)
        by_client(0)

    first = {"client": clock(show)[0], "engine": clock(lambda: by_engine(0))[0]}
    times = {by_client: [], by_engine: []}
    for count in range(1, len(prompts)):
        order = (by_client, by_engine) if count % 2 else (by_engine, by_client)
        for way in order:
            times[way].append(clock(lambda way=way, count=count: way(count))[0])
    client, ours = (median(times[way]) for way in (by_client, by_engine))
    same = np.array_equal(mask, buffer != 0)
    bare.close()
    engine.close()
    print(f"{about.model}, {image.shape}, {len(prompts) - 1} clicks; started in {begun:.1f} s")
    print(f"first click with the image   client {first['client']:6.2f} s")
    print(f"                             engine {first['engine']:6.2f} s")
    print(f"a click, median              client {client * 1e3:6.0f} ms")
    print(f"                             engine {ours * 1e3:6.0f} ms   {ours / client:.2f}x")
    print(f"same mask: {same}; torch in this process: {'torch' in sys.modules}")
    if not same:
        raise SystemExit("The engine's mask is not the client's.")


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        os.environ["BACKSPLIT_CONFIG_DIR"] = folder
        main()
