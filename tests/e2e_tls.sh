#!/bin/sh
# e2e_tls.sh: TLS both ways with DCMTK's storescu and storescp, and everything that must be refused:
# with the reason in the log.  Authorities and certificates are made here, by openssl.
. "$srcdir/tests/e2e.sh"
command -v storescu >/dev/null && command -v storescp >/dev/null || skip_all "dcmtk's tools are not installed"
command -v openssl >/dev/null || skip_all "openssl is not installed"
begin
free_port; tls_port=$port
pki=$work/pki
mkdir "$pki"

# ---- two authorities, and what they sign --------------------------------------------------------------
quiet_openssl() {
	openssl "$@" >>"$work/openssl.out" 2>&1
}
authority() { # authority NAME
	quiet_openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 60 -subj "/CN=$1" \
		-keyout "$pki/$1.key" -out "$pki/$1.pem"
}
sign() { # sign AUTHORITY NAME COMMON_NAME SAN DAYS [KEY: new options of openssl req]
	quiet_openssl req -newkey ${6:-rsa:2048} -nodes -subj "/CN=$3" -keyout "$pki/$2.key" -out "$pki/$2.csr"
	printf 'subjectAltName=%s\nbasicConstraints=CA:FALSE\n' "$4" >"$pki/$2.ext"
	if [ "$5" -gt 0 ]; then
		quiet_openssl x509 -req -in "$pki/$2.csr" -CA "$pki/$1.pem" -CAkey "$pki/$1.key" -CAcreateserial \
			-days "$5" -extfile "$pki/$2.ext" -out "$pki/$2.pem"
	else # expired yesterday
		mkdir -p "$pki/ca"
		: >"$pki/ca/index.txt"
		quiet_openssl ca -batch -config "$pki/ca.cnf" -cert "$pki/$1.pem" -keyfile "$pki/$1.key" \
			-startdate 20200101000000Z -enddate 20200201000000Z -rand_serial -notext \
			-extfile "$pki/$2.ext" -in "$pki/$2.csr" -out "$pki/$2.pem"
	fi
	chmod 600 "$pki/$2.key"
}
cat >"$pki/ca.cnf" <<END
[ca]
default_ca = here
[here]
dir = $pki/ca
database = $pki/ca/index.txt
new_certs_dir = $pki/ca
default_md = sha256
policy = any
default_crl_days = 7
rand_serial = yes
[any]
commonName = supplied
END
authority hospital
authority stranger
sign hospital node carzerod.example.org DNS:localhost,IP:127.0.0.1 20
sign hospital modality MODALITY DNS:modality.example.org 60
sign hospital other OTHER DNS:other.example.org 60
sign hospital archive archive.example.org DNS:localhost,IP:127.0.0.1 60
sign hospital expired MODALITY DNS:modality.example.org 0
sign stranger wrong MODALITY DNS:modality.example.org 60
sign hospital revoked MODALITY DNS:modality.example.org 60
: >"$pki/ca/index.txt"
quiet_openssl ca -config "$pki/ca.cnf" -cert "$pki/hospital.pem" -keyfile "$pki/hospital.key" -revoke "$pki/revoked.pem"
quiet_openssl ca -config "$pki/ca.cnf" -cert "$pki/hospital.pem" -keyfile "$pki/hospital.key" -gencrl -out "$pki/crl.pem"
check "authorities, certificates and a revocation list" test -s "$pki/crl.pem" -a -s "$pki/expired.pem"

configure() { # configure ARCHIVE_EXTRA [CRL]
	write_config 'routes: [{from: "*", to: [SECURE]}]'
	sed -i -e "s|^- {calling_ae: \"\*\".*|- {calling_ae: MODALITY, certificate: modality.example.org}\n- {calling_ae: FREE}|" \
		-e "s|^peers:|peers:\n- {ae_title: SECURE, host: 127.0.0.1, port: $archive_port, tls: true, objects: [sr]$1}|" \
		"$work/carzerod.yaml"
	cat >>"$work/carzerod.yaml" <<-END
	tls:
	  listen: ["127.0.0.1:$tls_port"]
	  certificate: $pki/node.pem
	  key: credential:node-key
	  ca: $pki/hospital.pem
	${2:-}
	END
}
mkdir "$work/credentials"
cp "$pki/node.key" "$work/credentials/node-key"
chmod 600 "$work/credentials/node-key"
export CREDENTIALS_DIRECTORY="$work/credentials"

