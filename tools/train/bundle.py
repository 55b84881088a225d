#!/usr/bin/python3
"""A bundle from a checkpoint of train.py: half precision, our own vocabulary, model.json.

  bundle.py --checkpoint FILE --out DIR
"""
import argparse, hashlib, json, os, shutil, struct
import numpy as np
import torch
import train, words


def safetensors(tensors):
    """whole file; what is no multiple of 64 bytes stands last, so that all others are aligned"""
    arrays = {n: np.ascontiguousarray(t.numpy().astype("<f2")) for n, t in tensors.items()}
    order = [n for n in arrays if arrays[n].nbytes % 64 == 0] + [n for n in arrays if arrays[n].nbytes % 64]
    header, at = {}, 0
    for n in order:
        header[n] = {"dtype": "F16", "shape": list(arrays[n].shape), "data_offsets": [at, at + arrays[n].nbytes]}
        at += arrays[n].nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % 64)
    return struct.pack("<Q", len(text)) + text + b"".join(arrays[n].tobytes() for n in order)


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--checkpoint", required=True)
    a.add_argument("--out", required=True)
    a = a.parse_args()
    c, tokenizer = train.sizes()
    trainer = train.Trainer(c, tokenizer)
    trainer.load_state_dict(torch.load(a.checkpoint)["trainer"])
    # a piece that no text had still is noise: it gets the mean of those that were read, and says nothing
    read = torch.zeros(c["vocab"], dtype=torch.bool)
    for w in words.read_words():
        read[tokenizer.word(w)] = True
    read[[tokenizer.id["[CLS]"], tokenizer.id["[SEP]"]]] = True
    table = trainer.net.text_encoder.model.embeddings.word_embeddings.weight.data
    table[~read] = table[read].mean(0)
    os.makedirs(a.out, exist_ok=True)
    data = safetensors(trainer.net.tensors())
    with open(os.path.join(a.out, "weights.safetensors"), "wb") as f:
        f.write(data)
    head = {"format": c.pop("format"), "name": c.pop("name"), "family": c.pop("family"), "domain": c.pop("domain"),
            "sha256": hashlib.sha256(data).hexdigest()}
    with open(os.path.join(a.out, "model.json"), "w") as f:
        json.dump({**head, **c}, f, indent=1)
        f.write("\n")
    shutil.copyfile(train.VOCABULARY, os.path.join(a.out, "vocab.txt"))


if __name__ == "__main__":
    main()
