#!/bin/sh
# make_syntaxes.sh DIR [all]: one film in every transfer syntax, class, polarity and depth, and beside each
# what a second decoder makes of it.
#
# DIR/NAME.dcm       coded by DCMTK, OpenJPEG's opj_compress or OpenJPH's ojph_compress
# DIR/NAME.twin.dcm  the same header, explicit VR little endian, with the pixels that GDCM decoded; for HTJ2K
#                    OpenJPH's ojph_expand, or OpenJPEG's tool, checked against it, when it is lossy; in the same study
# DIR/table.tsv      name, syntax UID, its label, class, photometric, depth, study UID, UIDs of both, and how the
#                    second decoder's pixels differ from the original: 0, or the largest difference
#
# A decoder is right about NAME.dcm when it takes the same stored values from both.  Without "all" it makes a
# selection that has every syntax, class, polarity and depth at least once.  Nobody's film: tools/phantom.
set -eu
: "${builddir:?}"
dir=$1
python=${PYTHON:-/usr/bin/python3}

needs() { # what is missing of it, by the name of its Debian package
	command -v dcmcjpeg >/dev/null || echo dcmtk
	command -v opj_compress >/dev/null || echo libopenjp2-tools
	command -v ojph_compress >/dev/null || echo openjph-tools
	$python -c 'import gdcm' 2>/dev/null || echo python3-gdcm
	$python -c 'import pydicom, numpy' 2>/dev/null || echo python3-pydicom
}
missing=$(needs | tr '\n' ' ')
[ -z "$missing" ] || { echo "not installed: $missing" >&2; exit 77; }
mkdir -p "$dir/raw"
# odd sides, so that frames of 8 bits end in a padding byte
"$builddir/tools/phantom/phantom" --seed 5 --size 151x131 --bits 16 -o "$dir/raw/film.dcm"
exec $python - "$dir" "${2:-}" <<'END'
import copy, os, subprocess, sys
import gdcm, numpy, pydicom
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, UID

out, everything = sys.argv[1], sys.argv[2] == "all"
raw = os.path.join(out, "raw")
film = pydicom.dcmread(os.path.join(raw, "film.dcm"))
rows, columns = film.Rows, film.Columns
ROOT = "2.25.77"  # not a UUID, but a UID

JPEG, HT = "1.2.840.10008.1.2.4.", "1.2.840.10008.1.2.4.20"
U = ["u8", "u10", "u12", "u14", "u16"]
S = ["s12", "s16"]
SYNTAXES = [  # UID, label, depths, coder
    ("1.2.840.10008.1.2", "implicit LE", U + S, "dcmconv +ti"),
    ("1.2.840.10008.1.2.1", "explicit LE", U + S, "dcmconv +te"),
    ("1.2.840.10008.1.2.2", "explicit BE", U + S, "dcmconv +tb"),
    ("1.2.840.10008.1.2.1.99", "deflated", U + S, "dcmconv +td"),
    ("1.2.840.10008.1.2.5", "RLE", U + S, "dcmcrle"),
    (JPEG + "50", "JPEG baseline", ["u8"], "dcmcjpeg +eb +q 95"),
    (JPEG + "51", "JPEG extended", ["u12", "u8"], "dcmcjpeg +ee +q 95"),
    (JPEG + "57", "JPEG lossless", U + S, "dcmcjpeg +el +sv 4"),
    (JPEG + "70", "JPEG lossless SV1", U + S, "dcmcjpeg +e1"),
    (JPEG + "80", "JPEG-LS", U + S, "dcmcjpls +el"),
    (JPEG + "81", "JPEG-LS near", U, "dcmcjpls +en"),
    (JPEG + "90", "JPEG 2000 lossless", U + S, "opj"),
    (JPEG + "91", "JPEG 2000", U + S, "opj -I -r 4"),
    (HT + "1", "HTJ2K lossless", U + S, "ojph -reversible true"),
    (HT + "2", "HTJ2K RPCL", U + S, "ojph -reversible true -prog_order RPCL"),
    (HT + "3", "HTJ2K", U, "ojph -qstep 0.0005"),
]
LOSSY = {JPEG + "50", JPEG + "51", JPEG + "81", JPEG + "91", HT + "3"}
CLASSES = [("CR", "CR", "1.2.840.10008.5.1.4.1.1.1"), ("DX", "DX", "1.2.840.10008.5.1.4.1.1.1.1"),
           ("SC", "OT", "1.2.840.10008.5.1.4.1.1.7")]
