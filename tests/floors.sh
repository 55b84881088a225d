#!/bin/sh
# floors.sh: who may include what, and what a floor may never do.
#
# The house (ARCHITECTURE, "Floors and rooms") stands as long as an include goes down and never
# sideways.  Each rule is one TAP line that names the offending places, and a second one: a planted
# violation must be found.  A rule is a function that prints offenders of the tree it stands in.
set -u
LC_ALL=C
export LC_ALL

top=$(cd "${srcdir:-.}" && pwd) || exit 1
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
n=0 failed=0

# ---- reading the tree ------------------------------------------------------------------------------

# sources DIR...: its C and C++ files, one a line
sources() {
	find "$@" -type f \( -name '*.[ch]' -o -name '*.cc' -o -name '*.hh' \) | sort
}

# includes DIR...: "file:line:header" of every include
includes() {
	sources "$@" | xargs grep -nE '^[[:space:]]*#[[:space:]]*include' /dev/null |
		sed -E 's/^([^:]*:[0-9]+:)[^<"]*[<"]([^>"]*)[>"].*/\1\2/'
}

# own DIR...: the same for our own headers: in quotes, or from a folder of ours; DCMTK is quoted too
own() {
	sources "$@" | xargs grep -nE '^[[:space:]]*#[[:space:]]*include[[:space:]]*("|<(base|store|model|dicom|daemon|tests|tools)/)' /dev/null |
		sed -E 's/^([^:]*:[0-9]+:)[^<"]*[<"]([^>"]*)[>"].*/\1\2/' | grep -v ':dcmtk/'
}

