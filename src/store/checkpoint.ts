// A door: moves the write-ahead log of a database into its file while the event loop goes on.
//
//   pin ──► log on the disk ──► its pages copied ──► file on the disk ──► unpin
//
// SQLite's own checkpoint takes the same steps, and everything waits for its syncs. The pin is a
// reader: while it is there nobody begins the log anew, so a power cut always finds each page in the
// log or in the file. Only what the pin sees is copied, and that is on the disk as log by then.
//
// Pages that the disk has refused the system counts as written, and SQLite as moved. The log is kept
// until they are copied once more: by hand, since nobody else would.

import { Database } from "bun:sqlite";
import { closeSync, openSync, readSync, writeSync } from "node:fs";

import { PAGE_BYTES } from "./database.ts";
import type { FileSyncer } from "./syncer.ts";

/** https://sqlite.org/fileformat2.html#walformat: what stands before all pages, and before each. */
const LOG_HEADER_BYTES = 32;
const FRAME_HEADER_BYTES = 24;

/** Checkpoints of one database, one at a time. */
export class Checkpoint {
  readonly #log: FileSyncer;
  readonly #pin: Database;
  /** Copies without a sync of its own. */
  readonly #mover: Database;
  readonly #file: FileSyncer;
  /** The same file: each descriptor is told of a failure once. */
  readonly #fileNow: FileSyncer;
  readonly #fileFd: number;
  readonly #logFd: number;
  #isRunning = false;
  #isPinned = false;
  /** The file has pages of the log that the disk may not have there. */
  #isUnsynced = false;
  /** The disk has refused some of them. */
  #isRefused = false;

  /**
   * `log` brings the write-ahead log to the disk; it stays the caller's.
   * @throws SQLite's or the system's error
   */
  constructor(path: string, log: FileSyncer, openSyncer: (path: string) => FileSyncer) {
    this.#log = log;
    this.#pin = new Database(path, { readonly: true });
    this.#mover = new Database(path, { readwrite: true });
    this.#mover.run("PRAGMA synchronous = OFF");
    // What they open, they open now: later, descriptors may be scarce.
    for (const database of [this.#pin, this.#mover]) look(database);
    this.#file = openSyncer(path);
    this.#fileNow = openSyncer(path);
    this.#fileFd = openSync(path, "r+");
    this.#logFd = openSync(`${path}-wal`, "r");
  }

  /** Or something has come to nothing: until `abandon()` the log is kept. */
  get isRunning(): boolean {
    return this.#isRunning || this.#isRefused;
  }

  /** Moves what is committed now. @throws the system's or SQLite's error, and then the log has it still */
  async run(): Promise<void> {
    this.#isRunning = true;
    try {
      this.#pin.run("BEGIN");
      this.#isPinned = true;
      try {
        look(this.#pin); // from here on
        await this.#log.sync();
        if (!this.#isPinned) return;
        this.#isUnsynced = true;
        this.#mover.run("PRAGMA wal_checkpoint(PASSIVE)");
        await this.#file.sync().catch((error: unknown) => this.#refuse(error));
        if (!this.#isRefused) this.#isUnsynced = false;
      } finally {
        if (!this.#isRefused) this.#unpin();
      }
    } finally {
      this.#isRunning = false;
    }
  }

  /**
   * Takes the pin away: the caller moves the log itself, with syncs, before anything is committed. Of
   * what was moved here already SQLite would sync nothing.
   * @throws the system's error, and then the log is kept
   */
  abandon(): void {
    this.#syncNow();
    this.#unpin();
  }

  /**
   * Lets go of the database, whatever is under way; the owner closes its own connection next.
   * @throws the system's error; it is closed even then, and the log stays for who opens it next
   */
  close(): void {
    try {
      this.#syncNow();
    } finally {
      this.#mover.close();
    }
    this.#isPinned = false;
    this.#pin.close();
  }

  #syncNow(): void {
    if (!this.#isUnsynced) return;
    try {
      if (this.#isRefused) {
        // A disk that refuses for good is asked with one page: all of them may be megabytes.
        this.#moveAgain(1);
        this.#fileNow.syncNow();
        this.#moveAgain();
      }
      this.#fileNow.syncNow();
    } catch (error) {
      this.#refuse(error);
    }
    this.#isUnsynced = this.#isRefused = false;
  }

  #refuse(error: unknown): never {
    this.#isRefused = this.#isUnsynced; // else all of it was synced meanwhile
    throw error;
  }

  /** Copies what SQLite has moved already, all that the log begins with, or the first `most` pages of it. */
  #moveAgain(most: number = Infinity): void {
    const [[, , moved] = []] = this.#mover.query("PRAGMA wal_checkpoint(NOOP)").values();
    const frame = Buffer.alloc(FRAME_HEADER_BYTES + PAGE_BYTES);
    for (let i = 0; i < Math.min(most, Number(moved)); i++) {
      readSync(this.#logFd, frame, 0, frame.length, LOG_HEADER_BYTES + i * frame.length);
      const at = (frame.readUInt32BE(0) - 1) * PAGE_BYTES;
      writeSync(this.#fileFd, frame, FRAME_HEADER_BYTES, PAGE_BYTES, at);
    }
  }

  #unpin(): void {
    if (this.#isPinned) this.#pin.run("END");
    this.#isPinned = false;
  }

  /** Lets go of the file. Not before its last connection is closed: SQLite's locks would end with it. */
  closeFile(): void {
    // A reader that is the last one leaves the log, and whoever opens it next moves it from its beginning.
    this.#pin.close();
    this.#file.close();
    this.#fileNow.close();
    for (const fd of [this.#fileFd, this.#logFd]) closeSync(fd);
  }
}

/** Reads something: a transaction that has begun sees nothing before. */
function look(database: Database): void {
  database.query("SELECT count(*) FROM sqlite_schema").get();
}
