-- The newest certificates of each member of a room, so that an owner can renew them and the member
-- finds the new ones, whoever is online when.
CREATE TABLE members (
    room    TEXT NOT NULL REFERENCES rooms (room),
    device  TEXT NOT NULL,
    chain   TEXT NOT NULL,               -- JSON: the links, as they were signed
    expires REAL NOT NULL,
    seen    REAL NOT NULL,
    PRIMARY KEY (room, device)
) WITHOUT ROWID;