# code DIR...: "file:line:text" without comments and without what stands in quotes
code() {
	sources "$@" | xargs awk '
		FNR == 1 { inside = 0 }
		{
			out = ""; s = $0
			while (s != "") {
				if (inside) {
					at = index(s, "*/")
					if (at == 0) break
					s = substr(s, at + 2); inside = 0; out = out " "
				} else if (match(s, /\/\*|\/\/|"|\047/) == 0) {
					out = out s; s = ""
				} else {
					out = out substr(s, 1, RSTART - 1)
					what = substr(s, RSTART, RLENGTH); s = substr(s, RSTART + RLENGTH)
					if (what == "//") break
					if (what == "/*") { inside = 1; continue }
					while (s != "" && substr(s, 1, 1) != what)
						s = substr(s, substr(s, 1, 1) == "\\" ? 3 : 2)
					s = substr(s, 2); out = out what what
				}
			}
			if (out ~ /[^ \t]/) print FILENAME ":" FNR ":" out
		}' /dev/null
}

# only WHERE HEADER: includes of HEADER (regular expressions) outside of the files WHERE
only() {
	includes base store model dicom daemon tests tools |
		grep -E "^[^:]*:[0-9]+:($2)" | grep -vE "^($1):"
}

# ---- the rules ----------------------------------------------------------------------------------------

libc='(arpa|net|netinet|sys|linux)/[a-z0-9_]+\.h|(assert|ctype|dirent|elf|endian|errno|fcntl|float|getopt|inttypes|libgen|limits|math|poll|sched|signal|stdalign|stdarg|stdbool|stddef|stdint|stdio|stdlib|string|strings|time|unistd)\.h'

base_includes() {
	includes base | grep -vE "^[^:]*:[0-9]+:(base/[a-z0-9_-]+\.h|$libc)\$" |
		grep -vE '^base/digest\.c:[0-9]+:openssl/'
}
store_includes() { own store | grep -vE '^[^:]*:[0-9]+:(base|store)/'; }
model_includes() { own model | grep -vE '^[^:]*:[0-9]+:(base|model)/'; }
dicom_includes() { own dicom | grep -vE '^[^:]*:[0-9]+:(base|dicom)/'; }
daemon_includes() { own daemon | grep -vE '^[^:]*:[0-9]+:(base|store|model|dicom|daemon)/'; }
sqlite() { only 'store/[^:]*' 'sqlite3\.h'; }
blas() { only 'model/kernels[^:]*|tests/test_sandbox\.c' '(.*/)?(cblas|openblas_config|dnnl[a-z_]*)\.h|oneapi/'; }
dcmtk() { only '(dicom|tests)/[^:]*\.(cc|hh)' 'dcmtk/'; }
yaml() { only 'daemon/yaml\.[ch]' 'yaml\.h'; }
systemd() { only 'daemon/notify\.c' 'systemd/'; }
seccomp() { only 'daemon/sandbox\.c|tests/[^:]*' 'seccomp\.h|linux/(seccomp|filter)\.h'; }
landlock() { only 'daemon/landlock\.c' 'linux/landlock\.h'; }
curl() { only 'daemon/hook\.c' 'curl/'; }
microhttpd() { only 'daemon/export\.c' 'microhttpd\.h'; }
openjpeg() { only 'dicom/j2k\.c|tests/[^:]*' '(.*/)?openjpeg\.h'; }
cairo() { only 'dicom/page\.c' '(.*/)?(cairo|pango)[a-z0-9_/-]*\.h|glib[a-z-]*(\.h|/)|hb[a-z-]*\.h|fontconfig/'; }
openssl() { only 'base/digest\.c|dicom/tls\.c' 'openssl/'; }
cplusplus() {
	find base store model daemon dicom tests tools -type f \( -name '*.cc' -o -name '*.hh' -o -name '*.cpp' \
		-o -name '*.cxx' -o -name '*.hpp' -o -name '*.C' \) | sort | grep -vE '^(dicom|tests)/[^/]*\.(cc|hh)$'
}
plain_c_headers() { # C++ in a header that C includes stands behind __cplusplus, and is extern "C" alone
	code base store model dicom daemon | grep -E '^[^:]*\.[ch]:' |
		grep -E '(^|[^a-zA-Z0-9_])(class [A-Za-z_]|namespace |template *<|std::|OF[A-Z])'
}
logging() {
	code base store model dicom | grep -vE '^base/(log\.[ch]|mem\.c|digest\.c):' |
		grep -E '(^|[^a-zA-Z0-9_])(log_(info|warning|error)|fatal|perror|syslog)[[:space:]]*\(|LOG_LEVEL_(INFO|WARNING|ERROR)'
}
exiting() {
	code base store model dicom | grep -vE '^base/log\.c:' |
		grep -E '(^|[^a-zA-Z0-9_.>])(exit|_exit|_Exit|quick_exit)[[:space:]]*\('
}
strcpy_family() {
	code base store model dicom daemon tests tools | grep -vE '^base/banned\.h:' |
		grep -E '(^|[^a-zA-Z0-9_])(strcpy|strcat|strncpy|strncat|stpcpy|sprintf|vsprintf|gets|strtok|alloca)[[:space:]]*\('
}
threads() {
	code base store model dicom daemon | grep -E '(^|[^a-zA-Z0-9_])(pthread_create|thrd_create|std::thread)([^a-zA-Z0-9_]|$)'
}

# ---- running them --------------------------------------------------------------------------------------

result() { # GOOD DESCRIPTION OFFENDERS
	n=$((n + 1))
	if [ "$1" = yes ]; then
		echo "ok $n - $2"
	else
		echo "not ok $n - $2"
		failed=$((failed + 1))
	fi
	[ -z "$3" ] || printf '%s\n' "$3" | sed 's/^/#   /'
}

empty_tree() {
	rm -rf "$tmp/tree"
	for d in base store model dicom daemon tests tools; do
		mkdir -p "$tmp/tree/$d"
	done
}

# rule FUNCTION DESCRIPTION FILE TEXT: the tree keeps it; FILE with TEXT would break it
rule() {
	found=$(cd "$top" && $1)
	[ -z "$found" ] && good=yes || good=no
	result $good "$2" "$found"
	empty_tree
	printf '%s\n' "$4" >"$tmp/tree/$3"
	found=$(cd "$tmp/tree" && $1)
	case $found in
	"$3"*) result yes "... and a violation in $3 is found" '' ;;
	*) result no "... and a violation in $3 is found" "$found" ;;
	esac
	rules="${rules:-} $1"
}

