// A door: what the daemon remembers, in SQLite: instances, links, events, facts about itself.
//
// Changes gather in one transaction until `commit()`: what was asked for together costs one write.
// A file is first read without changing a byte of it. Only if it is ours, whole, and not newer than
// we are, it is opened for good.

import type { Database } from "bun:sqlite";

import { Checkpoint } from "./store/checkpoint.ts";
import {
  type DatabaseOptions,
  explain,
  identityOf,
  IN_MEMORY,
  isFull,
  isUnsynced,
  openDatabase,
  PAGE_BYTES,
} from "./store/database.ts";
import { OrchestratorError } from "./errors.ts";
import {
  EVENT_PRUNE_COUNT,
  EVENT_PRUNE_MS,
  MAX_EVENT_AGE_MS,
  MAX_EVENTS,
  MAX_STATE_LOG_BYTES,
  SKIPPED_EVENTS,
  STATE_LOG_BYTES,
} from "./limits.ts";
import type { InstanceId, LinkKey } from "./model.ts";
import {
  decodeEvent,
  decodeInstance,
  decodeLink,
  decodeRow,
  decodeStatus,
  encodeEvent,
  encodeInstance,
  encodeKey,
  encodeLink,
  encodeRow,
  encodeStatus,
  type Row,
  type StoredEvent,
  type StoredInstance,
  type StoredLink,
  type StoredStatus,
  type Value,
} from "./store/records.ts";
import { type FileSyncer, Syncer } from "./store/syncer.ts";

export interface StoreOptions extends DatabaseOptions {
  /** What brings the file at a path to the disk: the log of changes, and that into which it is moved. */
  readonly openSyncer?: (path: string) => FileSyncer;
}

/** What is registered, each in the order in which it was added. */
export interface Registered {
  readonly instances: readonly StoredInstance[];
  readonly links: readonly StoredLink[];
}

/** Which events; without anything, all that are kept. */
export interface EventQuery {
  /** Not before this time, in milliseconds since the epoch. */
  readonly since?: number | undefined;
  readonly until?: number | undefined;
  /** The newest so many. */
  readonly last?: number | undefined;
  /** The oldest so many; then `last` is not looked at. */
  readonly first?: number | undefined;
  /** Only those about these instances. */
  readonly ids?: readonly InstanceId[] | undefined;
  /** Only those with a greater `seq`. */
  readonly after?: number | undefined;
}

/** A change that fails is told by the `commit()` that ends its transaction, and by nothing else. */
export class Store {
  readonly #database: Database;
  /** Why the changes since the last commit are undone already. */
  #fault: Error | undefined;
  #lastSeq: number;
  #unpruned = 0;
  #prunedAt = 0;
  /** Nothing of what is in memory only. */
  readonly #log:
    | {
        readonly syncer: FileSyncer;
        readonly checkpoint: Checkpoint;
        /** What had the names of the file and its log when they were opened. */
        readonly identity: string;
      }
    | undefined;
  /** The disk has refused some of the log once, and will not say so again. */
  #isDoubtful = false;

  private constructor(database: Database, openSyncer: (path: string) => FileSyncer) {
    this.#database = database;
    const { filename } = database;
    if (filename !== IN_MEMORY) {
      const syncer = openSyncer(`${filename}-wal`);
      const checkpoint = new Checkpoint(filename, syncer, openSyncer);
      this.#log = { syncer, checkpoint, identity: identityOf(filename) };
    }
    this.#lastSeq = Number(rows(database, "SELECT coalesce(max(seq), 0) FROM events")[0]?.[0]);
  }

  /**
   * Opens the state in a file, which is made if need be, or in `:memory:`. The caller sees to it
   * that no other daemon uses the file.
   * @throws `state_unusable` if it is damaged, newer or not ours, and then not changed; `io`
   */
  static open(path: string, options: StoreOptions = {}): Store {
    const database = openDatabase(path, examine, options);
    const { openSyncer = (file) => new Syncer(file) } = options;
    return new Store(database, openSyncer);
  }

  /** Reads what is registered, with changes that are not committed yet. @throws `state_unusable`, `io` */
  load(): Registered {
    return this.#read(() => load(this.#database));
  }

