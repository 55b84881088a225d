#!/bin/sh
# interop_ohif.sh: what a reader sees.  The OHIF viewer (npm's @ohif/app carries its built pages) in headless
# Chromium, against Orthanc's DICOMweb: the study opens, the report is listed and its findings are read.
# Leaves screenshots in its work folder, for people.  Only with CHECK_LONG=yes: 48 MB of viewer, a browser.
. "$srcdir/tests/e2e.sh"
command -v npm >/dev/null || skip_all "npm is not installed"
command -v chromium >/dev/null || skip_all "chromium is not installed"
command -v curl >/dev/null || skip_all "curl is not installed"
dicomweb=/usr/share/orthanc/plugins/libOrthancDicomWeb.so
[ -x "$orthanc" ] && [ -f "$dicomweb" ] || skip_all "orthanc or orthanc-dicomweb is not installed"

js=$builddir/tests/npm
viewer=$js/ohif/package/dist
mkdir -p "$js/ohif"
if [ ! -d "$js/node_modules/playwright-core" ]; then
	timeout 300 npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$js" playwright-core@1.65.1 >/dev/null 2>&1 ||
		skip_all "npm cannot fetch playwright-core"
fi
if [ ! -f "$viewer/index.html" ]; then
	(cd "$js/ohif" && timeout 300 npm pack --silent @ohif/app@3.12.10 >/dev/null 2>&1 && tar xzf ohif-app-3.12.10.tgz) ||
		skip_all "npm cannot fetch @ohif/app"
fi
begin
http=$extra_port
free_port; web=$port

start_orthanc <<-END
	"HttpPort": $http, "DicomAlwaysAllowStore": true, "AuthenticationEnabled": false, "DicomCheckCalledAet": false,
	"Plugins": ["$dicomweb"], "DicomWeb": {"Root": "/dicom-web/", "EnableWado": true}
END
check "Orthanc is up" wait_for 60 curl -sf "http://127.0.0.1:$http/dicom-web/studies"

study=2.25.4714
phantom --seed 26 --size 512x512 --finding effusion=left,large --study-uid $study -o "$work/pa.dcm"
storescu -aec ARCHIVE 127.0.0.1 "$archive_port" "$work/pa.dcm"
ok $? "the archive has the film"
write_config 'routes: [{from: "*", to: [ARCHIVE]}]' 'report: {regions: image}'
start_node
ok $? "the node is ready"
send MODALITY "$work/pa.dcm"
ok $? "the node has the film"
has_report() {
	curl -sf "http://127.0.0.1:$http/dicom-web/studies/$study/series" | grep -q '"SR"'
}
check "the archive has the report" wait_for 60 has_report

# one origin for pages and DICOMweb, so that the browser needs no permission for a second one
cat >"$work/serve.js" <<'END'
const fs = require('fs'), http = require('http'), path = require('path');
const [root, port, dicom] = process.argv.slice(2);
const types = { '.html': 'text/html', '.js': 'text/javascript', '.css': 'text/css', '.wasm': 'application/wasm',
	'.json': 'application/json', '.svg': 'image/svg+xml' };
const config = `window.config = { routerBasename: '/', extensions: [], modes: [], showStudyList: true,
	showWarningMessageForCrossOrigin: false, showCPUFallbackMessage: false, strictZSpacingForVolumeViewport: true,
	investigationalUseDialog: { option: 'never' }, defaultDataSourceName: 'orthanc', dataSources: [{
	namespace: '@ohif/extension-default.dataSourcesModule.dicomweb', sourceName: 'orthanc', configuration: {
	friendlyName: 'Orthanc', name: 'orthanc', wadoUriRoot: location.origin + '/dicom-web',
	qidoRoot: location.origin + '/dicom-web', wadoRoot: location.origin + '/dicom-web', qidoSupportsIncludeField: false,
	imageRendering: 'wadors', thumbnailRendering: 'wadors', enableStudyLazyLoad: true, supportsFuzzyMatching: false,
	supportsWildcard: true, omitQuotationForMultipartRequest: true } }] };`;
