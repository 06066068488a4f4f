import { beforeEach, describe, expect, test } from "bun:test";

import {
  MAX_SPOOL_BYTES,
  MAX_TOTAL_SPOOL_BYTES,
  MIN_SPOOL_BYTES,
  SPOOL_PATIENCE_MS,
  SPOOL_RETRY_MS,
} from "../../src/limits.ts";
import type { OutputRecord } from "../../src/output/recording.ts";
import { Spool, SpoolShare } from "../../src/output/spool.ts";
import { FakeHost } from "../support/host.ts";
import { expected } from "../support/output.ts";

/** A disk on which a write ends when the test says so. */
let writes: PromiseWithResolvers<number>[];
let offered: readonly OutputRecord[];
let onDisk: string[];
let troubles: unknown[];
let empties: number;
let host: FakeHost;
let share: SpoolShare;
let spool: Spool;

beforeEach(() => {
  [writes, offered, onDisk, troubles, empties] = [[], [], [], [], 0];
  host = new FakeHost();
  share = new SpoolShare();
  spool = newSpool();
});

function newSpool(): Spool {
  return new Spool({
    share,
    write: (records) => {
      offered = records;
      const write = Promise.withResolvers<number>();
      writes.push(write);
      return write.promise;
    },
    onEmpty: () => empties++,
    onTrouble: (fault) => troubles.push(fault),
    now: () => host.now(),
    after: (ms, action) => host.after(ms, action),
  });
}

const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** The disk takes the first records that are offered. */
async function take(count: number = offered.length): Promise<void> {
  onDisk.push(...expected(offered.slice(0, count)).map((line) => line.replace(/^\d+ /, "")));
  (writes.at(-1) as PromiseWithResolvers<number>).resolve(count);
  await settled();
}

async function refuse(): Promise<void> {
  (writes.at(-1) as PromiseWithResolvers<number>).reject(new Error("ENOSPC"));
  await settled();
}

/** Whether a promise has settled. */
function watch(promise: Promise<void> | undefined): { isSettled: boolean } {
  const seen = { isSettled: promise === undefined };
  void promise?.then(() => (seen.isSettled = true));
  return seen;
}

const push = (text: string): Promise<void> | undefined =>
  spool.push("stdout", [Buffer.from(text)], undefined);

/** Fills the spool; the promise for the child. */
function fill(): Promise<void> | undefined {
  return push(`${"x".repeat(MAX_SPOOL_BYTES)}\n`);
}

