import { describe, expect, test } from "bun:test";

import {
  GATHER_BLOCK_BYTES,
  MAX_FRAME_BYTES,
  MAX_QUEUE_BYTES,
  MAX_TOTAL_QUEUE_BYTES,
} from "../src/limits.ts";
import { DEFAULT_LINK_SETTINGS } from "../src/model.ts";
import { Outbox } from "../src/outbox.ts";
import { type DropReason, LinkQueue, OutboxPool, type Producer } from "../src/queue.ts";
import { accounts, Kernel, queueOf, runOf } from "./support/outbox.ts";

/** A producer that notes when it has to wait, and when it may go on. */
function producer(): Producer & { notes: string[] } {
  const notes: string[] = [];
  return { notes, block: () => notes.push("wait"), unblock: () => notes.push("go on") };
}

describe("LinkQueue", () => {
  test("has the default bounds of the limits (P-36)", () => {
    expect(new LinkQueue().settings).toEqual(DEFAULT_LINK_SETTINGS);
    expect(new LinkQueue().settings.maxBytes).toBe(MAX_QUEUE_BYTES);
    expect(new OutboxPool().maxBytes).toBe(MAX_TOTAL_QUEUE_BYTES);
  });

  test("drop() counts by reason and tells, unless there is nothing to tell (P-38)", () => {
    const told: [DropReason, number][] = [];
    const queue = new LinkQueue((...drop) => told.push(drop));
    queue.drop("full", 2);
    queue.drop("full", 0);
    queue.drop("oversize", 0);
    queue.drop("full", 1);
    expect([...queue.dropped]).toEqual([["full", 3]]);
    expect(told).toEqual([
      ["full", 2],
      ["full", 1],
    ]);
  });

  test("hasRoom() holds both bounds", () => {
    const queue = queueOf({ maxBytes: 100, maxMessages: 3 });
    Object.assign(queue, { queued: 2, queuedBytes: 60 });
    expect(queue.hasRoom(40, 1)).toBe(true);
    expect(queue.hasRoom(41, 1)).toBe(false);
    expect(queue.hasRoom(40, 2)).toBe(false);
  });
});

describe("a producer of a link that says block", () => {
  const scene = (
    maxBytes: number,
  ): { outbox: Outbox; queue: LinkQueue; send: (n: number) => void } => {
    const outbox = new Outbox(new OutboxPool());
    const queue = queueOf({ maxBytes, onFull: "block" });
    const send = (count: number): void => {
      outbox.push(queue, runOf("native", "T", new Array(count).fill("x".repeat(91))));
      outbox.flush();
    };
    return { outbox, queue, send };
  };

  test("waits as soon as the queue is over its bound, and not before", () => {
    const { queue, send } = scene(300);
    const it = producer();
    send(3);
    queue.holdBack(it);
    expect(it.notes).toEqual([]);
    send(1);
    queue.holdBack(it);
    queue.holdBack(it);
    expect(it.notes).toEqual(["wait"]);
  });

  test("goes on when half of the queue is free", () => {
    const { outbox, queue, send } = scene(400);
    const [it, other] = [producer(), producer()];
    send(5);
    queue.holdBack(it);
    queue.holdBack(other);
    const kernel = new Kernel(299);
    outbox.attach("native", kernel.write);
    expect(it.notes).toEqual(["wait"]);
    kernel.room = 1;
    outbox.drain();
    expect([it.notes, other.notes]).toEqual([
      ["wait", "go on"],
      ["wait", "go on"],
    ]);
    outbox.drain();
    expect(it.notes).toEqual(["wait", "go on"]);
  });

  test("goes on when half of the messages are gone, if they are what is bounded", () => {
    const outbox = new Outbox(new OutboxPool());
    const queue = queueOf({ maxMessages: 4, onFull: "block" });
    const it = producer();
    outbox.push(queue, runOf("native", "T", new Array(5).fill("x".repeat(91))));
    queue.holdBack(it);
    const kernel = new Kernel(200);
    outbox.attach("native", kernel.write);
    expect(it.notes).toEqual(["wait"]);
    kernel.room = 100;
    outbox.drain();
    expect(it.notes).toEqual(["wait", "go on"]);
  });

  test("goes on when the target is gone", () => {
    const { outbox, queue, send } = scene(100);
    const it = producer();
    send(2);
    queue.holdBack(it);
    outbox.close();
    expect(it.notes).toEqual(["wait", "go on"]);
  });

  test("goes on when the link is removed, even if a message is half sent", () => {
    const { outbox, queue, send } = scene(100);
    const it = producer();
    outbox.attach("native", new Kernel(10).write);
    send(2);
    queue.holdBack(it);
    outbox.forget(queue);
    queue.release();
    expect(it.notes).toEqual(["wait", "go on"]);
  });

  test("goes on when the link says something else", () => {
    const { queue, send } = scene(100);
    const it = producer();
    send(2);
    queue.holdBack(it);
    queue.settings = { ...queue.settings, onFull: "drop-oldest" };
    queue.letGo();
    expect(it.notes).toEqual(["wait", "go on"]);
    queue.holdBack(it);
    expect(it.notes).toEqual(["wait", "go on"]);
  });

  test("may wait again", () => {
    const { outbox, queue, send } = scene(100);
    const it = producer();
    for (let i = 0; i < 3; i++) {
      send(2);
      queue.holdBack(it);
      outbox.close();
      outbox.open();
    }
    expect(it.notes).toEqual(["wait", "go on", "wait", "go on", "wait", "go on"]);
  });
});

