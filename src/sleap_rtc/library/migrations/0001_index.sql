-- The index of a library: everything here can be had again from the models' directories.

-- Small rows, since a search that no index helps with reads them all. Texts are casefolded.
CREATE TABLE model (
    n INTEGER PRIMARY KEY,          -- from the creation time, the newest last: see rows.py
    directory TEXT NOT NULL UNIQUE,
    stamp INTEGER NOT NULL,         -- mtime of .record when it was read, nanoseconds
    id TEXT NOT NULL,
    status TEXT NOT NULL,
    source TEXT NOT NULL,
    here INTEGER NOT NULL,          -- 1 when its files are in this library
    on_worker INTEGER NOT NULL,     -- 1 when a worker has it
    in_room INTEGER NOT NULL,       -- 1 when a room has it
    parent TEXT,                    -- the model that it was made from
    epochs INTEGER,
    -- Sort keys.
    made INTEGER NOT NULL,          -- creation time, microseconds since 1970
    name TEXT NOT NULL,
    type TEXT NOT NULL,
    loss REAL NOT NULL,             -- infinite when unknown
    size INTEGER NOT NULL           -- minus the bytes
);

-- What is filtered by is there too, so that rows that don't fit aren't looked up.
CREATE INDEX model_by_name ON model (name, n DESC, status, type, source, here, on_worker, in_room);
CREATE INDEX model_by_type ON model (type, n DESC, status, source, here, on_worker, in_room);
CREATE INDEX model_by_loss ON model (loss, n DESC, status, type, source, here, on_worker, in_room);
CREATE INDEX model_by_size ON model (size, n DESC, status, type, source, here, on_worker, in_room);
CREATE INDEX model_by_status ON model (status, n);
CREATE INDEX model_by_source ON model (source, n);
CREATE INDEX model_by_id ON model (id);
CREATE INDEX model_by_parent ON model (parent) WHERE parent IS NOT NULL;
CREATE INDEX model_by_time ON model (made);

-- What a list shows of a model.
CREATE TABLE shown (
    n INTEGER PRIMARY KEY REFERENCES model (n) ON DELETE CASCADE,
    alias TEXT,
    record BLOB NOT NULL            -- see remembering.py
);

-- One row with a number that is new whenever what a list shows has changed.
CREATE TABLE state (number INTEGER NOT NULL);
INSERT INTO state VALUES (random());
CREATE TRIGGER shown_more AFTER INSERT ON shown BEGIN
    UPDATE state SET number = random();
END;
CREATE TRIGGER shown_less AFTER DELETE ON shown BEGIN
    UPDATE state SET number = random();
END;
CREATE TRIGGER shown_anew AFTER UPDATE ON shown BEGIN
    UPDATE state SET number = random();
END;

CREATE TABLE tag (
    n INTEGER NOT NULL REFERENCES model (n) ON DELETE CASCADE,
    tag TEXT NOT NULL,              -- casefolded
    PRIMARY KEY (tag, n)
) WITHOUT ROWID;
CREATE INDEX tag_by_model ON tag (n);

CREATE TABLE place (
    n INTEGER NOT NULL REFERENCES model (n) ON DELETE CASCADE,
    kind TEXT NOT NULL,             -- worker or room
    name TEXT NOT NULL,
    key TEXT NOT NULL,              -- its name, casefolded
    PRIMARY KEY (key, kind, name, n)
) WITHOUT ROWID;
CREATE INDEX place_by_model ON place (n);

CREATE TABLE tombstone (
    directory TEXT PRIMARY KEY,
    stamp INTEGER NOT NULL,
    deleted_at INTEGER NOT NULL     -- microseconds since 1970
) WITHOUT ROWID;

-- Directories that could not be read, so that they are not read again at every look.
CREATE TABLE unreadable (
    directory TEXT PRIMARY KEY,
    stamp INTEGER NOT NULL
) WITHOUT ROWID;

CREATE VIRTUAL TABLE words USING fts5 (
    alias, name, type, tags, notes, family, config,
    tokenize = 'unicode61 remove_diacritics 2',
    prefix = '1 2 3'
);
-- How much a word counts, by where it is.
INSERT INTO words (words, rank) VALUES ('rank', 'bm25(10, 8, 4, 6, 2, 3, 1)');

-- Marks of changes that were taken in.
CREATE TABLE mark (name TEXT PRIMARY KEY) WITHOUT ROWID;

-- When the tree was last looked through, and marks were last taken in: seconds since 1970.
CREATE TABLE looked (what TEXT PRIMARY KEY, at REAL NOT NULL) WITHOUT ROWID;
