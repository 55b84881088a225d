#!/usr/bin/python3
"""Trains the demonstration model on phantoms (README.md).  One thread, deterministic by seed, resumable.

  train.py --films PROGRAM --cache DIR --out DIR [--stop N]

PROGRAM  build/tools/train/films
cache    where rendered films are kept: 1.4 GB for 20,000
out      loss.tsv, a line a step; checkpoint.pt, every few minutes and at the end; a run goes on from it
stop     end after this many steps, with a checkpoint
"""
import argparse, json, math, os, time
import numpy as np
import torch
import torch.nn.functional as F
import data, net, words

SEED, SET, BATCH = 1, 1, 16
STEPS = 1800
LOOK = 1000             # until then only pictures are learned
HALF = 1750             # until then half of the patches, drawn anew, stand for the film
PACE = (-1, 0), (99, 1), (1500, 1), (STEPS, 350 / 650)    # step, rate
RATE, MUON = 2e-3, 1e-2
SAVE = 40
HERE = os.path.dirname(os.path.abspath(__file__))
VOCABULARY = os.path.join(HERE, "..", "bundle", "vocab.txt")


def sizes():
    c = json.load(open(os.path.join(HERE, "model.json")))
    tokenizer = words.Tokenizer(VOCABULARY, c["word_num"])
    c["vocab"] = len(tokenizer.pieces)
    return c, tokenizer


