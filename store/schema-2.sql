-- schema-2.sql: step 2 (user_version 1 to 2): what came after the first release.  The opening comment
-- of schema.sql specifies these tables too.

-- What happened, for people: `carzeroctl why` tells it.  Nothing of the node's work depends on a row here.
CREATE TABLE event (
	id    INTEGER PRIMARY KEY AUTOINCREMENT,
	study INTEGER REFERENCES study (id) ON DELETE CASCADE, -- NULL: of the node as a whole
	kind  INTEGER NOT NULL CHECK (kind BETWEEN 0 AND 15),    -- enum event_kind
	first INTEGER NOT NULL,
	last  INTEGER NOT NULL,
	n     INTEGER NOT NULL DEFAULT 1 CHECK (n >= 1),         -- how often, when the same comes in a row
	text  TEXT NOT NULL
) STRICT;
CREATE INDEX event_by_study ON event (study, id);

-- A bounded history: the newest 200 of each study, 1000 of the node.
CREATE TRIGGER event_of_study_added AFTER INSERT ON event WHEN new.study IS NOT NULL
BEGIN
	DELETE FROM event WHERE study = new.study AND
		id <= (SELECT id FROM event WHERE study = new.study ORDER BY id DESC LIMIT 1 OFFSET 200);
END;
CREATE TRIGGER event_of_node_added AFTER INSERT ON event WHEN new.study IS NULL
BEGIN
	DELETE FROM event WHERE study IS NULL AND
		id <= (SELECT id FROM event WHERE study IS NULL ORDER BY id DESC LIMIT 1 OFFSET 1000);
END;

-- Where the model's attention went for this finding: side x side bytes, row by row, each a share of the
-- largest (255).  Only of the findings whose maps are shown; NULL for the others.
ALTER TABLE score ADD COLUMN map BLOB CHECK (length(map) BETWEEN 1 AND 1024);

