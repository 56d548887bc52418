-- What pins the parts of an upload, sha256 or crc32c: of all that are under way now, SHA-256.
ALTER TABLE uploads ADD COLUMN checksum TEXT NOT NULL DEFAULT 'sha256';
