"""Render one frame of the scene by path tracing, and tell the farm how far it is."""

import argparse
import json
import math
import os
import random

from picture import write_png

BOUNCES = {"draft": 1, "preview": 2, "final": 5}


def load(scene_path, palette_path, frame):
    """The scene's settings, and its spheres at `frame`: (center, radius, color, light, mirror)."""
    folder = os.path.dirname(scene_path)
    with open(scene_path, encoding="utf-8") as file:
        scene = json.load(file)
    with open(palette_path, encoding="utf-8") as file:
        palette = json.load(file)
    spheres = []
    for name in scene["objects"]:
        with open(os.path.join(folder, name), encoding="utf-8") as file:
            for item in json.load(file)["spheres"]:
                x, y, z = item["center"]
                orbit = item.get("orbit")
                if orbit:
                    angle = 2 * math.pi * (orbit["phase"] + orbit["turns"] * (frame - 1) / scene["frames"])
                    x, z = x + orbit["radius"] * math.cos(angle), z + orbit["radius"] * math.sin(angle)
                color = palette[item["color"]]
                spheres.append(((x, y, z), item["radius"], color, item.get("light", 0), item.get("mirror", 0)))
    return scene, palette, spheres


def hit(spheres, ox, oy, oz, dx, dy, dz):
    """(distance, sphere) of the nearest sphere on the ray, or None."""
    nearest, found = 1e9, None
    for sphere in spheres:
        (cx, cy, cz), radius = sphere[0], sphere[1]
        lx, ly, lz = cx - ox, cy - oy, cz - oz
        along = lx * dx + ly * dy + lz * dz
        under = along * along - (lx * lx + ly * ly + lz * lz - radius * radius)
        if under > 0:
            root = math.sqrt(under)
            distance = along - root if along - root > 1e-3 else along + root
            if 1e-3 < distance < nearest:
                nearest, found = distance, sphere
    return (nearest, found) if found else None


def trace(spheres, sky, rng, ray, bounces):
    """The light that arrives along `ray`: three floats."""
    ox, oy, oz, dx, dy, dz = ray
    light, share = [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]
    for bounce in range(bounces + 1):
        met = hit(spheres, ox, oy, oz, dx, dy, dz)
        if met is None:
            height = max(0.0, dy) ** 0.6
            for i in range(3):
                light[i] += share[i] * (sky[0][i] + (sky[1][i] - sky[0][i]) * height) * 0.55
            break
        distance, (center, radius, color, glow, mirror) = met
        ox, oy, oz = ox + dx * distance, oy + dy * distance, oz + dz * distance
        nx, ny, nz = (ox - center[0]) / radius, (oy - center[1]) / radius, (oz - center[2]) / radius
        if glow:
            edge = max(0.0, -(nx * dx + ny * dy + nz * dz))
            for i in range(3):
                light[i] += share[i] * color[i] * glow * (0.35 + 0.65 * edge if bounce == 0 else 1.0)
            break
        for i in range(3):
            share[i] *= color[i]
        if rng.random() < mirror:
            turn = 2 * (nx * dx + ny * dy + nz * dz)
            dx, dy, dz = dx - turn * nx, dy - turn * ny, dz - turn * nz
        else:
            # A point on the unit sphere around the normal's tip: cosine-distributed directions.
            z, angle = rng.uniform(-1, 1), rng.uniform(0, 2 * math.pi)
            r = math.sqrt(1 - z * z)
            dx, dy, dz = nx + r * math.cos(angle), ny + r * math.sin(angle), nz + z
            length = math.sqrt(dx * dx + dy * dy + dz * dz) or 1.0
            dx, dy, dz = dx / length, dy / length, dz / length
    return light


def render(scene, palette, spheres, width, samples, exposure, bounces, seed, tell):
    """(height, pixels): rows of red, green, blue."""
    wide, high = scene["aspect"]
    height = width * high // wide
    rng = random.Random(seed)
    fx, fy, fz = scene["camera"]["from"]
    tx, ty, tz = (to - at for to, at in zip(scene["camera"]["to"], (fx, fy, fz)))
    length = math.sqrt(tx * tx + ty * ty + tz * tz)
    tx, ty, tz = tx / length, ty / length, tz / length
    right = (-tz / math.hypot(tx, tz), 0.0, tx / math.hypot(tx, tz))
    up = (right[1] * tz - right[2] * ty, right[2] * tx - right[0] * tz, right[0] * ty - right[1] * tx)
    spread = 2 * math.tan(math.radians(scene["camera"]["field_of_view"]) / 2) / width
    sky = [palette[name] for name in scene["sky"]]
    pixels = bytearray()
    for y in range(height):
        for x in range(width):
            total = [0.0, 0.0, 0.0]
            for _ in range(samples):
                u = (x + rng.random() - width / 2) * spread
                v = (height / 2 - y - rng.random()) * spread
                dx, dy, dz = (t + u * r + v * p for t, r, p in zip((tx, ty, tz), right, up))
                norm = math.sqrt(dx * dx + dy * dy + dz * dz)
                light = trace(spheres, sky, rng, (fx, fy, fz, dx / norm, dy / norm, dz / norm), bounces)
                for i in range(3):
                    total[i] += light[i]
            for i in range(3):
                value = 1 - math.exp(-exposure * total[i] / samples)
                pixels.append(min(255, int(255 * value ** (1 / 2.2))))
        tell(100 * (y + 1) / height)
    return height, bytes(pixels)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scene", required=True)
    parser.add_argument("--palette", required=True)
    parser.add_argument("--frame", type=int, required=True)
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--samples", type=int, default=12)
    parser.add_argument("--exposure", type=float, default=1.25)
    parser.add_argument("--output", required=True)
    args = parser.parse_args()
    quality = os.environ.get("ORBIT_QUALITY", "preview")
    scene, palette, spheres = load(args.scene, args.palette, args.frame)
    print(f"openjd_status: Rendering frame {args.frame}", flush=True)
    told = 0.0

    def tell(percent):
        nonlocal told
        if percent - told >= 10 or percent == 100:
            told = percent
            print(f"openjd_progress: {percent:.0f}", flush=True)

    height, pixels = render(
        scene, palette, spheres, args.width, args.samples, args.exposure, BOUNCES[quality], args.frame, tell
    )
    os.makedirs(args.output, exist_ok=True)
    path = os.path.join(args.output, f"frame_{args.frame:04}.png")
    write_png(path, args.width, height, pixels)
    print(f"openjd_status: Wrote {os.path.basename(path)}, {args.width} by {height} pixels", flush=True)


if __name__ == "__main__":
    main()
