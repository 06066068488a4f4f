import { afterAll, describe, expect, test } from "bun:test";
import { readdirSync, rmSync } from "node:fs";
import { join } from "node:path";

import { Log, parseLogFilter } from "../../src/log.ts";
import { type Notifier, openNotifier, watchdogMs } from "../../src/host/notify.ts";
import { type DatagramListener, listenDatagrams } from "../fixtures/datagrams.ts";
import { scratch } from "../support/scratch.ts";
import { until } from "../support/wire.ts";

const folder = scratch();
afterAll(() => rmSync(folder, { recursive: true }));

const lines: string[] = [];
const log = new Log(
  parseLogFilter("info"),
  (line) => lines.push(line),
  () => 0,
).target("notify");

describe("A notifier", () => {
  test.each([
    ["a path", join(folder, "notify")],
    ["a name in the abstract space", `@vo-${crypto.randomUUID()}`],
  ])("tells the service manager at %s", async (_, address) => {
    const listener = listenDatagrams(address) as DatagramListener;
    const descriptors = readdirSync("/proc/self/fd").length;
    const notifier = (await openNotifier({ NOTIFY_SOCKET: address }, log)) as Notifier;
    notifier.ready();
    notifier.status("3 of 4 run\nREADY=0 – é");
    notifier.stopping();
    expect([1, 2, 3, 4].map(() => listener.receive())).toEqual([
      "READY=1",
      "STATUS=3 of 4 run READY=0 – é",
      "STOPPING=1",
      undefined,
    ]);
    notifier.close();
    expect(readdirSync("/proc/self/fd").length).toBe(descriptors);
    listener.close();
    expect(lines).toEqual([]);
  });

  test("feeds the watchdog from the moment that the daemon is ready until it is closed", async () => {
    const address = join(folder, "watchdog");
    const listener = listenDatagrams(address) as DatagramListener;
    const env = { NOTIFY_SOCKET: address, WATCHDOG_USEC: "20000" };
    const notifier = (await openNotifier(env, log)) as Notifier;
    notifier.ready();
    expect(listener.receive()).toBe("READY=1");
    for (let i = 0; i < 3; i++) {
      await until("the watchdog is fed", () => listener.receive() === "WATCHDOG=1");
    }
    notifier.close();
    while (listener.receive() !== undefined);
    await Bun.sleep(50);
    expect(listener.receive()).toBeUndefined();
    listener.close();
  });

  test("says once that nobody listens, and goes on", async () => {
    const notifier = (await openNotifier(
      { NOTIFY_SOCKET: join(folder, "nobody") },
      log,
    )) as Notifier;
    notifier.ready();
    notifier.stopping();
    await until("it is in the log", () => lines.length > 0);
    expect(lines.join()).toContain("cannot tell the service manager");
    notifier.stopping();
    await Bun.sleep(50);
    expect(lines.length).toBe(1);
    notifier.close();
  });

  test.each([undefined, "", "relative", "@", "/"])(
    "is not there without an address: %p",
    async (text) => {
      expect(await openNotifier({ NOTIFY_SOCKET: text }, log)).toBeUndefined();
    },
  );
});

describe("watchdogMs()", () => {
  test.each([
    [{}, undefined],
    [{ WATCHDOG_USEC: "30000000" }, 15_000],
    [{ WATCHDOG_USEC: "30000000", WATCHDOG_PID: String(process.pid) }, 15_000],
    [{ WATCHDOG_USEC: "30000000", WATCHDOG_PID: "1" }, undefined],
    [{ WATCHDOG_USEC: "1" }, 1],
    [{ WATCHDOG_USEC: "0" }, undefined],
    [{ WATCHDOG_USEC: "soon" }, undefined],
  ])("of %j is %p", (env, ms) => {
    expect(watchdogMs(env)).toBe(ms as number);
  });
});
