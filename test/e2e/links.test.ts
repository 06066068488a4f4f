// Settings of links (P-46): how much may wait, what happens beyond, and who must not notice.

import { expect, setDefaultTimeout, test } from "bun:test";

import { routeTo, speaker } from "../fixtures/accounts.ts";
import { withDaemon } from "../support/daemon.ts";
import { KIND, native, nextMessage, until, type Wire } from "../support/wire.ts";

setDefaultTimeout(60_000);

const PAYLOAD = "x".repeat(10_000);

function numbered(count: number): Buffer {
  return Buffer.concat(
    Array.from({ length: count }, (_, i) => native(KIND.data, "T", `${i} ${PAYLOAD}`)),
  );
}

async function numbers(wire: Wire, count: number): Promise<number[]> {
  const found: number[] = [];
  while (found.length < count) {
    found.push(Number.parseInt((await nextMessage("native", wire)).payload));
  }
  return found;
}

const upTo = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

test("settings are shown, kept when the link is added again, and changed when they are given", () =>
  withDaemon(async (daemon) => {
    const id = await daemon.add("/never-started");
    const shown = async (): Promise<unknown> => {
      const { queue, on_full } = await routeTo(daemon, id);
      return [queue, on_full];
    };
    await daemon.link("T", id);
    expect(await shown()).toEqual(["4MiB", "drop-oldest"]);
    await daemon.ok({ Link: { type_name: "T", to: id, queue: 100, on_full: "block" } });
    expect(await shown()).toEqual(["100", "block"]);
    await daemon.link("T", id);
    expect(await shown()).toEqual(["100", "block"]);
    await daemon.ok({ Link: { type_name: "T", to: id, queue: "512KiB" } });
    expect(await shown()).toEqual(["512KiB", "block"]);
  }));

test("a link that blocks holds its producer back, loses nothing, and disturbs nobody else", () =>
  withDaemon(async (daemon) => {
    const [source, slow, other, good] = [
      await speaker(daemon, "native"),
      await speaker(daemon, "native"),
      await speaker(daemon, "native"),
      await speaker(daemon, "native"),
    ];
    await daemon.ok({
      Link: { type_name: "T", from: source.id, to: slow.id, queue: "1MiB", on_full: "block" },
    });
    await daemon.link("T", good.id, other.id);
    slow.wire.pause();
    const count = 2_000; // 20 MB: far more than the queue and the kernel take
    source.wire.send(numbered(count));
    let before = -1; // until nothing moves any more: the kernel takes some before it takes no more
    await until("the producer is held back for good", async () => {
      const { runtimes, routes } = await daemon.info();
      const { routed } = routes.find(({ to }) => to === slow.id) as { routed: number };
      const isStill = runtimes[source.id]?.held === true && routed === before;
      before = routed;
      return isStill;
    });
    other.wire.send(numbered(500));
    expect(await numbers(good.wire, 500)).toEqual(upTo(500));
    const { routed, dropped } = await routeTo(daemon, slow.id);
    expect(dropped).toEqual({});
    expect(routed).toBeLessThan(count);
    expect(source.wire.unsentBytes).toBeGreaterThan(0);
    slow.wire.resume();
    expect(await numbers(slow.wire, count)).toEqual(upTo(count));
    expect(await routeTo(daemon, slow.id)).toMatchObject({ delivered: count, dropped: {} });
  }));

test("a producer that waits goes on when the link is removed", () =>
  withDaemon(async (daemon) => {
    const [source, good] = [await speaker(daemon, "native"), await speaker(daemon, "native")];
    const stuck = await daemon.add("/never-started");
    const link = { type_name: "T", to: stuck };
    await daemon.ok({ Link: { ...link, queue: 10, on_full: "block" } });
    source.wire.send(numbered(1_000));
    await until("the queue is full", async () => (await routeTo(daemon, stuck)).queued >= 10);
    await daemon.link("U", good.id);
    source.wire.send(native(KIND.data, "U", "behind all of them"));
    await daemon.ok({ Unlink: link });
    expect((await nextMessage("native", good.wire)).payload).toBe("behind all of them");
  }));

test("a link that drops the newest keeps the first messages, one of 10 messages the last ten", () =>
  withDaemon(async (daemon) => {
    const source = await speaker(daemon, "native");
    const [first, last] = [await daemon.add("/first"), await daemon.add("/last")];
    const [newest, oldest] = [{ on_full: "drop-newest" }, { on_full: "drop-oldest" }];
    await daemon.ok({ Link: { type_name: "T", to: first, queue: "100KiB", ...newest } });
    await daemon.ok({ Link: { type_name: "T", to: last, queue: 10, ...oldest } });
    source.wire.send(numbered(50));
    await until("all are routed", async () => (await routeTo(daemon, last)).routed === 50);
    expect(await routeTo(daemon, first)).toMatchObject({ queued: 10, dropped: { full: 40 } });
    expect(await routeTo(daemon, last)).toMatchObject({ queued: 10, dropped: { full: 40 } });
  }));

test("beyond the bound of all queues the largest pays, and who reads loses nothing (P-36)", () =>
  withDaemon(
    async (daemon) => {
      const [source, good] = [await speaker(daemon, "native"), await speaker(daemon, "native")];
      const [large, small] = [await daemon.add("/large"), await daemon.add("/small")];
      await daemon.link("U", small);
      for (let i = 0; i < 20; i++) source.wire.send(native(KIND.data, "U", PAYLOAD));
      await daemon.link("T", large);
      await daemon.link("T", good.id);
      for (let batch = 0; batch < 30; batch++) {
        source.wire.send(numbered(10));
        expect(await numbers(good.wire, 10)).toEqual(upTo(10));
      }
      expect(await routeTo(daemon, good.id)).toMatchObject({ delivered: 300, dropped: {} });
      expect(await routeTo(daemon, small)).toMatchObject({ queued: 20, dropped: {} });
      const { queued, dropped } = await routeTo(daemon, large);
      expect(queued).toBeWithin(70, 85); // what is left of 1 MiB
      expect(dropped).toEqual({ full: 300 - queued });
    },
    { args: ["--max-queue", "1MiB"] },
  ));

test("lines that are hard to read arrive all and in order, and hold up no request (R24)", () =>
  withDaemon(async (daemon) => {
    const [source, target] = [await daemon.puppet(), await daemon.puppet()];
    const [from, to] = [await source.connect(), await target.connect()];
    await daemon.ok({ Link: { type_name: "T", to: target.id, queue: "64MiB" } });
    const count = 20_000;
    const loose = (i: number): string => `{ "Storable": { "value": "${i}", "type_name": "T" } }\n`;
    from.send(Array.from({ length: count }, (_, i) => loose(i)).join(""));
    const control = await daemon.control();
    for (let requests = 0; requests < 10; requests++) await control.ok("Version");
    expect((await routeTo(daemon, target.id)).routed).toBeLessThan(count); // answered in between
    for (let i = 0; i < count; i++) {
      expect((await nextMessage("veecle", to)).payload).toBe(`${i}`);
    }
    expect(await routeTo(daemon, target.id)).toMatchObject({ delivered: count, dropped: {} });
  }));