http.createServer((q, a) => {
	const name = decodeURIComponent(q.url.split('?')[0]);
	if (name.startsWith('/dicom-web/')) {
		const ask = http.request({ host: '127.0.0.1', port: dicom, path: q.url, method: q.method,
			headers: { ...q.headers, host: '127.0.0.1:' + dicom } }, r => {
			a.writeHead(r.statusCode, r.headers);
			r.pipe(a);
		});
		ask.on('error', () => { a.writeHead(502); a.end(); });
		q.pipe(ask);
		return;
	}
	const headers = { 'Cross-Origin-Opener-Policy': 'same-origin', 'Cross-Origin-Embedder-Policy': 'require-corp' };
	if (name === '/app-config.js') {
		a.writeHead(200, { 'Content-Type': types['.js'], ...headers });
		a.end(config);
		return;
	}
	let file = path.join(root, path.normalize(name));
	if (!fs.existsSync(file) || fs.statSync(file).isDirectory())
		file = path.join(root, 'index.html');
	a.writeHead(200, { 'Content-Type': types[path.extname(file)] || 'application/octet-stream', ...headers });
	fs.createReadStream(file).pipe(a);
}).listen(Number(port), '127.0.0.1');
END
node "$work/serve.js" "$viewer" "$web" "$http" >"$work/serve.log" 2>&1 &
other_pids="$other_pids $!"
check "the viewer is served" wait_for 10 curl -sf "http://127.0.0.1:$web/"

cat >"$work/read.js" <<'END'
const { chromium } = require('playwright-core');
const [url, study, folder] = process.argv.slice(2);
const say = (good, what) => console.log((good ? 'ok' : 'no') + '\t' + what);
(async () => {
	const browser = await chromium.launch({ executablePath: '/usr/bin/chromium',
		args: ['--no-sandbox', '--use-gl=angle', '--use-angle=swiftshader', '--enable-unsafe-swiftshader', '--disable-dev-shm-usage'] });
	const page = await browser.newPage({ viewport: { width: 1500, height: 950 } });
	const errors = [];
	page.on('pageerror', e => errors.push(String(e).slice(0, 200)));
	page.on('console', m => { if (process.env.VERBOSE) console.error(m.type(), m.text().slice(0, 300)); });
	const has = async (text, seconds) => {
		try { await page.getByText(text, { exact: false }).first().waitFor({ timeout: seconds * 1000 }); return true; } catch { return false; }
	};
	await page.goto(url + '/viewer?StudyInstanceUIDs=' + study, { waitUntil: 'load', timeout: 120000 });
	say(await has('Chest frontal', 120), 'the film is listed');
	say(await has('AI CXR results', 60), 'the report is listed beside it');
	const canvas = page.locator('.cornerstone-canvas').first();
	let bright = 0;
	for (let i = 0; i < 60 && bright < 1000; i++) {
		await page.waitForTimeout(1000);
		bright = await canvas.evaluate(c => {
			const copy = document.createElement('canvas');
			copy.width = c.width; copy.height = c.height;
			const at = copy.getContext('2d');
			at.drawImage(c, 0, 0);
			const p = at.getImageData(0, 0, c.width, c.height).data;
			let n = 0;
			for (let k = 0; k < p.length; k += 4) if (p[k] > 100) n++;
			return n;
		}).catch(() => 0);
	}
	say(bright >= 1000, 'the film is shown');
	await page.screenshot({ path: folder + '/ohif-film.png' });
	await page.getByText('Skip all').click({ timeout: 20000 }).catch(() => {}); /* of the tour that OHIF offers */
	const entry = page.getByText('AI CXR results', { exact: false }).first();
	await entry.dblclick();
	say(await has('Certainty of Finding', 60) || await has('Pleural effusion', 1), 'the report opens');
	await page.waitForTimeout(3000);
	await page.screenshot({ path: folder + '/ohif-report.png' });
	const text = await page.evaluate(() => document.body.innerText);
	require('fs').writeFileSync(folder + '/ohif-report.txt', text);
	for (const finding of ['Pleural effusion', 'Pneumothorax', 'Cardiomegaly', 'Pleural thickening', 'Pacemaker'])
		say(text.includes(finding), 'it names: ' + finding);
	say(errors.length === 0, 'no page error' + (errors.length ? ': ' + errors[0] : ''));
	await browser.close();
})().catch(e => { say(false, 'the browser: ' + String(e).slice(0, 300).replace(/\n/g, ' ')); process.exit(1); });
END
NODE_PATH=$js/node_modules timeout 600 node "$work/read.js" "http://127.0.0.1:$web" $study "$work" >"$work/read.tsv" 2>"$work/read.err"
while IFS='	' read -r good what; do
	[ "$good" = ok ]
	ok $? "OHIF: $what"
done <"$work/read.tsv"
is "$(wc -l <"$work/read.tsv")" 10 "ten things were looked at"
echo "# screenshots: $work/ohif-film.png $work/ohif-report.png"
finish
