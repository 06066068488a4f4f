import { describe, expect, test } from "bun:test";

import { TYPE_TABLE_SLOTS } from "../src/limits.ts";
import type { Run } from "../src/message.ts";
import { TypeName } from "../src/message/typename.ts";
import { DEFAULT_LINK_SETTINGS, type LinkKey } from "../src/model.ts";
import { Outbox } from "../src/outbox.ts";
import { LinkQueue, OutboxPool, type Target } from "../src/queue.ts";
import { Router, Source } from "../src/router.ts";
import { accounts, Kernel, runOf } from "./support/outbox.ts";
import { property } from "./support/random.ts";

const A = "0195fc7b-33e6-70e3-bee1-00000000000a";
const B = "0195fc7b-33e6-70e3-bee1-00000000000b";
const C = "0195fc7b-33e6-70e3-bee1-00000000000c";

/** A target that notes what it is told, under its name in a common list. */
class Notebook implements Target {
  isTouched = false;
  readonly #name: string;
  readonly #notes: string[];

  constructor(name: string, notes: string[]) {
    this.#name = name;
    this.#notes = notes;
  }

  push(queue: LinkQueue, run: Run): void {
    queue.routed += run.count;
    queue.delivered += run.count;
    this.#notes.push(`${this.#name} ${run.count}×${run.type.text}`);
  }

  flush(): void {
    this.#notes.push(`${this.#name} flush`);
  }

  forget(queue: LinkQueue): void {
    this.#notes.push(`${this.#name} forget ${queue.routed}`);
  }
}

function scene(): { router: Router; notes: string[]; target: (name: string) => Notebook } {
  const notes: string[] = [];
  return { router: new Router(), notes, target: (name) => new Notebook(name, notes) };
}

function key(typeName: string, to: string, from?: string): LinkKey {
  return { from, typeName, to: { kind: "instance", id: to } };
}

const remote = (port: number): LinkKey["to"] => ({ kind: "remote", host: "127.0.0.1", port });

const run = (typeName: string, count: number = 1): Run =>
  runOf("native", typeName, new Array(count).fill("x"));

describe("Router.route() (P-34)", () => {
  test("hands a run to every link of its type, in the order in which they were added", () => {
    const { router, notes, target } = scene();
    const source = new Source(A);
    router.addLink(key("T", B), target("b"));
    router.addLink(key("U", B), target("other"));
    router.addLink({ from: undefined, typeName: "T", to: remote(1) }, target("remote"));
    router.addLink(key("T", C), target("c"));
    router.route(source, run("T", 3));
    expect(notes).toEqual(["b 3×T", "remote 3×T", "c 3×T"]);
    expect([source.received, source.unlinked, source.refused]).toEqual([3, 0, 0]);
  });

  test("counts what has no link", () => {
    const { router, notes, target } = scene();
    const source = new Source(A);
    router.addLink(key("T", B), target("b"));
    router.addLink(key("V", B, C), target("b"));
    router.route(source, run("U", 2));
    router.route(source, run("V"));
    router.route(source, run("t"));
    router.route(source, run("T"));
    expect(notes).toEqual(["b 1×T"]);
    expect([source.received, source.unlinked]).toEqual([5, 4]);
  });

  test("follows a link that names a source from that source only", () => {
    const { router, notes, target } = scene();
    router.addLink(key("T", C, A), target("c"));
    for (const id of [A, B, undefined]) router.route(new Source(id), run("T"));
    expect(notes).toEqual(["c 1×T"]);
  });

  test("sends a message once to a target that two links lead to", () => {
    const { router, notes, target } = scene();
    const c = target("c");
    router.addLink(key("T", C), c);
    router.addLink(key("T", C, A), c);
    router.route(new Source(A), run("T"));
    router.route(new Source(B), run("T"));
    expect(notes).toEqual(["c 1×T", "c 1×T"]);
    expect([...router.links()].map(({ queue }) => accounts(queue))).toEqual([
      "1 = 1 + 0",
      "1 = 1 + 0",
    ]);
  });

  test("lets an instance be linked to itself (R21)", () => {
    const { router, notes, target } = scene();
    router.addLink(key("T", A), target("a"));
    router.route(new Source(A), run("T"));
    router.flush();
    expect(notes).toEqual(["a 1×T", "a flush"]);
  });

  test("knows links by the text of a type name, whoever has read it", () => {
    const { router, notes, target } = scene();
    router.addLink(key("größe", B), target("b"));
    const source = new Source(A);
    for (let i = 0; i < 3; i++)
      router.route(source, { ...run("größe"), type: new TypeName("größe") });
    expect(notes).toHaveLength(3);
  });

  test("follows links whose type names are also names of JavaScript", () => {
    const { router, notes, target } = scene();
    const source = new Source(A);
    for (const name of ["__proto__", "constructor"]) {
      router.route(source, run(name));
      router.addLink(key(name, B), target("b"));
      router.route(source, run(name));
    }
    expect(notes).toEqual(["b 1×__proto__", "b 1×constructor"]);
    expect([source.received, source.unlinked]).toEqual([4, 2]);
  });

  test("remembers what it found of a limited number of types", () => {
    const { router, notes, target } = scene();
    const source = new Source(A);
    router.addLink(key("T", B), target("b"));
    for (let i = 0; i < 3 * TYPE_TABLE_SLOTS; i++) router.route(source, run(`flood ${i}`));
    expect(source.routes.size).toBeLessThanOrEqual(TYPE_TABLE_SLOTS + 1);
    router.route(source, run("T"));
    expect(notes).toEqual(["b 1×T"]);
    expect(source.unlinked).toBe(3 * TYPE_TABLE_SLOTS);
  });
});

