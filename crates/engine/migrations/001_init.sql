-- Key-value pairs. The rowid table keeps values of up to 4 MiB out of the index, which holds only the names.
CREATE TABLE kv (
    ns TEXT NOT NULL,
    key TEXT NOT NULL,
    value BLOB NOT NULL,
    version INTEGER NOT NULL,
    expires_at INTEGER,
    UNIQUE (ns, key)
);
CREATE INDEX kv_expires_at ON kv (expires_at) WHERE expires_at IS NOT NULL;

-- Answers of guarded writes. A namespace's own database has a table of the same form, with ns = ''.
CREATE TABLE _debros_idempotency (
    ns TEXT NOT NULL,
    key TEXT NOT NULL,
    request_hash BLOB NOT NULL,
    answer BLOB NOT NULL,
    expires_at INTEGER NOT NULL,
    UNIQUE (ns, key)
);
CREATE INDEX _debros_idempotency_expires_at ON _debros_idempotency (expires_at);

CREATE TABLE namespaces (
    name TEXT PRIMARY KEY NOT NULL,
    created_at INTEGER NOT NULL
);

CREATE TABLE api_keys (
    id TEXT PRIMARY KEY NOT NULL,
    -- SHA-256 of the key; the key itself is never stored.
    hash BLOB UNIQUE NOT NULL,
    prefix TEXT NOT NULL,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL DEFAULT '',
    role TEXT NOT NULL,
    scopes TEXT NOT NULL DEFAULT '',
    created_at INTEGER NOT NULL,
    last_used INTEGER,
    revoked_at INTEGER
);
CREATE INDEX api_keys_namespace ON api_keys (namespace);

CREATE TABLE apps (
    app_id TEXT PRIMARY KEY NOT NULL,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    public_key TEXT NOT NULL DEFAULT '',
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
);
CREATE INDEX apps_namespace ON apps (namespace);

CREATE TABLE audit_events (
    id INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    kind TEXT NOT NULL,
    namespace TEXT NOT NULL DEFAULT '',
    subject TEXT NOT NULL DEFAULT '',
    detail TEXT NOT NULL DEFAULT ''
);
CREATE INDEX audit_events_namespace ON audit_events (namespace, at);
