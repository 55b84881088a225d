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

-- The oldest that waits for each destination.
CREATE INDEX delivery_waiting ON delivery (destination, id) WHERE state <> 2;
