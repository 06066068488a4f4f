import { describe, expect, test } from "bun:test";

import {
  GATHER_BLOCK_BYTES,
  GATHER_FRAME_BYTES,
  MAX_PIN_RATIO,
  MAX_UNREAD_NOTICE_BYTES,
  MAX_VEECLE_LINE_BYTES,
} from "../src/limits.ts";
import type { Dialect } from "../src/message.ts";
import type { LinkSettings } from "../src/model.ts";
import { Outbox } from "../src/outbox.ts";
import { LinkQueue, OutboxPool, type Segment } from "../src/queue.ts";
import { nativeFrame, veecleLine } from "./support/messages.ts";
import { accounts, Kernel, queueOf, runInPieces, runOf } from "./support/outbox.ts";
import { property } from "./support/random.ts";
import { inspect, Traffic } from "./support/traffic.ts";

/** A native frame of type `T` with this payload has so many bytes more. */
const OVERHEAD = nativeFrame(1, "T", "").length;

interface Scene {
  readonly pool: OutboxPool;
  readonly outbox: Outbox;
  readonly queue: LinkQueue;
  /** Pushes native messages of type `T`, and lets the outbox write. */
  send(...payloads: (string | Buffer)[]): void;
}

function scene(options: Partial<LinkSettings> & { poolBytes?: number } = {}): Scene {
  const { poolBytes, ...settings } = options;
  const pool = new OutboxPool(poolBytes);
  const outbox = new Outbox(pool);
  const queue = queueOf(settings);
  const send = (...payloads: string[]): void => {
    outbox.push(queue, runOf("native", "T", payloads));
    outbox.flush();
  };
  return { pool, outbox, queue, send };
}

function attach(outbox: Outbox, dialect: Dialect = "native", room?: number): Kernel {
  const kernel = new Kernel(room);
  outbox.attach(dialect, kernel.write);
  return kernel;
}

function drain(outbox: Outbox, kernel: Kernel, room: number = Number.POSITIVE_INFINITY): void {
  kernel.room = room;
  outbox.drain();
}

/** Native messages of type `T` that are 100 bytes long each, with their number as payload. */
const hundred = (...numbers: number[]): string[] =>
  numbers.map((number) => `${number}`.padEnd(100 - OVERHEAD));

const trimmed = (kernel: Kernel): string => kernel.payloads.map((text) => text.trim()).join(" ");

describe("the conservation law: routed = delivered + dropped + queued (P-35, P-37, R19, R20)", () => {
  property("holds whatever happens, and nothing is lost without a bound", 300, (random) => {
    new Traffic(random, {}).run(60);
  });

  property("holds when queues and pool are full", 800, (random) => {
    new Traffic(random, { isBounded: true }).run(60);
  });

  property("holds with control messages in between", 200, (random) => {
    new Traffic(random, { hasControl: true }).run(60);
  });

  property("and no queue and no pool ever holds more than its bound", 300, (random) => {
    new Traffic(random, { isBounded: true, checksBounds: true }).run(60);
  });

  property("and for large messages in many pieces", 60, (random) => {
    new Traffic(random, { hasLarge: true, checksMemory: true }).run(60);
  });

  property("and for large messages when queues and pool are full", 120, (random) => {
    new Traffic(random, { hasLarge: true, isBounded: true, checksBounds: true }).run(60);
  });

  property("and what is queued keeps little more than itself alive", 60, (random) => {
    new Traffic(random, { checksMemory: true }).run(60);
  });
});