describe("Router.flush()", () => {
  test("lets each target of the turn write once, and no other", () => {
    const { router, notes, target } = scene();
    const [b, c] = [target("b"), target("c")];
    router.addLink(key("T", B), b);
    router.addLink(key("U", B), b);
    router.addLink(key("V", C), c);
    const source = new Source(A);
    for (const typeName of ["T", "U", "T"]) router.route(source, run(typeName));
    notes.length = 0;
    router.flush();
    router.flush();
    expect(notes).toEqual(["b flush"]);
    router.route(source, run("V"));
    router.route(source, run("T"));
    notes.length = 0;
    router.flush();
    expect(notes).toEqual(["c flush", "b flush"]);
  });

  test("reaches a target whose link was removed in the same turn", () => {
    const { router, notes, target } = scene();
    router.addLink(key("T", B), target("b"));
    router.route(new Source(A), run("T"));
    router.removeLink(key("T", B));
    router.flush();
    expect(notes).toEqual(["b 1×T", "b forget 1", "b flush"]);
  });
});

describe("links", () => {
  test("exist once, however often they are added", () => {
    const { router, notes, target } = scene();
    const b = target("b");
    expect(router.addLink(key("T", B), b)).toBe(true);
    expect(router.addLink(key("T", B), b)).toBe(false);
    expect(router.addLink(key("T", B, A), b)).toBe(true);
    expect(router.addLink(key("T", B, A), b)).toBe(false);
    expect(router.linkCount).toBe(2);
    router.route(new Source(B), run("T"));
    expect(notes).toEqual(["b 1×T"]);
  });

  test("are found by type name, source and target", () => {
    const { router, target } = scene();
    const remoteKey: LinkKey = { from: undefined, typeName: "T", to: remote(1) };
    for (const other of [key("T", B), key("T", B, A), remoteKey])
      router.addLink(other, target("x"));
    expect(router.findLink(key("T", B))?.key).toEqual(key("T", B));
    expect(router.findLink(key("T", B, A))?.key).toEqual(key("T", B, A));
    expect(router.findLink({ ...remoteKey })?.key).toEqual(remoteKey);
    expect(router.findLink({ ...remoteKey, to: remote(2) })).toBeUndefined();
    expect(router.findLink(key("T", A))).toBeUndefined();
    expect(router.findLink(key("U", B))).toBeUndefined();
    expect(router.findLink(key("T", B, C))).toBeUndefined();
  });

  test("take effect with the next message, and end with it", () => {
    const { router, notes, target } = scene();
    const source = new Source(A);
    router.route(source, run("T"));
    router.addLink(key("T", B), target("b"));
    router.route(source, run("T"));
    expect(router.removeLink(key("T", B))).toBe(true);
    router.route(source, run("T"));
    expect(notes).toEqual(["b 1×T", "b forget 1"]);
    expect([source.received, source.unlinked]).toEqual([3, 2]);
  });

  test("are removed one by one, and only if they exist", () => {
    const { router, target } = scene();
    router.addLink(key("T", B), target("b"));
    router.addLink(key("T", C), target("c"));
    expect(router.removeLink(key("T", B, A))).toBe(false);
    expect(router.removeLink(key("U", B))).toBe(false);
    expect(router.removeLink(key("T", B))).toBe(true);
    expect(router.removeLink(key("T", B))).toBe(false);
    expect([...router.links()].map((link) => link.key)).toEqual([key("T", C)]);
    expect(router.linkCount).toBe(1);
  });

  test("leave nothing of themselves in the pool", () => {
    const queues = new Set<LinkQueue>();
    const pool = new OutboxPool();
    pool.enter = (queue) => queues.add(queue);
    pool.leave = (queue) => queues.delete(queue);
    const router = new Router(undefined, pool);
    const outbox = new Outbox(pool);
    for (const typeName of ["T", "U", "V"]) {
      router.addLink(key(typeName, B), outbox);
      router.route(new Source(A), run(typeName));
    }
    expect(queues.size).toBe(3);
    router.removeLink(key("T", B));
    expect(queues.size).toBe(2);
    router.removeInstance(B);
    expect(queues.size).toBe(0);
  });

  test("begin anew when they are added again", () => {
    const router = new Router();
    const outbox = new Outbox(new OutboxPool());
    router.addLink(key("T", B), outbox);
    const before = router.findLink(key("T", B))?.queue as LinkQueue;
    router.route(new Source(A), run("T", 2));
    router.removeLink(key("T", B));
    router.addLink(key("T", B), outbox);
    router.route(new Source(A), run("T"));
    router.flush();
    const after = router.findLink(key("T", B))?.queue as LinkQueue;
    expect(accounts(before)).toBe("2 = 0 + 0, 2 target_gone");
    expect(accounts(after)).toBe("1 = 0 + 1");
  });

  test("go with the instance, whichever end it is (P-40)", () => {
    const { router, target } = scene();
    const keys = [key("T", B), key("T", C), key("U", C, B), key("U", C, A), key("V", B, B)];
    for (const each of keys) router.addLink(each, target("x"));
    router.addLink({ from: B, typeName: "T", to: remote(1) }, target("x"));
    const removed = router.removeInstance(B);
    expect(removed).toHaveLength(4);
    expect([...router.links()].map((link) => link.key)).toEqual([key("T", C), key("U", C, A)]);
    expect(router.linkCount).toBe(2);
    expect(router.removeInstance(B)).toEqual([]);
  });

  test("of one type name stand together, in the order in which they were added", () => {
    const { router, target } = scene();
    const keys = [key("T", A), key("U", A), key("T", B), key("U", B, A), key("T", C)];
    for (const each of keys) router.addLink(each, target("x"));
    const listed = [...router.links()].map(({ key: { typeName, to } }) =>
      to.kind === "instance" ? `${typeName} ${to.id.slice(-1)}` : "",
    );
    expect(listed).toEqual(["T a", "T b", "T c", "U a", "U b"]);
  });

  test("tell of every drop, whose it is, and whose message had no room", () => {
    const told: string[] = [];
    const router = new Router(({ typeName }, reason, count, source) =>
      told.push(`${count}×${typeName} ${reason} ${source === A ? "a" : String(source)}`),
    );
    const outbox = new Outbox(new OutboxPool());
    router.addLink(key("T", B), outbox);
    router.addLink(key("U", B), outbox, { maxMessages: 1 });
    router.route(new Source(A), run("U", 3));
    router.route(new Source(undefined), run("U", 2));
    router.route(new Source(A), run("T", 2));
    router.removeLink(key("T", B));
    outbox.close();
    router.route(new Source(A), run("U", 4));
    expect(told).toEqual([
      "2×U full a",
      "1×U full undefined",
      "1×U full undefined",
      "2×T target_gone undefined",
      "1×U target_gone undefined",
      "4×U not_connected a",
    ]);
  });

  test("take over the settings that are given, and keep the others", () => {
    const { router, target } = scene();
    const b = target("b");
    router.addLink(key("T", B), b);
    expect(router.findLink(key("T", B))?.queue.settings).toEqual(DEFAULT_LINK_SETTINGS);
    router.addLink(key("T", B), b, { maxBytes: 100 });
    router.addLink(key("T", B), b, { onFull: "block" });
    router.addLink(key("T", B), b);
    expect(router.findLink(key("T", B))?.queue.settings).toEqual({
      ...DEFAULT_LINK_SETTINGS,
      maxBytes: 100,
      onFull: "block",
    });
    router.addLink(key("U", B), b, { onFull: "drop-newest", maxMessages: 7 });
    expect(router.findLink(key("U", B))?.queue.settings).toEqual({
      ...DEFAULT_LINK_SETTINGS,
      onFull: "drop-newest",
      maxMessages: 7,
    });
    expect(router.linkCount).toBe(2);
  });

  property("route as a list that is searched for every message", 200, (random) => {
    const router = new Router();
    const ids = [A, B, C];
    const received = new Map<string, number>();
    const targets = ids.map((id): Target => ({
      isTouched: false,
      push: (_queue, { count }) => received.set(id, (received.get(id) ?? 0) + count),
      flush: () => {},
      forget: () => {},
    }));
    const sources = [...ids, undefined].map((id) => new Source(id));
    let list: LinkKey[] = [];
    for (let step = 0; step < 60; step++) {
      const index = random.int(0, 2);
      const from = random.pick([...ids, undefined, undefined]);
      const link = key(random.pick(["T", "U"]), ids[index] as string, from);
      const isNew = !list.some((other) => Bun.deepEquals(other, link));
      if (random.chance(0.2)) {
        expect(router.addLink(link, targets[index] as Target)).toBe(isNew);
        if (isNew) list.push(link);
      } else if (random.chance(0.15)) {
        expect(router.removeLink(link)).toBe(!isNew);
        list = list.filter((other) => !Bun.deepEquals(other, link));
      } else {
        const source = random.pick(sources);
        const typeName = random.pick(["T", "U"]);
        received.clear();
        router.route(source, run(typeName, 2));
        const reached = ids.filter((id) =>
          list.some(
            (other) =>
              other.typeName === typeName &&
              other.to.kind === "instance" &&
              other.to.id === id &&
              (other.from === undefined || other.from === source.id),
          ),
        );
        expect([...received].toSorted()).toEqual(reached.map((id) => [id, 2]));
      }
      expect(router.linkCount).toBe(list.length);
    }
  });
});