  /**
   * Writes anew the links whose address an earlier program spelled in another way: those mapped to IPv6.
   * @returns those that were left out, since they became one with another: type, source and target
   */
  respellLinks(): Row[] {
    const mapped = "SELECT 1 FROM links WHERE target >= '[::ffff:' AND target < '[::ffff;' LIMIT 1";
    if (this.#read(() => rows(this.#database, mapped)).length === 0) return []; // as nearly always
    const { links, others } = this.#read(() => loadLinks(this.#database));
    for (const row of others) this.#change(`DELETE FROM links WHERE ${IS_LINK}`, row);
    for (const { row, link } of links) {
      const [, , target] = encodeKey(link.key);
      if (row[2] === target) continue;
      this.#change(`UPDATE links SET target = ?, checksum = ? WHERE ${IS_LINK}`, [
        ...[target as Value, encodeLink(link).at(-1) as Value],
        ...row.slice(0, 3),
      ]);
    }
    return others;
  }

  /** Adds an instance at the end, or replaces what is known of it. */
  putInstance(instance: StoredInstance): void {
    this.#change(
      `INSERT INTO instances (id, path, binary, settings, checksum) VALUES (?, ?, ?, ?, ?)
       ON CONFLICT (id) DO UPDATE SET path = excluded.path, binary = excluded.binary,
       settings = excluded.settings, checksum = excluded.checksum`,
      encodeInstance(instance),
    );
    this.#change(`INSERT OR REPLACE INTO runs (${STATUS_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)`, [
      ...encodeStatus(instance.id, instance),
    ]);
  }

  /** Replaces the status of an instance. Nothing happens if there is no such instance. */
  putStatus(id: InstanceId, status: StoredStatus): void {
    const [, ...values] = encodeStatus(id, status);
    this.#change(
      `UPDATE runs SET wanted = ?, failed = ?, priority = ?, run = ?, last = ?, checksum = ?
       WHERE instance = ?`,
      [...values, id],
    );
  }

  /** Removes an instance with all links from and to it. */
  removeInstance(id: InstanceId): void {
    this.#change("DELETE FROM links WHERE source = ?1 OR target = ?1", [id]);
    this.#change("DELETE FROM runs WHERE instance = ?", [id]);
    this.#change("DELETE FROM instances WHERE id = ?", [id]);
  }

  /** Adds a link at the end, or replaces its settings. */
  putLink(link: StoredLink): void {
    this.#change(
      `INSERT INTO links (type, source, target, settings, checksum) VALUES (?, ?, ?, ?, ?)
       ON CONFLICT (target, type, source)
       DO UPDATE SET settings = excluded.settings, checksum = excluded.checksum`,
      encodeLink(link),
    );
  }

  removeLink(key: LinkKey): void {
    this.#change(`DELETE FROM links WHERE ${IS_LINK}`, encodeKey(key));
  }

  /** Removes all instances and links; events and facts stay. */
  clear(): void {
    for (const table of ["links", "runs", "instances"]) this.#change(`DELETE FROM ${table}`, []);
  }

  /** Adds an event and returns its `seq`. Those that are too old or too many go now and then. */
  addEvent(event: Omit<StoredEvent, "seq">): number {
    const seq = ++this.#lastSeq;
    this.#change("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)", encodeEvent({ ...event, seq }));
    this.#prune(seq, event.time);
    return seq;
  }

  /** Events in their order, with those that are not committed yet. @throws `state_unusable`, `io` */
  events(query: EventQuery = {}): StoredEvent[] {
    const { last = MAX_EVENTS, first } = query;
    const [order, count] = first === undefined ? ["DESC", last] : ["ASC", first];
    const found = this.#selectEvents("*", query, `ORDER BY seq ${order} LIMIT ?5`, count);
    const events = found.map(decodeEvent);
    return first === undefined ? events.reverse() : events;
  }

  /**
   * Leaves out numbers: events that a killed daemon has told, and could not keep any more, had the next
   * ones, and who has heard them asks for those behind.
   */
  skipEvents(): void {
    this.#lastSeq += SKIPPED_EVENTS;
  }

  /** The greatest `seq` before those events; where there are none of them, of all. @throws as `events()` */
  seqBefore(query: EventQuery): number {
    const { last = MAX_EVENTS } = query;
    const found = this.#selectEvents("seq", query, "ORDER BY seq DESC LIMIT ?5", last);
    const oldest = found.at(-1)?.[0];
    return typeof oldest === "number" ? oldest - 1 : this.#lastSeq;
  }

  /** A fact about the daemon, or undefined. @throws `state_unusable`, `io` */
  get(key: string): string | undefined {
    return this.#read(() => {
      const [row] = rows(this.#database, "SELECT * FROM facts WHERE key = ?", [key]);
      return row === undefined ? undefined : String(decodeRow("facts", row)[1]);
    });
  }

  set(key: string, value: string): void {
    this.#change("INSERT OR REPLACE INTO facts VALUES (?, ?, ?)", encodeRow("facts", [key, value]));
  }

  /** Whether there are changes that are not durable yet. */
  get isDirty(): boolean {
    return this.#fault !== undefined || this.#database.inTransaction;
  }

  /**
   * Settles when the disk has all that is committed, and with an error if that cannot be known.
   * Undefined for what is in memory only.
   */
  sync(): Promise<void> | undefined {
    return this.#log === undefined ? undefined : this.#sync(this.#log.syncer);
  }

  /**
   * Makes all changes outlive this process; `sync()` makes them outlive the machine.
   * @throws `io` or `state_unusable` if that, or one of the changes, failed: then all changes since
   *   the last commit are undone, and the next ones begin anew
   */
  commit(): void {
    if (this.#fault === undefined && this.#database.inTransaction) {
      try {
        this.#checkNames();
        this.#database.run("COMMIT");
      } catch (error) {
        this.#fail(error);
      }
    }
    const fault = this.#fault;
    this.#fault = undefined;
    if (fault !== undefined) throw fault;
    if (this.#log !== undefined) this.#shorten(this.#log.checkpoint);
  }

  /** Its file; undefined: it is in memory only. */
  get file(): string | undefined {
    return this.#log === undefined ? undefined : this.#database.filename;
  }

  /** Its file, if changes are refused since that has lost its name, as far as the system tells. */
  get lostFile(): string | undefined {
    try {
      return this.#hasNames() ? undefined : this.#database.filename;
    } catch {
      return undefined; // it may be there: why that cannot be seen, the next change tells
    }
  }

  /** Commits, and leaves one file. @throws as `commit()` does; it is closed even then */
  close(): void {
    try {
      this.commit();
    } finally {
      try {
        this.#log?.checkpoint.close();
      } finally {
        this.#database.close();
        this.#log?.checkpoint.closeFile();
        this.#log?.syncer.close();
      }
    }
  }

  /** Begins to move the log into the file when it has become long; at once if it is too long for that. */
  #shorten(checkpoint: Checkpoint): void {
    const doubt = (error: unknown): void => {
      // What cannot be moved the log keeps; of a sync the next change makes sure, and its answer tells.
      if (isUnsynced(error)) this.#isDoubtful = true;
    };
    try {
      const [[, pages, moved] = []] = rows(this.#database, "PRAGMA wal_checkpoint(NOOP)");
      const bytes = Number(pages) * PAGE_BYTES;
      const { isRunning } = checkpoint;
      if (bytes >= (isRunning ? MAX_STATE_LOG_BYTES : 2 * STATE_LOG_BYTES)) {
        checkpoint.abandon();
        this.#database.run("PRAGMA wal_checkpoint(PASSIVE)");
      } else if (!isRunning && bytes - Number(moved) * PAGE_BYTES >= STATE_LOG_BYTES) {
        checkpoint.run().catch(doubt);
      }
    } catch (error) {
      doubt(error);
    }
  }

  async #sync(syncer: FileSyncer): Promise<void> {
    try {
      if (!this.#isDoubtful) await syncer.sync();
      // What the system could not write it counts as written: only the file can make up for the log.
      if (this.#isDoubtful) this.#moveAll();
      this.#isDoubtful = false;
    } catch (error) {
      this.#isDoubtful = true;
      throw explain(error, "write", this.#database.filename);
    }
  }

  #change(sql: string, values: Row): void {
    if (this.#fault !== undefined) return;
    try {
      if (!this.#database.inTransaction) this.#database.run("BEGIN IMMEDIATE");
      this.#database.query(sql).run(...values);
    } catch (error) {
      this.#fail(error);
    }
  }

  /** What is written to a file that has lost its name is gone with this process. @throws `io` */
  #checkNames(): void {
    if (this.#hasNames()) return;
    throw new OrchestratorError(
      "io",
      `Cannot write the state in ${this.#database.filename}: it was removed or replaced while the daemon uses it; ` +
        "put it back, or start the daemon anew",
    );
  }

  /** Whether the file and its log have their names still. @throws the system's error if it does not say */
  #hasNames(): boolean {
    return this.#log === undefined || identityOf(this.#database.filename) === this.#log.identity;
  }

  /** Undoes everything since the last commit, unless SQLite has done so itself. */
  #fail(error: unknown): void {
    this.#fault = explain(error, "write", this.#database.filename);
    try {
      if (this.#database.inTransaction) this.#database.run("ROLLBACK");
      // The room that the write-ahead log takes on a full disk is what the next change needs.
      if (isFull(error)) this.#moveAll();
    } catch {
      // What stands in the way now will do so in the next transaction, and its commit tells.
    }
  }

  /** Brings the log into the file, and both to the disk, while everything waits. */
  #moveAll(): void {
    this.#log?.checkpoint.abandon();
    this.#database.run("PRAGMA wal_checkpoint(TRUNCATE)");
  }

  #selectEvents(columns: string, query: EventQuery, end: string, count: number): Row[] {
    const { since = 0, until = Number.MAX_SAFE_INTEGER, ids, after = 0 } = query;
    const wanted = ids === undefined ? null : JSON.stringify(ids);
    return this.#read(() =>
      rows(
        this.#database,
        `SELECT ${columns} FROM events WHERE seq > ?1 AND time BETWEEN ?2 AND ?3
         AND (?4 IS NULL OR instance IN (SELECT value FROM json_each(?4))) ${end}`,
        [after, since, until, wanted, Math.min(count, MAX_EVENTS)],
      ),
    );
  }

  #read<T>(body: () => T): T {
    try {
      return body();
    } catch (error) {
      throw explain(error, "read", this.#database.filename);
    }
  }

  #prune(seq: number, time: number): void {
    this.#unpruned++;
    if (this.#unpruned < EVENT_PRUNE_COUNT && time - this.#prunedAt < EVENT_PRUNE_MS) return;
    this.#unpruned = 0;
    this.#prunedAt = time;
    // The newest stays, whatever its time: the next `seq` is counted from it.
    this.#change(
      `DELETE FROM events WHERE seq < ?1 AND (time < ?2 OR seq <=
       (SELECT seq FROM events ORDER BY seq DESC LIMIT 1 OFFSET ${MAX_EVENTS}))`,
      [seq, time - MAX_EVENT_AGE_MS],
    );
  }
}

