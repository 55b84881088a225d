"""The network of model/MODEL.md in PyTorch, trainable; sizes from model.json.

The parameters carry the names of the safetensors file, so that a bundle is a plain dump of them.  Two
places are written shorter than tools/reference/model_vectors.py and equal up to rounding: the three
equal colour channels are one, and the equal padding rows of a text are one row whose share is counted
as often as there are rows.
"""
import math
import torch
import torch.nn as nn
import torch.nn.functional as F

OFFSETS = [((0, 1), (0, -1), (1, 0), (-1, 0)), ((1, 1), (1, -1), (-1, 1), (-1, -1)),
           ((0, 2), (0, -2), (2, 0), (-2, 0)), ((2, 2), (2, -2), (-2, 2), (-2, -2))]
WAVES = (.37, .94, 1.88, 2.98)          # radians a patch: sharp at one patch, unique over fourteen
POS = 4 * len(WAVES)


class Attention(nn.Module):
    """as timm's: one product for q, k, v"""

    def __init__(self, d, heads):
        super().__init__()
        self.qkv, self.proj, self.h = nn.Linear(d, 3 * d), nn.Linear(d, d), heads

    def forward(self, x):
        b, t, d = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.h, d // self.h).permute(2, 0, 3, 1, 4)
        p = ((q * (d // self.h) ** -.5) @ k.transpose(-1, -2)).softmax(-1)
        return self.proj((p @ v).transpose(1, 2).reshape(b, t, d))


class Mlp(nn.Module):
    def __init__(self, d, f):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(d, f), nn.Linear(f, d)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        d, eps = c["dim"], c["eps"]["vit"]
        self.norm1, self.attn = nn.LayerNorm(d, eps), Attention(d, c["vit_heads"])
        self.norm2, self.mlp = nn.LayerNorm(d, eps), Mlp(d, c["vit_mlp"])

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Image(nn.Module):
    def __init__(self, c):
        super().__init__()
        d, self.p, self.g = c["dim"], c["patch"], c["crop"] // c["patch"]
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Linear(self.p * self.p, d)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, d))
        self.pos_embed = nn.Parameter(torch.zeros(1, self.g * self.g + 1, d))
        self.blocks = nn.ModuleList(Block(c) for _ in range(c["vit_depth"]))
        self.norm = nn.LayerNorm(d, c["eps"]["vit"])

    def forward(self, x, keep=None):
        """x [B,C,C] normalised; keep: numbers of the patches that are looked at"""
        b, p, g = len(x), self.p, self.g
        x = x.view(b, g, p, g, p).transpose(2, 3).reshape(b, g * g, p * p)
        pos = self.pos_embed[:, 1:]
        if keep is not None:
            x, pos = x[:, keep], pos[:, keep]
        x = self.patch_embed.proj(x) + pos
        x = torch.cat([(self.cls_token + self.pos_embed[:, :1]).expand(b, -1, -1), x], 1)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class BertLayer(nn.Module):
    def __init__(self, c):
        super().__init__()
        d, f, eps = c["dim"], c["bert_mlp"], c["eps"]["bert"]
        self.attention, self.intermediate, self.output = nn.Module(), nn.Module(), nn.Module()
        self.attention.self, self.attention.output = nn.Module(), nn.Module()
        for n in ("query", "key", "value"):
            setattr(self.attention.self, n, nn.Linear(d, d))
        self.attention.output.dense, self.attention.output.LayerNorm = nn.Linear(d, d), nn.LayerNorm(d, eps)
        self.intermediate.dense, self.output.dense, self.output.LayerNorm = nn.Linear(d, f), nn.Linear(f, d), nn.LayerNorm(d, eps)
        self.h = c["bert_heads"]

    def forward(self, x, mask):
        b, t, d = x.shape
        q, k, v = (getattr(self.attention.self, n)(x).view(b, t, self.h, d // self.h).transpose(1, 2) for n in ("query", "key", "value"))
        p = (q @ k.transpose(-1, -2) * (d // self.h) ** -.5 + mask).softmax(-1)
        o = self.attention.output
        x = o.LayerNorm(o.dense((p @ v).transpose(1, 2).reshape(b, t, d)) + x)
        return self.output.LayerNorm(self.output.dense(F.gelu(self.intermediate.dense(x))) + x)


class Text(nn.Module):
    def __init__(self, c):
        super().__init__()
        d = c["dim"]
        e = self.embeddings = nn.Module()
        e.word_embeddings, e.position_embeddings, e.token_type_embeddings = (
            nn.Embedding(n, d) for n in (c["vocab"], c["max_pos"], 2))
        e.LayerNorm = nn.LayerNorm(d, c["eps"]["bert"])
        self.encoder = nn.Module()
        self.encoder.layer = nn.ModuleList(BertLayer(c) for _ in range(c["bert_depth"]))
        self.last, self.word_num = c["last_n_layers"], c["word_num"]

    def forward(self, ids, mask, merge):
        """ids [P,T]; mask [P,1,1,T], 0 or minus infinity; merge [P,K,T] adds pieces to words -> words [P,K,D]"""
        e = self.embeddings
        x = e.word_embeddings(ids) + e.position_embeddings.weight[:ids.shape[1]] + e.token_type_embeddings.weight[0]
        states = [e.LayerNorm(x)]
        for layer in self.encoder.layer:
            states.append(layer(states[-1], mask))
        return merge @ sum(states[-self.last:])


class DecoderLayer(nn.Module):
    def __init__(self, c):
        super().__init__()
        d, f, eps = c["dim"], c["fus_mlp"], c["eps"]["fusion"]
        self.multihead_attn = nn.Module()
        self.multihead_attn.in_proj_weight = nn.Parameter(torch.empty(3 * d, d))
        self.multihead_attn.in_proj_bias = nn.Parameter(torch.zeros(3 * d))
        self.multihead_attn.out_proj = nn.Linear(d, d)
        self.linear1, self.linear2 = nn.Linear(d, f), nn.Linear(f, d)
        self.norm2, self.norm3, self.h = nn.LayerNorm(d, eps), nn.LayerNorm(d, eps), c["fus_heads"]

    def forward(self, x, m, bias):
        """x [N,Q,D], m [N,K,D] with bias [N,1,1,K] or None -> x, shares [N,Q,K] averaged over the heads"""
        n, q_n, d = x.shape
        w, b = self.multihead_attn.in_proj_weight, self.multihead_attn.in_proj_bias
        q = F.linear(self.norm2(x), w[:d], b[:d]).view(n, q_n, self.h, d // self.h).transpose(1, 2)
        k, v = F.linear(m, w[d:], b[d:]).view(n, m.shape[1], 2, self.h, d // self.h).permute(2, 0, 3, 1, 4)
        s = q @ k.transpose(-1, -2) * (d // self.h) ** -.5
        p = (s if bias is None else s + bias).softmax(-1)
        x = x + self.multihead_attn.out_proj((p @ v).transpose(1, 2).reshape(n, q_n, d))
        return x + self.linear2(F.relu(self.linear1(self.norm3(x)))), p.mean(1)


class Fusion(nn.Module):
    def __init__(self, c):
        super().__init__()
        d, head = c["dim"], c["head"]
        self.decoder_norm = nn.LayerNorm(d, c["eps"]["fusion"])
        self.decoder = nn.Module()
        self.decoder.layers = nn.ModuleList(DecoderLayer(c) for _ in range(c["fus_depth"]))
        self.mlp_head = nn.ModuleDict({str(3 * i): nn.Linear(a, b) for i, (a, b) in enumerate(zip([d] + head, head + [1]))})
        self.word_num = c["word_num"]

    def decode(self, x, m, bias):
        seen, x = [], self.decoder_norm(x)
        for layer in self.decoder.layers:
            x, p = layer(x, m, bias)
            seen.append(p)
        x = self.decoder_norm(x)
        for i in ("0", "3", "6"):
            x = F.relu(self.mlp_head[i](x))
        return self.mlp_head["9"](x)[..., 0], sum(seen) / len(seen)

    def forward(self, z, words, rows):
        """z [B,T,D], words [P,K,D] of which rows [P] count -> logits [B,P], map [B,P,T-1]"""
        b, p, d = len(z), len(words), z.shape[-1]
        glob = words.sum(1) / self.word_num
        i2t, seen = self.decode(glob.expand(b, -1, -1), self.decoder_norm(z), None)
        # text memory: global, words, and one row of padding
        m = self.decoder_norm(torch.cat([glob[:, None], words, torch.zeros(p, 1, d)], 1))
        k = torch.arange(words.shape[1])[None] >= rows[:, None]
        bias = torch.zeros(p, 1, 1, m.shape[1])
        bias[:, 0, 0, 1:-1].masked_fill_(k, float("-inf"))
        bias[:, 0, 0, -1] = torch.log((self.word_num - rows).float())
        t2i, _ = self.decode(z[:, 0].expand(p, -1, -1), m, bias)
        return (i2t + t2i.T) / 2, seen[:, :, 1:]


class Net(nn.Module):
    def __init__(self, c, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.c = c
        self.img_encoder, self.text_encoder = nn.Module(), nn.Module()
        self.img_encoder.model, self.text_encoder.model = Image(c), Text(c)
        self.fusion_module = Fusion(c)
        self.reset()

    def reset(self):
        """Matrices start orthogonal-ish; the first image layers start as a neighbourhood: each head looks one or two
        patches to one side, by the waves in the position embedding, as a convolution would."""
        for name, m in self.named_modules():
            if isinstance(m, nn.Linear):
                nn.init.normal_(m.weight, std=m.weight.shape[1] ** -.5)
                nn.init.zeros_(m.bias)
            elif isinstance(m, nn.Embedding):
                nn.init.normal_(m.weight, std=.5)
        for layer in self.fusion_module.decoder.layers:
            nn.init.normal_(layer.multihead_attn.in_proj_weight, std=self.c["dim"] ** -.5)
        v, d, h = self.img_encoder.model, self.c["dim"], self.c["vit_heads"]
        with torch.no_grad():
            at = torch.arange(v.g).float()
            pos = torch.zeros(v.g, v.g, d)
            for i, w in enumerate(WAVES):
                pos[:, :, 4 * i], pos[:, :, 4 * i + 1] = (w * at).sin()[:, None], (w * at).cos()[:, None]
                pos[:, :, 4 * i + 2], pos[:, :, 4 * i + 3] = (w * at).sin()[None], (w * at).cos()[None]
            v.pos_embed[0, 1:] = pos.view(-1, d)
            for n, block in enumerate(v.blocks):
                block.attn.proj.weight *= (2 * len(v.blocks)) ** -.5
                block.mlp.fc2.weight *= (2 * len(v.blocks)) ** -.5
                if n >= len(v.blocks) - 2:
                    continue
                w = block.attn.qkv.weight
                w[:2 * d] *= .3
                for head in range(h):
                    dy, dx = OFFSETS[n % len(OFFSETS)][head % 4]
                    turn = torch.zeros(POS, POS)
                    for i, f in enumerate(WAVES):
                        for j, o in ((4 * i, dy), (4 * i + 2, dx)):
                            c, s = math.cos(f * o), math.sin(f * o)
                            turn[j, j], turn[j, j + 1], turn[j + 1, j], turn[j + 1, j + 1] = c, s, -s, c
                    q, k = head * (d // h), d + head * (d // h)
                    w[q:q + POS], w[k:k + POS] = 0, 0
                    w[q:q + POS, :POS], w[k:k + POS, :POS] = 2.4 * turn, 2.4 * torch.eye(POS)

    def whiten(self, patches):
        """patches [N,P*P] of films: the embedding starts as their principal parts, at equal strength down to the grain"""
        v, n = self.img_encoder.model, self.c["dim"] - POS
        mean = patches.double().mean(0)
        cov = (patches.double() - mean).T @ (patches.double() - mean) / len(patches)
        value, vector = torch.linalg.eigh(cov)
        value, vector = value.flip(0)[:n], vector.flip(1)[:, :n]
        w = (vector / (value + value[n // 2]).sqrt()).T.float()
        with torch.no_grad():
            v.patch_embed.proj.weight.zero_()
            v.patch_embed.proj.weight[POS:] = w
            v.patch_embed.proj.bias.zero_()
            v.patch_embed.proj.bias[POS:] = -w @ mean.float()

    def texts(self, tokenizer, texts):
        """what Text and Fusion want of a list of cleaned texts"""
        tokens = [tokenizer(t) for t in texts]
        t, k = max(len(i) for i, _ in tokens), max(r[-1] + 1 for _, r in tokens)
        ids, mask, merge = torch.zeros(len(texts), t, dtype=torch.long), torch.zeros(len(texts), 1, 1, t), torch.zeros(len(texts), k, t)
        for n, (i, r) in enumerate(tokens):
            ids[n, :len(i)] = torch.tensor(i)
            mask[n, :, :, len(i):] = float("-inf")
            merge[n, torch.tensor(r), torch.arange(len(i))] = 1
        return ids, mask, merge, torch.tensor([r[-1] + 1 for _, r in tokens])

    def prepare(self, squares):
        """grey bytes [B,S,S] -> [B,C,C] normalised"""
        c = self.c
        e = (c["imsize"] - c["crop"]) // 2
        x = torch.from_numpy(squares[:, e:e + c["crop"], e:e + c["crop"]]).float()
        return (x / 255 - c["mean"]) / c["std"]

    def forward(self, x, text, keep=None):
        z = self.img_encoder.model(x, keep)
        ids, mask, merge, rows = text
        return (z,) + self.fusion_module(z, self.text_encoder.model(ids, mask, merge), rows)

    def tensors(self):
        """name -> tensor, as a bundle stores them"""
        out = {}
        for name, p in self.named_parameters():
            if name == "img_encoder.model.patch_embed.proj.weight":
                p = (p / 3).view(len(p), 1, self.c["patch"], self.c["patch"]).expand(-1, 3, -1, -1)
            out[name] = p.detach()
        return out