describe("Spool", () => {
  test("has one write under way, and gathers meanwhile", async () => {
    push("one\n");
    push("two\n");
    push("three\n");
    expect(writes.length).toBe(1);
    await take(1);
    expect(writes.length).toBe(2);
    expect(expected(offered)).toEqual(["0 stdout two", "0 stdout three"]);
    await take();
    expect([spool.isEmpty, empties, writes.length]).toEqual([true, 1, 2]);
    expect(host.timers).toBe(0);
  });

  test("frees a chunk when its lines are written, and not before", async () => {
    const chunk = new Uint8Array(8).fill(10);
    spool.push("stdout", [Buffer.from(chunk.buffer)], chunk);
    await settled();
    expect(chunk.length).toBe(8);
    await take();
    expect(chunk.length).toBe(0);
    const shared = Buffer.from("in the middle of a larger buffer").subarray(3, 9);
    spool.push("stdout", [shared], shared);
    await take();
    expect(shared.length).toBe(6);
  });

  test("lets a child wait until half is written", async () => {
    const waiting = watch(fill());
    expect([waiting.isSettled, host.timers]).toEqual([false, 1]);
    await take();
    expect([waiting.isSettled, host.timers]).toEqual([true, 0]);
    expect(spool.droppedLines).toBe(0);
  });

  test("lets nobody wait longer than its patience, counted from the first", async () => {
    const first = watch(fill());
    host.turn(SPOOL_PATIENCE_MS - 1);
    const second = watch(push("of the other stream\n"));
    await settled();
    expect([first.isSettled, second.isSettled]).toEqual([false, false]);
    host.turn(1);
    await settled();
    expect([first.isSettled, second.isSettled]).toEqual([true, true]);
    expect(push("a\nb\n")).toBeUndefined();
    expect(spool.droppedLines).toBe(2);
    expect(host.timers).toBe(0);
  });

  test("says in their place how many lines it dropped", async () => {
    void fill();
    push("kept\n");
    host.turn(SPOOL_PATIENCE_MS);
    push("a\nb\nc\n");
    await take(1);
    push("later\n");
    await take();
    await take();
    const note = "note [veecle-orchestrator: 3 lines dropped: the disk is too slow]";
    expect(onDisk.slice(1)).toEqual(["stdout kept", note, "stdout later"]);
    expect(spool.droppedLines).toBe(3);
  });

  test("offers again what the disk refuses, and tells of it once", async () => {
    push("one\n");
    await refuse();
    push("two\n");
    expect(troubles).toEqual([new Error("ENOSPC")]);
    for (let i = 0; i < 3; i++) {
      expect([writes.length, host.timers]).toEqual([1 + i, 1]);
      host.turn(SPOOL_RETRY_MS);
      await refuse();
    }
    host.turn(SPOOL_RETRY_MS);
    await take();
    expect(onDisk).toEqual(["stdout one", "stdout two"]);
    expect(troubles).toEqual([new Error("ENOSPC"), undefined]);
    expect([spool.isEmpty, host.timers]).toEqual([true, 0]);
  });

  test("drops while the disk refuses, and no faster than it fills", async () => {
    push("one\n");
    await refuse();
    const waiting = watch(fill());
    host.turn(SPOOL_PATIENCE_MS);
    await settled();
    expect(waiting.isSettled).toBe(true);
    push("lost\n");
    host.turn(SPOOL_RETRY_MS);
    await take();
    await take();
    expect(onDisk[0]).toBe("stdout one");
    expect(onDisk.at(-1)).toContain("1 lines dropped");
  });

  test("has a bound for tiny records too", () => {
    let pushed = 0;
    while (push("\n") === undefined) pushed++;
    expect(pushed).toBeLessThan(10_000);
  });

  test("shares what all may hold with others that hold something", async () => {
    const others = Array.from({ length: 1_000 }, newSpool);
    for (const other of others) other.push("stdout", [Buffer.from("x\n")], undefined);
    expect(share.active).toBe(1_000);
    expect(share.maxBytes).toBe(MIN_SPOOL_BYTES);
    const waiting = push(`${"x".repeat(MIN_SPOOL_BYTES)}\n`);
    expect(waiting).toBeInstanceOf(Promise);
    for (const { resolve } of writes) resolve(1);
    await settled();
    expect([share.active, share.maxBytes]).toEqual([0, MAX_SPOOL_BYTES]);
    share.active = 20;
    expect(20 * share.maxBytes).toBeLessThanOrEqual(MAX_TOTAL_SPOOL_BYTES);
  });

  describe("written()", () => {
    test("waits for what was pushed before, and for nothing else", async () => {
      push("one\n");
      const written = watch(spool.written());
      push("two\n");
      await settled();
      expect(written.isSettled).toBe(false);
      await take(1);
      expect([written.isSettled, spool.isEmpty]).toEqual([true, false]);
    });

    test("does not wait for a disk that refuses", async () => {
      push("one\n");
      const written = watch(spool.written());
      await refuse();
      expect(written.isSettled).toBe(true);
      const again = watch(spool.written());
      await settled();
      expect(again.isSettled).toBe(true);
    });
  });

  describe("close()", () => {
    test("writes what waits, says what was lost, and takes nothing more", async () => {
      void fill();
      host.turn(SPOOL_PATIENCE_MS);
      push("lost\n");
      const closed = watch(spool.close());
      push("late\n");
      await take();
      expect(onDisk.at(-1)).toContain("1 lines dropped");
      expect([closed.isSettled, spool.isEmpty, host.timers]).toEqual([true, true, 0]);
    });

    test("gives up what the disk refuses, and wakes who waits", async () => {
      const waiting = watch(fill());
      const closed = watch(spool.close());
      await refuse();
      expect([waiting.isSettled, closed.isSettled]).toEqual([true, true]);
      expect([spool.isEmpty, host.timers, share.active]).toEqual([true, 0, 0]);
      expect(writes.length).toBe(1);
    });

    test("does not touch what a write that is under way may still read", async () => {
      push("one\n");
      await refuse();
      const chunk = new Uint8Array(4).fill(10);
      spool.push("stdout", [Buffer.from(chunk.buffer)], chunk);
      host.turn(SPOOL_RETRY_MS);
      const closed = watch(spool.close());
      await settled();
      expect([closed.isSettled, chunk.length, spool.isEmpty]).toEqual([false, 4, false]);
      await refuse();
      expect([closed.isSettled, spool.isEmpty]).toEqual([true, true]);
    });
  });
});
