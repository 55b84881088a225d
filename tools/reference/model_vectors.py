#!/usr/bin/python3
"""CARZero's forward pass in plain PyTorch, and the test vectors made with it.

  model_vectors.py BUNDLE PROMPTS OUT [SQUARES]     (Debian's python3-torch and python3-numpy)

BUNDLE   a model directory: model.json, weights.safetensors, vocab.txt
PROMPTS  one cleaned prompt a line
SQUARES  grey squares one after another, a byte a pixel; without it two that are drawn here
OUT      a safetensors file: text_global [P,D], text_words [P,W,D], img0_global [D], img0_local [T-1,D],
         img0_map [P,T-1], the same for the other images, and i2t, t2i, logit [images,P]

The graph is written the way the training code runs it, not the way the C code does: three colour channels
through a convolution, texts padded to 97 tokens and masked, 98 text rows in the decoder, keys and values
projected from every row, one prompt and one image at a time.  Computed in float64, so that what a test
sees is the float32 error of the code under test alone.
"""
import json, os, struct, sys
import numpy as np
import torch
import torch.nn.functional as F

torch.set_default_dtype(torch.float64)
IMAGES = 2


def noise(n, seed):
    """a hash of the index, the same in test_model.c"""
    h = np.arange(n, dtype=np.uint64) * 2654435761 + seed & 0xffffffff
    h ^= h >> 15
    h = h * 2246822519 & 0xffffffff
    h ^= h >> 13
    return h.astype(np.uint32)


def square(side, seed):
    """a grey square with structure and grain"""
    y, x = np.mgrid[0:side, 0:side].astype(np.uint32)
    return ((x * (y + 11 * seed) >> 6 & 127) + (noise(side * side, seed).reshape(side, side) >> 25)).astype(np.uint8)


def read_safetensors(path):
    with open(path, "rb") as f:
        n, = struct.unpack("<Q", f.read(8))
        header, data = json.loads(f.read(n)), f.read()
    out = {}
    for name, t in header.items():
        if name != "__metadata__":
            b, e = t["data_offsets"]
            assert t["dtype"] == "F32", name
            out[name] = torch.from_numpy(np.frombuffer(data[b:e], "<f4").reshape(t["shape"]).astype(np.float64))
    return out


def write_safetensors(path, arrays):
    header, at = {}, 0
    for name, a in arrays.items():
        header[name] = {"dtype": "F32", "shape": list(a.shape), "data_offsets": [at, at + 4 * a.size]}
        at += 4 * a.size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % 64)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for a in arrays.values():
            f.write(np.ascontiguousarray(a, "<f4").tobytes())


def wordpiece(text, vocab, cap):
    ids = []
    for word in text.split():
        at = 0
        while at < len(word):
            end = next(e for e in range(len(word), at, -1) if ("##" if at else "") + word[at:e] in vocab)
            ids.append(vocab[("##" if at else "") + word[at:end]])
            at = end
    return [vocab["[CLS]"]] + ids[:cap - 2] + [vocab["[SEP]"]]


