import { afterAll, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { heapStats } from "bun:jsc";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { Histories, HistoryFiles, type OutputStorage } from "../src/output/history.ts";
import {
  MAX_FOLLOWER_BYTES,
  MAX_OUTPUT_LINE_BYTES,
  MAX_SPOOL_BYTES,
  MIN_OUTPUT_FILE_BYTES,
} from "../src/limits.ts";
import { Follower, Output, type OutputSink } from "../src/output.ts";
import { type OutputRecord, select } from "../src/output/recording.ts";
import { SpoolShare } from "../src/output/spool.ts";
import { played } from "./support/output.ts";
import { property } from "./support/random.ts";
import { until } from "./support/wire.ts";

/** Everything that waits for a follower. */
function taken(follower: Follower): string {
  let text = "";
  for (let next = follower.take(); next !== undefined; next = follower.take()) text += next;
  return text;
}

function following(output: Output): Follower {
  const follower = new Follower(() => {});
  output.follow(follower);
  return follower;
}

/** How many more pieces of memory are held after something was done. */
function held(what: () => void): number {
  const count = (): number => {
    Bun.gc(true);
    return heapStats().objectTypeCounts["Uint8Array"] ?? 0;
  };
  const before = count();
  what();
  return count() - before;
}

describe("Output", () => {
  property("hands on the same lines however they are cut", 200, (random) => {
    const text = Array.from({ length: 20 }, (_, i) => `${i} ${"x".repeat(random.size(0, 90_000))}`);
    const bytes = Buffer.from(`${text.join("\n")}\n`);
    const output = new Output();
    const sink = output.open();
    let lines = "";
    const follower = new Follower(() => {
      lines += taken(follower);
    });
    output.follow(follower);
    for (let at = 0; at < bytes.length;) {
      const end = Math.min(bytes.length, at + random.size(1, 70_000));
      sink.append("stdout", bytes.subarray(at, end));
      at = end;
    }
    sink.end();
    const whole = text.every((line) => line.length <= MAX_OUTPUT_LINE_BYTES);
    if (whole) expect(lines).toBe(bytes.toString());
    expect(lines.replaceAll("\n", "")).toBe(bytes.toString().replaceAll("\n", ""));
  });

  test("mixes no lines of standard output and standard error", () => {
    const output = new Output();
    const follower = following(output);
    const sink = output.open();
    sink.append("stdout", Buffer.from("o"));
    sink.append("stderr", Buffer.from("error\n"));
    sink.append("stdout", Buffer.from("ut\n"));
    expect(taken(follower)).toBe("error\nout\n");
    expect(sink.lastWords()).toBe("error");
  });

  test("keeps a line that comes byte by byte in a few pieces", () => {
    const output = new Output();
    const follower = following(output);
    const sink = output.open();
    const line = "x".repeat(20_000);
    const pieces = held(() => {
      for (const byte of Buffer.from(line)) sink.append("stdout", new Uint8Array([byte]));
    });
    expect(pieces).toBeLessThan(1_000);
    sink.append("stdout", Buffer.from("\n"));
    expect(taken(follower)).toBe(`${line}\n`);
  });

  test("ends its followers when the instance is removed", () => {
    const output = new Output();
    const follower = following(output);
    output.end();
    expect(follower.isEnded).toBe(true);
  });
});

test("Follower loses its oldest lines when it does not read, and is told how many", () => {
  const follower = new Follower(() => {});
  const region = Buffer.from(`${"x".repeat(999)}\n`.repeat(100));
  for (let pushed = 0; pushed <= MAX_FOLLOWER_BYTES; pushed += region.length) follower.push(region);
  const text = taken(follower);
  const [, lost] = /^\[veecle-orchestrator: (\d+) lines dropped/.exec(text) ?? [];
  expect(Number(lost)).toBe(100);
  expect(text.length).toBeLessThanOrEqual(MAX_FOLLOWER_BYTES + 100);
});

test("Follower has a bound for tiny lines too", () => {
  const follower = new Follower(() => {});
  const pieces = held(() => {
    for (let line = 0; line < 20_000; line++) follower.push(Buffer.alloc(1, 10));
  });
  expect(pieces).toBeLessThan(5_000);
  expect(taken(follower)).toContain("lines dropped");
});

const base = mkdtempSync(join(tmpdir(), "vo-output-"));
afterAll(() => {
  if (hasDisk) Bun.spawnSync(["umount", "-l", MOUNT]);
  rmSync(base, { recursive: true, force: true });
});
let folders = 0;

const world = {
  now: () => Date.now(),
  after: (ms: number, action: () => void) => {
    const timer = setTimeout(action, ms);
    return () => clearTimeout(timer);
  },
};

function storage(
  onTrouble: (fault: unknown) => void = () => {},
  folder: string = base,
  files: number = 3,
): OutputStorage {
  const options = { folder, files, fileBytes: MIN_OUTPUT_FILE_BYTES, ...world };
  return new Histories({ ...options, onTrouble: (_, fault) => onTrouble(fault) }).open(
    `${folders++}`,
  );
}

/** What is on disk, without its times. */
async function kept(output: Output, last?: number): Promise<string[]> {
  const files = await output.history();
  if (files === undefined) return [];
  const lines = await played(select(files, { last }, files.end));
  return lines.map((line) => line.replace(/^\d+ /, ""));
}

/** Prints as a child would: it goes on when it may. Returns the longest time that it was held up. */
async function print(sink: OutputSink, text: string): Promise<number> {
  const startedAt = performance.now();
  await sink.append("stdout", new Uint8Array(Buffer.from(text)));
  return performance.now() - startedAt;
}

describe("Output on disk", () => {
  property("has the lines of both streams, however they are cut", 20, async (random) => {
    const output = new Output(storage());
    const wanted: string[] = [];
    for (let run = 0; run < 2; run++) {
      const sink = output.open();
      const streams = (["stdout", "stderr"] as const).map((stream) => {
        const lines = Array.from(
          { length: random.size(1, 50) },
          (_, i) => `${stream} ${run} ${i} ${"x".repeat(random.size(0, 300))}`,
        );
        wanted.push(...lines);
        return { stream, chunks: random.cut(Buffer.from(lines.join("\n"))) };
      });
      while (streams.some(({ chunks }) => chunks.length > 0)) {
        const { stream, chunks } = random.pick(streams);
        const chunk = chunks.shift();
        if (chunk !== undefined) void sink.append(stream, new Uint8Array(chunk));
      }
      sink.end();
    }
    await output.close();
    const lines = await kept(output);
    const of = (all: readonly string[], stream: string): string[] =>
      all.filter((line) => line.startsWith(stream));
    for (const stream of ["stdout", "stderr"]) {
      expect(of(lines, stream).map((line) => line.slice(stream.length + 1))).toEqual(
        of(wanted, stream),
      );
    }
  });

  test("keeps a line that looks like the header of a record as what it is", async () => {
    const output = new Output(storage());
    const line = "@1700000000000 n 0000000004 0000000000\nlie";
    const sink = output.open();
    sink.append("stderr", new Uint8Array(Buffer.from(`${line}\n`)));
    sink.end();
    expect(await kept(output)).toEqual(line.split("\n").map((text) => `stderr ${text}`));
    await output.close();
  });

  test("leaves a chunk alone that a follower still has", async () => {
    const output = new Output(storage());
    const follower = following(output);
    const sink = output.open();
    await print(sink, "followed\n");
    await output.history();
    expect(taken(follower)).toBe("followed\n");
    sink.end();
    await output.close();
  });

  test("keeps a last line without an end, also when others hold the output open", async () => {
    const output = new Output(storage());
    const sink = output.open();
    sink.append("stdout", Buffer.from("whole\npart"));
    await output.close();
    sink.end();
    expect(await kept(output)).toEqual(["stdout whole", "stdout part"]);
  });

  test("keeps no file open for a program that has ended", async () => {
    const opened = (): number =>
      readdirSync("/proc/self/fd").filter((fd) => {
        const path = statSync(`/proc/self/fd/${fd}`, { throwIfNoEntry: false });
        return path?.isFile() === true && path.size === mark.length + 39;
      }).length;
    const mark = `${"m".repeat(12_345)}\n`;
    const output = new Output(storage());
    const sink = output.open();
    await print(sink, mark);
    await output.history();
    expect(opened()).toBe(1);
    sink.end();
    await until("the file is closed", () => opened() === 0);
  });

  test("of a long line without an end stays within the cap, in pieces", async () => {
    const output = new Output(storage());
    const sink = output.open();
    for (let i = 0; i < 100; i++) await print(sink, "y".repeat(256 * 1024));
    sink.end();
    const files = await output.history();
    expect(files?.firstFile).toBeGreaterThan(1);
    for (const line of await kept(output)) {
      expect(line.length).toBeLessThanOrEqual("stdout ".length + MAX_OUTPUT_LINE_BYTES);
    }
    await output.close();
  });
});

/** A disk that takes so long for each write. */
class SlowFiles extends HistoryFiles {
  writeMs = 0;

  override async append(records: readonly OutputRecord[]): Promise<number> {
    await Bun.sleep(this.writeMs);
    return super.append(records);
  }
}

describe("A slow disk", () => {
  test("holds a child up for 100 ms at most, and costs only lines that are counted", async () => {
    const files = new SlowFiles(join(base, `${folders++}`), 3, 64 * MIN_OUTPUT_FILE_BYTES);
    const output = new Output({ ...world, files, share: new SpoolShare(), onTrouble() {} });
    files.writeMs = 400;
    const sink = output.open();
    let longest = 0;
    const blocks = 80;
    const linesOfBlock = 1_000;
    for (let block = 0; block < blocks; block++) {
      const lines = Array.from({ length: linesOfBlock }, (_, i) => {
        return `${block * linesOfBlock + i} ${"x".repeat(90)}`;
      });
      longest = Math.max(longest, await print(sink, `${lines.join("\n")}\n`));
    }
    expect(longest).toBeWithin(10, 1_000); // the machine may be busy; alone it is below 100
    files.writeMs = 0;
    sink.end();
    await output.close();
    let next = 0;
    for (const line of await kept(output)) {
      const dropped = /^note \[veecle-orchestrator: (\d+) lines dropped: the disk/.exec(line);
      if (dropped === null) expect(line).toStartWith(`stdout ${next++} `);
      else next += Number(dropped[1]);
    }
    expect(next).toBe(blocks * linesOfBlock);
    expect(output.droppedLines).toBeGreaterThan(0);
  });
});

const MOUNT = join(base, "mount");

/** A disk of 2 MiB of its own; false where this user may not have one. */
function mountDisk(): boolean {
  mkdirSync(MOUNT);
  const words = ["mount", "-t", "tmpfs", "-o", "size=2m,mode=700", "tmpfs", MOUNT];
  return Bun.spawnSync(words, { stderr: "ignore" }).exitCode === 0;
}

const hasDisk = mountDisk();

describe.skipIf(!hasDisk)("A full disk", () => {
  test("costs only lines that are counted, and is written within 1 s of having room", async () => {
    const troubles: unknown[] = [];
    const output = new Output(storage((fault) => troubles.push(fault), MOUNT, 1));
    const sink = output.open();
    let printed = 0;
    const more = async (bytes: number): Promise<void> => {
      for (const end = printed + bytes / 100; printed < end;) {
        const lines = Array.from({ length: 500 }, () => String(printed++).padStart(99, "0"));
        await print(sink, `${lines.join("\n")}\n`);
      }
    };
    await more(200_000);
    await output.history();
    writeFileSync(join(MOUNT, "filler"), Buffer.alloc(1_700_000));
    await more(2 * MAX_SPOOL_BYTES);
    await until("the disk is full", () => troubles.length === 1);
    expect(String(troubles[0])).toContain("ENOSPC");
    expect(output.droppedLines).toBeGreaterThan(0);
    rmSync(join(MOUNT, "filler"));
    const madeRoom = performance.now();
    await until("it writes again", () => troubles.length === 2);
    expect(performance.now() - madeRoom).toBeLessThan(1_000);
    expect(troubles[1]).toBeUndefined();
    sink.end();
    await output.close();
    const lines = await kept(output);
    let next = Number(lines[0]?.slice("stdout ".length)); // older ones were rotated out
    for (const line of lines) {
      const dropped = /^note .* (\d+) lines dropped/.exec(line);
      if (dropped === null) expect(Number(line.slice("stdout ".length))).toBe(next++);
      else next += Number(dropped[1]);
    }
    expect(next).toBe(printed);
  });
});
