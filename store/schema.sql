-- schema.sql: the tables, and above them the state machine that they hold.
--
-- This comment is the specification.  store.h is its face; the C files next door draw the arrows.
--
-- TWO INVARIANTS, and recovery needs nothing else:
--
--   (1) A row never names a missing file.
--   (2) A file without a row was never acknowledged, or is finished.
--
-- Hence the order, everywhere: the file is written and fsynced, moved into its box, its directory is
-- fsynced, and only then is the row committed; only after that commit is anybody told "yes".  The
-- other way round when something goes: first the row, then the file.
--
-- INSTANCE: an image that somebody sent
--
--   (no row) --add--> READY             its file is durable in objects/; the peer gets 0000H after this commit
--   (no row) --add--> ASIDE             the same, for a class that we keep but never analyse
--   READY    --claim--> CLAIMED         attempt + 1, token + 1: committed before the worker sees the image
--   CLAIMED  --settle--> SETTLED        outcome, facts, scores and the name of its embedding in one transaction
--   CLAIMED  --retry--> READY           due later; a clean interruption takes its attempt back
--   CLAIMED  --quarantine--> QUARANTINED   the third attempt failed; outcome FAILED
--   CLAIMED  --recover--> READY         after a restart; from the third attempt on it waits at first (a suspect
--                                       lets others pass); the attempt stays counted, so that an image
--                                       that kills the node is quarantined and not tried for ever
--   SETTLED, QUARANTINED --requeue--> READY   an operator asks; attempt 0, outcome and scores gone
--
--   All arrows but add and requeue are drawn by the keeper for the holder of the claim: the row must be
--   CLAIMED under the claim's token.  Same SOP Instance UID and digest as a row that is there: that row
--   counts a repeat and nothing else happens, whatever its state (else a poison image, sent again and
--   again, would be tried again and again).  Same UID, other digest: a new row, revision + 1.
--
--   A poison image stays in objects/ and is QUARANTINED by its state alone.  Moving its file would be
--   a rename and a row, and these two cannot be one atomic step: a crash between them breaks (1).  The
--   box quarantine/ is for files that recovery found broken; no row ever names one of those.
--
-- STUDY: what is reported as one
--
--   (no row) --add READY--> COLLECTING   with its first instance; settle_at given by the caller
--   (no row) --add ASIDE--> SILENT       nothing in it can be reported
--   any other --add READY, requeue--> COLLECTING   re-opened: attempt 0, settle_at anew.  From COMPOSING this
--                                        voids the claim: what is being composed lacks the new instance
--   COLLECTING --settle--> COLLECTING    settle_at comes nearer, never goes further
--   COLLECTING --next--> COMPOSING       settle_at reached and pending = 0; attempt + 1, token + 1, committed
--                                        before the work
--   COMPOSING --plan--> COMPOSING        the report's inputs (plan_key) and its time, fixed before a byte of it is
--                                        written, so that a second attempt makes the same bytes
--   COMPOSING --finish--> REPORTED       in one transaction with its report and delivery rows; the report
--                                        files are durable in reports/ before
--   COMPOSING --close--> SILENT, PARKED, REPORTED
--   COMPOSING --retry, recover--> COLLECTING
--
--   pending counts the study's instances that are READY or CLAIMED; without it, finding the next study
--   would look at every study that waits.
--
-- REPORT: a file that we made.  One row for each class of one revision; never changed, never re-used:
--   bytes under a SOP Instance UID are for ever.  facts (step 2) is the spool file that explains it: a copy of its
--   rows, and a line for each destination that has accepted it; only store/facts.c writes and reads those.
--
-- DELIVERY: one kind of object of one revision, on its way to one destination
--
--   (no row) --add--> QUEUED
--   QUEUED, PARKED --next--> SENDING     attempt + 1, token + 1, committed before the association
--   SENDING --choose--> SENDING          the class that the peer accepted, committed before its C-STORE: after
--                                        a crash the same object is sent again, never its sister
--   SENDING --reject--> SENDING          the peer refused that class for good: it is in `refused`, the next may be chosen
--   SENDING --close--> DONE              the peer has it
--   SENDING --defer, recover--> QUEUED   due later
--   SENDING --park--> PARKED             people must mend something; tried again when due, never deleted.
--                                        That try starts with attempt 1 and no class refused
--   QUEUED, PARKED --flush--> QUEUED     at once; counts restart
--
--   With storage commitment (step 2) the peer's 0000H is not the end:
--   SENDING --await--> QUEUED            stored there; the transaction is in `commitment`, committed before it is
--                                        asked for.  due is when the object is sent again if nothing is told
--   QUEUED, PARKED --confirm--> DONE     the peer committed to the object of that transaction
--   QUEUED, PARKED --resend--> QUEUED, PARKED   it did not, or could not be asked: sent again when due
--   A restart finds a transaction that was noted and perhaps not asked for (asked = 0): sent again at once.
--   A row that is claimed again (SENDING) is not touched by what its old transaction brings: its next
--   await replaces the transaction.  So a crash anywhere between the C-STORE and the N-EVENT-REPORT ends in
--   a repeat of both, with the same UID and the same bytes.
--
-- RETENTION (step 2): how files and rows go again.  Never while a delivery of the study is not DONE, or while
--   something in it waits or is worked on.
--
--   kept = 1 --expire--> kept = 0        the instance's file goes, its row stays (so that the same bytes, sent again,
--                                        are known); invariant (1) speaks of rows with kept = 1
--   REPORTED, SILENT, PARKED --expire--> (no row)   much later: reports, scores, deliveries, instances, study
--
--   The file of a row that goes (or of kept = 0) is put into `doomed` by the same transaction; after its commit the
--   file is unlinked and the directory fsynced, and only with that the row in `doomed` goes.  So the row goes first,
--   and a file that a crash left over is known by name: the start finishes what was begun.
--   An instance's embedding (its network features, kept if asked for) stays when its file expires, and goes with its row, or
--   when it is requeued.
--   study.files, undelivered and failed count what decides; study.quiet is when something last happened to it.
--   said keeps the time of every report for ever, so that the same inputs, sent again after their study is
--   forgotten, make the same bytes under the same UID.
--
-- AUDIT (step 2): records in the transaction of what they tell of, until the repository has them; RECEIVED: what will
--   be one, counted with each object's row, when its association has ended or a restart finds it.
--
-- FETCHED (step 2): the objects of a study that come from this archive were fetched: no delivery is made
--   for their sake unless that was asked for.  Noted, durably, before the archive is asked to send; forgotten with the study.
--
-- LANES (step 2): a study is in the normal lane or, for a reason (study.lane), in the slow one.
--
--   (no row), REPORTED, SILENT, PARKED --add READY--> the lane of that instance
--   COLLECTING, COMPOSING --add READY--> the normal lane, if the study or the instance is of it
--
--   instance.slow says it of what waits, for the claim; delivery.rank is made of it and of the findings.
--
-- EVENT (step 2): what happened to a study, or to the node, in the words that `carzeroctl why` prints.  A
--   bounded history for people: no arrow above depends on it, and it goes with its study.
--
-- TIME AND ORDER.  due = 0 means "at once" and is what fresh rows have; other times are wall-clock
-- ms.  Among what is due the lowest id goes first, but (step 2) those whose turn it is before the others: the
-- normal lane before the slow one, urgent deliveries before routine ones; turn.c says how often it is whose.  The partial indexes hold only rows that wait, with
-- those of due 0 in front in order of id, so that a claim costs the same among 10^3 and 10^6 rows.
-- study.pending and the table tally are kept by the triggers at the end, so that no C function can
-- forget to; the keeper asks for counts every few seconds and for destinations in every turn.
-- token only ever grows and AUTOINCREMENT never gives an id twice: an old claim can never fit a new row.
--
-- CHANGING THIS FILE: it is step 1 (user_version 0 to 1) and frozen with the first release, but for this
-- comment; later changes are further steps: schema-2.sql, and the list `steps` in store.c.

