#!/usr/bin/python3
"""Writes tests/corpus/checkpoint/: seeds for fuzz_checkpoint, small enough that mutations reach the readers.

  checkpoint_corpus.py OUTDIR                   (Debian's python3-torch)
"""
import collections, io, json, os, pickle, struct, sys
import torch


def saved(dtype, legacy):
    b = io.BytesIO()
    sd = collections.OrderedDict([("CARZero.a.weight", torch.zeros(2, 3, dtype=dtype)), ("CARZero.a.bias", torch.zeros(3, dtype=dtype))])
    sd["CARZero.b.bias"] = sd["CARZero.a.bias"]
    sd["CARZero.p"] = torch.nn.Parameter(torch.zeros(2).to(dtype))
    torch.save({"epoch": 1, "state_dict": sd, "hyper_parameters": {"model": {"text": {"norm": False, "n": 4}}}}, b,
               _use_new_zipfile_serialization=not legacy)
    return b.getvalue()


def main():
    d = sys.argv[1]
    os.makedirs(d, exist_ok=True)
    seeds = {"zip": saved(torch.float32, False), "legacy": saved(torch.float32, True), "legacy_half": saved(torch.float16, True),
             "zip_bfloat16": saved(torch.bfloat16, False)}
    header = json.dumps({"__metadata__": {"format": "pt"}, "CARZero.a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
                         "CARZero.b": {"dtype": "BF16", "shape": [2], "data_offsets": [16, 20]}}).encode()
    seeds["safetensors"] = struct.pack("<Q", len(header)) + header + bytes(20)
    seeds["pickle_protocol_2"] = b"p" + pickle.dumps({"a": [1, 2.5, None, True, (1,), (1, 2), (1, 2, 3)], "b": {3: -70000, "c": 2 ** 70}, "d": [[]]}, 2)
    seeds["pickle_protocol_4"] = b"p" + pickle.dumps({"a": {1, 2}, "b": b"bytes", "c": collections.OrderedDict(x=1), "d": "text"}, 4)
    seeds["pickle_poison"] = b"pcos\nsystem\n(X\x04\x00\x00\x00truetR."
    seeds["pickle_cycle"] = b"p\x80\x02]q\x00h\x00a."
    for name, data in seeds.items():
        open(os.path.join(d, name), "wb").write(data)


main()
