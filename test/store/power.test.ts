// What a power cut leaves of a state, at any moment: the files as a disk may have them.
//
// A disk has what was synced, and of what was written since any part, sector by sector, in any order.
// The syncs of our own are in the test's hand. Those that SQLite makes by itself are told by what
// they come with: it syncs the log before it moves it, the file behind that, and a new header of the log.

import { afterAll, beforeAll, expect } from "bun:test";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { type Registered, Store } from "../../src/store.ts";
import type { FileSyncer } from "../../src/store/syncer.ts";
import { property, type Random } from "../support/random.ts";
import { plainInstance, idOf, Registry } from "../support/registry.ts";

const SECTOR_BYTES = 512;
const LOG_HEADER_BYTES = 32;
const MAX_BYTES = 2 ** 20;
const NOTHING = Buffer.alloc(0);

let folder: string;
let files = 0;
beforeAll(() => {
  // In memory where that is possible: what is synced here is nobody's but the test's.
  folder = mkdtempSync(join(existsSync("/dev/shm") ? "/dev/shm" : tmpdir(), "vo-power-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** A file, as it is and as the disk has it. */
class Watched {
  readonly path: string;
  /** As it was when it was last looked at. */
  seen: Buffer = NOTHING;
  #synced: Buffer = NOTHING;
  #syncs: { readonly bytes: Buffer; isLate: boolean; resolve(): void }[] = [];

  constructor(path: string) {
    this.path = path;
  }

  get now(): Buffer {
    return existsSync(this.path) ? readFileSync(this.path) : NOTHING;
  }

  /** What is certain to be on the disk. */
  get synced(): Buffer {
    return this.#synced;
  }

  /** Somebody else has synced it: what is under way brings nothing newer. */
  set synced(bytes: Buffer) {
    this.#synced = bytes;
    for (const sync of this.#syncs) sync.isLate = true;
  }

  get isSyncing(): boolean {
    return this.#syncs.length > 0;
  }

  /** Whoever syncs it waits until `confirm()`. */
  readonly syncer: FileSyncer = {
    sync: () => {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.seen = this.now;
      this.#syncs.push({ bytes: this.seen, isLate: false, resolve });
      return promise;
    },
    syncNow: () => {
      this.seen = this.synced = this.now;
    },
    close() {},
  };

  /** The disk has what was there when it was asked first. */
  confirm(): void {
    const [sync, ...others] = this.#syncs;
    if (sync === undefined) return;
    this.#syncs = others;
    if (!sync.isLate) this.#synced = sync.bytes;
    sync.resolve();
  }

  /** As a disk may have it after a power cut. */
  afterCut(random: Random): Buffer {
    const { synced, now } = this;
    if (random.chance(0.2)) return synced;
    if (random.chance(0.2)) return now;
    const upTo = random.chance(0.5) ? random.int(0, now.length) : undefined; // else here and there
    const isLong = random.chance(0.5);
    const length = isLong
      ? Math.max(synced.length, now.length)
      : Math.min(synced.length, now.length);
    const left = Buffer.alloc(length);
    for (let at = 0; at < length; at += SECTOR_BYTES) {
      const isNew = upTo === undefined ? random.chance(0.5) : at < upTo;
      // What a file was lengthened by may be there without its bytes, and then it is zeros.
      const source = isNew && at < now.length ? now : synced;
      if (at < source.length) source.copy(left, at, at, at + SECTOR_BYTES);
    }
    return left;
  }
}

/** A state in use, what was acknowledged of it, and what would be left of it. */
class Machine {
  readonly #random: Random;
  readonly #file: Watched;
  readonly #log: Watched;
  readonly #registry: Registry;
  readonly #history: Registered[];
  #store: Store;
  #isOpen = true;
  /** The last batch that was answered. */
  #acknowledged = 0;

  constructor(random: Random) {
    this.#random = random;
    const path = join(folder, String(files++));
    [this.#file, this.#log] = [new Watched(path), new Watched(`${path}-wal`)];
    this.#registry = new Registry(random.seed);
    this.#history = [this.#registry.registered];
    this.#store = this.#open();
  }

  #open(): Store {
    const store = Store.open(this.#file.path, {
      maxBytes: MAX_BYTES,
      openSyncer: (path) => (path === this.#file.path ? this.#file : this.#log).syncer,
    });
    for (const one of [this.#file, this.#log]) one.seen = one.synced = one.now;
    return store;
  }

  /** SQLite has moved the log itself, with syncs, if the file has changed in a call; else we have. */
  #look(isCall: boolean = true): void {
    const [file, log] = [this.#file.now, this.#log.now];
    const isMoved = isCall && !file.equals(this.#file.seen);
    const header = log.subarray(0, LOG_HEADER_BYTES);
    if (isMoved) {
      this.#file.synced = file;
      this.#log.synced = log.length < this.#log.seen.length ? this.#log.seen : log;
    } else if (log.length > 0 && !header.equals(this.#log.synced.subarray(0, LOG_HEADER_BYTES))) {
      this.#log.synced = Buffer.concat([header, this.#log.seen.subarray(LOG_HEADER_BYTES)]);
    }
    [this.#file.seen, this.#log.seen] = [file, log];
  }

  /** Lets all go on that can. */
  async #goOn(): Promise<void> {
    await new Promise((resolve) => setImmediate(resolve));
    this.#look(false);
  }

  async step(): Promise<void> {
    const random = this.#random;
    if (random.chance(0.6)) this.#change();
    if (random.chance(0.3)) this.#ask();
    if (random.chance(this.#file.isSyncing ? 0.2 : 0.02)) this.#overfill();
    if (random.chance(0.4)) this.#log.confirm();
    if (random.chance(0.2)) this.#file.confirm();
    await this.#goOn();
    if (random.chance(this.#file.isSyncing ? 0.1 : 0.02)) await this.#restart();
    if (random.chance(0.25)) this.cut();
  }

  #change(): void {
    for (const change of this.#registry.next()) change(this.#store);
    this.#history.push(this.#registry.registered);
    this.#store.commit();
    this.#look();
  }

  /** Somebody waits for the disk. */
  #ask(): void {
    const { batch } = this.#registry;
    void this.#store.sync()?.then(() => {
      this.#acknowledged = Math.max(this.#acknowledged, batch);
    });
  }

  /** A change that there is no room for is undone, and SQLite makes what room it can. */
  #overfill(): void {
    this.#store.putInstance({ ...plainInstance(idOf(1e6)), failed: "x".repeat(MAX_BYTES) });
    expect(() => this.#store.commit()).toThrow("the disk is full");
    this.#look();
  }

  async #restart(): Promise<void> {
    this.#store.close();
    this.#isOpen = false;
    this.#look();
    this.#acknowledged = this.#registry.batch; // its end brings all to the disk
    for (let i = 0; i < 3; i++) this.cut();
    for (const one of [this.#file, this.#log]) while (one.isSyncing) one.confirm();
    await this.#goOn();
    this.#store = this.#open();
    this.#isOpen = true;
  }

  /** Opens what a power cut at this moment might leave. */
  cut(): void {
    const path = join(folder, `cut-${files++}`);
    const [file, log] = [this.#file.afterCut(this.#random), this.#log.afterCut(this.#random)];
    writeFileSync(path, file);
    if (log.length > 0) writeFileSync(`${path}-wal`, log);
    const left = Store.open(path);
    try {
      const batch = Number(left.get("batch") ?? 0);
      expect(batch).toBeWithin(this.#acknowledged, this.#registry.batch + 1);
      expect(left.load()).toEqual(this.#history[batch] as Registered);
      const events = left.events({ last: 20 }).map(({ kind, detail }) => [kind, detail["batch"]]);
      const some = Math.min(20, batch);
      const expected = Array.from({ length: some }, (_, i) => ["changed", batch - some + i + 1]);
      expect(events).toEqual(expected);
    } finally {
      left.close();
      rmSync(path);
    }
  }

  close(): void {
    if (this.#isOpen) this.#store.close();
  }
}

property(
  "A power cut leaves all that was acknowledged, and nothing half (R1, R5)",
  20,
  async (random) => {
    const machine = new Machine(random);
    try {
      for (let i = 0; i < 120; i++) await machine.step();
    } finally {
      machine.close();
    }
  },
);
