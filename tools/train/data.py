"""Phantoms for training, rendered by `films` (films.c) in parts of PART films and kept in a folder."""
import os, subprocess
import numpy as np

PART, SIDE, CELLS = 2048, 256, 16
MAX_FINDINGS = 12
FINDING = np.dtype([("kind", "u1"), ("side", "u1"), ("size", "u1"), ("lobe", "u1"), ("box", "<u2", 4), ("contrast", "<f4")])
RECORD = np.dtype([("seed", "<u8"), ("view", "u1"), ("female", "u1"), ("age", "u1"), ("n", "u1"), ("pad", "u1", 4),
                   ("f", FINDING, MAX_FINDINGS), ("cover", "u1", (14, CELLS, CELLS))])      # struct record of films.c


class Films:
    """Films first, first+1, ... of a set; parts that are not in the folder are rendered when they are wanted."""

    def __init__(self, films, folder, number):
        self.films, self.folder, self.number, self.open = films, folder, number, {}
        os.makedirs(folder, exist_ok=True)

    def render(self, part, count=PART):
        pixels, labels = (os.path.join(self.folder, "%d-%03d.%s" % (self.number, part, e)) for e in ("px", "lb"))
        if not os.path.exists(pixels):
            subprocess.run([self.films, "--set", str(self.number), "--first", str(part * PART), "--count", str(count),
                            "--pixels", pixels, "--labels", labels], check=True)
        return pixels, labels

    def part(self, i):
        if i not in self.open:
            pixels, labels = self.render(i)
            self.open = {i: (np.memmap(pixels, np.uint8, "r").reshape(-1, SIDE, SIDE), np.fromfile(labels, RECORD))}
        return self.open[i]

    def batch(self, step, size):
        """films step*size ..., which never straddle two parts"""
        assert PART % size == 0
        pixels, labels = self.part(step * size // PART)
        at = step * size % PART
        return np.array(pixels[at:at + size]), labels[at:at + size]