CREATE TABLE setting (
	key     TEXT NOT NULL PRIMARY KEY,
	value   TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE study (
	id        INTEGER PRIMARY KEY AUTOINCREMENT,
	study_uid TEXT NOT NULL UNIQUE CHECK (length(study_uid) BETWEEN 1 AND 64),
	state     INTEGER NOT NULL CHECK (state BETWEEN 0 AND 4), -- enum study_state
	pending   INTEGER NOT NULL DEFAULT 0 CHECK (pending >= 0),
	settle_at INTEGER NOT NULL,
	attempt   INTEGER NOT NULL DEFAULT 0 CHECK (attempt >= 0),
	token     INTEGER NOT NULL DEFAULT 0,
	lease     INTEGER NOT NULL DEFAULT 0,
	revision  INTEGER NOT NULL DEFAULT 0 CHECK (revision >= 0),
	why       TEXT NOT NULL DEFAULT '',
	plan_key  BLOB CHECK (length(plan_key) = 32),
	plan_at   INTEGER,
	created   INTEGER NOT NULL,
	CHECK ((plan_key IS NULL) = (plan_at IS NULL))
) STRICT;
CREATE INDEX study_claimed ON study (id) WHERE state = 1;
-- By id for the claim, by time for the question when to wake up.
CREATE INDEX study_next ON study (id, settle_at) WHERE state = 0 AND pending = 0;
CREATE INDEX study_due ON study (settle_at) WHERE state = 0 AND pending = 0;

CREATE TABLE instance (
	id         INTEGER PRIMARY KEY AUTOINCREMENT,
	study      INTEGER NOT NULL REFERENCES study (id),
	file       INTEGER NOT NULL UNIQUE CHECK (file > 0),
	sop_class  TEXT NOT NULL CHECK (length(sop_class) BETWEEN 1 AND 64),
	sop_uid    TEXT NOT NULL CHECK (length(sop_uid) BETWEEN 1 AND 64),
	series_uid TEXT NOT NULL,
	syntax     TEXT NOT NULL,
	calling_ae TEXT NOT NULL,
	called_ae  TEXT NOT NULL,
	peer       TEXT NOT NULL,
	digest     BLOB NOT NULL CHECK (length(digest) = 32),
	size       INTEGER NOT NULL CHECK (size >= 0),
	received   INTEGER NOT NULL,
	revision   INTEGER NOT NULL CHECK (revision >= 1),
	repeats    INTEGER NOT NULL DEFAULT 0,
	state      INTEGER NOT NULL CHECK (state BETWEEN 0 AND 4),             -- enum instance_state
	outcome    INTEGER NOT NULL DEFAULT 0 CHECK (outcome BETWEEN 0 AND 4), -- enum instance_outcome
	why        TEXT NOT NULL DEFAULT '',
	attempt    INTEGER NOT NULL DEFAULT 0 CHECK (attempt >= 0),
	token      INTEGER NOT NULL DEFAULT 0,
	lease      INTEGER NOT NULL DEFAULT 0,
	due        INTEGER NOT NULL DEFAULT 0,
	-- what the decoder and the network said; NULL until settled
	patient    BLOB CHECK (length(patient) = 32),
	content    BLOB CHECK (length(content) = 32),
	recipe     TEXT,
	precision  TEXT,
	version    TEXT,
	weights    BLOB CHECK (length(weights) = 32),
	findings   BLOB CHECK (length(findings) = 32),
	settled    INTEGER,
	UNIQUE (sop_uid, digest),
	CHECK ((state IN (2, 3)) = (outcome <> 0)),
	CHECK ((state = 3) = (outcome = 3))
) STRICT;
CREATE INDEX instance_by_study ON instance (study);
CREATE INDEX instance_claimed ON instance (id) WHERE state = 1;
CREATE INDEX instance_due ON instance (due) WHERE state = 0;

CREATE TABLE score (
	instance    INTEGER NOT NULL REFERENCES instance (id),
	place       INTEGER NOT NULL, -- order of the findings list
	finding     TEXT NOT NULL,
	logit       REAL NOT NULL,
	probability REAL,             -- NULL: uncalibrated
	decision    INTEGER NOT NULL,
	PRIMARY KEY (instance, place)
) STRICT, WITHOUT ROWID;

CREATE TABLE report (
	id          INTEGER PRIMARY KEY AUTOINCREMENT,
	study       INTEGER NOT NULL REFERENCES study (id),
	revision    INTEGER NOT NULL CHECK (revision >= 1),
	kind        TEXT NOT NULL CHECK (length(kind) BETWEEN 1 AND 3),
	sop_class   TEXT NOT NULL,
	sop_uid     TEXT NOT NULL UNIQUE CHECK (length(sop_uid) BETWEEN 1 AND 64),
	series_uid  TEXT NOT NULL,
	predecessor TEXT NOT NULL,
	file        INTEGER NOT NULL UNIQUE CHECK (file > 0),
	size        INTEGER NOT NULL CHECK (size >= 0),
	digest      BLOB NOT NULL CHECK (length(digest) = 32),
	findings    BLOB NOT NULL CHECK (length(findings) = 32),
	weights     BLOB NOT NULL CHECK (length(weights) = 32),
	created     INTEGER NOT NULL
) STRICT;
CREATE INDEX report_by_study ON report (study, revision, kind);

CREATE TABLE delivery (
	id          INTEGER PRIMARY KEY AUTOINCREMENT,
	study       INTEGER NOT NULL REFERENCES study (id),
	revision    INTEGER NOT NULL CHECK (revision >= 1),
	kind        TEXT NOT NULL CHECK (length(kind) BETWEEN 1 AND 3),
	destination TEXT NOT NULL CHECK (length(destination) BETWEEN 1 AND 16),
	state       INTEGER NOT NULL CHECK (state BETWEEN 0 AND 3), -- enum delivery_state
	attempt     INTEGER NOT NULL DEFAULT 0 CHECK (attempt >= 0),
	permanent   INTEGER NOT NULL DEFAULT 0 CHECK (permanent >= 0),
	token       INTEGER NOT NULL DEFAULT 0,
	lease       INTEGER NOT NULL DEFAULT 0,
	due         INTEGER NOT NULL DEFAULT 0,
	report      INTEGER REFERENCES report (id), -- chosen class
	status      INTEGER NOT NULL DEFAULT -1,
	why         TEXT NOT NULL DEFAULT '',
	created     INTEGER NOT NULL,
	finished    INTEGER NOT NULL DEFAULT 0,
	UNIQUE (study, revision, kind, destination)
) STRICT;
CREATE INDEX delivery_claimed ON delivery (id) WHERE state = 1;
CREATE INDEX delivery_open ON delivery (id) WHERE state <> 2;
CREATE INDEX delivery_next ON delivery (destination, due) WHERE state IN (0, 3);
CREATE INDEX delivery_due ON delivery (due) WHERE state IN (0, 3);

-- Classes that a destination refused for good; forgotten when a parked delivery is tried again.
CREATE TABLE refused (
	delivery INTEGER NOT NULL REFERENCES delivery (id),
	report   INTEGER NOT NULL REFERENCES report (id),
	PRIMARY KEY (delivery, report)
) STRICT, WITHOUT ROWID;

-- The text of every findings list that ever scored, so that each score can be explained later.
CREATE TABLE findings_list (
	digest  BLOB NOT NULL PRIMARY KEY CHECK (length(digest) = 32),
	text    BLOB NOT NULL
) STRICT;

-- How many rows of each sort are in each state.
CREATE TABLE tally (
	what        TEXT NOT NULL,    -- 'instance', 'study', 'report', 'delivery'
	destination TEXT NOT NULL,    -- of deliveries, else ''
	state       INTEGER NOT NULL, -- 0 for reports
	n           INTEGER NOT NULL CHECK (n >= 0),
	PRIMARY KEY (what, destination, state)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER instance_added AFTER INSERT ON instance
BEGIN
	UPDATE study SET pending = pending + 1 WHERE id = new.study AND new.state IN (0, 1);
	INSERT INTO tally VALUES ('instance', '', new.state, 1) ON CONFLICT DO UPDATE SET n = n + 1;
END;
CREATE TRIGGER instance_moved AFTER UPDATE OF state ON instance WHEN old.state <> new.state
BEGIN
	UPDATE study SET pending = pending + (new.state IN (0, 1)) - (old.state IN (0, 1))
		WHERE id = new.study AND (new.state IN (0, 1)) <> (old.state IN (0, 1));
	UPDATE tally SET n = n - 1 WHERE what = 'instance' AND destination = '' AND state = old.state;
	INSERT INTO tally VALUES ('instance', '', new.state, 1) ON CONFLICT DO UPDATE SET n = n + 1;
END;
CREATE TRIGGER instance_removed AFTER DELETE ON instance
BEGIN
	UPDATE study SET pending = pending - 1 WHERE id = old.study AND old.state IN (0, 1);
	UPDATE tally SET n = n - 1 WHERE what = 'instance' AND destination = '' AND state = old.state;
END;

CREATE TRIGGER study_added AFTER INSERT ON study
BEGIN
	INSERT INTO tally VALUES ('study', '', new.state, 1) ON CONFLICT DO UPDATE SET n = n + 1;
END;
CREATE TRIGGER study_moved AFTER UPDATE OF state ON study WHEN old.state <> new.state
BEGIN
	UPDATE tally SET n = n - 1 WHERE what = 'study' AND destination = '' AND state = old.state;
	INSERT INTO tally VALUES ('study', '', new.state, 1) ON CONFLICT DO UPDATE SET n = n + 1;
END;
CREATE TRIGGER study_removed AFTER DELETE ON study
BEGIN
	UPDATE tally SET n = n - 1 WHERE what = 'study' AND destination = '' AND state = old.state;
END;

CREATE TRIGGER report_added AFTER INSERT ON report
BEGIN
	INSERT INTO tally VALUES ('report', '', 0, 1) ON CONFLICT DO UPDATE SET n = n + 1;
END;
CREATE TRIGGER report_removed AFTER DELETE ON report
BEGIN
	UPDATE tally SET n = n - 1 WHERE what = 'report' AND destination = '' AND state = 0;
END;

CREATE TRIGGER delivery_added AFTER INSERT ON delivery
BEGIN
	INSERT INTO tally VALUES ('delivery', new.destination, new.state, 1)
		ON CONFLICT DO UPDATE SET n = n + 1;
END;
CREATE TRIGGER delivery_moved AFTER UPDATE OF state ON delivery WHEN old.state <> new.state
BEGIN
	UPDATE tally SET n = n - 1
		WHERE what = 'delivery' AND destination = old.destination AND state = old.state;
	INSERT INTO tally VALUES ('delivery', new.destination, new.state, 1)
		ON CONFLICT DO UPDATE SET n = n + 1;
END;
CREATE TRIGGER delivery_removed AFTER DELETE ON delivery
BEGIN
	UPDATE tally SET n = n - 1
		WHERE what = 'delivery' AND destination = old.destination AND state = old.state;
END;
