// What is remembered on disk, and when: changes are gathered, made durable together, or taken back.
//
//   change ──► open transaction ──► commit ──► on the disk ──► answer
//                    └── disk full, … ──► rolled back, undone in memory, and the answer says so
//
// A commit outlives this process, and takes no time; that the disk has it is waited for off the event
// loop, and only where somebody has asked. What happens by itself (a process has ended) is written a
// moment later, again and again until it can be; what somebody asked for is refused if it cannot be.

import { messageChain, OrchestratorError } from "./errors.ts";
import type { EventInfo } from "./protocol/info.ts";
import type { EventPage, EventStore } from "./journal.ts";
import { COMMIT_RETRY_MS, COMMIT_WAIT_MS } from "./limits.ts";
import type { QuietLog } from "./log.ts";
import type { InstanceId } from "./model.ts";
import type { Store } from "./store.ts";

/** Changes that become durable together, or not at all. */
export interface Batch {
  /** How many changes were asked for. */
  changes: number;
  /** Why they were taken back, or may be lost when the machine stops. */
  error: OrchestratorError | undefined;
}

export interface MemoryOptions {
  readonly store: Store;
  readonly log: QuietLog;
  after(ms: number, action: () => void): () => void;
  /** Writes how the process of an instance stands now, if the instance is still there. */
  saveRun(id: InstanceId): void;
}

/** The one writer of a store. */
export class Memory implements EventStore {
  readonly #options: MemoryOptions;
  #batch: Batch = { changes: 0, error: undefined };
  #undos: (() => void)[] = [];
  /** Instances whose process stands otherwise than the store says. */
  readonly #dirtyRuns: Set<InstanceId> = new Set();
  #cancelCommit: (() => void) | undefined;
  /** Committed, asked for, and perhaps not on the disk yet; at first what a killed daemon has left. */
  #unsynced: Batch[] = [{ changes: 0, error: undefined }];
  #isDoubtful = false;
  /** Settles when all batches before these are on the disk, or hold why not. */
  #syncing: Promise<void> | undefined;

  constructor(options: MemoryOptions) {
    this.#options = options;
  }

  /** Whether the disk has not confirmed some of what was committed, and may be without it. */
  get isDoubtful(): boolean {
    return this.#isDoubtful;
  }

  /** The changes since the last commit. */
  get batch(): Batch {
    return this.#batch;
  }

  /** Writes what was changed in memory already; `undo` takes it back there if it cannot be kept. */
  change(write: (store: Store) => void, undo: () => void): void {
    this.#batch.changes++;
    this.#undos.push(undo);
    write(this.#options.store);
    this.commitSoon();
  }

  /**
   * Commits that something is gone, before it goes. Whether the disk has that, the batch tells.
   * @throws `io`, and then it stays
   */
  forget(write: (store: Store) => void, subject: string): Batch {
    const batch = this.#batch;
    this.change(write, () => {});
    this.commit();
    if (batch.error !== undefined) {
      throw new OrchestratorError("io", subject, { cause: batch.error.cause });
    }
    return batch;
  }

  /** How a process stands has changed; with `undo`, because somebody asked for it. */
  runChanged(id: InstanceId, undo?: () => void): void {
    this.#dirtyRuns.add(id);
    if (undo !== undefined) {
      this.#batch.changes++;
      this.#undos.push(undo);
    }
    this.commitSoon();
  }

  addEvent(event: Omit<EventInfo, "seq">): number {
    this.commitSoon();
    return this.#options.store.addEvent(event);
  }

  events(query: EventPage): EventInfo[] {
    return this.#options.store.events(query);
  }

  seqBefore(query: EventPage): number {
    return this.#options.store.seqBefore(query);
  }

  /**
   * Commits; settles when everything that somebody has asked for is on the disk. Batches of which
   * that is not certain hold the error. Undefined if there is nothing to wait for.
   */
  durable(): Promise<void> | undefined {
    this.commit();
    if (this.#unsynced.length === 0) return this.#syncing;
    const batches = this.#unsynced;
    this.#unsynced = [];
    const synced = this.#options.store.sync();
    if (synced === undefined) return undefined;
    const syncing = synced
      .then(() => void (this.#isDoubtful = false))
      .catch((cause: unknown) => this.#doubt(batches, cause))
      .finally(() => {
        if (this.#syncing === syncing) this.#syncing = undefined;
      });
    this.#syncing = syncing;
    return syncing;
  }

  /** Hands everything that was changed to the system; what was asked for and cannot be is undone. */
  commit(): void {
    const { store, saveRun } = this.#options;
    this.#cancelCommit?.();
    this.#cancelCommit = undefined;
    // What was asked for may have been nothing: then it shares no fate with what comes later.
    const { changes } = this.#batch;
    if (this.#dirtyRuns.size === 0 && !store.isDirty && changes === 0) return;
    try {
      for (const id of this.#dirtyRuns) saveRun(id);
      store.commit();
    } catch (error) {
      this.#fail(error);
      return;
    }
    this.#dirtyRuns.clear();
    this.#undos = [];
    if (changes > 0) this.#unsynced.push(this.#batch);
    this.#batch = { changes: 0, error: undefined };
  }

  /** Commits a moment later, for what nobody waits for. */
  commitSoon(ms: number = COMMIT_WAIT_MS): void {
    this.#cancelCommit ??= this.#options.after(ms, () => this.commit());
  }

  /** The disk does not say that it has them: they hold, and that is all that is certain. */
  #doubt(batches: readonly Batch[], cause: unknown): void {
    const error = new OrchestratorError(
      "io",
      "The disk does not confirm the change: it holds, and may be forgotten when the machine stops",
      { cause },
    );
    for (const batch of batches) batch.error = error;
    this.#isDoubtful = true;
    this.#options.log.warn("sync", "run", "cannot bring the state to the disk", {
      error: messageChain(cause).join(": "),
    });
  }

  /** The store has taken back everything since the last commit: so does what is in memory. */
  #fail(cause: unknown): void {
    this.#options.log.warn("commit", "run", "cannot write the state", {
      error: messageChain(cause).join(": "),
    });
    const [batch, undos] = [this.#batch, this.#undos];
    batch.error = new OrchestratorError("io", "Cannot remember the change, so it is undone", {
      cause,
    });
    this.#batch = { changes: 0, error: undefined };
    this.#undos = [];
    for (const undo of undos.toReversed()) undo();
    if (this.#dirtyRuns.size > 0) this.commitSoon(COMMIT_RETRY_MS);
  }
}
