// Streams of a control connection whose reader is slow, or leaves.

import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { HistoryFiles } from "../../src/output/history.ts";
import type { EventInfo } from "../../src/protocol/info.ts";
import { Journal } from "../../src/journal.ts";
import { Output } from "../../src/output.ts";
import { SpoolShare } from "../../src/output/spool.ts";
import { Store } from "../../src/store.ts";
import { EventStream, OutputStream } from "../../src/control/stream.ts";
import { until } from "../support/wire.ts";

const QUERY = { ids: undefined, last: undefined, since: undefined, until: undefined, follow: true };
const never = (): (() => void) => () => {};

let folder: string;
let files: HistoryFiles;
let output: Output;
let watchers: number;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "vo-stream-"));
  files = new HistoryFiles(join(folder, "a"), 3, 1_000_000);
  watchers = 0;
  const watch = files.watch.bind(files);
  files.watch = (onChange) => {
    const stop = watch(onChange);
    watchers++;
    return () => {
      watchers--;
      stop();
    };
  };
  const share = new SpoolShare();
  output = new Output({ files, share, onTrouble() {}, now: () => 1_700_000_000_000, after: never });
});

afterEach(async () => {
  await output.close();
  rmSync(folder, { recursive: true, force: true });
});

function outputStream(): OutputStream {
  const fail = (error: unknown): never => {
    throw error;
  };
  const query = { ...QUERY, stream: undefined };
  return new OutputStream(new Map([["a", output]]), query, () => {}, fail);
}

test("EventStream gives a reader that lags behind every event, in order, and nothing else (P-50)", () => {
  const store = Store.open(":memory:");
  const journal = new Journal(store, () => 0, never);
  const detail = { text: "x".repeat(2_000) };
  const record = (count: number): void => {
    for (let i = 0; i < count; i++) journal.record("updated", undefined, detail);
  };
  record(500);
  const stream = new EventStream(journal, { ...QUERY, last: 400, after: undefined }, () => {});
  const seen: number[] = [];
  const read = (regions: number): void => {
    for (let i = 0; i < regions; i++) {
      const text = stream.take()?.toString() ?? "";
      for (const line of text.split("\n").slice(0, -1)) {
        seen.push((JSON.parse(line) as EventInfo).seq);
      }
    }
  };
  read(1);
  record(1_000); // two megabytes that nobody takes
  read(20);
  record(3);
  read(2);
  record(1_000);
  read(20);
  expect(seen).toEqual(Array.from({ length: 2_403 }, (_, i) => 101 + i));
  expect(stream.isEnded()).toBe(false);
  stream.close();
  store.close();
});

test("OutputStream watches nothing any more when its reader leaves in the middle", async () => {
  const sink = output.open();
  void sink.append("stdout", Buffer.from("one\n"));
  const stream = outputStream();
  await until("something is read", () => stream.take()?.toString().includes('"one"'));
  void sink.append("stdout", Buffer.from("two\n"));
  await until("more is read", () => stream.take()?.toString().includes('"two"'));
  void sink.append("stdout", Buffer.from("three\n"));
  void sink.append("stdout", Buffer.from("four\n"));
  expect(watchers).toBe(1);
  await output.history(); // both are on the disk, and the stream stands before the second one
  await Bun.sleep(0);
  stream.close();
  await until("nobody watches", () => watchers === 0, 2_000);
  sink.end();
});

test("OutputStream hands out many short lines in pieces of a bounded size", async () => {
  const sink = output.open();
  const text = "\n".repeat(200_000);
  void sink.append("stdout", Buffer.from(text));
  sink.end();
  const stream = outputStream();
  let lines = 0;
  await until("all lines were read", () => {
    const region = stream.take();
    if (region === undefined) return false;
    expect(region.length).toBeLessThan(1_000_000);
    lines += region.toString().split("\n").length - 1;
    return lines === text.length;
  });
  stream.close();
});
