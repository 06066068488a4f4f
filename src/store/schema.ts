// The tables of the state, as the steps that lead from each version of them to the next.
//
// `PRAGMA user_version` counts the steps that a file has taken. A step that was released is never
// changed: a new version appends one. Each `checksum` is that of `records.ts`.

/** "veor", by which `file` and we tell our databases from others. */
export const APPLICATION_ID = 0x76656f72;

export const SCHEMA: readonly string[] = [
  `
  CREATE TABLE instances (
    position INTEGER PRIMARY KEY,   -- in the order in which they were added
    id       TEXT NOT NULL UNIQUE,
    path     TEXT NOT NULL,
    binary   TEXT,                  -- SHA-256 of an uploaded binary
    settings TEXT NOT NULL,         -- JSON
    checksum INTEGER NOT NULL,
    name     TEXT AS (settings ->> 'name') UNIQUE
  ) STRICT;

  CREATE TABLE runs (
    instance TEXT PRIMARY KEY,
    wanted   INTEGER NOT NULL,      -- 1: meant to run
    failed   TEXT,                  -- why it is not tried again
    priority TEXT,                  -- of the last start
    run      TEXT,                  -- JSON: the process that ran last
    checksum INTEGER NOT NULL
  ) STRICT;

  CREATE TABLE links (
    position INTEGER PRIMARY KEY,
    type     TEXT NOT NULL,
    source   TEXT NOT NULL,         -- an instance, or '': any
    target   TEXT NOT NULL,         -- an instance, or IP:PORT
    settings TEXT NOT NULL,         -- JSON
    checksum INTEGER NOT NULL,
    UNIQUE (target, type, source)
  ) STRICT;
  CREATE INDEX links_by_source ON links (source);

  CREATE TABLE events (
    seq      INTEGER PRIMARY KEY,
    time     INTEGER NOT NULL,      -- milliseconds since 1970
    kind     TEXT NOT NULL,
    instance TEXT,
    name     TEXT,                  -- of the instance, when it happened
    detail   TEXT NOT NULL,         -- JSON
    checksum INTEGER NOT NULL
  ) STRICT;

  CREATE TABLE facts (              -- of the daemon itself
    key      TEXT PRIMARY KEY,
    value    TEXT NOT NULL,
    checksum INTEGER NOT NULL
  ) STRICT;
  `,
  // JSON: how its last process ended; a row without it has the checksum that it had before
  "ALTER TABLE runs ADD COLUMN last TEXT",
];