describe("links that say block", () => {
  interface Blocked {
    router: Router;
    outbox: Outbox;
    source: Source;
    notes: string[];
    send(typeName: string, count: number): void;
  }

  /** A source that can wait, and links of 5 messages to an instance that is not connected. */
  function blocked(): Blocked {
    const notes: string[] = [];
    const source = new Source(A, (isWaiting) => notes.push(isWaiting ? "wait" : "go on"));
    const router = new Router();
    const outbox = new Outbox(new OutboxPool());
    for (const typeName of ["T", "U"]) {
      router.addLink(key(typeName, B), outbox, { maxMessages: 5, onFull: "block" });
    }
    const send = (typeName: string, count: number): void => {
      router.route(source, run(typeName, count));
      router.flush();
    };
    return { router, outbox, source, notes, send };
  }

  test("hold back who sends beyond the bound, at the end of the turn, and drop nothing", () => {
    const { router, notes, source, send } = blocked();
    send("T", 5);
    expect(notes).toEqual([]);
    router.route(source, run("T", 3));
    expect(notes).toEqual([]);
    router.flush();
    expect(notes).toEqual(["wait"]);
    expect(accounts(router.findLink(key("T", B))?.queue as LinkQueue)).toBe("8 = 0 + 8");
  });

  test("let it go on when all queues that it waits for have room", () => {
    const { router, outbox, notes, send } = blocked();
    send("T", 6);
    send("U", 6);
    expect(notes).toEqual(["wait"]);
    router.removeLink(key("T", B));
    expect(notes).toEqual(["wait"]);
    outbox.attach("native", new Kernel().write);
    expect(notes).toEqual(["wait", "go on"]);
  });

  test("hold nobody back whose messages the kernel takes", () => {
    const { outbox, notes, send } = blocked();
    outbox.attach("native", new Kernel().write);
    for (let i = 0; i < 10; i++) send("T", 20);
    expect(notes).toEqual([]);
  });

  test("let everybody go on when link, target or policy is gone", () => {
    const ends: ((it: Blocked) => void)[] = [
      ({ router }) => router.removeLink(key("T", B)),
      ({ router }) => router.removeInstance(B),
      ({ outbox }) => outbox.close(),
      ({ router, outbox }) => router.addLink(key("T", B), outbox, { onFull: "drop-oldest" }),
      ({ router, outbox }) => router.addLink(key("T", B), outbox, { maxMessages: 100 }),
    ];
    for (const end of ends) {
      const it = blocked();
      it.send("T", 6);
      end(it);
      expect(it.notes).toEqual(["wait", "go on"]);
    }
  });

  test("let everybody go on when the link is gone, even if a message is half sent", () => {
    const { router, outbox, source, notes } = blocked();
    router.addLink(key("T", B), outbox, { maxBytes: 100 });
    outbox.attach("native", new Kernel(10).write);
    router.route(source, runOf("native", "T", ["x".repeat(200)]));
    router.flush();
    expect(notes).toEqual(["wait"]);
    router.removeLink(key("T", B));
    expect(notes).toEqual(["wait", "go on"]);
  });

  test("take from a source that cannot wait what has room, and drop the rest (P-42)", () => {
    const { router, notes } = blocked();
    const other = new Source(undefined);
    for (const count of [3, 3, 2]) router.route(other, run("T", count));
    router.flush();
    expect(notes).toEqual([]);
    expect(accounts(router.findLink(key("T", B))?.queue as LinkQueue)).toBe("8 = 0 + 5, 3 full");
  });

  test("hold back one producer, and no other (R19)", () => {
    const { router, notes, send } = blocked();
    const others: string[] = [];
    const other = new Source(B, (isWaiting) => others.push(isWaiting ? "wait" : "go on"));
    send("T", 6);
    router.route(other, run("V"));
    router.flush();
    expect([notes, others]).toEqual([["wait"], []]);
    router.route(other, run("T"));
    router.flush();
    expect([notes, others]).toEqual([["wait"], ["wait"]]);
  });

  test("hold back nobody for what another one sends later", () => {
    const { router, outbox, notes, send } = blocked();
    const others: string[] = [];
    const other = new Source(B, (isWaiting) => others.push(isWaiting ? "wait" : "go on"));
    send("T", 1);
    outbox.close();
    outbox.open();
    router.route(other, run("T", 6));
    router.flush();
    expect([notes, others]).toEqual([[], ["wait"]]);
  });
});