describe("Outbox.push() and flush()", () => {
  test("write in the order in which messages came, whatever their link", () => {
    const { outbox, queue } = scene();
    const other = new LinkQueue();
    const kernel = attach(outbox);
    outbox.push(queue, runOf("native", "T", ["1", "2"]));
    outbox.push(other, runOf("native", "U", ["3"]));
    outbox.push(queue, runOf("native", "T", ["4"]));
    outbox.push(other, runOf("native", "U", ["x".repeat(GATHER_FRAME_BYTES + 1)]));
    outbox.push(queue, runOf("native", "T", ["6"]));
    outbox.flush();
    expect(kernel.payloads.map((payload) => payload[0])).toEqual(["1", "2", "3", "4", "x", "6"]);
    expect(accounts(queue)).toBe("4 = 4 + 0");
    expect(accounts(other)).toBe("2 = 2 + 0");
    expect(outbox.isEmpty).toBe(true);
  });

  test("write nothing before flush()", () => {
    const { outbox, queue } = scene();
    const kernel = attach(outbox);
    outbox.push(queue, runOf("native", "T", ["1"]));
    expect(kernel.writes).toHaveLength(0);
    expect(accounts(queue)).toBe("1 = 0 + 1");
  });

  test("make one write of the small messages of many links", () => {
    const { outbox } = scene();
    const kernel = attach(outbox);
    for (let i = 0; i < 100; i++) outbox.push(new LinkQueue(), runOf("native", `T${i}`, [`${i}`]));
    outbox.flush();
    expect(kernel.writes).toHaveLength(1);
    expect(kernel.payloads).toEqual(Array.from({ length: 100 }, (_, i) => `${i}`));
  });

  test("make writes of the size of a block when there is more", () => {
    const { outbox, queue } = scene();
    const kernel = attach(outbox);
    const payload = "x".repeat(GATHER_FRAME_BYTES / 2);
    for (let i = 0; i < 40; i++) outbox.push(queue, runOf("native", "T", [payload]));
    outbox.flush();
    expect(kernel.payloads).toHaveLength(40);
    expect(kernel.writes.length).toBeLessThanOrEqual(8);
    for (const bytes of kernel.writes) expect(bytes.length).toBeLessThanOrEqual(GATHER_BLOCK_BYTES);
  });

  test("copy no large message, and the small ones only once", () => {
    const { outbox, queue } = scene();
    const kernel = attach(outbox);
    const large = runOf("native", "T", ["x".repeat(GATHER_FRAME_BYTES)]);
    outbox.push(queue, large);
    outbox.flush();
    expect(kernel.views).toHaveLength(1);
    expect(kernel.views[0]?.buffer).toBe(large.chunk.buffer);
  });

  test("never turn over a run of nothing", () => {
    const { outbox, queue } = scene();
    const kernel = attach(outbox);
    outbox.push(queue, { ...runOf("native", "T", ["1"]), end: 0, count: 0, longest: 0 });
    outbox.flush();
    expect([outbox.isEmpty, kernel.writes.length, accounts(queue)]).toEqual([true, 0, "0 = 0 + 0"]);
  });

  test("do not keep a chunk that they have copied", () => {
    const { outbox, queue } = scene();
    const run = runOf("native", "T", ["1", "2"]);
    outbox.push(queue, run);
    run.chunk.fill(0xff);
    outbox.flush();
    expect(attach(outbox).payloads).toEqual(["1", "2"]);
  });

  test("share their blocks with other outboxes, and mix nothing up", () => {
    const { pool, outbox, queue } = scene();
    const payloads = Array.from({ length: 1_000 }, (_, i) => `${i}`.padEnd(40));
    for (const payload of payloads) outbox.push(queue, runOf("native", "T", [payload]));
    outbox.flush();
    const other = new Outbox(pool);
    for (let i = 0; i < 1_000; i++)
      other.push(new LinkQueue(), runOf("native", "U", ["y".repeat(40)]));
    other.flush();
    expect(attach(outbox).payloads).toEqual(payloads);
  });

  test("share their translator with other outboxes, and mix nothing up", () => {
    const { pool, outbox, queue } = scene();
    const kernel = attach(outbox, "veecle", 0);
    const payloads = Array.from({ length: 5_000 }, (_, i) => `${i}`.padEnd(40));
    outbox.push(queue, runOf("native", "T", payloads));
    outbox.flush();
    const other = new Outbox(pool);
    attach(other, "veecle");
    other.push(
      new LinkQueue(),
      runOf(
        "native",
        "U",
        payloads.map(() => "y".repeat(40)),
      ),
    );
    other.flush();
    drain(outbox, kernel);
    expect(kernel.payloads).toEqual(payloads);
  });

  test("go on behind messages that were dropped in the same turn", () => {
    const { outbox, queue } = scene();
    const other = new LinkQueue();
    const kernel = attach(outbox);
    outbox.push(queue, runOf("native", "T", ["1"]));
    outbox.push(other, runOf("native", "U", ["2"]));
    outbox.forget(other);
    outbox.push(queue, runOf("native", "T", ["3"]));
    outbox.flush();
    expect(kernel.payloads).toEqual(["1", "3"]);
    expect(accounts(queue)).toBe("2 = 2 + 0");
  });

  test("count as delivered what the kernel took to the last byte", () => {
    const { outbox, queue, send } = scene();
    const kernel = attach(outbox, "native", 250);
    send(...hundred(1, 2, 3, 4));
    expect(accounts(queue)).toBe("4 = 2 + 2");
    expect(queue.queuedBytes).toBe(150);
    drain(outbox, kernel, 49);
    expect(accounts(queue)).toBe("4 = 2 + 2");
    drain(outbox, kernel, 1);
    expect(accounts(queue)).toBe("4 = 3 + 1");
    drain(outbox, kernel, 100);
    expect(accounts(queue)).toBe("4 = 4 + 0");
    expect(trimmed(kernel)).toBe("1 2 3 4");
  });

  property("write the same stream however little the kernel takes at a time", 200, (random) => {
    const { outbox, queue, pool } = scene();
    const other = new LinkQueue();
    const kernel = attach(outbox, "native", 0);
    const sent: string[] = [];
    for (let i = random.int(1, 20); i > 0; i--) {
      const payloads = Array.from({ length: random.size(1, 20) }, (_, n) => `${i}.${n}`);
      sent.push(...payloads);
      outbox.push(random.pick([queue, other]), runOf("native", "T", payloads));
      if (random.chance(0.5)) drain(outbox, kernel, random.size(0, 100));
    }
    while (!outbox.isEmpty) drain(outbox, kernel, random.size(0, 100));
    expect(kernel.payloads).toEqual(sent);
    expect(pool.usedBytes).toBe(0);
  });

  test.each([0, -1])("wait for drain() when the kernel answers %i", (answer) => {
    const { outbox, queue, send } = scene();
    let calls = 0;
    outbox.attach("native", () => {
      calls++;
      return answer;
    });
    send("1");
    send("2");
    outbox.flush();
    expect(calls).toBe(1);
    expect(accounts(queue)).toBe("2 = 0 + 2");
    outbox.drain();
    expect(calls).toBe(2);
  });
});

