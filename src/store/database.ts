// A door: one SQLite file of ours: made whole, examined without a change, brought up to date.
//
// A file that is damaged, newer, or not ours is refused, and then not one byte of it has changed:
// it is read by a connection that cannot write before another one may.

import { Database, SQLiteError } from "bun:sqlite";
import { chmodSync, lstatSync, renameSync, rmSync, type Stats } from "node:fs";
import { dirname } from "node:path";

import { NO_ROOM_FOR_STATE, OrchestratorError, systemCode } from "../errors.ts";
import { syncPath } from "../files.ts";
import { MAX_STATE_BYTES, STATE_BUSY_MS, STATE_LOG_BYTES } from "../limits.ts";
import { APPLICATION_ID, SCHEMA } from "./schema.ts";

export interface DatabaseOptions {
  /** What the file may grow to. */
  readonly maxBytes?: number;
  /** The steps that lead to the present tables. */
  readonly schema?: readonly string[];
}

/** Reads everything in a database. @throws `state_unusable` if something is not whole */
export type Examine = (database: Database) => void;

export const IN_MEMORY = ":memory:";
export const PAGE_BYTES = 4096;

/**
 * Opens a file, or `:memory:`, and makes it if it is not there.
 * @throws `state_unusable` or `io`
 */
export function openDatabase(path: string, examine: Examine, options: DatabaseOptions): Database {
  const { schema = SCHEMA, maxBytes = MAX_STATE_BYTES } = options;
  let database: Database | undefined;
  try {
    if (path !== IN_MEMORY) prepare(path, schema, examine);
    database = new Database(path, { readwrite: true, create: path === IN_MEMORY });
    database.run(`
      PRAGMA busy_timeout = ${STATE_BUSY_MS};
      PRAGMA journal_mode = WAL;
      PRAGMA synchronous = NORMAL;
      PRAGMA wal_autocheckpoint = 0;
      PRAGMA journal_size_limit = ${2 * STATE_LOG_BYTES};
      PRAGMA max_page_count = ${Math.floor(maxBytes / PAGE_BYTES)};
    `);
    migrate(database, schema);
    // Fails where a change would fail.
    database.run(`BEGIN IMMEDIATE; PRAGMA user_version = ${schema.length}; ROLLBACK`);
    if (path !== IN_MEMORY) syncPath(dirname(path)); // the log has its name there now
    return database;
  } catch (error) {
    database?.close();
    throw explain(error, "use", path);
  }
}

/** Makes sure that a file of ours, whole and known, stands at a path. */
function prepare(path: string, schema: readonly string[], examine: Examine): void {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found === undefined) {
    make(path, schema);
    return;
  }
  if (!found.isFile()) throw fault("it is not a file");
  if (found.size === 0) throw fault("it is empty");
  const hadLog = lstatSync(`${path}-wal`, { throwIfNoEntry: false }) !== undefined;
  const database = new Database(path, { readonly: true });
  let isRefused = true;
  try {
    if (pragma(database, "application_id") !== APPLICATION_ID) {
      throw fault("it belongs to another program");
    }
    const version = Number(pragma(database, "user_version"));
    if (version > schema.length) {
      throw fault(`it is of version ${version}, and this program knows ${schema.length}`);
    }
    const damage = pragma(database, "integrity_check(1)");
    if (damage !== "ok") throw fault(`it is damaged (${damage})`);
    if (version === schema.length) {
      if (!hasTables(database, schema)) throw fault("it is damaged (its tables are not ours)");
      examine(database);
    } else rehearse(database, schema, examine);
    isRefused = false;
  } finally {
    database.close();
    if (isRefused && !hadLog) removeEmptyLog(path);
  }
  if ((found.mode & 0o077) !== 0) chmodSync(path, 0o600); // a backup that was copied back
}

/** Reading makes a log where there is none, which only writing removes again. */
function removeEmptyLog(path: string): void {
  const log = lstatSync(`${path}-wal`, { throwIfNoEntry: false });
  if (log?.size !== 0) return;
  for (const suffix of ["-wal", "-shm"]) rmSync(path + suffix, { force: true });
}

/** Makes a file under another name first: what has the name is whole. */
function make(path: string, schema: readonly string[]): void {
  // A log without its file would be taken for that of the new one.
  const log = lstatSync(`${path}-wal`, { throwIfNoEntry: false });
  if (log !== undefined && log.size > 0) throw fault(`of it, only ${path}-wal is there`);
  const fresh = `${path}.new`;
  for (const suffix of ["-wal", "-shm", ".new", ".new-wal", ".new-shm", ".new-journal"]) {
    rmSync(`${path}${suffix}`, { force: true });
  }
  const mask = process.umask(0o177);
  let database: Database | undefined;
  try {
    database = new Database(fresh, { readwrite: true, create: true });
    database.run("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF");
    migrate(database, schema);
    database.close();
    syncPath(fresh);
    renameSync(fresh, path);
    syncPath(dirname(path));
  } catch (error) {
    database?.close();
    for (const suffix of ["", "-wal", "-shm"]) rmSync(fresh + suffix, { force: true });
    throw error;
  } finally {
    process.umask(mask);
  }
}

