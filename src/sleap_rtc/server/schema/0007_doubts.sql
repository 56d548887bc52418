-- Objects that somebody read and found damaged, and what this server then read of them itself. A row is
-- about one version of an object: what took its place since is in no doubt.
CREATE TABLE doubts (
    key      TEXT PRIMARY KEY,
    room     TEXT NOT NULL REFERENCES rooms (room),
    size     INTEGER NOT NULL,
    etag     TEXT NOT NULL,
    modified INTEGER NOT NULL,           -- whole seconds, by the store's clock; 0 where it doesn't tell
    verdict  TEXT NOT NULL,              -- open: to be compared; good; damaged
    at       REAL NOT NULL               -- when it was reported, or compared
) WITHOUT ROWID;
CREATE INDEX doubts_by_verdict ON doubts (verdict, at);