secure_archive() { # secure_archive CERTIFICATE [OPTIONS]: storescp that wants a certificate
	mkdir -p "$work/archive"
	certificate=$1
	shift
	TCP_NODELAY=1 storescp +tls "$pki/$certificate.key" "$pki/$certificate.pem" +cf "$pki/hospital.pem" -rc "$@" \
		-aet SECURE -od "$work/archive" "$archive_port" >"$work/archive.log" 2>&1 &
	archive_pid=$!
	wait_for 10 not_free "$archive_port"
}
send_tls() { # send_tls CERTIFICATE CALLING_AE FILE [OPTIONS OF storescu]
	c=$1 calling=$2 file=$3
	shift 3
	storescu +tls "$pki/$c.key" "$pki/$c.pem" +cf "$pki/hospital.pem" -rc "$@" -aet "$calling" -aec CARZEROD \
		127.0.0.1 "$tls_port" "$file" >"$work/storescu.out" 2>&1
}
logged() { # logged TEXT: since the last mark
	tail -n +"$((mark + 1))" "$work/node.log" | grep -qF "$1"
}
refused() { # refused NAME TEXT COMMAND...: the peer fails, the log says why
	what=$1 text=$2
	shift 2
	mark=$(wc -l <"$work/node.log")
	if "$@"; then
		ok 1 "refused: $what"
	else
		ok 0 "refused: $what"
	fi
	wait_for 5 logged "$text"
	good=$?
	ok $good "... and the log says: $text"
	[ $good = 0 ] || tail -n +"$((mark + 1))" "$work/node.log" | sed 's/^/# /'
}

phantom --seed 31 -o "$work/a.dcm"
phantom --seed 32 -o "$work/b.dcm"
phantom --seed 33 -o "$work/c.dcm"
phantom --seed 34 -o "$work/d.dcm"

# ---- good both ways --------------------------------------------------------------------------------------
configure '' "  crl: $pki/crl.pem"
check "--check-config opens the files" "$builddir/carzerod" -c "$work/carzerod.yaml" --check-config
start_node
ok $? "the node is ready"
secure_archive archive
send_tls modality MODALITY "$work/a.dcm"
ok $? "a film over TLS"
check "its report over TLS" wait_for 30 archive_has 1
send_tls modality MODALITY "$work/b.dcm" --profile-bcp195-nd
ok $? "BCP 195, non-downgrading"
for version in 1_2 1_3; do
	openssl s_client -connect "127.0.0.1:$tls_port" -tls$version -CAfile "$pki/hospital.pem" -cert "$pki/modality.pem" \
		-key "$pki/modality.key" -verify_return_error </dev/null >"$work/s_client.out" 2>&1
	grep -q 'Verify return code: 0' "$work/s_client.out"
	ok $? "TLS $version: $(sed -n 's/^ *\(New, .*\)/\1/p' "$work/s_client.out" | head -n 1)"
done
check "the second report" wait_for 30 archive_has 2

# ---- what must be refused ------------------------------------------------------------------------------------
refused "a certificate of an unknown authority" "certificate \"MODALITY\" is refused: " send_tls wrong MODALITY "$work/c.dcm"
refused "an expired certificate" "certificate has expired" send_tls expired MODALITY "$work/c.dcm"
noted() { # the log's line comes first, the keeper's note after it
	ctl why 2.25.999 | grep -q expired
}
wait_for 10 noted
ctl why 2.25.999 | sed -n -e '/has expired$/p' -e '/certificate was/,+1p' | sed -e "s,$work,WORK," -e 's/20[-0-9]* [0-9:]* /TIME /' >"$work/why.txt"
is "$(cat "$work/why.txt")" "$(cat "$srcdir/tests/golden/why_expired_certificate.txt")" "why names it and what would change it"
refused "a revoked certificate" "certificate revoked" send_tls revoked MODALITY "$work/c.dcm"
anonymous() {
	storescu +tla +cf "$pki/hospital.pem" -rc -aet MODALITY -aec CARZEROD 127.0.0.1 "$tls_port" "$work/c.dcm" \
		>"$work/storescu.out" 2>&1
}
refused "no certificate" "the peer shows no certificate" anonymous
client() { # client OPTIONS...: openssl that keeps the connection until the server's verdict
	openssl s_client -connect "127.0.0.1:$tls_port" -cert "$pki/modality.pem" -key "$pki/modality.key" "$@" \
		</dev/null >"$work/s_client.out" 2>&1
}
refused "TLS 1.1" "does not speak TLS 1.2 or 1.3" client -tls1_1 -cipher 'ALL:@SECLEVEL=0'
refused "a suite without forward secrecy" "no cipher suite in common" client -tls1_2 -cipher AES128-GCM-SHA256
refused "CBC" "no cipher suite in common" client -tls1_2 -cipher 'ECDHE-RSA-AES128-SHA256'
plain() {
	storescu -aet MODALITY -aec CARZEROD 127.0.0.1 "$tls_port" "$work/c.dcm" >"$work/storescu.out" 2>&1
}
refused "plain DICOM to the TLS port" "what came is not TLS" plain
refused "another's certificate under this AE title" "its certificate does not carry the name" \
	send_tls other MODALITY "$work/c.dcm"
