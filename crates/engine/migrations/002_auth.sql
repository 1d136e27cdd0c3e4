-- Who owns a namespace: a wallet, or 'operator'. What was there before wallets could sign in belongs to the operator.
ALTER TABLE namespaces ADD COLUMN owner TEXT NOT NULL DEFAULT 'operator';

-- Namespaces whose key-value pairs or applications came before any row here. Those with a database alone are added when
-- the engine opens, which knows the files.
INSERT INTO namespaces (name, created_at)
SELECT ns, 0 FROM kv WHERE substr(ns, 1, 1) <> '_' UNION SELECT namespace, 0 FROM apps WHERE true
ON CONFLICT (name) DO NOTHING;

-- Roles that an owner or an admin gave to other wallets.
CREATE TABLE grants (
    namespace TEXT NOT NULL,
    wallet TEXT NOT NULL,
    role TEXT NOT NULL,
    granted_by TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (namespace, wallet)
) WITHOUT ROWID;

-- Nonces that opened something, until they would have expired anyway. SHA-256.
CREATE TABLE used_nonces (
    hash BLOB PRIMARY KEY NOT NULL,
    expires_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX used_nonces_expires_at ON used_nonces (expires_at);

-- What nodes of one network share and nobody else needs.
CREATE TABLE secrets (
    name TEXT PRIMARY KEY NOT NULL,
    value BLOB NOT NULL,
    created_at INTEGER NOT NULL
) WITHOUT ROWID;

-- A session is what one sign-in opened; its refresh tokens follow each other.
CREATE TABLE sessions (
    id TEXT PRIMARY KEY NOT NULL,
    wallet TEXT NOT NULL,
    namespace TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    last_used INTEGER,
    expires_at INTEGER NOT NULL,
    revoked_at INTEGER
) WITHOUT ROWID;
CREATE INDEX sessions_wallet ON sessions (wallet, namespace);
CREATE INDEX sessions_expires_at ON sessions (expires_at);

CREATE TABLE refresh_tokens (
    -- SHA-256 of the token; the token itself is never stored.
    hash BLOB PRIMARY KEY NOT NULL,
    session TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    -- Set when it was exchanged: coming a second time, it ends its session.
    used_at INTEGER
) WITHOUT ROWID;
CREATE INDEX refresh_tokens_session ON refresh_tokens (session);
CREATE INDEX refresh_tokens_expires_at ON refresh_tokens (expires_at);

-- Public keys that access tokens are checked with.
CREATE TABLE signing_keys (
    kid TEXT PRIMARY KEY NOT NULL,
    public_key BLOB NOT NULL,
    node_id TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    removed_at INTEGER
) WITHOUT ROWID;

-- The wallet that made a key or registered an application; NULL for an operator's.
ALTER TABLE api_keys ADD COLUMN wallet TEXT;
ALTER TABLE apps ADD COLUMN wallet TEXT;

CREATE INDEX audit_events_at ON audit_events (at);
