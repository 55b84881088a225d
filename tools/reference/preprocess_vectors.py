#!/usr/bin/python3
"""Writes tests/vectors/preprocess/: what OpenCV makes of pictures that test_preprocess.c can draw too.

  preprocess_vectors.py OUTDIR          (Debian's python3-opencv, python3-numpy; made with OpenCV 4.6.0)

letterbox.tsv   width height side kind sha256 of the letterboxed square: the reference's own code
                (resize by the longer side, INTER_AREA, zero padding), all branches of the resize
equalize.tsv    kind n sha256 of cv2.equalizeHist
mimic.tsv       kind n monochrome1 sha256 of the mimic recipe (min-max, truncate, invert, equalise)
"""
import hashlib, os, sys
import cv2
import numpy as np


def noise(n, seed):
    """the picture generator: a hash of the index, the same in test_preprocess.c"""
    h = np.arange(n, dtype=np.uint64) * 2654435761 + seed & 0xffffffff
    h ^= h >> 15
    h = h * 2246822519 & 0xffffffff
    h ^= h >> 13
    return h.astype(np.uint32)


def picture(kind, w, h):
    r = noise(w * h, w * 65537 + h & 0xffffffff).reshape(h, w) >> 24
    if kind == "noise":
        return r.astype(np.uint8)
    x = np.arange(w, dtype=np.uint32)[None, :] * 200 // w
    y = np.arange(h, dtype=np.uint32)[:, None] * 40 // h
    return (x + y + (r >> 4)).astype(np.uint8)     # "smooth": at most 199 + 39 + 15


def letterbox(img, side):
    """CARZero's _resize_img"""
    size = img.shape
    max_dim = max(size)
    if size.index(max_dim) == 0:
        want = (side, int(float(size[1]) * (side / float(size[0]))))
    else:
        want = (int(float(size[0]) * (side / float(size[1]))), side)
    small = cv2.resize(img, want[::-1], interpolation=cv2.INTER_AREA)
    dh, dw = side - want[0], side - want[1]
    top, left = dh // 2, dw // 2
    return np.pad(small, [(top, dh - top), (left, dw - left)], "constant", constant_values=0)


def levels(kind, n):
    r = noise(n, n)
    return {"noise": r >> 24, "few": (r >> 30) * 7 + 20, "narrow": (r >> 27) + 100, "constant": r * 0 + 77,
            "two": np.where(r & 1, 9, 200), "peak": np.where(r & 15, 3, r >> 24)}[kind].astype(np.uint8)


def stored(kind, n):
    r = noise(n, n).astype(np.int64)
    return {"u12": r >> 20, "u16": r >> 16, "s16": (r >> 16) - 32768, "constant": r * 0 + 500,
            "spike": np.where(np.arange(n) == 5, 65535, r >> 21), "s32": r - 2 ** 31}[kind]


def mimic(v, monochrome1):
    v = v.astype(np.float64)
    v = v - v.min()
    m = v.max()
    u = (v / m * 255 if m > 0 else v).astype(np.uint8)
    return cv2.equalizeHist((255 - u if monochrome1 else u).reshape(1, -1)).reshape(-1)


def digest(a):
    return hashlib.sha256(np.ascontiguousarray(a).tobytes()).hexdigest()


def sizes():
    rng = np.random.RandomState(7)
    out = [(256, 256), (512, 512), (768, 768), (1024, 1024), (2560, 2560), (512, 256), (256, 512), (768, 512), (300, 300),
           (3, 512), (512, 3), (7, 1792), (1, 256), (256, 1), (1, 255), (255, 1), (1, 200), (2, 255), (127, 255), (255, 127),
           (1, 1), (2, 1), (1, 2), (3, 2), (2, 2), (5, 5), (255, 255), (254, 255), (257, 257), (257, 256), (256, 257), (128, 128),
           (64, 64), (85, 85), (200, 180), (180, 200), (511, 511), (513, 512), (640, 500), (611, 400), (2000, 2001), (2001, 2000),
           (3072, 2560), (2560, 3072), (4280, 3520), (2544, 3056), (1024, 8), (8, 2048), (4096, 16), (16, 4096), (400, 256), (256, 400)]
    while len(out) < 120:
        out.append((int(rng.randint(1, 256)), int(rng.randint(100, 256))))
        out.append((int(rng.randint(257, 1500)), int(rng.randint(60, 1500))))
    for w, h in out:
        if 256 / max(w, h) * min(w, h) >= 1:
            yield w, h, 256
    for w, h in [(40, 33), (33, 40), (64, 64), (32, 32), (20, 31), (31, 20), (96, 64), (100, 77), (13, 13), (1, 32), (90, 5), (65, 66)]:
        yield w, h, 32


def main():
    d = sys.argv[1]
    os.makedirs(d, exist_ok=True)
    with open(os.path.join(d, "letterbox.tsv"), "w") as f:
        for w, h, side in sizes():
            for kind in ("noise",) if w * h > 2000000 else ("noise", "smooth"):
                print(w, h, side, kind, digest(letterbox(picture(kind, w, h), side)), sep="\t", file=f)
    with open(os.path.join(d, "equalize.tsv"), "w") as f:
        for kind in ("noise", "few", "narrow", "constant", "two", "peak"):
            for n in (1, 2, 100, 4096, 70001):
                print(kind, n, digest(cv2.equalizeHist(levels(kind, n).reshape(1, -1))), sep="\t", file=f)
    with open(os.path.join(d, "mimic.tsv"), "w") as f:
        for kind in ("u12", "u16", "s16", "constant", "spike", "s32"):
            for n in (10, 5000):
                for m1 in (0, 1):
                    print(kind, n, m1, digest(mimic(stored(kind, n), m1)), sep="\t", file=f)


main()
