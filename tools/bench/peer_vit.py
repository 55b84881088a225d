#!/usr/bin/python3
"""Peer of ./run bench: the image tower, ViT-B/16 with random weights, f32, in PyTorch.

  peer_vit.py THREADS            "ready TEXT", then for each line of stdin one picture: wall and CPU seconds
  peer_vit.py --export FILE      writes the same network for peer_ort.js

The tower alone, without the fusion and head that our figure contains: the peers get the smaller task.
"""
import sys
import time
import warnings

import torch
from torch import nn
from torch.nn import functional

warnings.filterwarnings("ignore")
DIM, HEADS, DEPTH, MLP, PATCH, SIDE = 768, 12, 12, 3072, 16, 224


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(DIM, eps=1e-6), nn.LayerNorm(DIM, eps=1e-6)
        self.qkv, self.proj = nn.Linear(DIM, 3 * DIM), nn.Linear(DIM, DIM)
        self.fc1, self.fc2 = nn.Linear(DIM, MLP), nn.Linear(MLP, DIM)

    def forward(self, x):
        n, t, _ = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(n, t, 3, HEADS, DIM // HEADS).permute(2, 0, 3, 1, 4).unbind(0)
        a = (q @ k.transpose(-2, -1) * (DIM // HEADS) ** -0.5).softmax(-1) @ v
        x = x + self.proj(a.transpose(1, 2).reshape(n, t, DIM))
        return x + self.fc2(functional.gelu(self.fc1(self.norm2(x))))


class Tower(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, DIM, PATCH, PATCH)
        self.cls = nn.Parameter(torch.zeros(1, 1, DIM))
        self.pos = nn.Parameter(torch.randn(1, (SIDE // PATCH) ** 2 + 1, DIM) * 0.02)
        self.blocks, self.norm = nn.Sequential(*[Block() for _ in range(DEPTH)]), nn.LayerNorm(DIM, eps=1e-6)

    def forward(self, x):
        x = torch.cat([self.cls, self.patch(x).flatten(2).transpose(1, 2)], 1) + self.pos
        return self.norm(self.blocks(x))


torch.manual_seed(0)
tower, picture = Tower().eval(), torch.randn(1, 3, SIDE, SIDE)
if sys.argv[1] == "--export":
    torch.onnx.export(tower, picture, sys.argv[2], opset_version=14, input_names=["x"], output_names=["y"],
                      do_constant_folding=True)
    sys.exit()
torch.set_num_threads(int(sys.argv[1]))
with torch.no_grad():
    tower(picture)
    print("ready PyTorch", torch.__version__, flush=True)
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        tower(picture)
        print("%.6f %.6f" % (time.perf_counter() - wall, time.process_time() - cpu), flush=True)
