#!/usr/bin/python3
"""Writes tests/vectors/checkpoint/: CARZero checkpoints so small that they can be committed.

  checkpoint_vectors.py OUTDIR                  (Debian's python3-torch, torch 1.13)

zip.ckpt       PyTorch's zip archive, float32, with optimizer state and an omegaconf-like hyper_parameters
legacy.ckpt    the older sequence of pickles, float16
bfloat16.ckpt  zip, bfloat16
vocab.txt model.json   what an import needs besides (heads cannot be read from shapes)

Every element is a multiple of 1/64 below 2, so all three hold the same numbers; test_checkpoint.c computes
them again: element i of the k-th tensor of state_dict is ((7 k + 3 i) mod 127 - 63) / 64.
"""
import collections, json, os, sys, types
import torch

D, PATCH, VOCAB, POSITIONS, MLP, HEAD = 4, 2, 8, 8, 8, [6, 5, 3]


def names():
    o = []

    def W(k, *s):
        o.append((k, s))

    def LN(k):
        W(k + ".weight", D), W(k + ".bias", D)

    def FC(k, i, q):
        W(k + ".weight", q, i), W(k + ".bias", q)
    t = "text_encoder.model."
    W(t + "embeddings.position_ids")
    W(t + "embeddings.word_embeddings.weight", VOCAB, D)
    W(t + "embeddings.position_embeddings.weight", POSITIONS, D)
    W(t + "embeddings.token_type_embeddings.weight", 2, D)
    LN(t + "embeddings.LayerNorm")
    q = t + "encoder.layer.0."
    for n in ("query", "key", "value"):
        FC(q + "attention.self." + n, D, D)
    FC(q + "attention.output.dense", D, D), LN(q + "attention.output.LayerNorm")
    FC(q + "intermediate.dense", D, MLP), FC(q + "output.dense", MLP, D), LN(q + "output.LayerNorm")
    FC(t + "pooler.dense", D, D)
    t = "img_encoder.model."
    W(t + "cls_token", 1, 1, D), W(t + "pos_embed", 1, 2, D)
    W(t + "patch_embed.proj.weight", D, 3, PATCH, PATCH), W(t + "patch_embed.proj.bias", D)
    q = t + "blocks.0."
    LN(q + "norm1"), FC(q + "attn.qkv", D, 3 * D), FC(q + "attn.proj", D, D)
    LN(q + "norm2"), FC(q + "mlp.fc1", D, MLP), FC(q + "mlp.fc2", MLP, D)
    LN(t + "norm")
    t = "fusion_module."
    W(t + "logit_scale")
    LN(t + "decoder_norm")
    q = t + "decoder.layers.0."
    for n in ("self_attn", "multihead_attn"):
        W(q + n + ".in_proj_weight", 3 * D, D), W(q + n + ".in_proj_bias", 3 * D)
        FC(q + n + ".out_proj", D, D)
    FC(q + "linear1", D, MLP), FC(q + "linear2", MLP, D)
    LN(q + "norm1"), LN(q + "norm2"), LN(q + "norm3")
    h = [D] + HEAD + [1]
    for j, i in enumerate((0, 3, 6, 9)):
        FC(t + "mlp_head.%d" % i, h[j], h[j + 1])
    return o


def state_dict(dtype):
    sd = collections.OrderedDict()
    for k, (name, shape) in enumerate(names()):
        n = 1
        for s in shape:
            n *= s
        if name.endswith("position_ids"):
            v = torch.arange(POSITIONS)[None].clone()
        else:
            v = (((7 * k + 3 * torch.arange(n)) % 127 - 63) / 64.0).reshape(shape).to(dtype)
        sd["CARZero." + name] = v
    for x in ("weight", "bias"):                   # one module under two names
        sd["CARZero.fusion_module.decoder.norm." + x] = sd["CARZero.fusion_module.decoder_norm." + x]
    sd._metadata = collections.OrderedDict({"": {"version": 1}})
    return sd


def fake_class(module, name):
    """a class that pickles as module.name without the package being installed"""
    parts = module.split(".")
    for i in range(1, len(parts) + 1):
        p = ".".join(parts[:i])
        sys.modules.setdefault(p, types.ModuleType(p))
    c = type(name, (), {"__module__": module})
    setattr(sys.modules[module], name, c)
    return c


def hyper():
    """cyclic, as omegaconf's containers are"""
    Dict, Leaf = fake_class("omegaconf.dictconfig", "DictConfig"), fake_class("omegaconf.nodes", "AnyNode")

    def make(v, parent):
        if not isinstance(v, dict):
            leaf = Leaf()
            leaf.__dict__.update(_parent=parent, _val=v)
            return leaf
        d = Dict()
        d.__dict__.update(_parent=parent, _content={})
        for k, x in v.items():
            d._content[k] = make(x, d)
        return d
    return make({"model": {"text": {"last_n_layers": 2, "norm": False, "aggregate_method": "mean"}},
                 "data": {"text": {"word_num": 8}}}, None)


def main():
    d = sys.argv[1]
    os.makedirs(d, exist_ok=True)
    stop = fake_class("pytorch_lightning.callbacks.early_stopping", "EarlyStopping")
    for name, dtype, legacy in (("zip", torch.float32, False), ("legacy", torch.float16, True), ("bfloat16", torch.bfloat16, False)):
        ck = {"epoch": 1, "callbacks": {stop: {"best_score": torch.tensor(1.25)}}, "state_dict": state_dict(dtype)}
        if name == "zip":
            ck["optimizer_states"] = [{"state": {0: {"step": 7, "exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 5e-05, "params": [0]}]}]
            ck["hyper_parameters"] = hyper()
        torch.save(ck, os.path.join(d, name + ".ckpt"), _use_new_zipfile_serialization=not legacy)
    open(os.path.join(d, "vocab.txt"), "w").write("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "there", "is", "lung", "##s"]) + "\n")
    json.dump({"name": "vector", "family": "vector", "vit_heads": 2, "bert_heads": 2, "fus_heads": 2, "word_num": 8, "last_n_layers": 2, "imsize": 4},
              open(os.path.join(d, "model.json"), "w"), indent=1)


main()
