"""Make a contact sheet and an animated GIF of the frames."""

import argparse
import os

from picture import read_png, write_gif, write_png

COLUMNS = 4
GAP = 4  # pixels


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", required=True)
    parser.add_argument("--output", required=True)
    args = parser.parse_args()
    names = sorted(name for name in os.listdir(args.frames) if name.endswith(".png"))
    if not names:
        print(f"openjd_fail: no frames in {args.frames}", flush=True)
        raise SystemExit(1)
    print(f"openjd_status: Reading {len(names)} frames", flush=True)
    pictures = [read_png(os.path.join(args.frames, name)) for name in names]
    width, height, _ = pictures[0]
    columns = min(COLUMNS, len(pictures))
    rows = -(-len(pictures) // columns)
    sheet_width, sheet_height = columns * (width + GAP) + GAP, rows * (height + GAP) + GAP
    sheet = bytearray(b"\x18\x18\x1c" * (sheet_width * sheet_height))
    for index, (_, _, pixels) in enumerate(pictures):
        left, top = GAP + index % columns * (width + GAP), GAP + index // columns * (height + GAP)
        for y in range(height):
            at = ((top + y) * sheet_width + left) * 3
            sheet[at : at + width * 3] = pixels[y * width * 3 : (y + 1) * width * 3]
    os.makedirs(args.output, exist_ok=True)
    write_png(os.path.join(args.output, "sheet.png"), sheet_width, sheet_height, bytes(sheet))
    print("openjd_progress: 50", flush=True)
    write_gif(os.path.join(args.output, "orbit.gif"), width, height, [pixels for _, _, pixels in pictures], 8)
    print("openjd_progress: 100", flush=True)
    print("openjd_status: Wrote sheet.png and orbit.gif", flush=True)


if __name__ == "__main__":
    main()
