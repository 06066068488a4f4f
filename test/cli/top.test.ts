import { expect, test } from "bun:test";

import { measure, type Sample, sorted } from "../../src/cli/top.ts";
import type { SortColumn } from "../../src/cli/values.ts";
import { A, B, STOPPED } from "../support/typist.ts";

interface Seen {
  readonly pid: number | null;
  readonly received: number;
  readonly cpu: number;
  readonly delivered: number;
}

function sample(timeMs: number, { pid, received, cpu, delivered }: Seen): Sample {
  const link = { type_name: "T", from: A, queued: 3, dropped: { full: 2, oversize: 1 } };
  return {
    timeMs,
    info: {
      runtimes: {
        [A]: {
          ...STOPPED,
          name: "ping",
          state: "running",
          pid,
          restarts: 0,
          messages: { received },
        },
        [B]: { ...STOPPED, restarts: 4 },
      },
      routes: [
        { ...link, to: B, delivered },
        { ...link, to: "127.0.0.1:1", delivered: 1_000_000 },
      ],
    },
    resources: { [A]: { cpu_ms: cpu, resident_bytes: 4096 } },
  } as unknown as Sample;
}

const before = sample(1_000, { pid: 7, received: 100, cpu: 50, delivered: 10 });

test("measure() tells rates per second, and accounts of the links to an instance", () => {
  const after = sample(3_000, { pid: 7, received: 300, cpu: 550, delivered: 50 });
  const [ping, pong] = measure(before, after);
  expect(ping).toMatchObject({
    instance: { name: "ping" },
    cpuPercent: 25,
    residentBytes: 4096,
    inPerSecond: 0,
    outPerSecond: 100,
    queued: 0,
    dropped: 0,
  });
  expect(pong).toMatchObject({
    instance: { name: "pong" },
    cpuPercent: null,
    residentBytes: null,
    inPerSecond: 20,
    outPerSecond: 0,
    queued: 3,
    dropped: 3,
  });
});

test("measure() begins anew with another process, and counts nothing backwards", () => {
  const after = sample(2_000, { pid: 8, received: 5, cpu: 10, delivered: 5 });
  const [ping, pong] = measure(before, after);
  expect([ping?.cpuPercent, ping?.outPerSecond, pong?.inPerSecond]).toEqual([0, 0, 0]);
});

test.each([
  ["name", "ping"],
  ["cpu", "ping"],
  ["in", "pong"],
  ["out", "ping"],
  ["memory", "ping"],
  ["dropped", "pong"],
  ["restarts", "pong"],
] as [SortColumn, string][])("sorted() by %s begins with %s", (column, first) => {
  const after = sample(3_000, { pid: 7, received: 300, cpu: 550, delivered: 50 });
  const loads = measure(before, after);
  expect(sorted(loads, column)[0]?.instance.name).toBe(first);
});
