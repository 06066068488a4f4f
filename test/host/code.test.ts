import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";

import { Rest } from "../../src/daemon/rest.ts";
import { releaseCode } from "../../src/host/code.ts";
import { REST_INTERVAL_MS, REST_MS, REST_STARTS } from "../../src/limits.ts";
import { FakeHost } from "../support/host.ts";

/** Pages of files that are mapped and in memory, in KiB. */
function residentFiles(): number {
  const status = readFileSync("/proc/self/status", "utf8");
  return Number(/^RssFile:\s+(\d+) kB$/m.exec(status)?.[1]);
}

test("releaseCode() gives back most of what the program's file takes in memory, and all works on", async () => {
  const before = residentFiles();
  expect(await releaseCode()).toBeGreaterThan(0);
  expect(residentFiles()).toBeLessThan(0.7 * before);
  const { stdout } = Bun.spawnSync({ cmd: ["echo", "on"] });
  expect(stdout.toString()).toBe("on\n");
});

test("Rest tells once much has stirred and then nothing for a while, and not often", () => {
  const host = new FakeHost();
  const told: number[] = [];
  const rest = new Rest({ after: host.after, now: host.now, onRest: () => told.push(host.now()) });
  const stir = (): void => {
    for (let i = 0; i < REST_STARTS; i++) rest.stir();
  };
  const begin = host.now();
  for (let i = 1; i < REST_STARTS; i++) rest.stir();
  host.turn(REST_MS);
  expect(told).toEqual([]);
  rest.stir();
  host.turn(REST_MS - 1);
  rest.stir();
  host.turn(REST_MS - 1);
  expect(told).toEqual([]);
  host.turn(1);
  expect(told).toEqual([begin + 3 * REST_MS - 1]);
  host.turn(10 * REST_INTERVAL_MS);
  expect(told).toHaveLength(1); // nothing stirs, so no timer runs
  stir();
  host.turn(REST_MS);
  expect(told).toHaveLength(2);
  const last = host.now();
  stir();
  host.turn(REST_INTERVAL_MS - 1);
  expect(told).toHaveLength(2);
  host.turn(1);
  expect(told).toEqual([...told.slice(0, 2), last + REST_INTERVAL_MS]);
  stir();
  rest.close();
  host.turn(2 * REST_INTERVAL_MS);
  expect(told).toHaveLength(3);
});
