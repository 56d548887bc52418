-- The index of a library: everything here can be had again from the models' directories.

CREATE TABLE model (
    n INTEGER PRIMARY KEY,
    directory TEXT NOT NULL UNIQUE,
    stamp INTEGER NOT NULL,         -- mtime of .record when it was read, nanoseconds
    alias TEXT,
    status TEXT NOT NULL,
    source TEXT NOT NULL,
    here INTEGER NOT NULL,          -- 1 when its files are in this library
    record BLOB NOT NULL,           -- JSON
    -- Sort keys, all ascending; age is minus the creation time in microseconds.
    age INTEGER NOT NULL,
    name TEXT NOT NULL,             -- casefolded
    type TEXT NOT NULL,
    loss REAL NOT NULL,             -- infinite when unknown
    size INTEGER NOT NULL           -- minus the bytes
);

CREATE INDEX model_by_date ON model (age, directory);
CREATE INDEX model_by_name ON model (name, age, directory);
CREATE INDEX model_by_type ON model (type, age, directory);
CREATE INDEX model_by_loss ON model (loss, age, directory);
CREATE INDEX model_by_size ON model (size, age, directory);
CREATE INDEX model_by_status ON model (status, age, directory);
CREATE INDEX model_by_source ON model (source, age, directory);

CREATE TABLE tag (
    n INTEGER NOT NULL REFERENCES model (n) ON DELETE CASCADE,
    tag TEXT NOT NULL,
    PRIMARY KEY (tag, n)
) WITHOUT ROWID;
CREATE INDEX tag_by_model ON tag (n);

CREATE TABLE place (
    n INTEGER NOT NULL REFERENCES model (n) ON DELETE CASCADE,
    kind TEXT NOT NULL,             -- worker or room
    name TEXT NOT NULL,
    PRIMARY KEY (name, kind, n)
) WITHOUT ROWID;
CREATE INDEX place_by_model ON place (n, kind);

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
    alias, name, type, tags, notes,
    tokenize = 'unicode61 remove_diacritics 2',
    prefix = '2 3'
);

-- Marks of changes that were taken in.
CREATE TABLE mark (name TEXT PRIMARY KEY) WITHOUT ROWID;

-- When the tree was last looked through, and marks were last taken in: seconds since 1970.
CREATE TABLE looked (what TEXT PRIMARY KEY, at REAL NOT NULL) WITHOUT ROWID;
