import { describe, expect, test } from "bun:test";

import {
  formatBytes,
  formatDuration,
  peerWords,
  stateStyle,
  stateWords,
} from "../../src/cli/words.ts";
import type { RuntimeInfo } from "../../src/protocol/info.ts";

test.each([
  [-5, "0 ms"],
  [0, "0 ms"],
  [999, "999 ms"],
  [1_000, "1 s"],
  [3_200, "3.2 s"],
  [9_960, "10 s"],
  [59_400, "59 s"],
  [59_600, "1 min"],
  [312_000, "5 min 12 s"],
  [3_600_000, "1 h"],
  [7_380_000, "2 h 3 min"],
  [183_600_000, "2 d 3 h"],
  [Number.NaN, "an unknown time"],
  [Number.POSITIVE_INFINITY, "an unknown time"],
])("formatDuration(%d) is %s", (ms, text) => {
  expect(formatDuration(ms)).toBe(text);
});

test.each([
  [0, "0 B"],
  [1023, "1023 B"],
  [1024, "1.0 KiB"],
  [12_582_912, "12.0 MiB"],
  [5 * 2 ** 40, "5120.0 GiB"],
])("formatBytes(%d) is %s", (bytes, text) => {
  expect(formatBytes(bytes)).toBe(text);
});

describe("stateWords() and stateStyle()", () => {
  const base = { state: "stopped", exit: null, reason: null, due: null, restarts: 0 };
  const table: [fields: object, words: string, style: string][] = [
    [{}, "stopped", "2"],
    [{ exit: { code: 0 } }, "exited: code 0", "2"],
    [{ exit: { code: 3 } }, "exited: code 3", "31"],
    [{ exit: { signal: "SIGINT" } }, "stopped", "2"],
    [{ exit: { signal: "SIGSEGV" } }, "exited: signal SIGSEGV", "31"],
    [{ exit: { signal: "SIGKILL" }, exit_by_stop: true }, "stopped: signal SIGKILL", "2"],
    [{ exit: { code: 3 }, exit_by_stop: true }, "stopped: code 3", "2"],
    [{ state: "running" }, "running", "32"],
    [{ state: "running", held: true }, "running, not read from: a link is full", "32"],
    [{ state: "stopping" }, "stopping", "33"],
    [
      { state: "waiting", exit: { signal: "SIGSEGV" }, due: 1200, restarts: 1 },
      "waiting after signal SIGSEGV: restart 2 in 200 ms",
      "33",
    ],
    [{ state: "waiting" }, "waiting: restart 1 soon", "33"],
    [{ state: "failed", reason: "10 starts in 60 s" }, "failed: 10 starts in 60 s", "31"],
    [{ state: "hibernating" }, "hibernating", "2"],
  ];
  test.each(table)("%j", (fields, words, style) => {
    const runtime = { ...base, stop_signal: "SIGINT", ...fields } as unknown as RuntimeInfo;
    expect(stateWords(runtime, 1_000)).toBe(words);
    expect(stateStyle(runtime)).toBe(style);
  });
});

test.each([
  [null, null, null, "never heard from, and UDP does not tell whether anybody listens"],
  [7_000, null, null, "last heard from 3 s ago"],
  [7_000, 6_000, 5_000, "last heard from 3 s ago"],
  [7_000, 8_000, 9_000, "its host said 2 s ago that nobody listens there"],
  [null, null, 9_000, "1 s ago a host said that nobody listens, here or at another address"],
  [7_000, 6_000, 9_000, "1 s ago a host said that nobody listens, here or at another address"],
])(
  "peerWords() of one heard at %p, refused at %p, suspected at %p",
  (heard, refused, suspected, text) => {
    expect(peerWords({ heard, refused, suspected }, 10_000)).toBe(text);
  },
);