/** Takes the steps that a file has not taken yet, all or none. */
function migrate(database: Database, schema: readonly string[]): void {
  const version = Number(pragma(database, "user_version"));
  if (version === schema.length) return;
  database
    .transaction(() => {
      for (const step of schema.slice(version)) database.run(step);
      database.run(`PRAGMA application_id = ${APPLICATION_ID}`);
      database.run(`PRAGMA user_version = ${schema.length}`);
    })
    .immediate();
}

/** Whether tables and indices are, to the letter, what the steps make; statistics may be added. */
function hasTables(database: Database, schema: readonly string[]): boolean {
  const fresh = new Database(IN_MEMORY);
  try {
    migrate(fresh, schema);
    const [actual, expected] = [database, fresh].map((each) =>
      each
        .query("SELECT name, sql FROM sqlite_schema WHERE name NOT GLOB 'sqlite_stat*' ORDER BY 1")
        .values(),
    );
    return JSON.stringify(actual) === JSON.stringify(expected);
  } finally {
    fresh.close();
  }
}

/** Brings a copy in memory up to date, and examines that. */
function rehearse(database: Database, schema: readonly string[], examine: Examine): void {
  const bytes = database.serialize();
  bytes.fill(1, 18, 20); // in memory there is no write-ahead log
  const copy = Database.deserialize(bytes);
  try {
    migrate(copy, schema);
    examine(copy);
  } finally {
    copy.close();
  }
}

function pragma(database: Database, name: string): unknown {
  return database.query(`PRAGMA ${name}`).values()[0]?.[0];
}

function fault(reason: string): OrchestratorError {
  return new OrchestratorError("state_unusable", reason);
}

/**
 * Which files have the names of a database and of its write-ahead log now.
 * @throws the system's error if it does not say
 */
export function identityOf(path: string): string {
  const files = [path, `${path}-wal`].map((name) => {
    const found = lookAt(name);
    return `${found?.dev}:${found?.ino}`;
  });
  return files.join(" ");
}

/** Undefined if there is nothing, also where its folder is something else by now. */
function lookAt(path: string): Stats | undefined {
  try {
    return lstatSync(path, { throwIfNoEntry: false });
  } catch (error) {
    if (systemCode(error) === "ENOTDIR") return undefined;
    throw error;
  }
}

/** Whether an error says that there is no room for a change, or for the memory that readers share. */
export function isFull(error: unknown): boolean {
  if (!(error instanceof SQLiteError)) return false;
  return error.code === "SQLITE_FULL" || error.code === "SQLITE_IOERR_SHMSIZE";
}

/** Whether an error leaves open what the disk has of what was written before. */
export function isUnsynced(error: unknown): boolean {
  return (
    systemCode(error) !== undefined ||
    (error instanceof SQLiteError && error.code === "SQLITE_IOERR_FSYNC")
  );
}

/** Says what went wrong with the state in a file, for a person; a defect is left as it is. */
export function explain(error: unknown, verb: "use" | "read" | "write", path: string): Error {
  const subject = `Cannot ${verb} the state in ${path === IN_MEMORY ? "memory" : path}`;
  const unusable = (reason: string): OrchestratorError =>
    new OrchestratorError("state_unusable", `${subject}: ${reason}; it was left as it is`, {
      hint: `move ${path}* away to begin with an empty state, or start with another --state-dir`,
    });
  if (error instanceof OrchestratorError) {
    return error.code === "state_unusable" ? unusable(error.message) : error;
  }
  if (systemCode(error) !== undefined) {
    return new OrchestratorError("io", subject, { cause: error });
  }
  if (!(error instanceof SQLiteError)) return error as Error;
  if (isFull(error)) {
    return new OrchestratorError("io", `${subject}: ${NO_ROOM_FOR_STATE}`, { hint: "make room" });
  }
  const [, kind] = /^SQLITE_([A-Z]+)/.exec(error.code ?? "") ?? [];
  switch (kind) {
    case "CORRUPT":
    case "NOTADB":
    case "ERROR": // a table or a column is not there
      return unusable(`it is damaged (${error.message})`);
    case "BUSY":
      return new OrchestratorError("io", `${subject}: another program has locked it`);
    case "READONLY":
      return new OrchestratorError("io", `${subject}: it may not be written`);
    case "CONSTRAINT":
      return error;
    default:
      return new OrchestratorError("io", `${subject}: ${error.message}`);
  }
}
