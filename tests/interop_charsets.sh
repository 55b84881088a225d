#!/bin/sh
# interop_charsets.sh: sites that write their findings in German, French, Spanish, Chinese or Japanese, and
# patients whose names are in every kind of character set: patient and study elements keep their bytes, and
# another implementation (pydicom) reads both the names and the findings.
. "$srcdir/tests/e2e.sh"
command -v storescu >/dev/null && command -v storescp >/dev/null || skip_all "dcmtk's tools are not installed"
/usr/bin/python3 -c 'import pydicom' 2>/dev/null || skip_all "python3-pydicom is not installed"
begin

phantom --seed 41 --size 96x96 -o "$work/film.dcm"
cat >"$work/peer.py" <<'END'
import os, sys
import pydicom, yaml_names
NAMES = [  # file, Specific Character Set, name of the patient, study description, institution
    ("ascii", None, "Planted^Name", "Chest", "Clinic"),
    ("latin1", "ISO_IR 100", "Plantedm\xfcller^J\xf6rg", "Thorax \xfcbersicht", "H\xf4pital"),
    ("latin1ascii", "ISO_IR 100", "Planted^Name", "Thorax", "Clinic"),
    ("utf8", "ISO_IR 192", "Planted^Na\xefve=\u80f8\u80f8^\u6c34", "Thorax \u5168", "\u533b\u9662"),
    ("gb18030", "GB18030", "Planted^Xiao=\u738b^\u5c0f\u4e1c", "\u80f8\u90e8\u6b63\u4f4d", "\u533b\u9662"),
    ("ir87", ["", "ISO 2022 IR 87"], "Planted^Tarou=\u5c71\u7530^\u592a\u90ce", "\u80f8\u90e8", "\u75c5\u9662"),
    ("ir13", ["ISO 2022 IR 13", "ISO 2022 IR 87"], "Planted^X=\u5c71\u7530^\u592a\u90ce", "\u80f8\u90e8", "\u75c5\u9662"),
    ("ir149", ["", "ISO 2022 IR 149"], "Planted^Gildong=\u6d2a^\u5409\u6d1e", "\ud749\ubd80", "\ubcd1\uc6d0"),
]
def make(film, folder):
    for i, (file, charset, name, description, institution) in enumerate(NAMES):
        d = pydicom.dcmread(film)
        if charset is None:
            del d.SpecificCharacterSet
        else:
            d.SpecificCharacterSet = charset
        d.PatientName, d.StudyDescription, d.InstitutionName = name, description, institution
        d.StudyInstanceUID, d.SOPInstanceUID = "2.25.91%d" % i, "2.25.92%d" % i
        d.file_meta.MediaStorageSOPInstanceUID = d.SOPInstanceUID
        d.save_as(os.path.join(folder, file + ".dcm"))
def texts(item, found):
    name = item.ConceptNameCodeSequence[0] if "ConceptNameCodeSequence" in item else None
    if name is not None:
        found.append(str(name.CodeMeaning))
    if "TextValue" in item:
        found.append(str(item.TextValue))
    for child in item.get("ContentSequence", []):
        texts(child, found)
    return found
def read(folder, archive, language):
    wanted = yaml_names.of(language)
    reports = {}
    for f in os.listdir(archive):
        d = pydicom.dcmread(os.path.join(archive, f))
        reports[d.StudyInstanceUID] = d
    for i, (file, charset, name, description, institution) in enumerate(NAMES):
        source = pydicom.dcmread(os.path.join(folder, file + ".dcm"))
        d = reports.get("2.25.91%d" % i)
        problems = []
        if d is None:
            print("no\t%s: no report" % file)
            continue
        said = str(d.get("SpecificCharacterSet", "-"))
        if str(d.PatientName) != str(source.PatientName) or str(d.PatientName) != name:
            problems.append("the patient's name")
        if d.StudyDescription != description:
            problems.append("the study description")
        if d.InstitutionName != institution:
            problems.append("the institution")
        found = texts(d, [])
        lost = any("not in the character set" in t for t in found)
        for w in wanted:
            if not any(w in t for t in found) and not lost:
                problems.append("a finding")
        if lost:
            problems.append("characters are lost")
        print("%s\t%s: %s" % ("ok" if not problems else "no", file, ", ".join(problems) or "read as written, in " + said))
if sys.argv[1] == "make":
    make(*sys.argv[2:])
else:
    read(*sys.argv[2:])
END
cat >"$work/yaml_names.py" <<END
# the names of tests/findings-test.yaml; a list of YAML that needs no library to read
import re
def of(language):
    text = open("$srcdir/tests/findings-test.yaml", encoding="utf-8").read()
    return re.findall(r"[{ ]%s: ([^,}]*)" % language, "\n".join(re.findall(r"names: (.*)", text)))
END
mkdir "$work/films"
/usr/bin/python3 "$work/peer.py" make "$work/film.dcm" "$work/films" 2>"$work/make.err"
ok $? "films of patients in eight character sets"
grep -v Warning "$work/make.err" | sed 's/^/# /' | head -n 5

languages="de zh"
[ "${CHECK_LONG:-no}" = yes ] && languages="de fr es zh ja"
for language in $languages; do
	stop_node
	stop_archive
	rm -rf "$work/state" "$work/archive"
	sed "s/^language: .*/language: $language/" "$srcdir/tests/findings-test.yaml" >"$work/findings.yaml"
	write_config
	sed -i "s,^findings: .*,findings: $work/findings.yaml," "$work/carzerod.yaml"
	start_archive
	start_node
	ok $? "$language: the node is ready"
	send MODALITY "$work"/films/*.dcm
	ok $? "$language: all are acknowledged"
	check "$language: reports of all" wait_for 60 archive_has 8
	/usr/bin/python3 "$work/peer.py" read "$work/films" "$work/archive" $language >"$work/read.tsv" 2>"$work/read.err"
	while IFS='	' read -r good what; do
		[ "$good" = ok ]
		ok $? "$language: $what"
	done <"$work/read.tsv"
	is "$(wc -l <"$work/read.tsv")" 8 "$language: eight were looked at"
	[ "$(wc -l <"$work/read.tsv")" = 8 ] || sed 's/^/# /' "$work/read.err" | tail -n 5
	bad=
	for f in "$work"/films/*.dcm; do
		for r in $(archive_files); do
			[ "$(tag "$r" 0020,000d)" = "$(tag "$f" 0020,000d)" ] || continue
			for t in 0010,0010 0010,0020 0008,1030 0008,0080 0008,0090; do
				[ "$(dcmdump -q +L +P $t "$r" | head -n 1)" = "$(dcmdump -q +L +P $t "$f" | head -n 1)" ] || bad="$bad $f($t)"
			done
			dsr2html +Ca latin-1 "$r" "$work/report.html" 2>"$work/dsr.err" || bad="$bad $f(dsr2html)"
			if command -v dciodvfy >/dev/null; then
				dciodvfy "$r" 2>&1 | grep '^Error' >"$work/dciodvfy.out" && bad="$bad $f($(head -n 1 "$work/dciodvfy.out"))"
			fi
		done
	done
	is "$bad" "" "$language: patient and study keep their bytes, dsr2html reads, dciodvfy finds no error"
done
finish
