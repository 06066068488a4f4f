// A store without a disk, which knows why anything may be written.
//
// Every write of an instance or link must be what a client has asked for and was not answered yet; what
// became durable, and when, is kept, so that each answer can be held against it.

import { formatTarget, type InstanceId, type LinkKey } from "../../src/model.ts";
import type { EventInfo } from "../../src/protocol/info.ts";
import type { StoredInstance, StoredLink, StoredStatus } from "../../src/store/records.ts";
import type { EventQuery, Store } from "../../src/store.ts";
import { nameOf } from "./notebook.ts";

export interface Page {
  readonly instances: Map<InstanceId, StoredInstance>;
  readonly links: Map<string, StoredLink>;
  readonly events: EventInfo[];
}

export interface LedgerOptions {
  /** An instance, a link, or the end of one is written. @throws nothing: it remembers what is wrong */
  onWrite(what: string): void;
  onAdd(id: InstanceId): void;
  /** A link is made, or has other settings. */
  onLink(name: string, link: StoredLink): void;
  /** Links may be about to go, with their accounts. */
  onForget(): void;
  /** A commit has ended, in either way. */
  onCommit(): void;
  /** Time that a commit takes, during which nothing else happens. */
  stall(): void;
  /**
   * Calls back when the disk has what is committed now, or with why that is not certain; undefined: it
   * has that already.
   */
  readonly disk: ((settled: (fault?: Error) => void) => void) | undefined;
}

/** What a commit makes durable once the disk has it. */
interface Commit {
  readonly number: number;
  readonly writes: readonly string[];
  readonly wanted: readonly InstanceId[];
  readonly page: Page;
}

/** What of a store is used while a daemon runs. */
type Used = Omit<Store, "close" | "load" | "respellLinks" | "clear" | "get" | "set" | "skipEvents">;

export class Ledger implements Pick<Used, keyof Used> {
  /** Commits fail, as on a disk that is full. */
  isFull = false;
  isDirty = false;
  readonly file = undefined;
  readonly lostFile = undefined;
  readonly #options: LedgerOptions;
  #durable: Page = { instances: new Map(), links: new Map(), events: [] };
  #next: Page = copy(this.#durable);
  #synced: Page = this.#durable;
  #seq = 0;
  /** What the next commit makes durable. */
  #writes: string[] = [];
  /** Of these the disk does not have yet, oldest first; a killed daemon leaves them to the next one. */
  #unsynced: Commit[] = [];
  /** How often each write was committed, and how often the disk has it for good. */
  readonly #committed: Map<string, number> = new Map();
  readonly #kept: Map<string, number> = new Map();
  /** The last commit with which an instance was meant to run. */
  readonly wantedAt: Map<InstanceId, number> = new Map();
  commits = 0;
  #syncing: Promise<void> = Promise.resolve();

  constructor(options: LedgerOptions) {
    this.#options = options;
  }

  /** What the next daemon finds, as long as the machine goes on. */
  get durable(): Page {
    return this.#durable;
  }

  /** What is left at least when it does not. */
  get synced(): Page {
    return this.#synced;
  }

  /** With what the next commit makes durable: what a daemon must have in its memory. */
  get next(): Page {
    return this.#next;
  }

  committed(what: string): number {
    return this.#committed.get(what) ?? 0;
  }

  /** How often a write has become durable: no power cut takes it any more. */
  kept(what: string): number {
    return this.#kept.get(what) ?? 0;
  }

  /** A daemon was killed, and the next one opens this. */
  reopen(): void {
    this.#syncing = Promise.resolve(); // what was under way never ends
    this.#next = copy(this.#durable);
    this.#writes = [];
    this.isDirty = false;
    this.#seq = this.#durable.events.at(-1)?.seq ?? 0;
  }

  /** The machine stops: of what the disk may not have yet, so many commits are there. */
  cut(count: number): void {
    this.#written(this.#unsynced[count - 1]?.number ?? 0);
    this.#unsynced = [];
    this.#durable = copy(this.#synced);
  }

  /** Commits that a power cut may take. */
  get unsynced(): number {
    return this.#unsynced.length;
  }

