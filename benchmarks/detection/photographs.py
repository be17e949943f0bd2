"""Compares the boxes of a detector with those of its spiking network on photographs: no annotations are needed.

    python benchmarks/detection/photographs.py model.onnx --images photos/ --calib others/ \
        --decoder yolov3 --decoder-options model.json -T 16

Of each photograph it takes the whole and random parts, every second one mirrored; the same seed takes the same parts.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from environment import signature

import snncc
from snncc.data import InputSpec, load
from snncc.runtime.meter import CMOS_45NM
from snncc.sources import input_specs, read_ann
from snncc.tasks.decoders import make_decoder
from snncc.tasks.detection import evaluate_detection
from snncc.tasks.draw import Drawing

SUFFIXES = (".jpg", ".jpeg", ".png")


def views(folder: Path, spec: InputSpec, parts: int, pixel_max: float, seed: int) -> NDArray[np.float32]:
    """Return the photographs of a folder and parts of them, float32 [N, 3, H, W], values 0 to `pixel_max`."""
    random = np.random.default_rng(seed)
    height, width = (int(side) for side in spec.shape[2:] if isinstance(side, int))
    made = []
    for path in sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES):
        with Image.open(path) as opened:
            photo = opened.convert("RGB")
        for number in range(parts + 1):
            view = photo if number == 0 else _part(photo, random)
            pixels = np.asarray(view.resize((width, height), Image.Resampling.BILINEAR), np.float32)
            made.append(pixels[:, ::-1] if number % 2 else pixels)
    if not made:
        sys.exit(f"error: no photographs ({', '.join(SUFFIXES)}) in {folder}")
    return np.ascontiguousarray(np.stack(made).transpose(0, 3, 1, 2)) * np.float32(pixel_max / 255)


def _part(photo: Image.Image, random: np.random.Generator) -> Image.Image:
    """Cut out 60 to 100 % of each side."""
    width, height = (int(side * random.uniform(0.6, 1.0)) for side in photo.size)
    left, top = (int(random.integers(0, side - cut + 1)) for side, cut in zip(photo.size, (width, height), strict=True))
    return photo.crop((left, top, left + width, top + height))


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a detector with one input of colour images [N, 3, H, W]")
    parser.add_argument("--images", type=Path, required=True, help="folder of photographs")
    parser.add_argument("--calib", type=Path, required=True, help="folder of other photographs, for calibration")
    parser.add_argument("--decoder", help="as in `snncc eval` (default: as the file says)")
    parser.add_argument("--decoder-options", help="file of JSON with the decoder's parameters")
    parser.add_argument("--pixel-max", type=float, default=1.0, help="what white is to the network (%(default)s)")
    parser.add_argument("--parts", type=int, default=7, help="parts of each photograph beside the whole (%(default)s)")
    parser.add_argument("--calib-parts", type=int, default=1, help="the same for calibration (%(default)s)")
    parser.add_argument("-T", "--timesteps", type=int, default=16)
    parser.add_argument("--max-burst", type=int, default=8)
    parser.add_argument("--neuron", default="auto")
    parser.add_argument("--confidence", type=float, default=0.5)
    parser.add_argument("--draw", type=Path, help="folder for pictures")
    return parser.parse_args()


def main() -> None:
    """Compile, compare, print."""
    options = arguments()
    loaded = read_ann(options.model)
    spec = input_specs(loaded.model)[0]
    images = views(options.images, spec, options.parts, options.pixel_max, seed=1)
    calibration = views(options.calib, spec, options.calib_parts, options.pixel_max, seed=2)
    config = snncc.Config(timesteps=options.timesteps, max_burst=options.max_burst, neuron=options.neuron)
    network = snncc.compile(loaded, calibration=calibration, config=config)
    decoder = make_decoder(options.decoder, options.decoder_options, loaded.model)
    data = load(images, network.inputs)
    result = evaluate_detection(
        network,
        data,
        decoder,
        ann=loaded,
        confidence=options.confidence,
        drawn=None if options.draw is None else Drawing(options.draw, data, options.confidence),
    )
    print("| t | ANN's boxes | found | found, as confident | invented | output error |")
    print("| --: | --: | --: | --: | --: | --: |")
    for index, (step, agreement) in enumerate(zip(result.steps, result.agreement or (), strict=True)):
        shares = [agreement.found, agreement.strict, agreement.invented]
        cells = ["-" if share is None else f"{100 * share:.1f}%" for share in shares]
        errors = [output.by_timestep[index] for output in result.evaluation.outputs]
        print(f"| {step} | {agreement.confident} | {' | '.join(cells)} | {100 * max(errors):.1f}% |")
    reading = result.evaluation.reading
    ann, snn = (f"{1e3 * energy:.2f} mJ" for energy in reading.energy(CMOS_45NM))
    print(
        f"\n{loaded.name}, T={options.timesteps}, ψ={options.max_burst}: {len(images)} views, {len(calibration)} for "
        f"calibration, boxes of a score of {options.confidence:g} or more; {reading.spikes:,.0f} spikes per image, "
        f"energy ANN {ann}, SNN {snn}. {signature()}."
    )


if __name__ == "__main__":
    main()