describe("a large message in pieces", () => {
  const large = "x".repeat(300_000 - OVERHEAD);

  test("leaves without a copy, between its neighbours", () => {
    const { outbox, queue } = scene();
    const kernel = attach(outbox);
    const run = runInPieces(large, 100_000, 100_000);
    outbox.push(queue, runOf("native", "T", ["1"]));
    outbox.push(queue, run);
    outbox.push(queue, runOf("native", "T", ["2"]));
    outbox.flush();
    expect(kernel.payloads.map((payload) => payload.length)).toEqual([1, large.length, 1]);
    const memory = kernel.views.map(({ buffer }) => buffer);
    for (const { buffer } of [run.chunk, ...run.rest]) expect(memory).toContain(buffer);
    expect(accounts(queue)).toBe("3 = 3 + 0");
  });

  test("leaves in one write with what follows its last piece in the same chunk", () => {
    const { outbox, queue } = scene();
    const kernel = attach(outbox);
    const next = runOf("native", "T", new Array(5).fill("y".repeat(20_000)));
    const run = runInPieces(large, 200_000);
    const chunk = Buffer.concat([run.rest[0] as Buffer, next.chunk]);
    outbox.push(queue, { ...run, rest: [chunk.subarray(0, 100_000)] });
    outbox.push(queue, { ...next, chunk, start: 100_000, end: chunk.length });
    outbox.flush();
    expect(kernel.writes.map(({ length }) => length)).toEqual([200_000, chunk.length]);
    expect(accounts(queue)).toBe("6 = 6 + 0");
  });

  property("is delivered once, with its last byte, to each target at its pace", 40, (random) => {
    const { outbox, queue, pool } = scene();
    const other = { outbox: new Outbox(pool), queue: new LinkQueue() };
    const targets = [{ outbox, queue }, other].map((target) => ({
      ...target,
      kernel: attach(target.outbox, "native", 0),
    }));
    const cuts = Array.from({ length: random.int(1, 5) }, () => random.int(20_000, 60_000));
    const run = runInPieces(large, ...cuts);
    for (const target of targets) {
      target.outbox.push(target.queue, run);
      target.outbox.flush();
    }
    for (let sent = [0, 0]; sent.some((bytes) => bytes < 300_000);) {
      const which = random.int(0, 1);
      const target = targets[which] as (typeof targets)[0];
      const room = random.size(1, 150_000);
      drain(target.outbox, target.kernel, room);
      sent = sent.map((bytes, i) => (i === which ? bytes + room : bytes));
      const isDone = (sent[which] as number) >= 300_000;
      expect(accounts(target.queue)).toBe(isDone ? "1 = 1 + 0" : "1 = 0 + 1");
    }
    for (const { kernel } of targets) expect(kernel.payloads).toEqual([large]);
    expect(pool.usedBytes).toBe(0);
  });

  test.each([50, 100_000, 150_000, 200_000, 299_999])(
    "is dropped as one if the connection ends behind %i bytes of it",
    (sent) => {
      const { outbox, queue, pool } = scene();
      const first = attach(outbox, "native", sent);
      outbox.push(queue, runInPieces(large, 100_000, 100_000));
      outbox.push(queue, runOf("native", "T", ["1"]));
      outbox.flush();
      outbox.detach();
      expect(first.payloads).toEqual(["…"]);
      expect(accounts(queue)).toBe("2 = 0 + 1, 1 not_connected");
      expect(pool.usedBytes).toBe(queue.queuedBytes);
      expect(attach(outbox).payloads).toEqual(["1"]);
    },
  );

  test.each([
    ["drop-oldest", 3, "3 = 0 + 2, 1 full", [2, 3]],
    ["drop-newest", 3, "3 = 0 + 2, 1 full", [1, 2]],
    ["block", 3, "3 = 0 + 3", [1, 2, 3]],
  ] as const)("is dropped as a whole by the policy %s", (onFull, count, account, kept) => {
    const { outbox, queue } = scene({ maxBytes: 700_000, onFull });
    for (let i = 1; i <= count; i++) {
      outbox.push(queue, runInPieces(`${i}${large.slice(1)}`, 100_000, 50_000));
      outbox.flush();
    }
    expect(accounts(queue)).toBe(account);
    const numbers = attach(outbox).payloads.map((payload) => Number(payload[0]));
    expect(numbers).toEqual([...kept]);
  });

  test("is dropped if it is longer than its queue, or as many messages as there may be wait", () => {
    const short = scene({ maxBytes: 299_999 });
    short.outbox.push(short.queue, runInPieces(large, 100_000));
    expect(accounts(short.queue)).toBe("1 = 0 + 0, 1 full");
    const few = scene({ maxMessages: 1 });
    few.outbox.push(few.queue, runInPieces(large, 100_000));
    few.outbox.push(few.queue, runInPieces(large, 100_000));
    expect(accounts(few.queue)).toBe("2 = 0 + 1, 1 full");
  });

  test("is not dropped when its beginning is sent, whatever the piece that it ended in", () => {
    const { outbox, queue } = scene({ maxBytes: 400_000 });
    const kernel = attach(outbox, "native", 120_000);
    outbox.push(queue, runInPieces(large, 100_000, 100_000));
    outbox.flush();
    for (let i = 0; i < 5; i++) outbox.push(queue, runInPieces(`${i}${large.slice(1)}`, 100_000));
    outbox.flush();
    expect(queue.queuedBytes).toBeLessThanOrEqual(400_000);
    outbox.forget(queue);
    drain(outbox, kernel);
    expect(kernel.payloads).toEqual([large]);
    expect(queue.delivered).toBe(1);
  });

  test.each([true, false])("is too long for a Veecle line: connected is %p", (isConnected) => {
    const { outbox, queue } = scene();
    const early = isConnected ? attach(outbox, "veecle") : undefined;
    outbox.push(queue, runInPieces(large, 100_000));
    outbox.push(queue, runOf("native", "T", ["1"]));
    outbox.flush();
    const kernel = early ?? attach(outbox, "veecle");
    expect(kernel.payloads).toEqual(["1"]);
    expect(accounts(queue)).toBe("2 = 1 + 0, 1 oversize");
  });
});

