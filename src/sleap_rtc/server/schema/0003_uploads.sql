-- Who may use the HTTP API: only the hash of a token is kept.
CREATE TABLE tokens (
    hash    BLOB PRIMARY KEY,
    device  TEXT NOT NULL REFERENCES devices (device),
    dialled TEXT NOT NULL,               -- host:port by which the device reaches this server
    expires REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX tokens_by_device ON tokens (device, expires);

-- Uploads that were begun, and for a day those that were completed.
CREATE TABLE uploads (
    id        TEXT PRIMARY KEY,
    room      TEXT NOT NULL REFERENCES rooms (room),
    area      TEXT NOT NULL,
    blake3    TEXT NOT NULL,
    device    TEXT NOT NULL,
    key       TEXT NOT NULL,
    store_id  TEXT NOT NULL,             -- the store's own name for it
    size      INTEGER NOT NULL,
    part_size INTEGER NOT NULL,
    state     TEXT NOT NULL,             -- open, completing, done
    touched   REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX uploads_by_key ON uploads (key, device);
CREATE INDEX uploads_by_room ON uploads (room, state);

-- What was stored through this server: for quotas, and to remove what is temporary.
CREATE TABLE objects (
    key    TEXT PRIMARY KEY,
    room   TEXT NOT NULL REFERENCES rooms (room),
    area   TEXT NOT NULL,
    size   INTEGER NOT NULL,
    device TEXT NOT NULL,
    stored REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX objects_by_room ON objects (room);
CREATE INDEX objects_by_age ON objects (area, stored);