class Reference:
    def __init__(self, folder):
        self.c = json.load(open(os.path.join(folder, "model.json")))
        self.w = read_safetensors(os.path.join(folder, "weights.safetensors"))
        self.pieces = open(os.path.join(folder, "vocab.txt")).read().split("\n")[:-1]

    def lin(self, x, name):
        return x @ self.w[name + ".weight"].T + self.w[name + ".bias"]

    def norm(self, x, name, eps):
        return F.layer_norm(x, x.shape[-1:], self.w[name + ".weight"], self.w[name + ".bias"], eps)

    @staticmethod
    def mha(q, k, v, heads, mask=None):
        """q [Q,D], k, v [K,D]; mask [K] of keys to leave out; also returns the weights [heads,Q,K]"""
        def split(x):
            return x.reshape(len(x), heads, -1).transpose(0, 1)
        s = split(q) @ split(k).transpose(1, 2) / (q.shape[1] // heads) ** 0.5
        if mask is not None:
            s = s.masked_fill(mask, float("-inf"))
        p = torch.softmax(s, -1)
        return (p @ split(v)).transpose(0, 1).reshape(len(q), -1), p

    def image(self, u8):
        """grey square -> [T,D]"""
        c, root, eps = self.c, "img_encoder.model.", self.c["eps"]["vit"]
        m = (c["imsize"] - c["crop"]) // 2
        x = torch.from_numpy(u8[m:m + c["crop"], m:m + c["crop"]].astype(np.float64))
        x = ((x / 255 - c["mean"]) / c["std"]).expand(1, 3, -1, -1)
        e = F.conv2d(x, self.w[root + "patch_embed.proj.weight"], self.w[root + "patch_embed.proj.bias"], stride=c["patch"])
        x = torch.cat([self.w[root + "cls_token"][0], e[0].flatten(1).T]) + self.w[root + "pos_embed"][0]
        for i in range(c["vit_depth"]):
            b = root + "blocks.%d." % i
            q, k, v = self.lin(self.norm(x, b + "norm1", eps), b + "attn.qkv").chunk(3, -1)
            x = x + self.lin(self.mha(q, k, v, c["vit_heads"])[0], b + "attn.proj")
            x = x + self.lin(F.gelu(self.lin(self.norm(x, b + "norm2", eps), b + "mlp.fc1")), b + "mlp.fc2")
        return self.norm(x, root + "norm", eps)

    def text(self, ids):
        """ids -> global [D], words [W,D]"""
        c, root, eps = self.c, "text_encoder.model.", self.c["eps"]["bert"]
        padded = torch.tensor(ids + [0] * (c["word_num"] - len(ids)))
        mask = torch.arange(c["word_num"]) >= len(ids)
        e = root + "embeddings."
        x = self.w[e + "word_embeddings.weight"][padded] + self.w[e + "position_embeddings.weight"][:c["word_num"]] \
            + self.w[e + "token_type_embeddings.weight"][0]
        states = [self.norm(x, e + "LayerNorm", eps)]
        for i in range(c["bert_depth"]):
            b, x = root + "encoder.layer.%d." % i, states[-1]
            q, k, v = (self.lin(x, b + "attention.self." + n) for n in ("query", "key", "value"))
            a = self.mha(q, k, v, c["bert_heads"], mask)[0]
            x = self.norm(self.lin(a, b + "attention.output.dense") + x, b + "attention.output.LayerNorm", eps)
            h = self.lin(F.gelu(self.lin(x, b + "intermediate.dense")), b + "output.dense")
            states.append(self.norm(h + x, b + "output.LayerNorm", eps))
        rows = []
        for i, token in zip(ids, sum(states[-c["last_n_layers"]:])):
            if self.pieces[i].startswith("##"):
                rows[-1] = rows[-1] + token
            else:
                rows.append(token)
        words = torch.zeros(c["word_num"], c["dim"])
        words[:len(rows)] = torch.stack(rows)
        return words.mean(0), words

    def decode(self, query, memory):
        """query [D], memory [K,D] -> score, attention weights [layers,heads,K]"""
        c, root, eps = self.c, "fusion_module.", self.c["eps"]["fusion"]

        def n(x):
            return self.norm(x, root + "decoder_norm", eps)
        x, m, seen = n(query)[None], n(memory), []
        for i in range(c["fus_depth"]):
            b = root + "decoder.layers.%d." % i
            w, bias = self.w[b + "multihead_attn.in_proj_weight"].chunk(3), self.w[b + "multihead_attn.in_proj_bias"].chunk(3)
            q, k, v = (s @ w[j].T + bias[j] for j, s in enumerate((self.norm(x, b + "norm2", eps), m, m)))
            a, p = self.mha(q, k, v, c["fus_heads"])
            seen.append(p[:, 0])
            x = x + self.lin(a, b + "multihead_attn.out_proj")
            x = x + self.lin(torch.relu(self.lin(self.norm(x, b + "norm3", eps), b + "linear1")), b + "linear2")
        x = n(x)
        for j in (0, 3, 6):
            x = torch.relu(self.lin(x, root + "mlp_head.%d" % j))
        return self.lin(x, root + "mlp_head.9")[0, 0], torch.stack(seen)


def main():
    bundle, prompts, out = sys.argv[1:4]
    r = Reference(bundle)
    side = r.c["imsize"]
    if len(sys.argv) > 4:
        squares = np.fromfile(sys.argv[4], np.uint8).reshape(-1, side, side)
    else:
        squares = [square(side, i) for i in range(IMAGES)]
    vocab = {p: i for i, p in enumerate(r.pieces)}
    texts = [r.text(wordpiece(p, vocab, r.c["word_num"])) for p in open(prompts).read().split("\n")[:-1]]
    arrays = {"text_global": torch.stack([t[0] for t in texts]), "text_words": torch.stack([t[1] for t in texts])}
    i2t, t2i = torch.zeros(len(squares), len(texts)), torch.zeros(len(squares), len(texts))
    for i, u8 in enumerate(squares):
        z, maps = r.image(u8), []
        for p, (tg, tl) in enumerate(texts):
            i2t[i, p], seen = r.decode(tg, z)
            t2i[i, p] = r.decode(z[0], torch.cat([tg[None], tl]))[0]
            maps.append(seen.mean((0, 1))[1:])
        arrays.update({"img%d_global" % i: z[0], "img%d_local" % i: z[1:], "img%d_map" % i: torch.stack(maps)})
    arrays.update(i2t=i2t, t2i=t2i, logit=(i2t + t2i) / 2)
    write_safetensors(out, {k: v.numpy() for k, v in arrays.items()})


if __name__ == "__main__":
    with torch.no_grad():
        main()
