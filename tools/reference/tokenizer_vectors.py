#!/usr/bin/python3
"""Writes tests/vectors/tokenizer/: vocab.txt and cases.tsv (text, cleaned text, ids), by the rules of the
training code (process_text) and of BERT's WordPiece, in plain Python.

  tokenizer_vectors.py OUTDIR

In cases.tsv control characters of the text are written \\xNN and a backslash \\x5c.
"""
import os, random, re, sys

CAP = 97


def vocabulary():
    v = ["[PAD]"] + ["[unused%d]" % i for i in range(1, 20)] + ["[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = "abcdefghijklmnopqrstuvwy0123456789"          # no x, no z: some words cannot be matched
    words = ("_ there is no the lung of card ##io ##me ##gal ##y at ##ele ##ct ##asis pneum ##onia ##oth ##oth ple ##ural eff "
             "##usion ed ##ema mass nod ##ule ##ules Lung ##Z").split()  # ##oth twice: the last number counts
    return v + list(letters) + ["##" + c for c in letters] + words


def clean(text):
    out = []
    for part in re.split(r"[0-9]+\.", text.replace("\n", " ")):
        for sentence in part.split("."):
            words = re.findall(r"\w+", sentence.lower(), re.ASCII)
            if len(words) > 1:
                out.append(" ".join(words))
    return " ".join(out)


def encode(text, vocab):
    number = {w: i for i, w in enumerate(vocab)}
    ids = []
    for word in re.findall(r"_|[^_ ]+", text):
        pieces, at = [], 0
        while at < len(word) and len(word) <= 100:
            end = len(word)
            while end > at and ("##" if at else "") + word[at:end] not in number:
                end -= 1
            if end == at:
                pieces = []
                break
            pieces.append(number[("##" if at else "") + word[at:end]])
            at = end
        ids += pieces or [number["[UNK]"]]
    return [number["[CLS]"]] + ids[:CAP - 2] + [number["[SEP]"]]


def main():
    d = sys.argv[1]
    os.makedirs(d, exist_ok=True)
    vocab = vocabulary()
    open(os.path.join(d, "vocab.txt"), "w").write("\n".join(vocab) + "\n")
    rng = random.Random(3)
    texts = ["There is Cardiomegaly", "There is Atelectasis.", "Nodule", "", ".", "1.", "1. Nodule. 2. Lung nodules", "No effusion is there 1.5 cm",
             "T1. lung mass", "12345.678.9 a b", "a_b c", "__ _", "Zebra is there", "there is " + "a" * 100, "there is " + "a" * 101,
             "pneumothothonia lung", "a b\nc d.\te f\r\ng", "there is edema of the lung " * 30, "lung " * 94 + "cardiomegaly", "X is", "1 2", "1 .2 3",
             "lung-mass", "don't do it", "a\x01b c\x7f d", "9 9.9 9", "\\ \" a' b`"]
    alphabet = ["a", "B", "lung", "Mass", "nodules", "is", "1", "23", ".", ".", " ", " ", " ", "_", "-", "\n", "\t", ",", "x", "cardiomegaly", "7.", "\\", "#"]
    texts += ["".join(rng.choice(alphabet) for _ in range(rng.randint(1, 25))) for _ in range(300)]
    texts += ["".join(chr(rng.randint(1, 127)) for _ in range(rng.randint(1, 40))) for _ in range(100)]
    with open(os.path.join(d, "cases.tsv"), "w") as f:
        for t in texts:
            shown = "".join(c if " " <= c < "\x7f" and c != "\\" else "\\x%02x" % ord(c) for c in t)
            print(shown, clean(t), " ".join(map(str, encode(clean(t), vocab))), sep="\t", file=f)


main()
