#!/bin/sh
# e2e_commitment.sh: storage commitment with an archive that keeps, one that loses what it has
# acknowledged, one that never tells, one that does not know the service, and Orthanc.
. "$srcdir/tests/e2e.sh"
command -v storescu >/dev/null && command -v storescp >/dev/null || skip_all "dcmtk's tools are not installed"
begin

configure() { # configure MODE
	write_config
	sed -i -e "s|^- {ae_title: ARCHIVE.*|- {ae_title: ARCHIVE, host: 127.0.0.1, port: $archive_port, objects: [sr], commitment: $1}|" \
		"$work/carzerod.yaml"
}
archive() { # archive OPTIONS...: tests/peer_archive
	: >"$work/peer.txt"
	"$builddir/tests/peer_archive" "$archive_port" ARCHIVE "$work/peer.txt" "$@" >"$work/archive.log" 2>&1 &
	archive_pid=$!
	wait_for 10 not_free "$archive_port"
}
happened() { # happened N TEXT: N lines of the archive begin with it
	[ "$(grep -c "^$2" "$work/peer.txt")" = "$1" ]
}
deliveries() { # what the store says of them
	sqlite3 -readonly "$work/state/carzerod.db" "SELECT count(*) FROM delivery WHERE $1"
}
done_are() {
	[ "$(deliveries 'state = 2')" = "$1" ]
}
in_queue() {
	ctl queue | grep -qF "$1"
}
n=0
film() { # one more film, sent
	n=$((n + 1))
	phantom --seed $((40 + n)) -o "$work/film.dcm"
	send MODALITY "$work/film.dcm"
}

# ---- told on the same association --------------------------------------------------------------------
configure same
start_node
ok $? "the node is ready"
archive same
film
ok $? "a film"
check "committed on the same association" wait_for 20 done_are 1
is "$(cut -d' ' -f1 "$work/peer.txt" | tr '\n' ' ')" "stored asked told " "stored, asked, told"
check "our answer was a success" happened 1 "told 0000 committed"
ctl why "$(tag "$work/film.dcm" 0020,000d | sed 's/.*\[\(.*\)\]/\1/')" >"$work/why.txt"
check "carzeroctl why tells it" grep -q 'SR to ARCHIVE committed' "$work/why.txt"

stop_archive
archive same lose
film
ok $? "a film for an archive that answers 0000H and loses the object"
check "told that it is lost" wait_for 20 happened 1 "told 0000 failed"
check "it is not done, and the queue says why" wait_for 10 in_queue "0112H"
ctl flush >/dev/null
check "sent again" wait_for 20 happened 2 "stored"
check "and committed" wait_for 20 done_are 2
is "$(grep '^stored' "$work/peer.txt" | cut -d' ' -f2 | sort -u | wc -l)" 1 "under the same UID"
is "$(grep '^asked' "$work/peer.txt" | cut -d' ' -f2 | sort -u | wc -l)" 2 "in a transaction of its own"
stop_archive

# ---- told on a new association --------------------------------------------------------------------------
stop_node
configure new
start_node
ok $? "the node takes what is told on another association"
archive new 127.0.0.1 "$node_port" CARZEROD lose
film
check "told that it is lost" wait_for 20 happened 1 "told 0000 failed"
check "it waits to be sent again" wait_for 10 in_queue "0112H"
ctl flush >/dev/null
check "sent again and committed" wait_for 20 done_are 3
check "told with a success" happened 1 "told 0000 committed"

# ---- nothing is told: it stays, over kill -9 too, and is sent again when its time is over ----------------
stop_archive
archive new 127.0.0.1 "$node_port" CARZEROD silent
film
asked() {
	happened 1 "asked" && [ "$(sqlite3 -readonly "$work/state/carzerod.db" 'SELECT count(*) FROM commitment WHERE asked > 0')" = 1 ]
}
check "asked" wait_for 20 asked
check "the queue says what it waits for" in_queue "waits for storage commitment"
ctl flush >/dev/null
kill_node
start_node
sleep 1
is "$(deliveries 'state = 2') $(grep -c '^stored' "$work/peer.txt")" "3 1" "after kill -9 it waits on, and is not sent again before its time"
stop_node
waits=$(sqlite3 "$work/state/carzerod.db" "SELECT (due - strftime('%s', 'now') * 1000) / 3600000 FROM delivery WHERE state = 0")
is "$waits" 23 "24 hours"
sqlite3 "$work/state/carzerod.db" "UPDATE delivery SET due = 1 WHERE state = 0"
start_node
check "after them it is sent again, and committed" wait_for 20 done_are 4
is "$(grep -c '^stored' "$work/peer.txt")" 2 "with a second C-STORE"

# ---- who may tell -----------------------------------------------------------------------------------------
stop_archive
archive new 127.0.0.1 "$node_port" CARZEROD silent
film
check "another waits" wait_for 20 asked
stop_archive
transaction=$(sed -n 's/^asked \([0-9.]*\) .*/\1/p' "$work/peer.txt" | tail -n 1)
object=$(sed -n 's/^asked [0-9.]* //p' "$work/peer.txt" | tail -n 1)
tell() { # tell AE_TITLE TRANSACTION OBJECT
	"$builddir/tests/peer_archive" tell "$1" "$work/tell.txt" 127.0.0.1 "$node_port" CARZEROD "$2" "$3" >/dev/null 2>&1
	tail -n 1 "$work/tell.txt"
}
is "$(tell MODALITY "$transaction" "$object")" "told nobody committed" "a peer without commitment cannot tell"
is "$(tell ARCHIVE 1.2.3.4 "$object")" "told 0000 committed" "the archive, about a transaction that is not ours"
is "$(tell ARCHIVE "$transaction" 1.2.3.4)" "told 0000 committed" "... about an object that is not ours"
is "$(deliveries 'state = 2')" 4 "nothing comes of it"
is "$(tell ARCHIVE "$transaction" "$object")" "told 0000 committed" "late, on an association of its own: the archive tells"
check "committed" wait_for 5 done_are 5

# ---- an archive without the service: parked -----------------------------------------------------------------
start_archive
film
check "an archive that does not offer it: parked" wait_for 20 in_queue "does not offer Storage Commitment"
ctl status >"$work/status.txt"
is $? 1 "status wants attention"
stop_archive
stop_node

# ---- Orthanc ------------------------------------------------------------------------------------------------
if [ -x "$orthanc" ] && command -v curl >/dev/null; then
	rm -rf "$work/state"
	start_orthanc <<-END
		"HttpPort": $extra_port, "DicomAlwaysAllowStore": true, "AuthenticationEnabled": false, "DicomCheckCalledAet": false,
		"DicomModalities": { "node": ["CARZEROD", "127.0.0.1", $node_port] }
	END
	wait_for 30 not_free "$archive_port"
	start_node
	film
	check "Orthanc commits" wait_for 30 done_are 1
	is "$(curl -s "http://127.0.0.1:$extra_port/instances" | tr -cd '"' | wc -c)" 2 "and has the report"
	stop_archive
else
	skip "Orthanc commits" "orthanc or curl is not installed"
fi
finish