describe("a full queue (P-36)", () => {
  test("takes what fits to the last byte", () => {
    const { queue, send } = scene({ maxBytes: 300 });
    send(...hundred(1, 2));
    send(...hundred(3));
    expect(accounts(queue)).toBe("3 = 0 + 3");
    expect(queue.queuedBytes).toBe(300);
  });

  test("drops the oldest message for one byte too many", () => {
    const { outbox, queue, send } = scene({ maxBytes: 300 });
    send(...hundred(1, 2, 3));
    send("");
    expect(accounts(queue)).toBe("4 = 0 + 3, 1 full");
    expect(trimmed(attach(outbox))).toBe("2 3 ");
  });

  test("drops as many as it must, and no more", () => {
    const { outbox, queue, send } = scene({ maxBytes: 500 });
    send(...hundred(1, 2));
    send(...hundred(3, 4));
    send(...hundred(5, 6, 7));
    expect(accounts(queue)).toBe("7 = 0 + 5, 2 full");
    expect(trimmed(attach(outbox))).toBe("3 4 5 6 7");
  });

  test("drops no more than it must of messages that do not lie side by side", () => {
    const { outbox, queue, send } = scene({ maxBytes: 500 });
    const other = new LinkQueue();
    for (let i = 1; i <= 4; i += 2) {
      send(...hundred(i, i + 1));
      outbox.push(other, runOf("native", "U", ["-"]));
    }
    send(...hundred(5, 6));
    expect(accounts(queue)).toBe("6 = 0 + 5, 1 full");
    expect(trimmed(attach(outbox))).toBe("2 - 3 4 - 5 6");
  });

  test("keeps the newest of a run that is longer than the queue", () => {
    const { outbox, queue, send } = scene({ maxBytes: 250 });
    send(...hundred(1));
    send(...hundred(2, 3, 4, 5));
    expect(accounts(queue)).toBe("5 = 0 + 2, 3 full");
    expect(trimmed(attach(outbox))).toBe("4 5");
  });

  test("drops a message that is longer than itself, and keeps the others", () => {
    const { queue, send } = scene({ maxBytes: 100 });
    send("old");
    send("x".repeat(101 - OVERHEAD));
    expect(accounts(queue)).toBe("2 = 0 + 1, 1 full");
    send("x".repeat(100 - OVERHEAD));
    expect(accounts(queue)).toBe("3 = 0 + 1, 2 full");
  });

  test("drops nothing of another link", () => {
    const { outbox, queue, send } = scene({ maxBytes: 300 });
    const other = new LinkQueue();
    outbox.push(other, runOf("native", "U", ["other"]));
    for (let i = 0; i < 50; i++) send(...hundred(i));
    expect(accounts(other)).toBe("1 = 0 + 1");
    expect(accounts(queue)).toBe("50 = 0 + 3, 47 full");
    expect(trimmed(attach(outbox))).toBe("other 47 48 49");
  });

  test("never drops a message whose beginning is sent", () => {
    const { outbox, queue, send } = scene({ maxBytes: 300 });
    const kernel = attach(outbox, "native", 50);
    send(...hundred(1, 2));
    for (let i = 3; i < 9; i++) send(...hundred(i));
    drain(outbox, kernel);
    expect(trimmed(kernel)).toBe("1 7 8");
    expect(accounts(queue)).toBe("8 = 3 + 0, 5 full");
  });

  test("holds its bound while its oldest message is half sent", () => {
    const { outbox, queue, send } = scene({ maxBytes: 300 });
    attach(outbox, "native", 10);
    send(...hundred(1));
    send(...hundred(2, 3, 4));
    expect(queue.queuedBytes).toBeLessThanOrEqual(300);
    expect(accounts(queue)).toBe("4 = 0 + 3, 1 full");
  });

  test("keeps its accounts when it was made smaller than what it must keep, and is then translated", () => {
    const { outbox, queue, send, pool } = scene();
    const kernel = attach(outbox, "native", 10);
    send("x".repeat(20_000));
    send(...new Array(300).fill("y".repeat(91)));
    send(...new Array(300).fill(Buffer.from("ff", "hex")), ...new Array(300).fill("z".repeat(91)));
    queue.settings = { ...queue.settings, maxBytes: 1_000 };
    outbox.attach("veecle", kernel.write);
    expect(pool.usedBytes).toBe(queue.queuedBytes);
    drain(outbox, kernel);
    expect([queue.queued, queue.queuedBytes, pool.usedBytes]).toEqual([0, 0, 0]);
    const dropped = [...queue.dropped.values()].reduce((sum, count) => sum + count, 0);
    expect(queue.routed).toBe(queue.delivered + dropped);
    expect(kernel.payloads).toHaveLength(queue.delivered);
  });

  test("holds its bound when a new connection needs more bytes for the same messages", () => {
    const { outbox, queue, pool } = scene({ maxBytes: 1_000 });
    outbox.push(queue, runOf("native", "T", new Array(100).fill("1")));
    expect(accounts(queue)).toBe("100 = 0 + 100");
    attach(outbox, "veecle", 0);
    expect(queue.queuedBytes).toBeLessThanOrEqual(1_000);
    expect(pool.usedBytes).toBe(queue.queuedBytes);
    expect(queue.dropped.get("full")).toBe(100 - queue.queued);
  });
});

describe("a full queue with the policy drop-newest", () => {
  test("keeps what it has, and of what comes the oldest that fit", () => {
    const { outbox, queue, send } = scene({ maxBytes: 450, onFull: "drop-newest" });
    send(...hundred(1, 2));
    send(...hundred(3, 4, 5, 6));
    send(...hundred(7));
    expect(accounts(queue)).toBe("7 = 0 + 4, 3 full");
    send("");
    expect(accounts(queue)).toBe("8 = 0 + 5, 3 full");
    expect(trimmed(attach(outbox))).toBe("1 2 3 4 ");
  });

  test("takes again what comes when there is room", () => {
    const { outbox, queue, send } = scene({ maxBytes: 200, onFull: "drop-newest" });
    send(...hundred(1, 2, 3));
    const kernel = attach(outbox, "native", 100);
    send(...hundred(4, 5));
    drain(outbox, kernel);
    expect(trimmed(kernel)).toBe("1 2 4");
    expect(accounts(queue)).toBe("5 = 3 + 0, 2 full");
  });

  test("drops a message that is longer than itself", () => {
    const { queue, send } = scene({ maxBytes: 100, onFull: "drop-newest" });
    send("x".repeat(101 - OVERHEAD), "1");
    expect(accounts(queue)).toBe("2 = 0 + 0, 2 full");
  });
});

describe("a full queue with the policy block", () => {
  test("takes everything: to hold its producer back is the router's business", () => {
    const { outbox, queue, send } = scene({ maxBytes: 200, onFull: "block" });
    for (let i = 0; i < 10; i++) send(...hundred(i));
    expect(accounts(queue)).toBe("10 = 0 + 10");
    expect(trimmed(attach(outbox))).toBe("0 1 2 3 4 5 6 7 8 9");
  });

  test("drops nothing when a new connection needs more bytes for the same messages", () => {
    const { outbox, queue } = scene({ maxBytes: 1_000, onFull: "block" });
    outbox.push(queue, runOf("native", "T", new Array(90).fill("1")));
    outbox.push(queue, runOf("veecle", "T", new Array(10).fill("2")));
    outbox.flush();
    expect(attach(outbox, "veecle").payloads).toHaveLength(100);
    expect(accounts(queue)).toBe("100 = 100 + 0");
  });
});

