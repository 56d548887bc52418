-- What each room has: objects, uploads that aren't done, contents that somebody has links for. Kept by
-- the triggers below, since sums over all of a room's rows take the longer the more it has.
CREATE TABLE usage (
    room  TEXT PRIMARY KEY,
    size  INTEGER NOT NULL,              -- bytes
    files INTEGER NOT NULL
) WITHOUT ROWID;

INSERT INTO usage SELECT room, sum(size), count(*) FROM (
    SELECT room, size FROM objects
    UNION ALL SELECT room, size FROM uploads WHERE state != 'done'
    UNION ALL SELECT room, size FROM expected
) GROUP BY room;

CREATE TRIGGER objects_more AFTER INSERT ON objects BEGIN
    INSERT INTO usage VALUES (NEW.room, NEW.size, 1)
    ON CONFLICT (room) DO UPDATE SET size = size + excluded.size, files = files + 1;
END;
CREATE TRIGGER objects_other AFTER UPDATE OF size ON objects BEGIN
    UPDATE usage SET size = size + NEW.size - OLD.size WHERE room = NEW.room;
END;
CREATE TRIGGER objects_less AFTER DELETE ON objects BEGIN
    UPDATE usage SET size = size - OLD.size, files = files - 1 WHERE room = OLD.room;
END;

CREATE TRIGGER uploads_more AFTER INSERT ON uploads WHEN NEW.state != 'done' BEGIN
    INSERT INTO usage VALUES (NEW.room, NEW.size, 1)
    ON CONFLICT (room) DO UPDATE SET size = size + excluded.size, files = files + 1;
END;
CREATE TRIGGER uploads_done AFTER UPDATE OF state ON uploads
WHEN OLD.state != 'done' AND NEW.state = 'done' BEGIN
    UPDATE usage SET size = size - OLD.size, files = files - 1 WHERE room = OLD.room;
END;
CREATE TRIGGER uploads_anew AFTER UPDATE OF state ON uploads
WHEN OLD.state = 'done' AND NEW.state != 'done' BEGIN
    UPDATE usage SET size = size + NEW.size, files = files + 1 WHERE room = NEW.room;
END;
CREATE TRIGGER uploads_less AFTER DELETE ON uploads WHEN OLD.state != 'done' BEGIN
    UPDATE usage SET size = size - OLD.size, files = files - 1 WHERE room = OLD.room;
END;

CREATE TRIGGER expected_more AFTER INSERT ON expected BEGIN
    INSERT INTO usage VALUES (NEW.room, NEW.size, 1)
    ON CONFLICT (room) DO UPDATE SET size = size + excluded.size, files = files + 1;
END;
CREATE TRIGGER expected_other AFTER UPDATE OF size ON expected BEGIN
    UPDATE usage SET size = size + NEW.size - OLD.size WHERE room = NEW.room;
END;
CREATE TRIGGER expected_less AFTER DELETE ON expected BEGIN
    UPDATE usage SET size = size - OLD.size, files = files - 1 WHERE room = OLD.room;
END;
