#!/bin/sh
# interop_validators.sh: every kind of report that we make, in every SR class, through dciodvfy and through
# PixelMed's DicomSRValidator (templates and context groups; the one that IHE's AIR tests use): no errors.
#
# PixelMed takes 10 s a file, and one file a run: by default one goes through it, with CHECK_LONG=yes all.
. "$srcdir/tests/e2e.sh"
command -v storescu >/dev/null && command -v storescp >/dev/null || skip_all "dcmtk's tools are not installed"
command -v dciodvfy >/dev/null || skip_all "dicom3tools is not installed"
command -v java >/dev/null && [ -f /usr/share/java/pixelmed.jar ] || skip_all "libpixelmed-java or default-jre-headless is not installed"
begin

phantom --seed 51 --size 128x128 --finding effusion=left,large --study-uid 2.25.9501 -o "$work/pa.dcm"
phantom --seed 51 --size 128x128 --view LL --study-uid 2.25.9501 -o "$work/ll.dcm"
phantom --seed 52 --size 128x128 --view hand --study-uid 2.25.9502 -o "$work/hand.dcm"
phantom --seed 53 --size 128x128 --modality CR --photometric MONOCHROME1 --study-uid 2.25.9503 -o "$work/cr.dcm"
phantom --seed 53 --size 128x128 --modality CR --view AP --study-uid 2.25.9503 -o "$work/late.dcm"
dcmodify -nb -q -i '(0040,0275)[0].(0040,1001)=RP1' -i '(0040,0275)[0].(0032,1060)=Chest' "$work/pa.dcm" 2>/dev/null

pixelmed() { # pixelmed FILE: the validator's errors; its interpreter is quicker with the small compiler
	java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Djdk.xml.xpathExprGrpLimit=0 -Djdk.xml.xpathExprOpLimit=0 \
		-Djdk.xml.xpathTotalOpLimit=0 -cp /usr/share/java/pixelmed.jar com.pixelmed.validate.DicomSRValidator "$1" \
		>"$work/pixelmed.out" 2>&1
	grep -q 'IOD validation complete' "$work/pixelmed.out" || echo "not validated: $(head -n 1 "$work/pixelmed.out")"
	grep -i '^Error' "$work/pixelmed.out"
}

# Scored with and without decisions, partly analysed, not analysed, amended: of one kind.
round() { # round NAME PEER_KEYS LINES...
	round_name=$1 keys=$2
	shift 2
	stop_node
	stop_archive
	rm -rf "$work/state" "$work/archive"
	write_config 'routes: [{from: "*", to: [ARCHIVE]}]' "$@"
	sed -i "s/ae_title: ARCHIVE,/ae_title: ARCHIVE, $keys/" "$work/carzerod.yaml"
	start_archive
	start_node
	ok $? "$round_name: the node is ready"
	send MODALITY "$work/pa.dcm" "$work/ll.dcm"
	send MODALITY "$work/hand.dcm"
	send MODALITY "$work/cr.dcm"
	check "$round_name: a report each" wait_for 60 archive_has 3
	send MODALITY "$work/late.dcm"
	check "$round_name: and an amended one" wait_for 60 archive_has 4
	for f in $(archive_files); do
		kind="$round_name, $(tag "$f" 0008,0016 | sed 's/UI =//'), study $(tag "$f" 0020,000d | sed 's/.*\[\(.*\)\]/\1/')"
		dcmdump -q +P 0040,a360 "$f" 2>/dev/null | grep -q . && kind="$kind, amended"
		is "$(dciodvfy "$f" 2>&1 | grep '^Error')" "" "dciodvfy: $kind"
		if [ "${CHECK_LONG:-no}" = yes ] || [ $validated = 0 ]; then
			is "$(pixelmed "$f")" "" "PixelMed: $kind"
			validated=$((validated + 1))
		fi
	done
}
validated=0
# IHE AIR wants Comprehensive 3D SR
round "AIR" 'sr_classes: [comprehensive-3d],'
round "Comprehensive SR, regions" 'sr_classes: [comprehensive],' 'report: {regions: image}'
if [ "${CHECK_LONG:-no}" = yes ]; then
	round "Enhanced SR, regions" 'sr_classes: [enhanced],' 'report: {regions: image}'
fi
echo "# through PixelMed: $validated"
finish