describe("a queue that is bounded in messages", () => {
  test.each([
    ["drop-oldest", "3 4 5"],
    ["drop-newest", "1 2 3"],
  ] as const)("holds so many, and no more: %s", (onFull, kept) => {
    const { outbox, queue, send } = scene({ maxMessages: 3, onFull });
    for (const number of [1, 2, 3]) send(...hundred(number));
    expect(accounts(queue)).toBe("3 = 0 + 3");
    send(...hundred(4, 5));
    expect(accounts(queue)).toBe("5 = 0 + 3, 2 full");
    expect(trimmed(attach(outbox))).toBe(kept);
  });

  test.each([
    ["drop-oldest", "4 5 6"],
    ["drop-newest", "1 2 3"],
  ] as const)("takes a part of a run that is longer: %s", (onFull, kept) => {
    const { outbox, queue, send } = scene({ maxMessages: 3, onFull });
    send(...hundred(1, 2, 3, 4, 5, 6));
    expect(accounts(queue)).toBe("6 = 0 + 3, 3 full");
    expect(trimmed(attach(outbox))).toBe(kept);
  });

  test("counts a message whose beginning is sent", () => {
    const { outbox, queue, send } = scene({ maxMessages: 2 });
    const kernel = attach(outbox, "native", 150);
    send(...hundred(1, 2));
    send(...hundred(3, 4));
    expect(accounts(queue)).toBe("4 = 1 + 2, 1 full");
    drain(outbox, kernel);
    expect(trimmed(kernel)).toBe("1 2 4");
  });
});

describe("a full pool", () => {
  /** Another instance that was never started holds the whole pool. */
  function fill(pool: OutboxPool): LinkQueue {
    const queue = new LinkQueue();
    const outbox = new Outbox(pool);
    outbox.push(queue, runOf("native", "T", ["x".repeat(pool.maxBytes - OVERHEAD)]));
    outbox.flush();
    expect(pool.usedBytes).toBe(pool.maxBytes);
    return queue;
  }

  test("takes what fits to the last byte, over all outboxes", () => {
    const pool = new OutboxPool(300);
    const queues = [1, 2, 3].map((number) => {
      const queue = new LinkQueue();
      const outbox = new Outbox(pool);
      outbox.push(queue, runOf("native", "T", hundred(number)));
      outbox.flush();
      return queue;
    });
    expect(queues.map(accounts)).toEqual(["1 = 0 + 1", "1 = 0 + 1", "1 = 0 + 1"]);
    expect(pool.usedBytes).toBe(300);
  });

  test("costs the link that needs room its own oldest messages", () => {
    const { pool, queue, send } = scene({ poolBytes: 400 });
    const other = new LinkQueue();
    new Outbox(pool).push(other, runOf("native", "T", hundred(0)));
    send(...hundred(1, 2, 3));
    send(...hundred(4));
    expect(accounts(queue)).toBe("4 = 0 + 3, 1 full");
    expect(accounts(other)).toBe("1 = 0 + 1");
  });

  test("costs whichever link has most queued", () => {
    const { pool, queue, send } = scene({ poolBytes: 10_000 });
    send(...hundred(1));
    const largest = new LinkQueue();
    new Outbox(pool).push(largest, runOf("native", "T", ["x".repeat(9_900 - OVERHEAD)]));
    send("x".repeat(500));
    expect(accounts(queue)).toBe("2 = 0 + 2");
    expect(accounts(largest)).toBe("1 = 0 + 0, 1 full");
  });

  test("takes from another link if the largest has only a message that is half sent", () => {
    const pool = new OutboxPool(10_000);
    const [stuck, waiting, next] = [new Outbox(pool), new Outbox(pool), new Outbox(pool)];
    const [largest, older, newer] = [new LinkQueue(), new LinkQueue(), new LinkQueue()];
    attach(stuck, "native", 10);
    stuck.push(largest, runOf("native", "T", ["x".repeat(6_000)]));
    stuck.flush();
    waiting.push(older, runOf("native", "T", ["y".repeat(3_500)]));
    next.push(newer, runOf("native", "T", ["z".repeat(3_000)]));
    expect(accounts(largest)).toBe("1 = 0 + 1");
    expect(accounts(older)).toBe("1 = 0 + 0, 1 full");
    expect(accounts(newer)).toBe("1 = 0 + 1");
  });

  test("holds its bound when a new connection needs more bytes for the same messages", () => {
    const { pool, outbox, queue } = scene({ poolBytes: 2_000 });
    outbox.push(queue, runOf("native", "T", new Array(100).fill("1")));
    outbox.flush();
    attach(outbox, "veecle", 0);
    expect(pool.usedBytes).toBeLessThanOrEqual(2_000);
  });

  test("costs an instance nothing that reads what it gets (P-36, R19)", () => {
    const { pool, outbox, queue, send } = scene({ poolBytes: 5_000 });
    const kernel = attach(outbox);
    fill(pool);
    for (let i = 0; i < 10; i++) send(...hundred(i));
    expect(accounts(queue)).toBe("10 = 10 + 0");
    expect(trimmed(kernel)).toBe("0 1 2 3 4 5 6 7 8 9");
  });

  test("lets control messages through (R19)", () => {
    const { pool, outbox } = scene({ poolBytes: 5_000 });
    const kernel = attach(outbox, "veecle");
    fill(pool);
    outbox.send(Buffer.from('{"ControlResponse":"Started"}\n'));
    expect(kernel.bytes.toString()).toBe('{"ControlResponse":"Started"}\n');
  });
});

