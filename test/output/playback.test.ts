import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { HistoryFiles } from "../../src/output/history.ts";
import { Output, type OutputSink } from "../../src/output.ts";
import { playBack, type PlayedEntry, playOn } from "../../src/output/playback.ts";
import { SpoolShare } from "../../src/output/spool.ts";
import { property } from "../support/random.ts";
import { until } from "../support/wire.ts";

let base: string;
let nowMs: number;
let outputs: Map<string, Output>;
let stores: Map<string, HistoryFiles>;
let sinks: Map<string, OutputSink>;

beforeEach(() => {
  base = mkdtempSync(join(tmpdir(), "vo-playback-"));
  nowMs = 1_700_000_000_000;
  [outputs, stores, sinks] = [new Map(), new Map(), new Map()];
});

afterEach(async () => {
  for (const output of outputs.values()) await output.close();
  rmSync(base, { recursive: true, force: true });
});

function addInstances(ids: readonly string[], maxFileBytes: number = 1_000_000): void {
  for (const id of ids) {
    const files = new HistoryFiles(join(base, id), 3, maxFileBytes);
    const after = (): (() => void) => () => {};
    const output = new Output({
      files,
      share: new SpoolShare(),
      onTrouble() {},
      now: () => nowMs,
      after,
    });
    stores.set(id, files);
    outputs.set(id, output);
    sinks.set(id, output.open());
  }
}

function print(id: string, line: string, stream: "stdout" | "stderr" = "stdout"): void {
  void sinks.get(id)?.append(stream, new Uint8Array(Buffer.from(`${line}\n`)));
}

/** Reads on in the background; lines as `instance: line`. */
function collect(entries: AsyncIterable<PlayedEntry>): { lines: string[]; done: Promise<void> } {
  const lines: string[] = [];
  const read = async (): Promise<void> => {
    for await (const entry of entries) {
      for (const line of (await entry.lines()).toString().split("\n").slice(0, -1)) {
        lines.push(`${entry.id}: ${line}`);
      }
    }
  };
  return { lines, done: read() };
}

async function all(entries: AsyncIterable<PlayedEntry>): Promise<string[]> {
  const { lines, done } = collect(entries);
  await done;
  return lines;
}

describe("playBack()", () => {
  test("merges instances in order of time, with everything that came until now", async () => {
    addInstances(["ping", "pong"]);
    for (let i = 0; i < 4; i++) {
      nowMs++;
      print(i % 2 === 0 ? "ping" : "pong", `line ${i}`);
    }
    const wanted = ["ping: line 0", "pong: line 1", "ping: line 2", "pong: line 3"];
    expect(await all(playBack(outputs, {}))).toEqual(wanted);
    expect(await all(playBack(outputs, { last: 1 }))).toEqual(wanted.slice(2));
    expect(await all(playBack(outputs, { until: nowMs - 2 }))).toEqual(wanted.slice(0, 2));
  });

  test("knows the streams apart", async () => {
    addInstances(["ping"]);
    print("ping", "fine");
    print("ping", "broken", "stderr");
    expect(await all(playBack(outputs, { stream: "stderr" }))).toEqual(["ping: broken"]);
  });

  test("tells what cannot be read, and reads on of the others", async () => {
    addInstances(["ping", "pong", "pang"]);
    for (const id of ["ping", "pong", "pang"]) print(id, "hello");
    await all(playBack(outputs, {}));
    const refuse = (): Promise<never> => Promise.reject(new Error("permission\ndenied"));
    Object.assign(stores.get("ping") as HistoryFiles, { read: refuse });
    Object.assign(stores.get("pang") as HistoryFiles, { look: refuse });
    const fault = "[veecle-orchestrator: output cannot be read: permission; denied]";
    const wanted = [`pang: ${fault}`, `ping: ${fault}`, "pong: hello"];
    expect(await all(playBack(outputs, {}))).toEqual(wanted);
    const stop = new AbortController();
    const { lines, done } = collect(playOn(outputs, {}, stop.signal));
    await until("all was told", () => lines.length === wanted.length);
    for (const id of ["ping", "pong", "ping"]) print(id, "again");
    await until("what comes is told", () => lines.length > wanted.length);
    expect(lines).toEqual([...wanted, "pong: again"]);
    stop.abort();
    await done;
  });

  test("of instances that keep nothing is empty", async () => {
    expect(await all(playBack(new Map([["ping", new Output()]]), {}))).toEqual([]);
  });
});

