#!/bin/sh
# man.sh: the manual pages: man has no warning about them, mandoc no error, and what programs and configuration know is in them.
: "${srcdir:?}" "${builddir:?}"
work=$builddir/tests/man.work
export CARZEROD_LIBEXECDIR=$builddir
. "$srcdir/tests/tap.sh"
silent() { # silent NAME COMMAND...: succeeds and says nothing
	silent_name=$1
	shift
	"$@" >"$work/said.txt" 2>&1 && [ ! -s "$work/said.txt" ]
	ok $? "$silent_name"
	sed 's/^/# /' "$work/said.txt" | head -n 10
}
warnings() { # warnings PAGE: as lintian asks for them
	LC_ALL=C.UTF-8 MANROFFSEQ='' MANWIDTH=80 man --warnings -E UTF-8 -l -Tutf8 -Z "$1" >/dev/null
}
missing() { # missing PAGE: the words on standard input that it does not have
	sed 's/\\-/-/g; s/\\f[A-Z]//g; s/\\&//g' "$1" >"$work/page.txt"
	while read -r word; do
		grep -qwF -e "$word" "$work/page.txt" || echo "$word"
	done
}
complete() { # complete NAME PAGE: nothing of $work/words.txt is missing, and there is something in it
	[ -s "$work/words.txt" ]
	ok $? "$1: something to look for"
	silent "$1 are in $(basename "$2")" missing "$2" <"$work/words.txt"
}
options() { # options COMMAND...: of its help
	"$@" --help 2>&1 | grep -oE -e '(^|[ [(|])--[a-z][a-z0-9-]*' | sed 's/^[^-]*//'
}
keys() { # keys FILE.c: the names in its tables
	grep -ohE 'YAML_[A-Z_]*\("[a-z_]+"' "$1" | sed 's/.*("//; s/"//' | sort -u
}

if ! command -v man >/dev/null; then
	echo "1..0 # SKIP man-db is not installed"
	exit 0
fi
rm -rf "$work"
mkdir -p "$work"
for page in "$srcdir"/man/*; do
	silent "man --warnings: $(basename "$page")" warnings "$page"
	if command -v mandoc >/dev/null; then
		silent "mandoc -T lint: $(basename "$page")" mandoc -T lint -W error "$page"
	fi
done

"$builddir/carzeroctl" --help | sed -n 's/^  \([a-z][a-z]*\) .*/\1/p' | sort -u >"$work/words.txt"
complete "commands of carzeroctl" "$srcdir/man/carzeroctl.8"
{ options "$builddir/carzeroctl"; options "$builddir/carzeroctl" fetch; options "$builddir/carzeroctl" rescore; } | sort -u >"$work/words.txt"
complete "options of carzeroctl" "$srcdir/man/carzeroctl.8"
options "$builddir/carzerod" | sort -u >"$work/words.txt"
complete "options of carzerod" "$srcdir/man/carzerod.8"
verbs=$("$builddir/carzero-model" --help | sed -n 's/^  \([a-z][a-z]*\) .*/\1/p' | grep -v '^carzero')
for verb in $verbs; do
	echo "$verb"
	options "$builddir/carzero-model" "$verb"
done | sort -u >"$work/words.txt"
complete "verbs and options of carzero-model" "$srcdir/man/carzero-model.1"
keys "$srcdir/daemon/config.c" >"$work/words.txt"
complete "keys" "$srcdir/man/carzerod.yaml.5"
keys "$srcdir/daemon/findings.c" >"$work/words.txt"
complete "keys" "$srcdir/man/findings.yaml.5"

echo "1..$count"
[ $failed = 0 ]