describe("Outbox.attach()", () => {
  test("takes a target to speak the Veecle dialect until it says otherwise (P-24)", () => {
    const { outbox, queue } = scene();
    outbox.push(queue, runOf("native", "T", ["7"]));
    outbox.push(queue, runOf("veecle", "T", ["8"]));
    outbox.flush();
    const kernel = attach(outbox, "veecle");
    expect(kernel.bytes).toEqual(Buffer.concat([veecleLine("T", "7"), veecleLine("T", "8")]));
  });

  test("hands on a native frame and a Veecle line as they came", () => {
    const frame = nativeFrame(1, "T", "\xff", 0xaa);
    const line = Buffer.from('{"Storable":{"type_name":"T","value":"\\/"}}\n');
    for (const [dialect, chunk] of [
      ["native", frame],
      ["veecle", line],
    ] as const) {
      const run = { ...runOf(dialect, "T", [""]), chunk, end: chunk.length, longest: chunk.length };
      const before = scene();
      before.outbox.push(before.queue, run);
      expect(attach(before.outbox, dialect).bytes).toEqual(chunk);
      const after = scene();
      const kernel = attach(after.outbox, dialect);
      after.outbox.push(after.queue, run);
      after.outbox.flush();
      expect(kernel.bytes).toEqual(chunk);
    }
  });

  /** What a payload costs in a Veecle line besides itself. */
  const LINE = veecleLine("T", "").length - 1;

  for (const [what, isConnected] of [
    ["what is queued", false],
    ["what comes", true],
  ] as const) {
    const through = (
      from: Dialect,
      to: Dialect,
      ...payloads: (string | Buffer)[]
    ): Scene & { kernel: Kernel } => {
      const it = scene();
      let kernel = isConnected ? attach(it.outbox, to) : undefined;
      it.outbox.push(it.queue, runOf(from, "T", payloads));
      it.outbox.flush();
      kernel ??= attach(it.outbox, to);
      expect([it.queue.queued, it.queue.queuedBytes, it.pool.usedBytes]).toEqual([0, 0, 0]);
      return { ...it, kernel };
    };

    test(`translates ${what}, in both directions`, () => {
      for (const [from, to] of [
        ["native", "veecle"],
        ["veecle", "native"],
      ] as const) {
        const payloads = ["1", '"\\\n', "😀", ""];
        const { kernel, queue } = through(from, to, ...payloads);
        expect(kernel.bytes).toEqual(runOf(to, "T", payloads).chunk);
        expect(accounts(queue)).toBe("4 = 4 + 0");
      }
    });

    for (const from of ["native", "veecle"] as const) {
      test(`sends a line of 2048 bytes and none of 2049: ${what}, from the ${from} dialect`, () => {
        const fits = "x".repeat(MAX_VEECLE_LINE_BYTES - LINE);
        const { kernel, queue } = through(from, "veecle", "1", fits, `${fits}x`, "2");
        expect(kernel.payloads).toEqual(["1", fits, "2"]);
        expect(kernel.bytes.toString().split("\n")[1]).toHaveLength(2_048);
        expect(accounts(queue)).toBe("4 = 3 + 0, 1 oversize");
      });

      test(`counts the escapes and the UTF-8 of a line: ${what}, from the ${from} dialect`, () => {
        const room = MAX_VEECLE_LINE_BYTES - LINE;
        const fitting = ['"'.repeat(room / 2), "\u0001".repeat(room / 6), "é".repeat(room / 2)];
        const tooLong = fitting.map((payload) => payload + payload.slice(0, 1));
        const { kernel, queue } = through(from, "veecle", ...fitting, ...tooLong);
        expect(kernel.payloads).toEqual(fitting);
        expect(accounts(queue)).toBe("6 = 3 + 0, 3 oversize");
      });

      test(`sends the native dialect longer messages: ${what}, from the ${from} dialect`, () => {
        const { kernel, queue } = through(from, "native", "x".repeat(100_000));
        expect(kernel.payloads[0]).toHaveLength(100_000);
        expect(accounts(queue)).toBe("1 = 1 + 0");
      });
    }

    test(`drops what is not UTF-8 on the way to the Veecle dialect: ${what}`, () => {
      const { kernel, queue } = through("native", "veecle", "1", Buffer.from("ff", "hex"), "2");
      expect(kernel.payloads).toEqual(["1", "2"]);
      expect(accounts(queue)).toBe("3 = 2 + 0, 1 not_utf8");
    });

    test(`may find nothing that can cross: ${what}`, () => {
      const { outbox, queue } = through(
        "native",
        "veecle",
        Buffer.from("ff", "hex"),
        "x".repeat(3_000),
      );
      expect(outbox.isEmpty).toBe(true);
      expect(accounts(queue)).toBe("2 = 0 + 0, 1 not_utf8, 1 oversize");
    });
  }

  test("does not translate the rest of a message whose beginning is sent", () => {
    const { outbox, queue } = scene();
    const kernel = attach(outbox, "veecle", 10);
    outbox.push(queue, runOf("veecle", "T", ["1", "2"]));
    outbox.flush();
    kernel.room = Number.POSITIVE_INFINITY;
    outbox.attach("native", kernel.write);
    expect(kernel.bytes).toEqual(Buffer.concat([veecleLine("T", "1"), nativeFrame(1, "T", "2")]));
    expect(accounts(queue)).toBe("2 = 2 + 0");
  });

  test("begins with a whole message after a connection that ended within one", () => {
    const { outbox, queue, send } = scene();
    const first = attach(outbox, "native", 150);
    send(...hundred(1, 2, 3));
    outbox.detach();
    expect(accounts(queue)).toBe("3 = 1 + 1, 1 not_connected");
    expect(trimmed(first)).toBe("1 …");
    expect(trimmed(attach(outbox))).toBe("3");
  });
});