  putInstance(instance: StoredInstance): void {
    this.#write(`instance ${instance.settings.args[0]}`);
    if (!this.#next.instances.has(instance.id)) this.#options.onAdd(instance.id);
    this.#next.instances.set(instance.id, instance);
  }

  putStatus(id: InstanceId, status: StoredStatus): void {
    this.isDirty = true;
    const instance = this.#next.instances.get(id);
    if (instance !== undefined) this.#next.instances.set(id, { ...instance, ...status });
  }

  removeInstance(id: InstanceId): void {
    this.#options.onForget();
    this.#write(`remove ${id}`);
    this.#next.instances.delete(id);
    for (const [name, { key }] of this.#next.links) {
      if (key.from === id || formatTarget(key.to) === id) this.#next.links.delete(name);
    }
  }

  putLink(link: StoredLink): void {
    this.#write(`link ${link.settings.owner}`);
    const name = nameOf(link.key);
    this.#next.links.set(name, link);
    this.#options.onLink(name, link);
  }

  removeLink(key: LinkKey): void {
    this.#options.onForget();
    this.#write(`unlink ${nameOf(key)}`);
    this.#next.links.delete(nameOf(key));
  }

  addEvent(event: Omit<EventInfo, "seq">): number {
    this.isDirty = true;
    this.#next.events.push({ seq: ++this.#seq, ...event });
    return this.#seq;
  }

  events(query: EventQuery = {}): EventInfo[] {
    const { first, last } = query;
    const found = this.#select(query);
    if (first !== undefined) return found.slice(0, first);
    return last === undefined ? found : found.slice(Math.max(0, found.length - last));
  }

  seqBefore(query: EventQuery): number {
    const [oldest] = this.events({ ...query, first: undefined });
    return oldest === undefined ? this.#seq : oldest.seq - 1;
  }

  commit(): void {
    if (!this.isDirty) return;
    this.#options.stall();
    this.isDirty = false;
    if (this.isFull) {
      this.#options.onForget();
      this.#next = copy(this.#durable);
      this.#writes = [];
      this.#options.onCommit();
      throw Object.assign(new Error("no space left on device"), { code: "ENOSPC" });
    }
    this.commits++;
    this.#durable = copy(this.#next);
    const wanted = [...this.#durable.instances.values()].flatMap((one) =>
      one.wanted ? one.id : [],
    );
    const page = this.#durable;
    this.#unsynced.push({ number: this.commits, writes: this.#writes, wanted, page });
    for (const what of this.#writes) this.#committed.set(what, this.committed(what) + 1);
    this.#writes = [];
    if (this.#options.disk === undefined) this.#written(this.commits);
    this.#options.onCommit();
  }

  sync(): Promise<void> | undefined {
    const { disk } = this.#options;
    if (disk === undefined) return undefined;
    const last = this.commits;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const start = (): void =>
      disk((fault) => {
        if (fault !== undefined) return reject(fault);
        this.#written(last);
        resolve();
      });
    void this.#syncing.then(start, start); // one after the other, as the real one does it
    this.#syncing = promise;
    return promise;
  }

  /** The disk has everything up to this commit. */
  #written(last: number): void {
    while ((this.#unsynced[0]?.number ?? Infinity) <= last) {
      const { number, writes, wanted, page } = this.#unsynced.shift() as Commit;
      this.#synced = page;
      for (const what of writes) this.#kept.set(what, this.kept(what) + 1);
      for (const id of wanted) this.wantedAt.set(id, number);
    }
  }

  #write(what: string): void {
    this.isDirty = true;
    this.#options.onWrite(what);
    this.#writes.push(what);
  }

  #select({ after = 0, since = 0, until = Infinity, ids }: EventQuery): EventInfo[] {
    return this.#next.events.filter(
      ({ seq, time, id }) =>
        seq > after &&
        time >= since &&
        time <= until &&
        (ids === undefined || (id !== null && ids.includes(id))),
    );
  }
}

function copy({ instances, links, events }: Page): Page {
  return { instances: new Map(instances), links: new Map(links), events: [...events] };
}
