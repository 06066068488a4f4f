// A door: moves the write-ahead log of a database into its file while the event loop goes on.
//
//   pin ──► log on the disk ──► its pages copied ──► file on the disk ──► unpin
//
// SQLite's own checkpoint takes the same steps, and everything waits for its syncs. The pin is a
// reader: while it is there nobody begins the log anew, so a power cut always finds each page in the
// log or in the file. Only what the pin sees is copied, and that is on the disk as log by then.

import { Database } from "bun:sqlite";

import type { FileSyncer } from "./syncer.ts";

/** Checkpoints of one database, one at a time. */
export class Checkpoint {
  readonly #log: FileSyncer;
  readonly #pin: Database;
  /** Copies without a sync of its own. */
  readonly #mover: Database;
  readonly #file: FileSyncer;
  #isRunning = false;
  #isPinned = false;
  /** The file has pages of the log that the disk may not have there. */
  #isUnsynced = false;

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
  }

  get isRunning(): boolean {
    return this.#isRunning;
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
        await this.#file.sync();
        this.#isUnsynced = false;
      } finally {
        this.#unpin();
      }
    } finally {
      this.#isRunning = false;
    }
  }

  /**
   * Takes the pin away: the caller moves the log itself, with syncs, before anything is committed. Of
   * what was moved here already SQLite would sync nothing.
   * @throws the system's error
   */
  abandon(): void {
    this.#syncNow();
    this.#unpin();
  }

  /**
   * Lets go of the database, whatever is under way; the owner closes its own connection next.
   * @throws the system's error; it is closed even then
   */
  close(): void {
    try {
      this.#syncNow();
    } finally {
      this.#isPinned = false;
      this.#pin.close();
      this.#mover.close();
    }
  }

  #syncNow(): void {
    if (this.#isUnsynced) this.#file.syncNow();
    this.#isUnsynced = false;
  }

  #unpin(): void {
    if (this.#isPinned) this.#pin.run("END");
    this.#isPinned = false;
  }

  /** Lets go of the file. Not before its last connection is closed: SQLite's locks would end with it. */
  closeFile(): void {
    this.#file.close();
  }
}

/** Reads something: a transaction that has begun sees nothing before. */
function look(database: Database): void {
  database.query("SELECT count(*) FROM sqlite_schema").get();
}