-- What the scores of each calling AE title looked like at first, and lately (daemon/drift.h has the bytes).
-- `key` names the model and the findings list that gave them; a row of another key is forgotten.
CREATE TABLE drift (
	source TEXT NOT NULL PRIMARY KEY CHECK (length(source) BETWEEN 1 AND 16),
	key    BLOB NOT NULL CHECK (length(key) = 32),
	state  BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- ---- who goes first ----

ALTER TABLE delivery ADD COLUMN rank INTEGER NOT NULL DEFAULT 1 CHECK (rank BETWEEN 0 AND 2); -- enum store_rank
DROP INDEX delivery_next;
CREATE INDEX delivery_next ON delivery (destination, rank, due) WHERE state IN (0, 3);

-- The slow lane: what is analysed and reported when nothing of the normal lane waits, or in its turn.  A study is in
-- one lane; instance.slow follows it for what still waits.
ALTER TABLE study ADD COLUMN lane INTEGER NOT NULL DEFAULT 0 CHECK (lane BETWEEN 0 AND 3); -- enum study_lane
ALTER TABLE instance ADD COLUMN slow INTEGER NOT NULL DEFAULT 0 CHECK (slow IN (0, 1));
DROP INDEX instance_due;
CREATE INDEX instance_due ON instance (slow, due) WHERE state = 0;
DROP INDEX study_next;
CREATE INDEX study_next ON study (lane > 0, id, settle_at) WHERE state = 0 AND pending = 0;

-- Of tally, what = 'slow': instances of the slow lane that wait or are worked on.
INSERT INTO tally VALUES ('slow', '', 0, 0);
CREATE TRIGGER instance_slow_added AFTER INSERT ON instance WHEN new.slow = 1 AND new.state IN (0, 1)
BEGIN
	UPDATE tally SET n = n + 1 WHERE what = 'slow' AND destination = '' AND state = 0;
END;
CREATE TRIGGER instance_slow_changed AFTER UPDATE OF slow, state ON instance
	WHEN (new.slow = 1 AND new.state IN (0, 1)) <> (old.slow = 1 AND old.state IN (0, 1))
BEGIN
	UPDATE tally SET n = n + iif(new.slow = 1 AND new.state IN (0, 1), 1, -1)
		WHERE what = 'slow' AND destination = '' AND state = 0;
END;
CREATE TRIGGER instance_slow_removed AFTER DELETE ON instance WHEN old.slow = 1 AND old.state IN (0, 1)
BEGIN
	UPDATE tally SET n = n - 1 WHERE what = 'slow' AND destination = '' AND state = 0;
END;

-- How many claims there were (turn.c).
CREATE TABLE turn (
	what        TEXT NOT NULL,
	destination TEXT NOT NULL,
	n           INTEGER NOT NULL,
	PRIMARY KEY (what, destination)
) STRICT, WITHOUT ROWID;

-- The oldest that waits for each destination.
CREATE INDEX delivery_waiting ON delivery (destination, id) WHERE state <> 2;

-- ---- retention: what may go, and when ----
-- The rows of other tables that decide it are counted in the study's own, by triggers, so that the
-- question "whose turn is it" is one seek among 10^6 studies.

-- The spool file that keeps what the network made of this object (store/embedding.h), for findings lists to come;
-- 0: none.  Unlike other files it may be missing or torn: then the object is not scored again, and that is all.
ALTER TABLE instance ADD COLUMN embedding INTEGER NOT NULL DEFAULT 0 CHECK (embedding >= 0);
CREATE INDEX instance_embedding ON instance (id) WHERE embedding <> 0;

ALTER TABLE instance ADD COLUMN kept INTEGER NOT NULL DEFAULT 1 CHECK (kept IN (0, 1));

ALTER TABLE study ADD COLUMN files INTEGER NOT NULL DEFAULT 0 CHECK (files >= 0);
ALTER TABLE study ADD COLUMN failed INTEGER NOT NULL DEFAULT 0 CHECK (failed >= 0);
ALTER TABLE study ADD COLUMN undelivered INTEGER NOT NULL DEFAULT 0 CHECK (undelivered >= 0);
ALTER TABLE study ADD COLUMN quiet INTEGER NOT NULL DEFAULT 0;

UPDATE study SET
	files = (SELECT count(*) FROM instance i WHERE i.study = study.id),
	failed = (state = 4) + (SELECT count(*) FROM instance i WHERE i.study = study.id AND i.state = 3),
	undelivered = (SELECT count(*) FROM delivery d WHERE d.study = study.id AND d.state <> 2),
	quiet = max(settle_at, (SELECT ifnull(max(finished), 0) FROM delivery d WHERE d.study = study.id));

CREATE INDEX study_images ON study (quiet)
	WHERE state IN (2, 3, 4) AND undelivered = 0 AND failed = 0 AND files > 0;
CREATE INDEX study_failed ON study (quiet)
	WHERE state IN (2, 3, 4) AND undelivered = 0 AND failed > 0 AND files > 0;
CREATE INDEX study_rows ON study (quiet) WHERE state IN (2, 3, 4) AND undelivered = 0;
CREATE INDEX study_parked ON study (settle_at) WHERE state = 4;
-- Foreign keys look from the parent's side when a parent goes.
CREATE INDEX delivery_report ON delivery (report) WHERE report IS NOT NULL;
CREATE INDEX refused_report ON refused (report);

-- The file beside the report that explains it (spool/facts); 0: none, of an older program.
ALTER TABLE report ADD COLUMN facts INTEGER NOT NULL DEFAULT 0;
CREATE INDEX report_facts ON report (facts);

-- Files whose rows are gone.  box is enum spool_box.
CREATE TABLE doomed (
	box  INTEGER NOT NULL,
	file INTEGER NOT NULL CHECK (file > 0),
	PRIMARY KEY (box, file)
) STRICT, WITHOUT ROWID;

-- The time that a report with this key bears, for ever: a digest and a moment, nothing of a patient.
CREATE TABLE said (
	plan_key BLOB NOT NULL PRIMARY KEY CHECK (length(plan_key) = 32),
	at       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT OR IGNORE INTO said SELECT plan_key, plan_at FROM study WHERE plan_key IS NOT NULL;

CREATE TRIGGER instance_file_added AFTER INSERT ON instance
BEGIN
	UPDATE study SET files = files + new.kept, failed = failed + (new.state = 3), quiet = max(quiet, new.received)
		WHERE id = new.study;
END;
CREATE TRIGGER instance_file_changed AFTER UPDATE OF kept, state ON instance
	WHEN old.kept <> new.kept OR (old.state = 3) <> (new.state = 3)
BEGIN
	UPDATE study SET files = files + new.kept - old.kept, failed = failed + (new.state = 3) - (old.state = 3)
		WHERE id = new.study;
END;
CREATE TRIGGER instance_file_removed AFTER DELETE ON instance
BEGIN
	UPDATE study SET files = files - old.kept, failed = failed - (old.state = 3) WHERE id = old.study;
END;
CREATE TRIGGER study_quiet_added AFTER INSERT ON study
BEGIN
	UPDATE study SET quiet = new.created, failed = failed + (new.state = 4) WHERE id = new.id;
END;
CREATE TRIGGER study_quiet_moved AFTER UPDATE OF state ON study WHEN old.state <> new.state
BEGIN
	UPDATE study SET quiet = iif(new.state IN (2, 3, 4), max(quiet, new.settle_at), quiet), failed = failed + (new.state = 4) - (old.state = 4)
		WHERE id = new.id;
END;
CREATE TRIGGER delivery_open_added AFTER INSERT ON delivery WHEN new.state <> 2
BEGIN
	UPDATE study SET undelivered = undelivered + 1 WHERE id = new.study;
END;
CREATE TRIGGER delivery_open_moved AFTER UPDATE OF state ON delivery WHEN (old.state <> 2) <> (new.state <> 2)
BEGIN
	UPDATE study SET undelivered = undelivered + (new.state <> 2) - (old.state <> 2), quiet = max(quiet, new.finished)
		WHERE id = new.study;
END;
CREATE TRIGGER delivery_open_removed AFTER DELETE ON delivery WHEN old.state <> 2
BEGIN
	UPDATE study SET undelivered = undelivered - 1 WHERE id = old.study;
END;

-- Storage commitment that was asked for: the transaction, committed before the N-ACTION.
CREATE TABLE commitment (
	delivery INTEGER NOT NULL PRIMARY KEY REFERENCES delivery (id) ON DELETE CASCADE,
	transaction_uid TEXT NOT NULL UNIQUE CHECK (length(transaction_uid) BETWEEN 1 AND 64),
	asked    INTEGER NOT NULL -- 0 until the peer has taken the question
) STRICT;
CREATE INDEX commitment_unasked ON commitment (delivery) WHERE asked = 0;

-- What hooks (`notify` in carzerod.yaml) are to be told: waits while ended = 0, due again after a failure; a key
-- of a hook is told once.  No patient data.
CREATE TABLE notice (
	id      INTEGER PRIMARY KEY AUTOINCREMENT,
	hook    TEXT NOT NULL CHECK (length(hook) BETWEEN 1 AND 32),
	event   TEXT NOT NULL,
	key     TEXT NOT NULL,
	body    TEXT NOT NULL,
	attempt INTEGER NOT NULL DEFAULT 0,
	due     INTEGER NOT NULL,
	created INTEGER NOT NULL,
	ended   INTEGER NOT NULL DEFAULT 0,
	UNIQUE (hook, key)
) STRICT;
CREATE INDEX notice_waiting ON notice (hook, id) WHERE ended = 0;
CREATE TRIGGER notice_added AFTER INSERT ON notice
BEGIN
	DELETE FROM notice WHERE id <= (SELECT id FROM notice ORDER BY id DESC LIMIT 1 OFFSET 10000);
END;

-- What an operator had fetched from an archive, and whether the reports are to be sent.  The newest 100000.
CREATE TABLE fetched (
	id         INTEGER PRIMARY KEY AUTOINCREMENT,
	study_uid  TEXT NOT NULL CHECK (length(study_uid) BETWEEN 1 AND 64),
	calling_ae TEXT NOT NULL CHECK (length(calling_ae) BETWEEN 1 AND 16), -- the archive's
	send       INTEGER NOT NULL,
	UNIQUE (study_uid, calling_ae)
) STRICT;
CREATE TRIGGER fetched_added AFTER INSERT ON fetched
BEGIN
	DELETE FROM fetched WHERE id <= new.id - 100000;
END;
CREATE TRIGGER fetched_study_removed AFTER DELETE ON study
BEGIN
	DELETE FROM fetched WHERE study_uid = old.study_uid;
END;

-- Audit records (PS3.15 A.5) on their way to the repository, oldest first; a row goes when it has been taken.
-- body is the whole syslog message.  Only with audit.host; no name or identifier of a patient, but Study Instance UIDs.
CREATE TABLE audit (
	id   INTEGER PRIMARY KEY AUTOINCREMENT,
	body TEXT NOT NULL
) STRICT;

-- What came from whom, until its association has ended and one record says so: kept with the objects' own rows, so that
-- a node that dies in between has it.  sop_class '': of several.
CREATE TABLE received (
	peer       TEXT NOT NULL,
	calling_ae TEXT NOT NULL,
	study_uid  TEXT NOT NULL CHECK (length(study_uid) BETWEEN 1 AND 64),
	sop_class  TEXT NOT NULL,
	n          INTEGER NOT NULL CHECK (n >= 1),
	PRIMARY KEY (peer, calling_ae, study_uid)
) STRICT, WITHOUT ROWID;
