-- Contents in one piece for whose sending a device was given links, until what became of them is
-- known: they count for quotas, and what is under their keys isn't removed meanwhile.
CREATE TABLE expected (
    key    TEXT NOT NULL,
    device TEXT NOT NULL,
    room   TEXT NOT NULL REFERENCES rooms (room),
    area   TEXT NOT NULL,
    size   INTEGER NOT NULL,
    asked  REAL NOT NULL,                -- when a link was last given
    PRIMARY KEY (key, device)
) WITHOUT ROWID;
CREATE INDEX expected_by_room ON expected (room, device);
CREATE INDEX expected_by_age ON expected (asked);
