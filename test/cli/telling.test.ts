import { describe, expect, test } from "bun:test";

import { crashesWhole, tell, tellShort } from "../../src/cli/telling.ts";
import type { EventInfo } from "../../src/protocol/info.ts";

const A = "0195fc7b-33e6-70e3-bee1-ac515185fac7";
const B = "0195fc7b-4444-70e3-bee1-ac515185fa00";

const nameOf = (id: string): string => (id === A ? "ping" : "pong");

function event(kind: string, detail: object = {}, id: string | null = A): EventInfo {
  const name = id === null ? null : nameOf(id);
  return { seq: 1, time: 5, kind, id, name, detail: detail as EventInfo["detail"] };
}

const crash = event("exited", { pid: 7, signal: "SIGSEGV", ran_ms: 3200, stopping: false });
const restarting = event("restarting", { in_ms: 200, restart: 2, after: "signal SIGSEGV" });

describe("tell()", () => {
  const link = { type_name: "a::T", from: null, to: B };
  const table: [event: EventInfo, text: string, isBad: boolean][] = [
    [event("daemon_started", { pid: 3, before: "none" }, null), "daemon started (pid 3)", false],
    [
      event("daemon_started", { pid: 3, before: "killed" }, null),
      "daemon started (pid 3); the one before: killed",
      false,
    ],
    [event("daemon_stopped", {}, null), "daemon stopped", false],
    [
      event("unreadable", { reason: "a row of the table events is damaged" }, null),
      "an event cannot be read: a row of the table events is damaged",
      false,
    ],
    [event("added", { path: "/opt/ping" }), "ping added: /opt/ping", false],
    [event("uploaded", { hash: "x", bytes: 2048 }), "ping uploaded: 2.0 KiB", false],
    [event("updated", { settings: ["env", "cwd"] }), "ping updated: env, cwd", false],
    [
      event("updated", { path: "/opt/pong", settings: ["env"] }),
      "ping updated: path /opt/pong, env",
      false,
    ],
    [event("updated", { path: "/opt/pong", settings: [] }), "ping updated: path /opt/pong", false],
    [event("updated", { settings: [] }), "ping updated: nothing", false],
    [event("removed"), "ping removed", false],
    [event("started", { pid: 7 }), "ping started (pid 7)", false],
    [event("started", { pid: 7, restart: 2 }), "ping started again (pid 7, restart 2)", false],
    [event("connected"), "ping connected", false],
    [event("disconnected"), "ping disconnected", false],
    [crash, "ping crashed: signal SIGSEGV after 3.2 s", true],
    [event("exited", { code: 0, ran_ms: 5 }), "ping exited: code 0 after 5 ms", false],
    [
      event("exited", { signal: "SIGKILL", ran_ms: 5, memory_kills: 2, memory_kills_ms: 1_500 }),
      "ping crashed: signal SIGKILL after 5 ms (the kernel has killed 2 processes for want of memory in the 1.5 s before)",
      true,
    ],
    [
      event("exited", { signal: "SIGINT", ran_ms: 60_000, stopping: true }),
      "ping ended: signal SIGINT after 1 min",
      false,
    ],
    [restarting, "ping restart 2 in 200 ms: signal SIGSEGV", true],
    [event("failed", { reason: "10 starts" }), "ping failed, no more restarts: 10 starts", true],
    [
      event("stopping", { pid: 7, signal: "SIGTERM", grace_ms: 5000 }),
      "ping stopping: SIGTERM, killed in 5 s if it does not end",
      false,
    ],
    [event("stopped"), "ping stopped", false],
    [
      event("start_failed", { reason: "no such file" }),
      "ping could not be started: no such file",
      true,
    ],
    [event("stop_failed", { left: "7 sh" }), "ping could not be stopped; still there: 7 sh", true],
    [event("stopped", { pid: 7 }), "ping stopped", false],
    [
      event("stopped", { pid: 7, killed: "9 (sleep)" }),
      "ping stopped; had to be killed: 9 (sleep)",
      false,
    ],
    [event("swept"), "ping left processes behind, which were killed", false],
    [event("linked", link, null), "linked: any → a::T → pong", false],
    [
      event("unlinked", { ...link, from: A, to: "127.0.0.1:1" }, null),
      "unlinked: ping → a::T → 127.0.0.1:1",
      false,
    ],
    [
      event(
        "dropped",
        { count: 9, links: 2, most: { ...link, count: 8, reason: "target_gone" } },
        null,
      ),
      "9 messages dropped, 8 of them any → a::T → pong (target gone)",
      true,
    ],
    [event("re_painted", { colour: "red" }), "ping re painted", false],
  ];
  test.each(table)("%j", (one, text, isBad) => {
    expect(tell([one], nameOf)).toEqual([{ time: 5, text, isBad }]);
  });

  test("puts what follows a crash on its line, each with its own", () => {
    const other = event("exited", { code: 3, ran_ms: 1 }, B);
    const failed = event("failed", { reason: "often" }, B);
    const events = [crash, other, event("swept"), restarting, failed];
    expect(tell(events, nameOf).map(({ text }) => text)).toEqual([
      "ping crashed: signal SIGSEGV after 3.2 s; restart 2 in 200 ms",
      "pong crashed: code 3 after 1 ms; failed, no more restarts: often",
      "ping left processes behind, which were killed",
    ]);
  });
});

