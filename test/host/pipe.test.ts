import { expect, test } from "bun:test";
import { closeSync, readdirSync } from "node:fs";

import { openLibc } from "../../src/host/libc.ts";
import { openPipe, type Pipe } from "../../src/host/pipe.ts";
import { MAX_WIDE_PIPES, WIDE_PIPE_BYTES } from "../../src/limits.ts";
import { until } from "../support/wire.ts";

const F_GETPIPE_SZ = 1032; // fcntl(2)

const libc = openLibc({ fcntl: { args: ["i32", "i32", "i32"], returns: "i32" } });

test("pipes are wide as long as there are few, and leave no descriptor", async () => {
  const before = readdirSync("/proc/self/fd").length;
  const pipes: Pipe[] = [];
  const open = (): number => {
    pipes.push(openPipe() as Pipe);
    return libc?.fcntl(pipes.at(-1)?.end as number, F_GETPIPE_SZ, 0) as number;
  };
  const sizes = Array.from({ length: MAX_WIDE_PIPES + 1 }, open);
  expect(new Set(sizes.slice(0, -1))).toEqual(new Set([WIDE_PIPE_BYTES]));
  expect(sizes.at(-1)).toBeLessThan(WIDE_PIPE_BYTES);
  const [cancelled, ended] = pipes as [Pipe, Pipe];
  await cancelled.reader.cancel();
  expect(open()).toBe(WIDE_PIPE_BYTES);
  closeSync(ended.end);
  expect((await ended.reader.read()).done).toBe(true);
  expect(open()).toBe(WIDE_PIPE_BYTES);
  for (const pipe of pipes) {
    if (pipe !== ended) closeSync(pipe.end);
    await pipe.reader.cancel();
  }
  await until("all are closed", () => readdirSync("/proc/self/fd").length === before);
});
