// A door: what the kernel tells of its want of memory.

import { closeSync, openSync, readSync } from "node:fs";

import { SAME_KILLS_MS } from "../limits.ts";

/** Processes that the kernel has ended for want of memory, whosever they were. */
export interface MemoryKills {
  readonly count: number;
  /** The time in ms in which that has happened: since somebody asked last, or a little more. */
  readonly withinMs: number;
}

const TEXT: Buffer = Buffer.allocUnsafe(64 * 1024);
const FIELD = "\noom_kill ";

/** All of them since the boot, of every control group; undefined where the kernel does not count. */
function countMemoryKills(): number | undefined {
  try {
    const fd = openSync("/proc/vmstat", "r");
    try {
      const text = TEXT.toString("latin1", 0, readSync(fd, TEXT, 0, TEXT.length, null));
      const at = text.indexOf(FIELD);
      return at < 0 ? undefined : Number.parseInt(text.slice(at + FIELD.length), 10);
    } finally {
      closeSync(fd);
    }
  } catch {
    return undefined; // nobody can look: then it is not known
  }
}

/**
 * Who asks after a process has been killed learns whether the kernel may have done it. The kernel
 * often ends several at once, who are all asked for: what was found a moment ago counts again.
 */
export class MemoryWatch {
  readonly #now: () => number;
  readonly #count: () => number | undefined;
  #known: number | undefined;
  #knownMs: number;
  #found: { readonly atMs: number; readonly count: number; readonly sinceMs: number } | undefined;

  constructor(now: () => number, count: () => number | undefined = countMemoryKills) {
    this.#now = now;
    this.#count = count;
    this.#known = count();
    this.#knownMs = now();
  }

  /** What has come since the last time; undefined if nothing, or nobody can tell. */
  look(): MemoryKills | undefined {
    const [nowMs, count] = [this.#now(), this.#count()];
    const before = this.#found;
    const isSame = before !== undefined && nowMs - before.atMs < SAME_KILLS_MS;
    const added = Math.max(0, (count ?? 0) - (this.#known ?? count ?? 0));
    if (added > 0) {
      this.#found = {
        atMs: nowMs,
        count: added + (isSame ? before.count : 0),
        sinceMs: isSame ? before.sinceMs : this.#knownMs,
      };
    } else if (!isSame) this.#found = undefined;
    [this.#known, this.#knownMs] = [count, nowMs];
    if (this.#found === undefined) return undefined;
    return { count: this.#found.count, withinMs: nowMs - this.#found.sinceMs };
  }
}