describe("Outbox.detach()", () => {
  test("drops nothing if the connection ended between two messages", () => {
    const { outbox, queue, send } = scene();
    attach(outbox, "native", 100);
    send(...hundred(1, 2));
    outbox.detach();
    expect(accounts(queue)).toBe("2 = 1 + 1");
    expect(trimmed(attach(outbox))).toBe("2");
  });

  test("leaves the outbox taking messages", () => {
    const { outbox, queue, send } = scene();
    attach(outbox);
    outbox.detach();
    outbox.detach();
    send("1");
    expect(accounts(queue)).toBe("1 = 0 + 1");
    expect(attach(outbox).payloads).toEqual(["1"]);
  });
});

describe("Outbox.close() and open() (P-38, P-39)", () => {
  test("drop all that is queued, and whatever comes until it is open again (R20)", () => {
    const { pool, outbox, queue, send } = scene();
    send("1", "2");
    outbox.close();
    expect(accounts(queue)).toBe("2 = 0 + 0, 2 target_gone");
    send("3");
    expect(accounts(queue)).toBe("3 = 0 + 0, 2 target_gone, 1 not_connected");
    expect([outbox.isEmpty, queue.queuedBytes, pool.usedBytes]).toEqual([true, 0, 0]);
    outbox.open();
    send("4");
    expect(attach(outbox).payloads).toEqual(["4"]);
  });

  test("drop also a message that is half sent", () => {
    const { outbox, queue, send } = scene();
    attach(outbox, "native", 150);
    send(...hundred(1, 2, 3));
    outbox.close();
    outbox.detach();
    expect(accounts(queue)).toBe("3 = 1 + 0, 2 target_gone");
  });

  test("send nothing more on a connection on which a message was cut", () => {
    const { outbox, send } = scene();
    const kernel = attach(outbox, "native", 150);
    send(...hundred(1, 2));
    outbox.close();
    kernel.room = 1_000;
    outbox.send(nativeFrame(6, "T", "{}"));
    outbox.drain();
    expect(Buffer.concat(kernel.writes)).toHaveLength(150);
    const told = attach(outbox, "veecle"); // its first byte comes, and tells its dialect, only now
    outbox.send(nativeFrame(6, "T", "{}"));
    expect(told.writes).toHaveLength(0);
    outbox.detach();
    outbox.open();
    send("3");
    expect(attach(outbox).payloads).toEqual(["3"]);
  });

  test("drop what was pushed in the same turn", () => {
    const { pool, outbox, queue } = scene();
    const kernel = attach(outbox);
    outbox.push(queue, runOf("native", "T", ["1"]));
    outbox.close();
    outbox.flush();
    expect(kernel.writes).toHaveLength(0);
    expect(accounts(queue)).toBe("1 = 0 + 0, 1 target_gone");
    outbox.open();
    outbox.push(queue, runOf("native", "T", ["2"]));
    outbox.flush();
    expect(kernel.payloads).toEqual(["2"]);
    expect(pool.usedBytes).toBe(0);
  });
});

describe("Outbox.forget()", () => {
  test("drops what is queued of one link, and nothing of the others", () => {
    const { outbox, queue, send, pool } = scene();
    const other = new LinkQueue();
    for (let i = 0; i < 3; i++) {
      send(`${i}`);
      outbox.push(other, runOf("native", "U", [`other ${i}`]));
      outbox.flush();
    }
    outbox.forget(queue);
    expect(accounts(queue)).toBe("3 = 0 + 0, 3 target_gone");
    expect(accounts(other)).toBe("3 = 0 + 3");
    expect(pool.usedBytes).toBe(other.queuedBytes);
    expect(attach(outbox).payloads).toEqual(["other 0", "other 1", "other 2"]);
  });

  test("sends the rest of a message whose beginning is sent", () => {
    const { outbox, queue, send } = scene();
    const kernel = attach(outbox, "native", 150);
    send(...hundred(1, 2, 3));
    outbox.forget(queue);
    expect(accounts(queue)).toBe("3 = 1 + 1, 1 target_gone");
    drain(outbox, kernel);
    expect(trimmed(kernel)).toBe("1 2");
    expect(accounts(queue)).toBe("3 = 2 + 0, 1 target_gone");
  });

  test("knows links of which nothing is queued", () => {
    const { outbox, queue } = scene();
    outbox.forget(queue);
    outbox.forget(new LinkQueue());
    expect(accounts(queue)).toBe("0 = 0 + 0");
  });
});

describe("Outbox.notify()", () => {
  const notice = nativeFrame(6, "T", "n".repeat(1024 - OVERHEAD));
  const control = nativeFrame(4, "", '"Started"');

  test("leaves out what a receiver that does not read is told over and over (P-47)", () => {
    const { outbox } = scene();
    const kernel = attach(outbox, "native", 0);
    for (let i = 0; i < 1_000; i++) outbox.notify(notice);
    outbox.send(control);
    kernel.room = Number.POSITIVE_INFINITY;
    outbox.drain();
    expect(kernel.bytes).toHaveLength(MAX_UNREAD_NOTICE_BYTES + control.length);
    expect(kernel.bytes.subarray(-control.length)).toEqual(control);
    outbox.notify(notice); // it reads again
    expect(kernel.bytes.subarray(-notice.length)).toEqual(notice);
  });
});

describe("Outbox.send()", () => {
  const control = Buffer.from('{"ControlResponse":"Started"}\n');

  test("sends a control message behind what is queued", () => {
    const { outbox, queue } = scene();
    const kernel = attach(outbox, "veecle", 10);
    outbox.push(queue, runOf("veecle", "T", ["1", "2"]));
    outbox.send(control);
    drain(outbox, kernel);
    expect(kernel.bytes).toEqual(
      Buffer.concat([veecleLine("T", "1"), veecleLine("T", "2"), control]),
    );
    expect(accounts(queue)).toBe("2 = 2 + 0");
  });

  test("writes at once", () => {
    const { outbox } = scene();
    const kernel = attach(outbox, "veecle");
    outbox.send(control);
    expect(kernel.bytes).toEqual(control);
  });

  test("sends it to no other connection than the one that asked", () => {
    const { pool, outbox } = scene();
    outbox.send(control);
    expect(attach(outbox, "veecle", 5).bytes).toHaveLength(0);
    outbox.send(control);
    outbox.send(control);
    outbox.detach();
    expect([outbox.isEmpty, pool.usedBytes]).toEqual([true, 0]);
    expect(attach(outbox, "veecle").bytes).toHaveLength(0);
  });
});