describe("OutboxPool.makeRoom()", () => {
  /** Queues of so many messages of 10 KiB, each in the outbox of an instance that never started. */
  function fill(pool: OutboxPool, ...counts: number[]): LinkQueue[] {
    return counts.map((count) => {
      const queue = queueOf({ maxBytes: Infinity });
      const outbox = new Outbox(pool);
      outbox.push(queue, runOf("native", "T", new Array(count).fill("x".repeat(10_231))));
      outbox.flush();
      return queue;
    });
  }

  test("does nothing as long as there is room", () => {
    const pool = new OutboxPool(10 * 10_240);
    const queues = fill(pool, 4, 5);
    expect(pool.makeRoom(10_240)).toBe(true);
    expect(queues.map(accounts)).toEqual(["4 = 0 + 4", "5 = 0 + 5"]);
  });

  test("takes from the largest queue, whosever it is, and little more than it must (P-36)", () => {
    const pool = new OutboxPool(30 * 10_240);
    const queues = fill(pool, 5, 15, 10);
    expect(pool.makeRoom(1)).toBe(true);
    expect(queues.map(accounts)).toEqual(["5 = 0 + 5", "15 = 0 + 14, 1 full", "10 = 0 + 10"]);
  });

  test("goes on with the next one", () => {
    const pool = new OutboxPool(30 * 10_240);
    const queues = fill(pool, 5, 15, 10);
    expect(pool.makeRoom(25 * 10_240)).toBe(true);
    expect(pool.usedBytes).toBeLessThanOrEqual(5 * 10_240);
    expect(queues.reduce((sum, queue) => sum + queue.queuedBytes, 0)).toBe(pool.usedBytes);
  });

  test("says no to more than there is, and to queues that are gone", () => {
    const pool = new OutboxPool(100);
    expect(pool.makeRoom(100)).toBe(true);
    expect(pool.makeRoom(101)).toBe(false);
    const [queue] = fill(new OutboxPool(), 1);
    pool.enter(queue as LinkQueue);
    pool.leave(queue as LinkQueue);
    expect(pool.makeRoom(101)).toBe(false);
    expect(accounts(queue as LinkQueue)).toBe("1 = 0 + 1");
  });
});

test("OutboxPool lends blocks, and keeps a limited number of those that come back", () => {
  const pool = new OutboxPool();
  const blocks = Array.from({ length: 100 }, () => pool.takeBlock());
  expect(new Set(blocks).size).toBe(100);
  for (const block of blocks) {
    expect(block).toHaveLength(GATHER_BLOCK_BYTES);
    pool.giveBack(block);
  }
  const again = Array.from({ length: 100 }, () => pool.takeBlock());
  expect(again.filter((block) => blocks.includes(block))).toHaveLength(64);
});

test("OutboxPool holds half of what it does once the system has no more memory", () => {
  const pool = new OutboxPool(64 * 2 ** 20);
  pool.usedBytes = 10 * 2 ** 20;
  expect(pool.makeRoom(2 ** 20)).toBe(true);
  pool.relieve();
  expect(pool.maxBytes).toBe(5 * 2 ** 20);
  pool.usedBytes = 0;
  pool.relieve();
  expect(pool.maxBytes).toBe(MAX_FRAME_BYTES);
});
