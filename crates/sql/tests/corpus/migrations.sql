-- A set of migrations: tables, full text that follows them by triggers, a table made anew, history.
CREATE TABLE schema_migrations(version INTEGER PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL, applied_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP);
CREATE TABLE notes(id INTEGER PRIMARY KEY, title TEXT NOT NULL, body TEXT NOT NULL DEFAULT '', created_at TEXT NOT NULL DEFAULT (datetime('now')), updated_at TEXT);
CREATE INDEX notes_created ON notes(created_at DESC);
INSERT INTO schema_migrations(version, name, checksum) VALUES (1, 'notes', 'aa');
CREATE VIRTUAL TABLE notes_fts USING fts5(title, body, content='notes', content_rowid='id', tokenize='porter unicode61');
CREATE TRIGGER notes_ai AFTER INSERT ON notes BEGIN
  INSERT INTO notes_fts(rowid, title, body) VALUES (new.id, new.title, new.body);
END;
CREATE TRIGGER notes_ad AFTER DELETE ON notes BEGIN
  INSERT INTO notes_fts(notes_fts, rowid, title, body) VALUES ('delete', old.id, old.title, old.body);
END;
CREATE TRIGGER notes_au AFTER UPDATE ON notes BEGIN
  INSERT INTO notes_fts(notes_fts, rowid, title, body) VALUES ('delete', old.id, old.title, old.body);
  INSERT INTO notes_fts(rowid, title, body) VALUES (new.id, new.title, new.body);
END;
CREATE TRIGGER notes_touch AFTER UPDATE OF title, body ON notes BEGIN
  UPDATE notes SET updated_at = datetime('now') WHERE id = new.id;
END;
INSERT INTO schema_migrations(version, name, checksum) VALUES (2, 'full text; with triggers', 'bb');
INSERT INTO notes(title, body) VALUES ('Shopping', 'milk; eggs'), ('Running', 'ran ten miles'), ('Ideas', 'a database of its own');
UPDATE notes SET body = 'milk; bread' WHERE title = 'Shopping';
SELECT n.id, n.title, highlight(notes_fts, 1, '<', '>') FROM notes_fts JOIN notes n ON n.id = notes_fts.rowid WHERE notes_fts MATCH 'bread OR run' ORDER BY n.id;
SELECT title, snippet(notes_fts, 1, '[', ']', '…', 5) FROM notes_fts('miles') ORDER BY rank;
SELECT length(updated_at), length(created_at) FROM notes ORDER BY id;
CREATE TABLE notes_new(id INTEGER PRIMARY KEY, title TEXT NOT NULL CHECK (length(title) > 0), body TEXT NOT NULL DEFAULT '', pinned INTEGER NOT NULL DEFAULT 0, created_at TEXT NOT NULL DEFAULT (datetime('now')), updated_at TEXT);
INSERT INTO notes_new(id, title, body, created_at, updated_at) SELECT id, title, body, created_at, updated_at FROM notes;
DROP TABLE notes;
ALTER TABLE notes_new RENAME TO notes;
CREATE INDEX notes_created ON notes(created_at DESC);
CREATE TRIGGER notes_ai AFTER INSERT ON notes BEGIN INSERT INTO notes_fts(rowid, title, body) VALUES (new.id, new.title, new.body); END;
INSERT INTO notes_fts(notes_fts) VALUES ('rebuild');
INSERT INTO schema_migrations(version, name, checksum) VALUES (3, 'pinned', 'cc');
INSERT INTO notes(title) VALUES ('');
INSERT INTO notes(title, pinned) VALUES ('Pinned', 1);
SELECT rowid, title FROM notes_fts WHERE notes_fts MATCH 'pinned';
SELECT version, name, checksum, length(applied_at) FROM schema_migrations ORDER BY version;
INSERT INTO schema_migrations(version, name, checksum) VALUES (3, 'again', 'cc');
SELECT max(version) FROM schema_migrations;
ALTER TABLE notes ADD COLUMN tags TEXT NOT NULL DEFAULT '[]';
CREATE VIEW tagged AS SELECT notes.id, tag.value AS tag FROM notes, json_each(notes.tags) AS tag;
UPDATE notes SET tags = '["a","b"]' WHERE title = 'Ideas';
SELECT * FROM tagged ORDER BY 1, 2;
SELECT type, name, tbl_name FROM sqlite_schema WHERE name NOT LIKE 'notes_fts%' ORDER BY 1, 2;
UPDATE notes SET created_at = 'fixed', updated_at = 'fixed';
UPDATE schema_migrations SET applied_at = 'fixed';
DELETE FROM notes WHERE title = 'Running';
