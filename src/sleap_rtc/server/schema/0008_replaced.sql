-- Objects in whose place something is on its way: what is damaged and sent anew, for example. Both count
-- for the room as the larger of them alone, or a full room could have nothing mended. Where several are on
-- their way to one key, the others count as well.
CREATE TABLE replaced (
    key  TEXT PRIMARY KEY,
    room TEXT NOT NULL,
    size INTEGER NOT NULL                -- bytes that would count twice
) WITHOUT ROWID;

CREATE TRIGGER replaced_more AFTER INSERT ON replaced BEGIN
    UPDATE usage SET size = size - NEW.size, files = files - 1 WHERE room = NEW.room;
END;
CREATE TRIGGER replaced_less AFTER DELETE ON replaced BEGIN
    UPDATE usage SET size = size + OLD.size, files = files + 1 WHERE room = OLD.room;
END;

CREATE VIEW coming AS
    SELECT key, size FROM uploads WHERE state != 'done' UNION ALL SELECT key, size FROM expected;

INSERT INTO replaced SELECT objects.key, objects.room, min(objects.size, max(coming.size))
    FROM coming JOIN objects USING (key) GROUP BY objects.key;

-- SQLite has no procedures: whoever puts a key into this view has what is replaced there found anew.
CREATE VIEW recount AS SELECT key FROM objects;
CREATE TRIGGER recount_key INSTEAD OF INSERT ON recount BEGIN
    DELETE FROM replaced WHERE key = NEW.key;
    INSERT INTO replaced SELECT objects.key, objects.room, min(objects.size, max(coming.size))
        FROM coming JOIN objects USING (key) WHERE coming.key = NEW.key GROUP BY objects.key;
END;

CREATE TRIGGER objects_put AFTER INSERT ON objects BEGIN
    INSERT INTO recount VALUES (NEW.key);
END;
CREATE TRIGGER objects_sized AFTER UPDATE OF size ON objects BEGIN
    INSERT INTO recount VALUES (NEW.key);
END;
CREATE TRIGGER objects_gone AFTER DELETE ON objects BEGIN
    INSERT INTO recount VALUES (OLD.key);
END;
CREATE TRIGGER uploads_put AFTER INSERT ON uploads BEGIN
    INSERT INTO recount VALUES (NEW.key);
END;
CREATE TRIGGER uploads_stated AFTER UPDATE OF state ON uploads BEGIN
    INSERT INTO recount VALUES (NEW.key);
END;
CREATE TRIGGER uploads_gone AFTER DELETE ON uploads BEGIN
    INSERT INTO recount VALUES (OLD.key);
END;
CREATE TRIGGER expected_put AFTER INSERT ON expected BEGIN
    INSERT INTO recount VALUES (NEW.key);
END;
CREATE TRIGGER expected_sized AFTER UPDATE OF size ON expected BEGIN
    INSERT INTO recount VALUES (NEW.key);
END;
CREATE TRIGGER expected_gone AFTER DELETE ON expected BEGIN
    INSERT INTO recount VALUES (OLD.key);
END;