POLARITIES = ["MONOCHROME1", "MONOCHROME2"]
for uid, label, _, _ in SYNTAXES:  # pydicom 2.3 does not know the last three
    pydicom._uid_dict.UID_dictionary.setdefault(uid, (label, "Transfer Syntax", "", "", ""))


def run(*command):
    p = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if p.returncode != 0:
        sys.exit("%s: %s" % (" ".join(command), p.stdout.decode(errors="replace")))


def picture(depth):
    """The film over the whole range of the depth, its darkest and brightest value planted, low bits busy."""
    bits, signed = int(depth[1:]), depth[0] == "s"
    v = numpy.frombuffer(film.PixelData, numpy.uint16).reshape(rows, columns).astype(numpy.int64)
    v = (v - v.min()) * (2 ** bits - 1) // (v.max() - v.min())
    v = numpy.clip(v + numpy.random.RandomState(7).randint(-1, 2, v.shape), 0, 2 ** bits - 1)
    v[40, 40], v[40, 41] = 0, 2 ** bits - 1
    return v - 2 ** (bits - 1) if signed else v


def words(v, bits_allocated):
    """Stored words as they stand in a native file, little endian, even length."""
    kind = ("i" if v.min() < 0 else "u") + str(bits_allocated // 8)
    b = v.astype("<" + kind).tobytes()
    return b + b"\0" * (len(b) % 2)


def native(v, depth):
    d = copy.deepcopy(film)
    bits = int(depth[1:])
    d.BitsAllocated = 8 if bits == 8 else 16
    d.BitsStored, d.HighBit, d.PixelRepresentation = bits, bits - 1, int(depth[0] == "s")
    d.WindowCenter, d.WindowWidth = (0 if depth[0] == "s" else 2 ** (bits - 1)), 2 ** bits
    d.PixelData = words(v, d.BitsAllocated)
    d["PixelData"].VR = "OB" if bits == 8 else "OW"
    return d


def save(d, syntax, path):
    d.is_little_endian = syntax != ExplicitVRBigEndian
    d.is_implicit_VR = syntax == ImplicitVRLittleEndian
    d.file_meta.TransferSyntaxUID = UID(syntax)
    d.file_meta.MediaStorageSOPClassUID = d.SOPClassUID
    d.file_meta.MediaStorageSOPInstanceUID = d.SOPInstanceUID
    d.save_as(path, write_like_original=False)


def j2k(coder, v, depth, source):
    """A JPEG 2000 codestream; signed samples are coded as such."""
    bits, signed = int(depth[1:]), depth[0] == "s"
    if coder.startswith("opj"):
        run("opj_compress", "-i", source + ".rawl", "-F", "%d,%d,1,%d,%s" % (columns, rows, bits, "s" if signed else "u"),
            *coder.split()[1:], "-o", source + ".j2k")
    else:
        # OpenJPH 0.9 misreads signed samples: these are coded as the words that they are stored in, as many do
        (v & (2 ** bits - 1)).astype("<u1" if bits == 8 else "<u2").tofile(source + ".yuv")
        run("ojph_compress", "-i", source + ".yuv", "-dims", "{%d,%d}" % (columns, rows), "-num_comps", "1", "-signed",
            "false", "-bit_depth", str(bits), "-downsamp", "{1,1}", *coder.split()[1:], "-o", source + ".j2c")
        os.rename(source + ".j2c", source + ".j2k")
    return open(source + ".j2k", "rb").read()


def code(uid, coder, v, depth):
    """A file of the film in this syntax."""
    source = os.path.join(raw, "%s-%s" % (uid, depth))
    plain = native(v, depth)
    save(plain, ExplicitVRLittleEndian, source + ".dcm")
    if coder.startswith("dcm"):
        run(*coder.split(), source + ".dcm", source + ".coded")
        return source + ".coded"
    with open(source + ".rawl", "wb") as f:
        f.write(plain.PixelData[:rows * columns * plain.BitsAllocated // 8])
    frame = j2k(coder, v, depth, source)
    d = copy.deepcopy(plain)
    d.PixelData = encapsulate([frame])
    d["PixelData"].VR = "OB"
    d["PixelData"].is_undefined_length = True
    if uid in LOSSY:
        d.LossyImageCompression = "01"
    save(d, uid, source + ".coded")
    return source + ".coded"


def second(uid, path):
    """Stored values by a decoder that is not the node's."""
    d = pydicom.dcmread(path)
    kind = ("<i" if d.PixelRepresentation else "<u") + str(d.BitsAllocated // 8)
    def samples(file):
        v = numpy.fromfile(file, "<u%d" % (d.BitsAllocated // 8))[:rows * columns].reshape(rows, columns).astype(numpy.int64)
        sign = 2 ** (d.BitsStored - 1) if d.PixelRepresentation else 0
        return (v ^ sign) - sign
    if uid.startswith(HT):
        run("ojph_expand", "-i", path[:-6] + ".j2k", "-o", path + ".yuv")
        if uid not in LOSSY:
            return samples(path + ".yuv")
        # the irreversible wavelet is in floating point: no two libraries round alike
        run("opj_decompress", "-i", path[:-6] + ".j2k", "-o", path + ".rawl")
        v = samples(path + ".rawl")
        off = abs(v - samples(path + ".yuv")).max()
        if off > max(1, 2 ** (d.BitsStored - 12)):
            sys.exit("%s: OpenJPEG and OpenJPH differ by %d" % (path, off))
        return v
    reader = gdcm.ImageReader()
    reader.SetFileName(path)
    if not reader.Read():
        sys.exit(path + ": GDCM does not read it")
    b = reader.GetImage().GetBuffer().encode("utf-8", "surrogateescape")
    return numpy.frombuffer(b, kind)[:rows * columns].reshape(rows, columns).astype(numpy.int64)


def chosen(i, depths):
    """All, or in turn: each depth, each class and polarity comes up, each syntax at least once."""
    if everything:
        for depth in depths:
            for c in CLASSES:
                for p in POLARITIES:
                    yield depth, c, p
    else:
        yield depths[i % len(depths)], CLASSES[i % 3], POLARITIES[i // 3 % 2]


table = open(os.path.join(out, "table.tsv"), "w")
coded, n = {}, 0
for i, (uid, label, depths, coder) in enumerate(SYNTAXES):
    for depth, (name, modality, sop_class), polarity in chosen(i, depths):
        key = uid, depth
        if key not in coded:
            v = picture(depth)
            path = code(uid, coder, v, depth)
            again = second(uid, path)
            coded[key] = path, again, int(abs(again - v).max())
        path, again, off = coded[key]
        n += 1
        file = "%s-%s-%s-%s" % (label.replace(" ", "_"), name, polarity[-1:], depth)
        d = pydicom.dcmread(path)
        d.Modality, d.SOPClassUID, d.PhotometricInterpretation = modality, sop_class, polarity
        if name != "DX":
            del d.PresentationIntentType
        if "PresentationLUTShape" in d:
            d.PresentationLUTShape = "INVERSE" if polarity == "MONOCHROME1" else "IDENTITY"
        d.StudyInstanceUID, d.SeriesInstanceUID = "%s1.%d" % (ROOT, n), "%s2.%d" % (ROOT, n)
        d.SOPInstanceUID = "%s3.%d" % (ROOT, n)
        d.AccessionNumber = str(n)
        uids = [d.StudyInstanceUID, d.SOPInstanceUID, "%s4.%d" % (ROOT, n)]
        save(d, uid, os.path.join(out, file + ".dcm"))
        d.SOPInstanceUID = uids[2]
        d.PixelData = words(again, d.BitsAllocated)
        d["PixelData"].VR = "OB" if d.BitsAllocated == 8 else "OW"
        d["PixelData"].is_undefined_length = False
        save(d, ExplicitVRLittleEndian, os.path.join(out, file + ".twin.dcm"))
        print(file, uid, label, name, polarity, depth, *uids, off, sep="\t", file=table)
END