rule base_includes 'base/ includes only libc and itself; openssl in digest.c' base/str.c '#include "store/store.h"'
rule base_includes 'base/ knows no other library' base/buf.c '#include <openssl/evp.h>'
rule store_includes 'store/ includes base/ and itself' store/spool.c '#include "dicom/scp.h"'
rule model_includes 'model/ includes base/ and itself' model/model.c '#include "daemon/config.h"'
rule dicom_includes 'dicom/ includes base/ and itself' dicom/sr.cc '#include "model/model.h"'
rule dicom_includes 'also not in angle brackets' dicom/scan.c '#include <daemon/config.h>'
rule daemon_includes 'daemon/ includes what is below it' daemon/keeper.c '#include "tests/tap.h"'
rule sqlite 'sqlite3.h only in store/' daemon/carzeroctl.c '#include <sqlite3.h>'
rule blas 'cblas.h and oneDNN only in model/kernels*' model/vit.c '# include <cblas.h>'
rule dcmtk 'dcmtk/ only in *.cc and *.hh of dicom/ and tests/' dicom/scp.h '#include "dcmtk/dcmdata/dctk.h"'
rule yaml 'yaml.h only in daemon/yaml.c' daemon/config.c '#include <yaml.h>'
rule systemd 'systemd/ only in daemon/notify.c' daemon/carzerod.c '#include <systemd/sd-daemon.h>'
rule seccomp 'seccomp.h only in daemon/sandbox.c' daemon/infer.c '#include <seccomp.h>'
rule landlock 'linux/landlock.h only in daemon/landlock.c' daemon/helper.c '#include <linux/landlock.h>'
rule curl 'curl/ only in daemon/hook.c' daemon/export.c '#include <curl/curl.h>'
rule microhttpd 'microhttpd.h only in daemon/export.c' daemon/control.c '#include <microhttpd.h>'
rule openjpeg 'openjpeg.h only in dicom/j2k.c and tests/' dicom/image.cc '#include <openjpeg.h>'
rule cairo 'cairo, pango and glib only in dicom/page.c' dicom/sc.cc '#include <pango/pangocairo.h>'
rule openssl 'openssl/ only in base/digest.c and dicom/tls.c' daemon/keeper.c '#include <openssl/sha.h>'
rule cplusplus 'C++ files only in dicom/ and tests/' daemon/image.cc 'int main() {}'
rule plain_c_headers 'no C++ in .c and .h' dicom/image.h 'class DcmItem;'
rule logging 'no logging above debug below daemon/' store/store.c 'log_error("disk");'
rule logging 'also not by level' dicom/scp.cc 'log_line(LOG_LEVEL_INFO, "x");'
rule exiting 'nobody below daemon/ ends the process' model/weights.c '	exit(1);'
rule strcpy_family 'no strcpy and its family' dicom/image.cc '	strcpy(a, b); /* C++ files do not include banned.h */'
rule threads 'no threads of ours' daemon/keeper.c '	pthread_create(&t, NULL, f, NULL);'

# what only looks like a violation
empty_tree
cat >"$tmp/tree/store/store.c" <<'END'
/* strcpy(a, b); fatal("x");
 * #include <yaml.h> log_error("y") */
#include <sqlite3.h>

#include "base/log.h"

// exit(1);
static const char c = '"', *text = "exit(1); \" fatal(2)"; /* log_info( */
int my_strcpy(int a), store_exit(int a);
void f(void) { log_debug("sprintf(x)"); sqlite3_exit(0); }
END
cp "$tmp/tree/store/store.c" "$tmp/tree/store/other.h"
found=
for f in $(printf '%s\n' $rules | sort -u); do
	found=$found$(cd "$tmp/tree" && $f)
done
[ -z "$found" ] && good=yes || good=no
result $good 'comments, texts and longer names break no rule' "$found"

echo "1..$n"
[ $failed = 0 ]