def straighten(g):
    """Newton-Schulz: nearly the orthogonal matrix next to g"""
    x = g / (g.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    for _ in range(4):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum whose step has all singular values alike, for the matrices inside layers; q, k and v apart."""

    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                m = self.state[p].setdefault("m", torch.zeros_like(p))
                m.mul_(.95).add_(p.grad)
                g = p.grad + .95 * m
                parts = 3 if p.shape[0] == 3 * p.shape[1] else 1
                step = torch.cat([straighten(s) * max(1, s.shape[0] / s.shape[1]) ** .5 for s in g.chunk(parts)])
                p.mul_(1 - .1 * group["lr"]).add_(step, alpha=-group["lr"])


class Trainer(torch.nn.Module):
    """The network, and heads that only training has: every patch names what lies on it, the class token all that is true."""

    def __init__(self, c, tokenizer):
        super().__init__()
        self.net = net.Net(c, SEED)
        self.concepts = words.concepts()
        self.patch_head = torch.nn.Linear(c["dim"], len(words.TRAINED))
        self.film_head = torch.nn.Linear(c["dim"], len(self.concepts))
        self.tokenizer = tokenizer
        self.kinds = [words.KINDS.index(k) for k in words.TRAINED]

    def targets(self, labels):
        """[B,196,kinds]: a patch shows a finding if a sixth of it does"""
        cover = torch.from_numpy(labels["cover"][:, self.kinds, 1:-1, 1:-1]).float() / 255
        return (cover.flatten(2).transpose(1, 2) * 6).clamp(max=1)

    def loss(self, squares, labels, r, look, half):
        c, t = self.net.c, {}
        x = self.net.prepare(squares)
        x = x * (1 + .1 * torch.randn(len(x), 1, 1, generator=r)) + .1 * torch.randn(len(x), 1, 1, generator=r)
        target = self.targets(labels)
        true = torch.from_numpy(words.truth(labels, self.concepts))
        judged, keep = torch.ones_like(true), None
        if half:
            keep = torch.randperm(196, generator=r)[:98].sort()[0]
            target = target[:, keep]
            # what lies on patches that were left out is neither there nor absent
            for j, k in enumerate(self.concepts):
                if k.kind is not None:
                    judged[:, j] -= true[:, j] * (target[:, :, words.TRAINED.index(k.kind)].amax(1) < .3)
        if look:
            z = self.net.img_encoder.model(x, keep)
        else:
            z, parts = self.fused(x, keep, true, judged, target, r)
            t.update(parts)
        weight = torch.tensor([6. if k in ("nodule", "mass", "tube", "atelectasis", "thickening", "line", "pneumothorax") else 3. for k in words.TRAINED])
        t["patch"] = 4 * F.binary_cross_entropy_with_logits(self.patch_head(z[:, 1:]) - 3, target, pos_weight=weight)
        t["film"] = F.binary_cross_entropy_with_logits(self.film_head(z[:, 0]) - 2, true, judged, pos_weight=torch.tensor(3.))
        return t

    def fused(self, x, keep, true, judged, target, r):
        """the prompts of all concepts, and a report of each film, against all films of the batch"""
        b, asked = len(x), []
        for k in self.concepts:
            n = len(k.wordings)
            pick = int(torch.randint(2 * n, (1,), generator=r))
            asked.append(words.sentence(k.wordings[pick % n if pick < n else 0]))       # the canonical one most often
        said, reports = torch.zeros(b, len(self.concepts)), []
        for i in range(b):
            order = torch.randperm(len(self.concepts), generator=r).tolist()
            mine = [j for j in order if true[i, j] * judged[i, j]][:1 + int(torch.randint(2, (1,), generator=r))]
            said[i, mine] = 1
            reports.append(" ".join(asked[j] for j in mine))
        z, logit, seen = self.net(x, self.net.texts(self.tokenizer, asked + reports), keep)
        ask, match = logit[:, :len(asked)], logit[:, len(asked):]
        t = {"ask": 2 * F.binary_cross_entropy_with_logits(ask, true, judged, pos_weight=torch.tensor(2.))}
        # the paper's objective; a film of which a report is also true is no counterexample
        also = (true @ said.T >= said.sum(1)[None]) & ~torch.eye(b, dtype=torch.bool)
        match = match.masked_fill(also, float("-inf"))
        own = torch.arange(b)
        t["match"] = .15 * (F.cross_entropy(match, own) + F.cross_entropy(match.T, own))
        # where a prompt looks, for those that have a place
        at, want = [], []
        for j, k in enumerate(self.concepts):
            if k.kind is not None and k.kind not in ("emphysema", "edema"):
                hit = true[:, j] * judged[:, j] > 0
                at.append(seen[hit, j])
                want.append(target[hit][:, :, words.TRAINED.index(k.kind)] > .3)
        share = (torch.cat(at) * torch.cat(want)).sum(1)
        t["place"] = -.1 * (share + 1e-3).log().mean()
        return z, t


def split(trainer):
    matrix, other = [], []
    for name, p in trainer.named_parameters():
        inner = p.dim() == 2 and any(k in name for k in ("blocks.", "encoder.layer.", "decoder.layers."))
        (matrix if inner else other).append(p)
    return matrix, other


def rate(step):
    return float(np.interp(step, *zip(*PACE)))


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--films", required=True)
    a.add_argument("--cache", required=True)
    a.add_argument("--out", required=True)
    a.add_argument("--stop", type=int, default=STEPS)
    a = a.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    c, tokenizer = sizes()
    trainer = Trainer(c, tokenizer)
    films = data.Films(a.films, a.cache, SET)
    matrix, other = split(trainer)
    adam = torch.optim.AdamW(other, RATE, betas=(.9, .98), weight_decay=.01)
    muon = Muon(matrix, MUON)
    os.makedirs(a.out, exist_ok=True)
    path, step = os.path.join(a.out, "checkpoint.pt"), 0
    if os.path.exists(path):
        s = torch.load(path)
        trainer.load_state_dict(s["trainer"]), adam.load_state_dict(s["adam"]), muon.load_state_dict(s["muon"])
        step = s["step"]
    else:
        squares, e = films.part(0)[0][:512, 16:240, 16:240], 16
        trainer.net.whiten(trainer.net.prepare(np.pad(np.array(squares), ((0, 0), (e, e), (e, e)))).view(-1, 14, 16, 14, 16).transpose(2, 3).reshape(-1, 256)[::3])
    path_log = os.path.join(a.out, "loss.tsv")
    lines = open(path_log).readlines()[:step] if step else []
    log = open(path_log, "w", buffering=1)
    log.writelines(lines)           # what was learned after the checkpoint is learned again
    began, cpu = time.time(), time.process_time()
    stop, first = min(a.stop, STEPS), step
    while step < stop:
        r = torch.Generator().manual_seed(SEED * 1000003 + step)
        squares, labels = films.batch(step, BATCH)
        t = trainer.loss(squares, labels, r, step < LOOK, step < HALF)
        loss = sum(t.values())
        adam.zero_grad(set_to_none=True), muon.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(other, 1.)
        for opt, top in ((adam, RATE), (muon, MUON)):
            opt.param_groups[0]["lr"] = top * rate(step)
            opt.step()
        step += 1
        print("%d\t%.6f\t%s" % (step, loss.item(), "\t".join("%s=%.4f" % (k, v.item()) for k, v in t.items())), file=log)
        if step % SAVE == 0 or step == stop:
            torch.save({"trainer": trainer.state_dict(), "adam": adam.state_dict(), "muon": muon.state_dict(), "step": step}, path + ".new")
            os.replace(path + ".new", path)
            n = step - first
            print("step %d of %d: %.2f s a step, %.2f s of CPU" % (step, STEPS, (time.time() - began) / n, (time.process_time() - cpu) / n), flush=True)


if __name__ == "__main__":
    main()
