#!/usr/bin/python3
"""Writes tests/vectors/research/: small PNG and JPEG files, and gray.tsv: width, height and SHA-256 of the
grey levels that cv2.imread(path, 0) makes of each; '-' where our reader refuses on purpose, with a word of why.

  research_vectors.py OUTDIR       (Debian's python3-opencv, python3-numpy; made with OpenCV 4.6.0)
"""
import hashlib, os, struct, sys, zlib
import cv2
import numpy as np

W, H = 31, 23


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(depth, colour, rows, extra=b"", interlace=0):
    head = struct.pack(">IIBBBBB", W, H, depth, colour, 0, 0, interlace)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def raw(rng, width):
    return b"".join(b"\0" + rng.randint(0, 256, width).astype(np.uint8).tobytes() for _ in range(H))


def adam7(pixels):
    out = b""
    for x0, y0, dx, dy in ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)):
        for row in pixels[y0::dy, x0::dx]:
            out += b"\0" + row.tobytes()
    return out


def main():
    d = sys.argv[1]
    os.makedirs(d, exist_ok=True)
    rng = np.random.RandomState(2)
    gamma = chunk(b"gAMA", struct.pack(">I", 45455)) + chunk(b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000))
    palette = chunk(b"PLTE", rng.randint(0, 256, 768).astype(np.uint8).tobytes())
    files = {"gray.png": png(8, 0, raw(rng, W)), "gray_interlaced.png": png(8, 0, adam7(rng.randint(0, 256, (H, W)).astype(np.uint8)), b"", 1),
             "gray_2bit.png": png(2, 0, raw(rng, (W * 2 + 7) // 8)), "gray_alpha.png": png(8, 4, raw(rng, W * 2)),
             "rgb.png": png(8, 2, raw(rng, W * 3)), "rgb_gamma.png": png(8, 2, raw(rng, W * 3), gamma), "rgba.png": png(8, 6, raw(rng, W * 4)),
             "palette_transparent.png": png(8, 3, raw(rng, W), palette + chunk(b"tRNS", bytes(range(90)))),
             "gray_16bit.png": png(16, 0, raw(rng, W * 2))}
    img = cv2.GaussianBlur(rng.randint(0, 256, (H, W, 3)).astype(np.uint8), (5, 5), 0)

    def jpeg(a, *options):
        return cv2.imencode(".jpg", a, list(options))[1].tobytes()
    files["colour.jpg"] = jpeg(img)
    files["progressive.jpg"] = jpeg(img, cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_QUALITY, 60)
    files["gray.jpg"] = jpeg(img[:, :, 0])
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    files["turned.jpg"] = files["gray.jpg"][:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + files["gray.jpg"][2:]
    files["cut.jpg"] = files["colour.jpg"][:-60]
    files["cut.png"] = files["rgb.png"][:-300]
    files["text.png"] = b"not a picture at all"
    refused = {"gray_16bit.png": "16 bits", "turned.jpg": "EXIF", "cut.jpg": "ends before", "cut.png": "ends before", "text.png": "neither"}
    with open(os.path.join(d, "gray.tsv"), "w") as f:
        for name, data in sorted(files.items()):
            path = os.path.join(d, name)
            open(path, "wb").write(data)
            if name in refused:
                print(name, 0, 0, "-", refused[name], sep="\t", file=f)
            else:
                g = cv2.imread(path, 0)
                print(name, g.shape[1], g.shape[0], hashlib.sha256(g.tobytes()).hexdigest(), "", sep="\t", file=f)


main()
