"""PNG and GIF, as little of them as the renderer needs.

Source: PNG (ISO/IEC 15948), truecolour, 8 bits; GIF89a with LZW and the Netscape loop extension.
"""

import struct
import zlib

LEVELS = (6, 7, 6)  # of red, green and blue in the GIF's palette: 252 colours
BAYER = ((0, 8, 2, 10), (12, 4, 14, 6), (3, 11, 1, 9), (15, 7, 13, 5))


def write_png(path, width, height, pixels):
    """Write `pixels` (bytes, rows of red, green, blue) to `path`."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + pixels[y * width * 3 : (y + 1) * width * 3] for y in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header))
        file.write(chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b""))


def read_png(path):
    """(width, height, pixels) of a PNG that write_png wrote."""
    with open(path, "rb") as file:
        data = file.read()
    at, idat, size = 8, b"", (0, 0)
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + 8 + length]
        if kind == b"IHDR":
            size = struct.unpack(">II", body[:8])
        elif kind == b"IDAT":
            idat += body
        at += length + 12
    width, height = size
    rows = zlib.decompress(idat)
    stride = width * 3 + 1
    return width, height, b"".join(rows[y * stride + 1 : (y + 1) * stride] for y in range(height))


def write_gif(path, width, height, frames, hundredths):
    """Write `frames` (each as for write_png) as an endless animation, each shown for `hundredths` of a second."""
    palette = bytearray()
    for r in range(LEVELS[0]):
        for g in range(LEVELS[1]):
            for b in range(LEVELS[2]):
                palette += bytes(round(255 * v / (n - 1)) for v, n in zip((r, g, b), LEVELS))
    palette += bytes(768 - len(palette))
    with open(path, "wb") as file:
        file.write(b"GIF89a" + struct.pack("<HHBBB", width, height, 0xF7, 0, 0) + bytes(palette))
        file.write(b"!\xff\x0bNETSCAPE2.0\x03\x01\0\0\0")
        for pixels in frames:
            file.write(struct.pack("<4sHBB", b"!\xf9\x04\x04", hundredths, 0, 0))
            file.write(b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x08")
            data = _compress(_dither(width, height, pixels))
            for start in range(0, len(data), 255):
                block = data[start : start + 255]
                file.write(bytes([len(block)]) + block)
            file.write(b"\0")
        file.write(b";")


def _dither(width, height, pixels):
    nr, ng, nb = LEVELS
    at = 0
    for y in range(height):
        row = BAYER[y % 4]
        for x in range(width):
            t = (row[x % 4] + 0.5) / 16
            r = int(pixels[at] / 255 * (nr - 1) + t)
            g = int(pixels[at + 1] / 255 * (ng - 1) + t)
            b = int(pixels[at + 2] / 255 * (nb - 1) + t)
            yield (min(r, nr - 1) * ng + min(g, ng - 1)) * nb + min(b, nb - 1)
            at += 3


def _compress(indices):
    clear, stop = 256, 257
    out, bits, held = bytearray(), 0, 0
    size, codes = 9, {(i,): i for i in range(256)}

    def put(code):
        nonlocal bits, held
        held |= code << bits
        bits += size
        while bits >= 8:
            out.append(held & 255)
            held >>= 8
            bits -= 8

    put(clear)
    following, run = 258, ()
    for index in indices:
        longer = (*run, index)
        if longer in codes:
            run = longer
            continue
        put(codes[run])
        if following < 4096:
            codes[longer] = following
            if following == 1 << size:
                size += 1
            following += 1
        else:
            put(clear)
            size, following, codes = 9, 258, {(i,): i for i in range(256)}
        run = (index,)
    put(codes[run])
    put(stop)
    size = 8
    put(0)
    return bytes(out)
