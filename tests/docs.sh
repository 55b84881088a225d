#!/bin/sh
# docs.sh: every command of README.md and doc/operations.md that stands in a block marked sh, in the order of the page, on a real
# node with a real archive.  What a page names as an example (STUDY_UID, film.dcm, ports) is put in; nothing else is changed.
. "$srcdir/tests/e2e.sh"
command -v storescu >/dev/null && command -v storescp >/dev/null || skip_all "dcmtk's tools are not installed"
begin

phantom --seed 7 --study-uid 2.25.701 -o "$work/film.dcm"
cp "$srcdir/tests/findings-test.yaml" "$work/new.yaml"
storage_more='keep_embeddings: true'
write_config
start_archive
start_node
ok $? "the node is ready"
# installed, the tools look for /etc/carzerod/carzerod.yaml; here it is this one
mkdir "$work/bin"
ln -s "$builddir/carzerod" "$work/bin/carzerod"
printf '#!/bin/sh\nexec "%s/carzeroctl" -c "%s/carzerod.yaml" "$@"\n' "$builddir" "$work" >"$work/bin/carzeroctl"
chmod +x "$work/bin/carzeroctl"
PATH=$work/bin:$PATH

commands() { # commands PAGE: one a line
	awk '/^ *```sh$/ { on = 1; next } /^ *```/ { on = 0 } on && NF' "$1" | sed -e 's/^ *//' -e 's/  *#.*//' \
		-e "s/STUDY_UID/2.25.701/g" -e "s/NODE_PORT/$node_port/g" -e "s/ARCHIVE_PORT/$archive_port/g" -e "s/ORTHANC/ARCHIVE/g"
}
for page in README.md doc/operations.md; do
	commands "$srcdir/$page" >"$work/commands.txt"
	[ -s "$work/commands.txt" ]
	ok $? "$page has commands"
	while read -r line; do
		(cd "$work" && eval "$line") >"$work/out.txt" 2>&1 </dev/null
		status=$?
		ok $status "$page: $line"
		[ $status = 0 ] || sed 's/^/# /' "$work/out.txt" | head -n 10
	done <"$work/commands.txt"
done
# options and commands that the pages name exist
for page in README.md doc/operations.md doc/security.md doc/scale.md; do
	for verb in $(grep -oE '`carzeroctl [a-z]+' "$srcdir/$page" | sed 's/.* //' | sort -u); do
		carzeroctl --help | grep -q "^  $verb "
		ok $? "$page: carzeroctl $verb exists"
	done
done
finish
