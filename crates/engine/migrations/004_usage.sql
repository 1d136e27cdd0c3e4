-- What the system's database holds of each namespace, as of the last stop in order. The row with the empty name says that
-- the others are all there are.
CREATE TABLE namespace_usage (
    ns TEXT PRIMARY KEY NOT NULL,
    pairs INTEGER NOT NULL,
    pair_bytes INTEGER NOT NULL,
    space INTEGER NOT NULL
) WITHOUT ROWID;

-- An idempotency key is one in its namespace, whatever the service: `ns::<namespace>::<service>::<key>` of the services that
-- write to the system's tables becomes the namespace's own. Of two that are the same now the first stays.
UPDATE OR IGNORE _debros_idempotency SET
    ns = substr(key, 5, instr(substr(key, 5), '::') - 1),
    key = substr(
        substr(key, 5 + instr(substr(key, 5), '::') + 1),
        instr(substr(key, 5 + instr(substr(key, 5), '::') + 1), '::') + 2
    )
WHERE ns = '' AND key LIKE 'ns::%::%::%';
DELETE FROM _debros_idempotency WHERE ns = '';