test("one target that reads nothing does not keep another from its messages (R19)", () => {
  const router = new Router();
  const pool = new OutboxPool();
  const [silent, absent, reading] = [new Outbox(pool), new Outbox(pool), new Outbox(pool)];
  const [stuck, kernel] = [new Kernel(10), new Kernel()];
  silent.attach("native", stuck.write);
  reading.attach("native", kernel.write);
  router.addLink(key("T", A), silent);
  router.addLink(key("T", B), absent);
  router.addLink(key("T", C), reading);
  const source = new Source(undefined);
  for (let i = 0; i < 200; i++) {
    router.route(source, runOf("native", "T", [`${i}`, "x".repeat(100_000)]));
    router.flush();
  }
  const [first, second, third] = [...router.links()].map((link) => link.queue) as LinkQueue[];
  expect(accounts(third as LinkQueue)).toBe("400 = 400 + 0");
  expect(kernel.payloads.filter((payload) => payload.length < 9)).toEqual(
    Array.from({ length: 200 }, (_, i) => `${i}`),
  );
  for (const queue of [first, second] as LinkQueue[]) {
    expect(queue.queuedBytes).toBeLessThanOrEqual(queue.settings.maxBytes);
    const full = queue.dropped.get("full") ?? 0;
    expect(queue.routed).toBe(queue.delivered + full + queue.queued);
  }
});
