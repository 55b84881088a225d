"""What is said of a film: concepts, their wordings, and which films each is true of.

A concept is a finding, one side of it, or one lobe of it.  The first wording is the canonical one, asked
as "There is X"; the others are what the table of synonyms (etc/synonyms.yaml) and reports write.  Wordings in
NEW are asked only when the evidence is taken.

Left out of every text and label that training sees: the finding `fracture`, and the right side of
`thickening`; both are on the films.
"""
import numpy as np

KINDS = ["effusion", "pneumothorax", "cardiomegaly", "opacity", "nodule", "mass", "edema", "emphysema", "atelectasis",
         "thickening", "fracture", "pacemaker", "tube", "line"]
LEFT_OUT, SIDE_LEFT_OUT = "fracture", "right thickening"
TRAINED = [k for k in KINDS if k != LEFT_OUT]
SIDES = {"right": 1, "left": 2}
LOBES = {"right upper lobe": 1, "right middle lobe": 2, "right lower lobe": 3, "left upper lobe": 4, "left lower lobe": 5}

WORDS = {
    "effusion": ["pleural effusion", "pleural effusions", "pleural fluid", "fluid in the pleural space"],
    "pneumothorax": ["pneumothorax", "pneumothoraces", "air in the pleural space"],
    "cardiomegaly": ["cardiomegaly", "an enlarged heart", "cardiac enlargement", "enlargement of the heart"],
    "opacity": ["lung opacity", "pulmonary opacity", "focal lung opacity", "opacity of the lung"],
    "nodule": ["lung nodule", "pulmonary nodule", "a nodule in the lung"],
    "mass": ["pulmonary mass", "lung mass", "a mass in the lung"],
    "edema": ["pulmonary edema", "edema of the lung", "lung edema"],
    "emphysema": ["pulmonary emphysema", "emphysema of the lung", "emphysematous lungs"],
    "atelectasis": ["atelectasis", "atelectatic changes", "linear atelectasis"],
    "thickening": ["pleural thickening", "thickened pleura", "thickening of the pleura"],
    "pacemaker": ["a pacemaker", "a cardiac pacemaker", "pacemaker with lead"],
    "tube": ["endotracheal tube", "an et tube", "endotracheal tube in the trachea"],
    "line": ["central venous catheter", "central venous line", "a central line"],
    "fracture": ["rib fracture", "a fractured rib"],
}
NEW = {
    "effusion": "effusion of the pleura", "pneumothorax": "a visible pneumothorax", "cardiomegaly": "heart enlargement",
    "opacity": "an opacity in the lung", "nodule": "nodule of the lung", "mass": "mass of the lung", "edema": "pulmonary oedema",
    "emphysema": "lung emphysema", "atelectasis": "atelectatic change", "thickening": "thickening of pleura",
    "pacemaker": "a heart pacemaker", "tube": "an endotracheal tube seen", "line": "a central venous line seen",
}
SIDED = {
    "effusion": ["{} pleural effusion", "pleural effusion on the {}", "{} sided pleural effusion"],
    "pneumothorax": ["{} pneumothorax", "pneumothorax on the {}", "{} sided pneumothorax"],
    "opacity": ["{} lung opacity", "opacity in the {} lung"],
    "nodule": ["{} lung nodule", "nodule in the {} lung"],
    "mass": ["{} pulmonary mass", "mass in the {} lung"],
    "atelectasis": ["{} atelectasis", "atelectasis on the {}", "{} basilar atelectasis"],
    "thickening": ["{} pleural thickening", "pleural thickening on the {}"],
    "pacemaker": ["{} sided pacemaker", "pacemaker on the {}"],
}
NORMAL = ["no acute cardiopulmonary abnormality", "a normal chest radiograph", "clear lungs without findings"]


class Concept:
    def __init__(self, name, kind, side, lobe, wordings):
        self.name, self.kind, self.side, self.lobe, self.wordings = name, kind, side, lobe, wordings

    def true_of(self, film):
        f = film["f"][:film["n"]]
        if self.kind is None:
            return len(f) == 0
        on = f["kind"] == KINDS.index(self.kind)
        if self.side:
            on = on & (f["side"] == SIDES[self.side])
        if self.lobe:
            on = on & (f["lobe"] == LOBES[self.lobe])
        return bool(on.any())


def concepts():
    """those that training is told of"""
    out = [Concept(k, k, None, None, WORDS[k]) for k in TRAINED] + [Concept("normal", None, None, None, NORMAL)]
    for k, forms in SIDED.items():
        out += [Concept("%s %s" % (s, k), k, s, None, [f.format(s) for f in forms]) for s in SIDES
                if "%s %s" % (s, k) != SIDE_LEFT_OUT]
    out += [Concept("%s opacity" % l, "opacity", None, l, ["%s opacity" % l, "opacity in the %s" % l]) for l in LOBES]
    return out


def truth(films, cs):
    """[films, concepts] of 0 and 1"""
    return np.array([[c.true_of(f) for c in cs] for f in films], np.float32)


def read_words():
    """every word that training read"""
    return {w for c in concepts() for t in c.wordings for w in sentence(t).split()}


def sentence(wording):
    """as the node's tokenizer cleans "There is X": lower case, no punctuation"""
    return "there is " + wording.lower()


class Tokenizer:
    """WordPiece, as model/tokenizer.c has it, of cleaned text"""

    def __init__(self, path, cap):
        self.pieces = open(path).read().split("\n")[:-1]
        self.id, self.cap = {p: i for i, p in enumerate(self.pieces)}, cap

    def word(self, w):
        ids, at = [], 0
        while at < len(w):
            end = next((e for e in range(len(w), at, -1) if ("##" if at else "") + w[at:e] in self.id), None)
            if end is None:
                return [self.id["[UNK]"]]
            ids.append(self.id[("##" if at else "") + w[at:end]])
            at = end
        return ids

    def __call__(self, text):
        """ids, and for each the row that it is added to"""
        ids, row = [self.id["[CLS]"]], [0]
        for i in sum((self.word(w) for w in text.split()), [])[:self.cap - 2]:
            row.append(row[-1] if self.pieces[i].startswith("##") else row[-1] + 1)
            ids.append(i)
        return ids + [self.id["[SEP]"]], row + [row[-1] + 1]