describe("memory", () => {
  test("a small message does not keep the chunk alive in which it came", () => {
    const { outbox, queue } = scene();
    const chunk = Buffer.alloc(500_000);
    const frame = nativeFrame(1, "T", "1");
    frame.copy(chunk, 100_000);
    const run = {
      ...runOf("native", "T", ["1"]),
      chunk,
      start: 100_000,
      end: 100_000 + frame.length,
    };
    outbox.push(queue, run);
    outbox.flush();
    expect(inspect(queue).pinned).toBeLessThanOrEqual(4_096);
    expect(attach(outbox).bytes).toEqual(frame);
  });

  test("a part of a chunk is copied if it keeps more than twice its size alive", () => {
    for (const [share, isCopied] of [
      [0.51, false],
      [0.49, true],
    ] as const) {
      const { outbox, queue } = scene();
      const run = runOf("native", "T", new Array(100).fill("x".repeat(2_000)));
      const count = Math.round(run.count * share);
      outbox.push(queue, { ...run, count, end: (run.end / run.count) * count });
      outbox.flush();
      expect(queue.first?.chunk.buffer === run.chunk.buffer).toBe(!isCopied);
      expect(inspect(queue).pinned).toBeLessThanOrEqual(MAX_PIN_RATIO * queue.queuedBytes);
    }
  });

  test("a small piece of a large message does not keep its chunk alive, and a large one is not copied", () => {
    const { outbox, queue } = scene();
    const run = runInPieces("x".repeat(300_000 - OVERHEAD), 20_000);
    const chunk = Buffer.concat([Buffer.alloc(400_000), run.chunk]);
    outbox.push(queue, { ...run, chunk: chunk.subarray(400_000) });
    outbox.flush();
    expect(inspect(queue).pinned).toBe(300_000);
    expect(queue.first?.rest[0]?.buffer).toBe((run.rest[0] as Buffer).buffer);
    expect(attach(outbox).payloads[0]).toHaveLength(300_000 - OVERHEAD);
  });

  test.each(["detach", "forget"] as const)(
    "what is left of a chunk does not keep alive what %s() dropped of it",
    (action) => {
      const { outbox, queue } = scene();
      attach(outbox, "native", 10);
      const [large, small] = ["x".repeat(400_000), "y".repeat(30_000)];
      // The first of them is half sent: detach() drops it, and forget() the other one.
      outbox.push(
        queue,
        runOf("native", "T", action === "detach" ? [large, small] : [small, large]),
      );
      outbox.flush();
      outbox[action](queue);
      const { bytes, pinned } = inspect(queue);
      expect(bytes).toBeGreaterThan(29_000);
      expect(pinned).toBeLessThanOrEqual(MAX_PIN_RATIO * bytes + GATHER_BLOCK_BYTES);
    },
  );

  test("what is left of a chunk does not keep alive what was too long for a new connection", () => {
    const { outbox, queue } = scene();
    const lines = runOf("veecle", "T", new Array(100).fill("x".repeat(1_000)));
    const long = runOf("veecle", "U", ["y".repeat(400_000)]);
    const chunk = Buffer.concat([lines.chunk, long.chunk]);
    outbox.push(queue, runOf("veecle", "T", ["1"]));
    outbox.push(queue, { ...lines, chunk });
    outbox.push(queue, { ...long, chunk, start: lines.end, end: chunk.length });
    outbox.flush();
    attach(outbox, "veecle", 0);
    expect(accounts(queue)).toBe("102 = 0 + 101, 1 oversize");
    const { bytes, pinned } = inspect(queue);
    expect(pinned).toBeLessThanOrEqual(MAX_PIN_RATIO * bytes + GATHER_BLOCK_BYTES);
  });

  test("many small messages cost little more than their bytes", () => {
    const { queue, send } = scene();
    for (let i = 0; i < 20_000; i++) send(`${i}`);
    const { count, bytes, pinned } = inspect(queue);
    expect(count).toBe(20_000);
    expect(pinned).toBeLessThanOrEqual(bytes + 2 * GATHER_BLOCK_BYTES);
    let segments = 0;
    for (let segment = queue.first; segment !== undefined; segment = segment.nextOfQueue)
      segments++;
    expect(segments).toBeLessThan(20);
  });

  test("the rest of a large chunk does not keep all of it alive", () => {
    const { outbox, queue, send } = scene();
    const kernel = attach(outbox, "native", 100_000);
    send(...new Array(10).fill("x".repeat(100_000)));
    drain(outbox, kernel, 800_000);
    const { bytes, pinned } = inspect(queue);
    expect(bytes).toBeLessThan(110_000);
    expect(pinned).toBeLessThanOrEqual(MAX_PIN_RATIO * bytes + GATHER_BLOCK_BYTES);
  });

  test("what is dropped makes room for what comes, in the same memory", () => {
    const maxBytes = 2 ** 20;
    const { queue, send } = scene({ maxBytes });
    const memory = new Set<ArrayBufferLike>();
    for (let i = 0; i < 3_200; i++) {
      send("x".repeat(5_000));
      memory.add((queue.last as Segment).chunk.buffer);
    }
    const grown = 5; // smaller ones, while the queue was shorter
    expect(memory.size).toBeLessThanOrEqual(maxBytes / GATHER_BLOCK_BYTES + grown + 2);
    expect(accounts(queue)).toStartWith("3200 = 0 + ");
  });

  test("a target that is drained keeps no block", () => {
    const { outbox, queue, send } = scene();
    send("1");
    expect(queue.block).toBeDefined();
    attach(outbox);
    expect(queue.block).toBeUndefined();
  });
});