const STATUS_COLUMNS = "instance, wanted, failed, priority, run, last, checksum";

function rows(database: Database, sql: string, parameters: Row = []): Row[] {
  return database.query(sql).values(...parameters) as Value[][];
}

function load(database: Database): Registered {
  const statuses = new Map(rows(database, `SELECT ${STATUS_COLUMNS} FROM runs`).map(decodeStatus));
  const instances = rows(
    database,
    "SELECT id, path, binary, settings, checksum FROM instances ORDER BY position",
  ).map((row) => {
    const instance = decodeInstance(row);
    const status = statuses.get(instance.id);
    if (status === undefined) throw torn(`instance ${instance.id} has no status`);
    return { ...instance, ...status };
  });
  if (statuses.size > instances.length) throw torn("there is the status of an unknown instance");
  const links = loadLinks(database).links.map(({ link }) => link);
  const ids = new Set(instances.map(({ id }) => id));
  for (const { key } of links) {
    const ends = [key.from, key.to.kind === "instance" ? key.to.id : undefined];
    const unknown = ends.find((id) => id !== undefined && !ids.has(id));
    if (unknown !== undefined) throw torn(`a link names the unknown instance ${unknown}`);
  }
  return { instances, links };
}

const IS_LINK = "type = ? AND source = ? AND target = ?";

/** Links with their rows, and the keys of `others` that are one with a link before them by now. */
function loadLinks(database: Database) {
  const found = rows(
    database,
    "SELECT type, source, target, settings, checksum FROM links ORDER BY position",
  ).map((row) => ({ row, link: decodeLink(row) }));
  const links = new Map<string, (typeof found)[number]>();
  const others: Row[] = [];
  for (const one of found) {
    const name = JSON.stringify(encodeKey(one.link.key));
    if (links.has(name)) others.push(one.row.slice(0, 3));
    else links.set(name, one);
  }
  return { links: [...links.values()], others };
}

function torn(reason: string): OrchestratorError {
  return new OrchestratorError("state_unusable", reason);
}

/**
 * Reads every row but those of events: ten thousand would cost a start more than all else, and
 * nothing is done by them.
 * @throws `state_unusable` if one is not whole
 */
function examine(database: Database): void {
  load(database);
  for (const row of rows(database, "SELECT * FROM facts")) decodeRow("facts", row);
}