describe("playOn()", () => {
  property("has every line once and in order, whenever it begins", 15, async (random) => {
    outputs.clear();
    rmSync(base, { recursive: true, force: true });
    base = mkdtempSync(join(tmpdir(), "vo-playback-"));
    const ids = ["a", "b", "c"];
    addInstances(ids, 40_000);
    const abort = new AbortController();
    const count = 300;
    const start = random.int(0, count);
    let reader: ReturnType<typeof collect> | undefined;
    for (let i = 0; i < count; i++) {
      if (i === start) reader = collect(playOn(outputs, {}, abort.signal));
      if (random.chance(0.3)) nowMs++;
      print(random.pick(ids), `${i}`);
      if (random.chance(0.2)) await Bun.sleep(0);
    }
    reader ??= collect(playOn(outputs, {}, abort.signal));
    const { lines } = reader;
    await until(
      () => `${count} lines, and there are ${lines.length}`,
      () => lines.length >= count,
    );
    abort.abort();
    await reader.done;
    expect(lines.map((line) => Number(line.slice(3))).toSorted((a, b) => a - b)).toEqual(
      Array.from({ length: count }, (_, i) => i),
    );
    for (const id of ids) {
      const own = lines.filter((line) => line.startsWith(id)).map((line) => Number(line.slice(3)));
      expect(own).toEqual(own.toSorted((a, b) => a - b));
    }
    for (const output of outputs.values()) await output.close();
  });

  test("begins with the last lines that are asked for", async () => {
    addInstances(["ping"]);
    for (let i = 0; i < 10; i++) print("ping", `${i}`);
    const abort = new AbortController();
    const { lines, done } = collect(playOn(outputs, { last: 2 }, abort.signal));
    await until("two lines", () => lines.length === 2);
    print("ping", "10");
    await until("one more", () => lines.length === 3);
    expect(lines).toEqual(["ping: 8", "ping: 9", "ping: 10"]);
    abort.abort();
    await done;
  });

  test("ends when it is told to while nothing comes", async () => {
    addInstances(["ping"]);
    const abort = new AbortController();
    const { done } = collect(playOn(outputs, {}, abort.signal));
    await outputs.get("ping")?.history();
    abort.abort();
    await done;
  });

  test("ends when the last instance is removed", async () => {
    addInstances(["ping", "pong"]);
    print("ping", "last words");
    const { lines, done } = collect(playOn(outputs, {}, new AbortController().signal));
    await until("its line", () => lines.length === 1);
    for (const [id, output] of outputs) {
      sinks.get(id)?.end();
      await output.close();
      await stores.get(id)?.remove();
    }
    await done;
  });

  test("says so where it was too slow for the rotation", async () => {
    addInstances(["ping"], 1_000);
    const abort = new AbortController();
    print("ping", "first");
    const entries = playOn(outputs, {}, abort.signal);
    const { value } = await entries.next();
    expect((await value?.lines())?.toString()).toBe("first\n");
    for (let i = 0; i < 100; i++) print("ping", `${i} ${"x".repeat(200)}`);
    await outputs.get("ping")?.history();
    const { lines, done } = collect(entries);
    await until("the last line", () => lines.at(-1)?.startsWith("ping: 99 ") === true);
    expect(lines[0]).toContain("older lines were rotated out");
    expect(Number(lines[1]?.split(" ")[1])).toBeGreaterThan(80);
    abort.abort();
    await done;
  });
});