refused "this AE title to the plain port" "it must come to the TLS port" send MODALITY "$work/c.dcm"
send FREE "$work/c.dcm"
ok $? "an AE title without a certificate in its rule may come in the clear"
check "its report" wait_for 30 archive_has 3

# ---- the archive's side ----------------------------------------------------------------------------------------
sleep 1.3 # the node releases its association after a second
stop_archive
rm -rf "$work/archive"
secure_archive other # signed by the right authority, but another machine's
send_tls modality MODALITY "$work/d.dcm"
ok $? "a film while something else answers for the archive"
said() {
	ctl queue | grep -qF "$1"
}
check "an archive whose certificate names another host gets nothing" wait_for 20 said "IP address mismatch"
is "$(archive_count)" 0 "nothing was sent"
stop_archive
secure_archive archive
ctl flush >/dev/null
check "the right archive gets it" wait_for 30 archive_has 1

# ---- expiry and renewal -------------------------------------------------------------------------------------------
ctl status >"$work/status.txt"
is $? 1 "20 days before the end of our certificate status wants attention"
grep -q '^tls .*crl ends in [67] days\|^tls .*certificate ends in 1[0-9] days\|^tls .*certificate ends in 20 days' "$work/status.txt"
ok $? "status says when: $(grep '^tls' "$work/status.txt")"
grep -q 'tls.certificate ends in [12][0-9] days' "$work/node.log"
ok $? "the log warns"
serial() {
	openssl s_client -connect "127.0.0.1:$tls_port" -cert "$pki/modality.pem" -key "$pki/modality.key" </dev/null 2>/dev/null |
		openssl x509 -noout -serial 2>/dev/null
}
before=$(serial)
sign hospital node carzerod.example.org DNS:localhost,IP:127.0.0.1 300
cp "$pki/node.key" "$work/credentials/node-key"
receiver=$(sed -n 's/.*"pid": \([0-9]*\), "program": "carzerod-receive".*/\1/p; s/.*"program": "carzerod-receive", "pid": \([0-9]*\).*/\1/p' "$work/status.json" 2>/dev/null | head -n 1)
[ -n "$receiver" ] || receiver=$(pgrep -P "$node_pid" carzerod-receiv)
kill -HUP "$receiver"
renewed() {
	[ "$(serial)" != "$before" ]
}
check "after SIGHUP the listener shows the renewed certificate" wait_for 5 renewed
mark=$(wc -l <"$work/node.log")
mv "$pki/node.pem" "$pki/away.pem"
kill -HUP "$receiver"
check "a renewal that cannot be read is told" wait_for 5 logged "stay in use"
send_tls modality MODALITY "$work/d.dcm"
ok $? "and what was read before stays in use"
stop_node

# ---- settings that cannot be -------------------------------------------------------------------------------------
complains() { # complains NAME TEXT
	"$builddir/carzerod" -c "$work/carzerod.yaml" --check-config >"$work/check.txt" 2>&1
	status=$?
	grep -qF "$2" "$work/check.txt" && [ $status = 78 ]
	good=$?
	ok $good "--check-config: $1"
	[ $good = 0 ] || sed 's/^/# /' "$work/check.txt"
}
complains "a certificate that is not there" "node.pem"
mv "$pki/away.pem" "$pki/node.pem"
cp "$pki/modality.key" "$work/credentials/node-key"
complains "a key of another certificate" "not the key of tls.certificate"
cp "$pki/node.key" "$work/credentials/node-key"
chmod 644 "$work/credentials/node-key"
complains "a key that everybody may read" "may be read by everybody"
chmod 600 "$work/credentials/node-key"
openssl pkey -aes256 -passout pass:secret -in "$pki/node.key" -out "$work/credentials/node-key" 2>/dev/null
complains "an encrypted key" "an encrypted key is of no use"
unset CREDENTIALS_DIRECTORY
complains "no credentials from the service manager" "LoadCredential=node-key"
finish