describe("crashesWhole()", () => {
  async function* batches(...all: readonly EventInfo[][]): AsyncGenerator<EventInfo[], void, void> {
    for (const batch of all) yield batch;
  }

  test("joins a crash with the batch that follows at once", async () => {
    const joined = await Array.fromAsync(crashesWhole(batches([crash], [restarting], [crash])));
    expect(joined).toEqual([[crash, restarting], [crash]]);
  });

  test("hands a crash on if nothing follows", async () => {
    const { promise, resolve } = Promise.withResolvers<void>();
    async function* pausing(): AsyncGenerator<EventInfo[], void, void> {
      yield [crash];
      await promise;
      yield [restarting];
    }
    const joined = crashesWhole(pausing());
    expect((await joined.next()).value).toEqual([crash]);
    resolve();
    expect((await joined.next()).value).toEqual([restarting]);
    expect((await joined.next()).done).toBe(true);
  });

  test("passes an error on, and ends what it reads when nobody reads it", async () => {
    let hasEnded = false;
    async function* failing(): AsyncGenerator<EventInfo[], void, void> {
      try {
        yield [restarting];
        throw new Error("lost");
      } finally {
        hasEnded = true;
      }
    }
    await expect(Array.fromAsync(crashesWhole(failing()))).rejects.toThrow("lost");
    for await (const batch of crashesWhole(failing())) {
      expect(batch).toEqual([restarting]);
      break;
    }
    expect(hasEnded).toBe(true);
  });
});

test("tellShort() cuts names and types where a line would not fit on a screen", () => {
  const events: EventInfo[] = [
    { seq: 1, time: 0, kind: "connected", id: A, name: "ping", detail: {} },
    { seq: 2, time: 0, kind: "connected", id: A, name: `${"x".repeat(62)}-1`, detail: {} },
    {
      ...{ seq: 3, time: 0, kind: "linked", id: null, name: null },
      detail: { from: A, type_name: `${"t".repeat(198)}-2`, to: A },
    },
  ];
  const longName = (): string => `${"y".repeat(62)}-3`;
  const told = tellShort(events, longName, 80).map(({ text }) => text);
  expect(told[0]).toBe("ping connected");
  expect(told[1]).toMatch(/^x+…x+-1 connected$/);
  expect(told[2]).toMatch(/^linked: y+…y+-3 → t+…t+-2 → y+…y+-3$/);
  for (const text of told) expect(text.length).toBeLessThanOrEqual(55);
  expect(tellShort(events, longName, undefined)).toEqual(tell(events, longName));
});
