-- What the server keeps. Times are seconds since 1970 UTC.

-- A device may sign in if it has a row here.
CREATE TABLE devices (
    device           TEXT PRIMARY KEY,
    name             TEXT NOT NULL,
    program          TEXT NOT NULL,
    may_create_rooms INTEGER NOT NULL,   -- it has shown a set-up code
    registered       REAL NOT NULL,
    seen             REAL NOT NULL
) WITHOUT ROWID;

-- Only the hash of a code is kept, and a used one is removed.
CREATE TABLE setup_codes (
    hash    BLOB PRIMARY KEY,
    made    REAL NOT NULL,
    expires REAL NOT NULL
) WITHOUT ROWID;

CREATE TABLE rooms (
    room    TEXT PRIMARY KEY,
    name    TEXT NOT NULL,
    creator TEXT NOT NULL REFERENCES devices (device),
    created REAL NOT NULL
) WITHOUT ROWID;

-- One row for each device that an invite has let in.
CREATE TABLE invite_uses (
    room   TEXT NOT NULL REFERENCES rooms (room),
    invite TEXT NOT NULL,
    device TEXT NOT NULL,
    used   REAL NOT NULL,
    PRIMARY KEY (room, invite, device)
) WITHOUT ROWID;

-- The newest membership list of each room, as its owner signed it.
CREATE TABLE memberships (
    room   TEXT PRIMARY KEY REFERENCES rooms (room),
    number INTEGER NOT NULL,
    signed TEXT NOT NULL
) WITHOUT ROWID;

-- Who did what. Rows are only ever added.
CREATE TABLE audit (
    id      INTEGER PRIMARY KEY,
    at      REAL NOT NULL,
    device  TEXT,
    action  TEXT NOT NULL,
    room    TEXT,
    details TEXT NOT NULL
);
CREATE INDEX audit_by_room ON audit (room, id);
