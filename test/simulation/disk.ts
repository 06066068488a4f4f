// The files of a daemon without a disk: uploaded programs, captured output. The disk is slow, or full.

import { OrchestratorError } from "../../src/errors.ts";
import type { Histories, OutputStorage } from "../../src/output/history.ts";
import type { OutputRecord } from "../../src/output/recording.ts";
import { SpoolShare } from "../../src/output/spool.ts";
import type { Binaries } from "../../src/store/binaries.ts";
import { MemoryFiles } from "../support/output.ts";
import type { Random } from "../support/random.ts";

export interface DiskOptions {
  readonly random: Random;
  after(ms: number, action: () => void): () => void;
  /** Whether the disk is full now. */
  isFull(): boolean;
}

/** Uploaded programs, of which only the hashes are kept. */
export class Shelf implements Pick<
  Binaries,
  "receive" | "path" | "isVerified" | "verify" | "collect"
> {
  readonly #options: DiskOptions;
  readonly #stored: Set<string>;
  /** Uploads that were not closed, by what they have stored. */
  readonly #open: Set<{ hash: string | undefined }> = new Set();

  /** What an earlier daemon has stored is there. */
  constructor(stored: Set<string>, options: DiskOptions) {
    this.#stored = stored;
    this.#options = options;
  }

  get open(): number {
    return this.#open.size;
  }

  path(hash: string): string {
    return `/state/binaries/${hash}`;
  }

  isVerified(hash: string): boolean {
    return this.#stored.has(hash) && this.#options.random.chance(0.5);
  }

  async verify(hash: string): Promise<void> {
    await this.#disk(false);
    if (this.#stored.has(hash)) return;
    throw new OrchestratorError("cannot_run", `Cannot use the uploaded binary ${hash}`);
  }

  collect(used: ReadonlySet<string>): void {
    const claimed = new Set([...this.#open].map(({ hash }) => hash));
    for (const hash of this.#stored) {
      if (!used.has(hash) && !claimed.has(hash)) this.#stored.delete(hash);
    }
  }

  async receive(): ReturnType<Binaries["receive"]> {
    await this.#disk();
    const claim: { hash: string | undefined } = { hash: undefined };
    this.#open.add(claim);
    const hasher = new Bun.CryptoHasher("sha256");
    const upload = {
      write: async (bytes: Uint8Array) => {
        hasher.update(bytes);
        await this.#disk();
      },
      finish: async (announced: string) => {
        if (hasher.digest("hex") !== announced) return false;
        await this.#disk();
        this.#stored.add(announced);
        claim.hash = announced;
        return true;
      },
      close: async () => {
        this.#open.delete(claim);
      },
    };
    return upload as unknown as Awaited<ReturnType<Binaries["receive"]>>;
  }

  /** Takes its time, and fails on a disk that is full. */
  async #disk(writes: boolean = true): Promise<void> {
    const { random, after } = this.#options;
    if (random.chance(0.3)) {
      await new Promise<void>((resolve) => void after(random.size(0, 400), resolve));
    }
    if (!writes || !this.#options.isFull()) return;
    throw Object.assign(new Error("no space left on device"), { code: "ENOSPC" });
  }
}

/** The captured output of all instances. */
export function memoryHistories(options: DiskOptions & { now(): number }): Histories {
  const share = new SpoolShare();
  const { after, now } = options;
  const histories: Pick<Histories, "open" | "remove" | "sweep"> = {
    open: () => ({
      files: memoryFiles(options) as unknown as OutputStorage["files"],
      share,
      onTrouble() {},
      now,
      after,
    }),
    remove: async (_id, files, closed) => {
      await closed;
      await files.remove();
    },
    sweep: async () => {},
  };
  return histories as Histories;
}

/** The files of one instance. */
function memoryFiles({ random, after, isFull }: DiskOptions) {
  const files = new MemoryFiles();
  const watchers = new Set<() => void>();
  let isGone = false;
  return {
    get firstFile() {
      return files.firstFile;
    },
    get end() {
      return files.end;
    },
    get isGone() {
      return isGone;
    },
    look: async () => {},
    rest: async () => {},
    read: (file: number, from: number, to: number) => files.read(file, from, to),
    size: (file: number) => files.size(file),
    watch: (onChange: () => void) => {
      watchers.add(onChange);
      return () => watchers.delete(onChange);
    },
    append: async (records: readonly OutputRecord[]) => {
      if (random.chance(0.3)) {
        await new Promise<void>((resolve) => void after(random.size(0, 200), resolve));
      }
      if (isFull()) throw Object.assign(new Error("no space left"), { code: "ENOSPC" });
      const some = records.slice(0, random.int(1, records.length));
      for (const record of some) files.append(record);
      for (const onChange of watchers) onChange();
      return some.length;
    },
    remove: async () => {
      isGone = true;
      for (const onChange of watchers) onChange();
    },
  };
}
